"""The HTTP side: /v1/chat/completions, /v1/completions and /v1/models as OpenAI's clients expect them, /v1/solve,
/health and /metrics.
"""

import dataclasses
import hmac
import time
from collections.abc import Sequence

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from vibethinker_jax.serve import solve
from vibethinker_jax.serve.answers import Chat, Completion, new_id, respond, unless_gone
from vibethinker_jax.serve.presets import PRESETS, Preset
from vibethinker_jax.serve.refusals import REFUSALS, ApiError, handle_errors
from vibethinker_jax.serve.schema import ChatRequest, CompletionRequest, SolveRequest
from vibethinker_jax.serve.service import Service, ask_of, collect, empty_samples, usage_of

BODY = 4 << 20  # bytes of a request at most
PLAIN = Preset('', temperature=1.0, top_p=1.0, max_tokens=2**31, system='')  # OpenAI's defaults


def build(service: Service) -> FastAPI:
  """The application."""
  app = FastAPI(
    title='vibethinker_jax',
    description='An OpenAI-compatible server on the engine that samples the rollouts.',
    version='1',
    docs_url=None,  # its page would load scripts from elsewhere
    redoc_url=None,
  )
  guarded = [Depends(_guard(service.keys))] if service.keys else []

  @app.get('/health')
  async def health() -> dict:
    """Whether requests are taken; 503 while the server shuts down."""
    worker = service.worker
    status = {'status': 'closing' if worker.closing else 'ok', 'model': service.name, 'warm': worker.warm}
    return JSONResponse(status, 503 if worker.closing else 200)

  @app.get('/metrics', response_class=PlainTextResponse)
  async def metrics() -> PlainTextResponse:
    """Prometheus' text format."""
    return PlainTextResponse(service.worker.meters.text(), media_type='text/plain; version=0.0.4; charset=utf-8')

  @app.get('/v1/models', dependencies=guarded)
  async def models() -> dict:
    """The one model there is."""
    return {'object': 'list', 'data': [_model(service)]}

  @app.get('/v1/models/{name}', dependencies=guarded, responses=REFUSALS)
  async def model(name: str) -> dict:
    """The same, by name."""
    _check_model(service, name)
    return _model(service)

  @app.post('/v1/chat/completions', dependencies=guarded, responses=REFUSALS)
  async def chat(asked: ChatRequest, http: Request) -> dict:
    """A conversation continued, as OpenAI documents it."""
    _check_model(service, asked.model)
    kind = asked.kind() or PLAIN
    messages = service.with_system([message.plain() for message in asked.messages], kind.system)
    ids = service.ids(messages)
    most = kind.max_tokens
    request = service.request(ids, asked.n or 1, asked.limit, most, asked.sampling(PLAIN), asked.seed)
    return await respond(service, http, Chat(service.name), [request], asked, bool(asked.logprobs))

  @app.post('/v1/completions', dependencies=guarded, responses=REFUSALS)
  async def complete(asked: CompletionRequest, http: Request) -> dict:
    """Text continued, as OpenAI documents it."""
    _check_model(service, asked.model)
    encode = lambda prompt: service.text.tokenizer.encode(prompt, add_special_tokens=False)
    ids = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in asked.prompts]
    requests = [service.request(i, asked.n or 1, asked.limit, 0, asked.sampling(PLAIN), asked.seed) for i in ids]
    n = sum(request.samples for request in requests)
    if n > service.worker.capacity:
      raise ApiError(400, f'{n} samples, this server takes at most {service.worker.capacity} at a time', 'prompt')
    return await respond(service, http, Completion(service.name), requests, asked, asked.logprobs is not None)

  @app.post('/v1/solve', dependencies=guarded, responses=REFUSALS)
  async def solve_it(asked: SolveRequest, http: Request) -> dict:
    """A problem solved: answers, key steps, checks, verdicts; and of several solutions their spectrum."""
    _check_model(service, asked.model)
    kind = asked.kind() or PRESETS['code' if asked.tests is not None else 'math']
    request = service.request(
      service.ids(ask_of(service, asked.problem, kind)),
      asked.n or 1,
      asked.max_tokens,
      kind.max_tokens,
      asked.sampling(kind),
      asked.seed,
    )
    samples = empty_samples(service, [request], (), False)
    with service.ask([request]) as stream:
      await unless_gone(service, http, collect(stream, [request], samples))
    answer = tuple(asked.answer) if isinstance(asked.answer, list) else asked.answer
    judged = solve.take_apart(
      service.judges, [s.text for s in samples], [s.finish for s in samples], answer, asked.examples()
    )
    solutions, spectrum = await unless_gone(service, http, judged)
    head = {'id': new_id('solve'), 'object': 'solve', 'created': int(time.time()), 'model': service.name}
    return JSONResponse({**head, **_solved(solutions, spectrum), 'usage': usage_of([request], samples)})

  handle_errors(app)
  app.add_middleware(_Counted, meters=service.worker.meters)
  app.add_middleware(_Limited)
  return app


