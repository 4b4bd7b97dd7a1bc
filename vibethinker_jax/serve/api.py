"""The HTTP API: OpenAI's /v1/chat/completions, /v1/completions and /v1/models, and /v1/solve, /health and /metrics."""

import asyncio
import dataclasses
import hmac
import time
from collections.abc import Sequence

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.middleware.cors import CORSMiddleware

from vibethinker_jax.serve import solve
from vibethinker_jax.serve.detokenizer import Wanted
from vibethinker_jax.serve.errors import ERROR_RESPONSES, ApiError, handle_errors
from vibethinker_jax.serve.logprobs import echo
from vibethinker_jax.serve.middleware import Counted, Limited, Methods
from vibethinker_jax.serve.presets import PRESETS, Preset
from vibethinker_jax.serve.reasoning import ReasoningParser
from vibethinker_jax.serve.responses import ChatForm, CompletionForm, Work, new_id, respond, unless_gone
from vibethinker_jax.serve.schema import ChatRequest, CompletionRequest, SolveRequest
from vibethinker_jax.serve.service import Service, ask_of, collect, empty_samples, usage_of

PLAIN = Preset('', temperature=1.0, top_p=1.0, max_tokens=2**31, system='')  # OpenAI's defaults


def build(service: Service, cors: Sequence[str] = ()) -> FastAPI:
  """The application. service: the model. cors: origins whose pages may send requests from a browser, '*' for all."""
  app = FastAPI(
    title='vibethinker_jax',
    description='An OpenAI-compatible server on the engine that samples the rollouts.',
    version='1',
    docs_url=None,  # its page would load scripts from other servers
    redoc_url=None,
  )
  guarded = [Depends(_guard(service.keys))] if service.keys else []
  posted = [*guarded, Depends(_check_content_type)]

  @app.get('/health')
  async def health() -> dict:
    """Whether the server accepts requests; 503 while it shuts down."""
    worker = service.worker
    status = {'status': 'closing' if worker.closing else 'ok', 'model': service.name, 'warm': worker.warm}
    return JSONResponse(status, 503 if worker.closing else 200)

  @app.get('/metrics', response_class=PlainTextResponse)
  async def metrics() -> PlainTextResponse:
    """Prometheus' text format."""
    return PlainTextResponse(service.worker.metrics.text(), media_type='text/plain; version=0.0.4; charset=utf-8')

  @app.get('/v1/models', dependencies=guarded)
  async def models() -> dict:
    """The model of this server."""
    return {'object': 'list', 'data': [_model(service)]}

  @app.get('/v1/models/{name}', dependencies=guarded, responses=ERROR_RESPONSES)
  async def model(name: str) -> dict:
    """The model of this server, by name."""
    _check_model(service, name)
    return _model(service)

  @app.post('/v1/chat/completions', dependencies=posted, responses=ERROR_RESPONSES)
  async def chat(asked: ChatRequest, http: Request) -> dict:
    """Continues a conversation, as OpenAI documents it."""
    _check_model(service, asked.model)
    kind = asked.kind() or PLAIN
    messages = service.with_system([message.plain() for message in asked.messages], kind.system)
    ids = service.ids(messages)
    n, top = asked.n or 1, asked.top or 0
    sampling, most = asked.sampling(PLAIN), kind.max_tokens
    request = service.request(ids, n, asked.limit, most, sampling, asked.seed, top > 0)
    wanted = Wanted(asked.stops, asked.stop_ids, tokens=asked.top is not None, thinking=True, top=top)
    separate = service.separate if asked.separate_reasoning is None else asked.separate_reasoning
    told, opened = asked.include_reasoning is not False, service.opens_thinking(ids)
    form = ChatForm(asked.top, [ReasoningParser(opened) for _ in range(n)] if separate or not told else (), told)
    return await respond(service, http, form, Work([ids], [request], empty_samples(service, n, wanted)), asked)

  @app.post('/v1/completions', dependencies=posted, responses=ERROR_RESPONSES)
  async def complete(asked: CompletionRequest, http: Request) -> dict:
    """Continues a text, as OpenAI documents it."""
    _check_model(service, asked.model)
    encode = lambda prompt: service.tokenizer.hf.encode(prompt, add_special_tokens=False)
    ids = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in asked.prompts]
    n, top, sampling = asked.n or 1, asked.top or 0, asked.sampling(PLAIN)
    if n * len(ids) > service.worker.capacity:
      raise ApiError(
        400, f'{n * len(ids)} samples, this server takes at most {service.worker.capacity} at a time', 'prompt'
      )
    for prompt in ids:
      service.check_room(prompt, asked.limit)
    requests = []
    if asked.limit:
      requests = [service.request(i, n, asked.limit, 0, sampling, asked.seed, top > 0) for i in ids]
    echoes = []
    if asked.echo:
      scores = [None] * len(ids)
      if asked.top is not None:
        scores = await unless_gone(service, http, service.scores(ids, top > 0))
      # in a thread, since a long prompt has many tokens
      whole = [await asyncio.to_thread(echo, service.tokenizer, *one, top) for one in zip(asked.prompts, ids, scores)]
      echoes = [one for one in whole for _ in range(n)]
    wanted = Wanted(asked.stops, asked.stop_ids, tokens=asked.top is not None, special=True, top=top)
    work = Work(ids, requests, empty_samples(service, n * len(ids), wanted))
    return await respond(service, http, CompletionForm(asked.top, echoes), work, asked)

  @app.post('/v1/solve', dependencies=posted, responses=ERROR_RESPONSES)
  async def solve_it(asked: SolveRequest, http: Request) -> dict:
    """Solves a problem: answers, key steps, checks and verdicts; of several solutions also their spectrum."""
    _check_model(service, asked.model)
    kind = asked.kind() or PRESETS['code' if asked.tests is not None else 'math']
    request = service.request(
      service.ids(ask_of(service, asked.problem, kind)),
      asked.n or 1,
      asked.max_tokens,
      kind.max_tokens,
      asked.sampling(kind),
      asked.seed,
      top=False,
    )
    samples = empty_samples(service, request.samples, Wanted())
    with service.ask([request]) as stream:
      await unless_gone(service, http, collect(stream, [request], samples))
    answer = tuple(asked.answer) if isinstance(asked.answer, list) else asked.answer
    judged = solve.take_apart(
      service.graders, [s.text for s in samples], [s.finish for s in samples], answer, asked.examples()
    )
    solutions, spectrum = await unless_gone(service, http, judged)
    head = {'id': new_id('solve'), 'object': 'solve', 'created': int(time.time()), 'model': service.name}
    return JSONResponse({**head, **_solved(solutions, spectrum), 'usage': usage_of([request.prompt], samples)})

  handle_errors(app)
  app.add_middleware(Counted, metrics=service.worker.metrics)
  app.add_middleware(Limited)
  app.add_middleware(Methods)
  if cors:
    app.add_middleware(
      CORSMiddleware, allow_origins=cors, allow_methods=['*'], allow_headers=['*'], expose_headers=['Retry-After']
    )
  return app


def _model(service: Service) -> dict:
  longest = service.worker.engine.max_length
  return {'id': service.name, 'object': 'model', 'created': 0, 'owned_by': 'vibethinker_jax', 'max_model_len': longest}


def _solved(solutions: Sequence[solve.SampledSolution], spectrum: solve.SolutionSpectrum) -> dict:
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


async def _check_content_type(http: Request) -> None:
  """Raises ApiError for a body whose Content-Type is not JSON."""
  given = http.headers.get('content-type')
  if given is None:
    raise ApiError(415, 'The header Content-Type is missing: send "Content-Type: application/json"')
  kind = given.partition(';')[0].strip().lower()
  if kind != 'application/json' and not (kind.startswith('application/') and kind.endswith('+json')):
    raise ApiError(415, f'The header Content-Type is {given!r}: send "Content-Type: application/json"')


def _guard(keys: tuple[str, ...]):
  """A dependency of an endpoint that refuses requests without one of the keys."""
  bearer = HTTPBearer(auto_error=False)

  async def check(given: HTTPAuthorizationCredentials | None = Depends(bearer)) -> None:  # noqa: B008
    if given is None:
      raise ApiError(401, 'No API key given: send it as "Authorization: Bearer KEY"', code='invalid_api_key')
    # every key is compared, so that the time reveals nothing
    if not sum(hmac.compare_digest(given.credentials.encode(), key.encode()) for key in keys):
      raise ApiError(401, 'The API key is not known here', code='invalid_api_key')

  return check