def _model(service: Service) -> dict:
  longest = service.worker.engine.max_length
  return {'id': service.name, 'object': 'model', 'created': 0, 'owned_by': 'vibethinker_jax', 'max_model_len': longest}


def _solved(solutions: Sequence[solve.Solution], spectrum: solve.Spectrum) -> dict:
  return {
    'solutions': [
      {'index': i, **dataclasses.asdict(s)} | {'thinking': solve.parts(s.text)[0]} for i, s in enumerate(solutions)
    ],
    'spectrum': {
      'clusters': [{'answer': c.answer, 'count': len(c.members), 'members': c.members} for c in spectrum.clusters],
      'unanswered': spectrum.unanswered,
      'majority': spectrum.majority,
      'agreement': spectrum.agreement,
    },
  }


def _check_model(service: Service, name: str | None) -> None:
  if name not in (None, service.name):
    raise ApiError(
      404, f'The model {name!r} does not exist, this server has {service.name!r}', 'model', 'model_not_found'
    )


def _guard(keys: tuple[str, ...]):
  """A dependency that lets only bearers of a key through."""
  bearer = HTTPBearer(auto_error=False)

  async def check(given: HTTPAuthorizationCredentials | None = Depends(bearer)) -> None:  # noqa: B008
    if given is None:
      raise ApiError(401, 'No API key given: send it as "Authorization: Bearer KEY"', code='invalid_api_key')
    # all are compared, so that the time taken says nothing
    if not sum(hmac.compare_digest(given.credentials.encode(), key.encode()) for key in keys):
      raise ApiError(401, 'The API key is not known here', code='invalid_api_key')

  return check


class _Limited:
  """Reads a request's body before the application does, and answers 413 to one that is too large."""

  def __init__(self, app):
    self._app = app

  async def __call__(self, scope, receive, send) -> None:
    if scope['type'] != 'http':
      return await self._app(scope, receive, send)
    parts, size, more = [], 0, True
    while more and size <= 16 * BODY:  # most of what is too large is still read: who sends does not listen yet
      message = await receive()
      if message['type'] == 'http.disconnect':
        return None
      part, more = message.get('body', b''), message.get('more_body', False)
      size += len(part)
      if size <= BODY:
        parts.append(part)
    if size > BODY:
      error = ApiError(413, f'the body is larger than {BODY} bytes')
      return await error.response()(scope, receive, send)
    body = {'type': 'http.request', 'body': b''.join(parts), 'more_body': False}

    async def replay():
      nonlocal body
      if body is None:
        return await receive()
      message, body = body, None
      return message

    return await self._app(scope, replay, send)


class _Counted:
  """Counts requests by route and by the status answered."""

  def __init__(self, app, meters):
    self._app, self._requests = app, meters.requests

  async def __call__(self, scope, receive, send) -> None:
    if scope['type'] != 'http':
      return await self._app(scope, receive, send)
    status = 499  # unless an answer begins

    async def noted(message):
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
      await send(message)

    try:
      await self._app(scope, receive, noted)
    finally:
      route = scope.get('route')
      self._requests.labels(route.path if route is not None else 'other', status).inc()
    return None
