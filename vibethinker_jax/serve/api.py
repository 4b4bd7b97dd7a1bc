"""The HTTP side: /v1/chat/completions, /v1/completions and /v1/models as OpenAI's clients expect them, /v1/solve,
/health and /metrics.

Every error is OpenAI's object, {"error": {"message", "type", "param", "code"}}. What a client gets wrong is 4xx, named;
5xx is left for what is ours.
"""

import asyncio
import dataclasses
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

import jinja2
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from vibethinker_jax.data.text import Text
from vibethinker_jax.engine import engine as engines
from vibethinker_jax.engine.sampling import Sampling
from vibethinker_jax.serve import solve
from vibethinker_jax.serve.presets import PRESETS, Preset
from vibethinker_jax.serve.schema import ChatRequest, CompletionRequest, SolveRequest
from vibethinker_jax.serve.transcript import Token, Transcript
from vibethinker_jax.serve.worker import Busy, Closing, EngineFailure, Stream, Worker

BODY = 4 << 20  # bytes of a request at most
PLAIN = Preset('', temperature=1.0, top_p=1.0, max_tokens=2**31, system='')  # OpenAI's defaults


class ApiError(Exception):
  """An answer that is an error object."""

  def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, retry_s: int = 0):
    super().__init__(message)
    self.status, self.param, self.code, self.retry_s = status, param, code, retry_s

  @property
  def body(self) -> dict:
    """OpenAI's error object."""
    kinds = {401: 'authentication_error', 429: 'rate_limit_error'}
    kind = 'server_error' if self.status >= 500 else kinds.get(self.status, 'invalid_request_error')
    return {'error': {'message': str(self), 'type': kind, 'param': self.param, 'code': self.code}}

  def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """As it goes out."""
    headers = {**(headers or {})} | ({'Retry-After': str(self.retry_s)} if self.retry_s else {})
    if self.status == 401:
      headers['WWW-Authenticate'] = 'Bearer'
    return JSONResponse(self.body, self.status, headers)


@dataclasses.dataclass(frozen=True)
class Service:
  """A model being served, and what its answers need."""

  name: str
  text: Text
  worker: Worker
  judges: solve.Judges
  keys: tuple[str, ...] = ()

  def ids(self, messages: list[dict]) -> list[int]:
    """A conversation as token ids. Raises ApiError where the chat template refuses it."""
    try:
      return self.text.chat(messages)
    except jinja2.TemplateError as error:
      raise ApiError(400, f'the chat template refuses the messages ({error})', 'messages') from None

  def with_system(self, messages: list[dict], system: str) -> list[dict]:
    """The messages behind a system prompt, unless they have one or the model's chat template knows of none."""
    if not system or messages[0]['role'] == 'system' or 'system' not in (self.text.tokenizer.chat_template or ''):
      return messages
    return [{'role': 'system', 'content': system}, *messages]

  def request(self, ids: Sequence[int], n: int, limit: int | None, most: int, sampling: Sampling, seed: int | None):
    """A request to the engine. `limit` is what was asked for, `most` what is otherwise taken where there is room.

    Raises ApiError, with the numbers, where it does not fit.
    """
    longest = self.worker.engine.max_length
    room = longest - len(ids)
    if room < 1 or (limit or 1) > room:
      raise ApiError(
        400,
        f'This model takes {longest} tokens in all. The prompt has {len(ids)} and {limit or 1} are to be generated: '
        'shorten the prompt or ask for less.',
        code='context_length_exceeded',
      )
    if n > self.worker.capacity:
      raise ApiError(400, f'n is {n}, this server takes at most {self.worker.capacity} samples at a time', 'n')
    seed = secrets.randbits(32) if seed is None else seed
    request = engines.Request(
      tuple(ids), limit or min(most, room), n, sampling, seed=seed % 2**32, number=(seed >> 32) % 2**32
    )
    if (why := self.worker.engine.refusal(request)) is not None:
      raise ApiError(400, why)
    return request

  def ask(self, requests: Sequence[engines.Request]) -> Stream:
    """Worker.ask, whose refusals become 429 and 503."""
    try:
      stream = self.worker.ask(requests)
    except Busy as error:
      raise ApiError(429, str(error), code='rate_limit_exceeded', retry_s=error.retry_s) from None
    except Closing as error:
      raise _closed(error) from None
    self.worker.meters.prompt_tokens.inc(sum(len(request.prompt) for request in requests))
    return stream


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

  @app.get('/v1/models/{name}', dependencies=guarded, responses=_REFUSALS)
  async def model(name: str) -> dict:
    """The same, by name."""
    _check_model(service, name)
    return _model(service)

  @app.post('/v1/chat/completions', dependencies=guarded, responses=_REFUSALS)
  async def chat(asked: ChatRequest, http: Request) -> dict:
    """A conversation continued, as OpenAI documents it."""
    _check_model(service, asked.model)
    kind = asked.kind() or PLAIN
    messages = service.with_system([message.plain() for message in asked.messages], kind.system)
    ids = service.ids(messages)
    most = kind.max_tokens
    request = service.request(ids, asked.n or 1, asked.limit, most, asked.sampling(PLAIN), asked.seed)
    return await _answer(service, http, _Chat(service.name), [request], asked, bool(asked.logprobs))

  @app.post('/v1/completions', dependencies=guarded, responses=_REFUSALS)
  async def complete(asked: CompletionRequest, http: Request) -> dict:
    """Text continued, as OpenAI documents it."""
    _check_model(service, asked.model)
    encode = lambda prompt: service.text.tokenizer.encode(prompt, add_special_tokens=False)
    ids = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in asked.prompts]
    requests = [service.request(i, asked.n or 1, asked.limit, 0, asked.sampling(PLAIN), asked.seed) for i in ids]
    n = sum(request.samples for request in requests)
    if n > service.worker.capacity:
      raise ApiError(400, f'{n} samples, this server takes at most {service.worker.capacity} at a time', 'prompt')
    return await _answer(service, http, _Completion(service.name), requests, asked, asked.logprobs is not None)

  @app.post('/v1/solve', dependencies=guarded, responses=_REFUSALS)
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
    samples = _empty(service, [request], (), False)
    with service.ask([request]) as stream:
      await _unless_gone(service, http, _collect(stream, [request], samples))
    answer = tuple(asked.answer) if isinstance(asked.answer, list) else asked.answer
    judged = solve.take_apart(
      service.judges, [s.text for s in samples], [s.finish for s in samples], answer, asked.examples()
    )
    solutions, spectrum = await _unless_gone(service, http, judged)
    return JSONResponse(
      {
        'id': _name('solve'),
        'object': 'solve',
        'created': int(time.time()),
        'model': service.name,
        'solutions': [
          {'index': i, **dataclasses.asdict(s)} | {'thinking': solve.parts(s.text)[0]} for i, s in enumerate(solutions)
        ],
        'spectrum': {
          'clusters': [{'answer': c.answer, 'count': len(c.members), 'members': c.members} for c in spectrum.clusters],
          'unanswered': spectrum.unanswered,
          'majority': spectrum.majority,
          'agreement': spectrum.agreement,
        },
        'usage': _usage([request], samples),
      }
    )

  _handle_errors(app)
  app.add_middleware(_Counted, meters=service.worker.meters)
  app.add_middleware(_Limited)
  return app


def ask_of(service: Service, problem: str, kind: Preset) -> list[dict]:
  """The conversation that asks for a problem's solution."""
  content = f'{problem} {kind.instruction}' if kind.instruction else problem
  return service.with_system([{'role': 'user', 'content': content}], kind.system)


# ---- answering


@dataclasses.dataclass
class Sample:
  """One sample while it is being collected."""

  transcript: Transcript
  tokens: list[Token] = dataclasses.field(default_factory=list)
  count: int = 0  # tokens drawn, the one that ends it included
  finish: str = ''  # as OpenAI has it: 'stop' or 'length'

  @property
  def text(self) -> str:
    """All that was sent."""
    return self.transcript.text


@dataclasses.dataclass(frozen=True)
class _Chat:
  """How a chat's answer is written."""

  model: str
  kind: str = 'chat.completion'
  prefix: str = 'chatcmpl'

  def whole(self, sample: Sample, logprobs: bool) -> dict:
    message = {'role': 'assistant', 'content': sample.text, 'refusal': None}
    return {'message': message, 'logprobs': self.logprobs(sample.tokens) if logprobs else None}

  def part(self, text: str, tokens: list[Token], first: bool, at: int, logprobs: bool) -> dict:
    delta = ({'role': 'assistant'} if first else {}) | ({'content': text} if text or first else {})
    return {'delta': delta, 'logprobs': self.logprobs(tokens) if logprobs else None}

  def logprobs(self, tokens: list[Token]) -> dict:
    content = [{'token': t.text, 'logprob': t.logprob, 'bytes': t.bytes, 'top_logprobs': []} for t in tokens]
    return {'content': content, 'refusal': None}


@dataclasses.dataclass(frozen=True)
class _Completion:
  """How a completion's answer is written."""

  model: str
  kind: str = 'text_completion'
  prefix: str = 'cmpl'

  def whole(self, sample: Sample, logprobs: bool) -> dict:
    return {'text': sample.text, 'logprobs': self.logprobs(sample.tokens, 0) if logprobs else None}

  def part(self, text: str, tokens: list[Token], first: bool, at: int, logprobs: bool) -> dict:
    return {'text': text, 'logprobs': self.logprobs(tokens, at) if logprobs else None}

  def logprobs(self, tokens: list[Token], at: int) -> dict:
    offsets = []
    for token in tokens:
      offsets.append(at)
      at += len(token.text)
    return {
      'tokens': [t.text for t in tokens],
      'token_logprobs': [t.logprob for t in tokens],
      'top_logprobs': None,
      'text_offset': offsets,
    }


async def _answer(service: Service, http: Request, form, requests, asked, logprobs: bool) -> Response:
  """The samples of some requests, streamed or whole. Choices are numbered through the requests."""
  stream = service.ask(requests)
  samples = _empty(service, requests, asked.stops, logprobs)
  head = {'id': _name(form.prefix), 'object': form.kind, 'created': int(time.time()), 'model': form.model}
  if asked.stream:
    usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    return _Events(service, stream, _events(stream, requests, samples, form, head, logprobs, usage))
  with stream:
    await _unless_gone(service, http, _collect(stream, requests, samples))
  choices = [{'index': i, **form.whole(s, logprobs), 'finish_reason': s.finish} for i, s in enumerate(samples)]
  return JSONResponse({**head, 'choices': choices, 'usage': _usage(requests, samples)})


class _Events(Response):
  """Server-sent events of a stream, whose rows are given back however the response ends."""

  media_type = 'text/event-stream'

  def __init__(self, service: Service, stream: Stream, events: AsyncIterator[str]):
    super().__init__(headers={'Cache-Control': 'no-cache'})
    del self.headers['content-length']
    self._service, self._stream, self._events = service, stream, events

  async def __call__(self, scope, receive, send) -> None:
    part = lambda text, more: {'type': 'http.response.body', 'body': text.encode(), 'more_body': more}
    gone = asyncio.ensure_future(_gone(receive))
    gone.add_done_callback(lambda _: self._stream.fail(_Left()))
    with self._stream:
      try:
        await send({'type': 'http.response.start', 'status': 200, 'headers': self.raw_headers})
        async for text in self._events:
          await send(part(text, True))
        await send(part('', False))
      except _Left:
        self._service.worker.meters.gone.inc()
      finally:
        gone.cancel()


class _Left(Exception):
  """The client went away."""


async def _events(
  stream: Stream, requests, samples: list[Sample], form, head: dict, logprobs: bool, usage: bool
) -> AsyncIterator[str]:
  """Server-sent events, a step's worth at a time."""
  kind = 'chat.completion.chunk' if form.kind == 'chat.completion' else form.kind
  lead = f'data: {json.dumps({**head, "object": kind})[:-1]}, "choices": '  # the same for every event
  tail = ', "usage": null}\n\n' if usage else '}\n\n'
  begun: set[int] = set()
  try:
    async for deltas in _deltas(stream, requests, samples):
      out = []
      for i, (text, tokens) in deltas.items():
        finish = samples[i].finish or None
        if text or tokens or finish:
          part = form.part(text, tokens, i not in begun, len(samples[i].text) - len(text), logprobs)
          out.append(f'{lead}[{json.dumps({"index": i, **part, "finish_reason": finish})}]{tail}')
          begun.add(i)
      if all(sample.finish for sample in samples):  # with the last piece, for every write wakes the client
        if usage:
          out.append(f'{lead}[], "usage": {json.dumps(_usage(requests, samples))}}}\n\n')
        out.append('data: [DONE]\n\n')
      if out:
        yield ''.join(out)
  except EngineFailure as error:
    yield _event(_failed(error).body)
  except Closing as error:
    yield _event(_closed(error).body)


async def _collect(stream: Stream, requests, samples: list[Sample]) -> None:
  """Wait for all samples."""
  async for _ in _deltas(stream, requests, samples):
    pass


def _empty(service: Service, requests, stops: Sequence[str], logprobs: bool) -> list[Sample]:
  """The samples before anything was drawn, in the order of the choices."""
  return [Sample(Transcript(service.text, stops, logprobs)) for request in requests for _ in range(request.samples)]


async def _deltas(stream: Stream, requests, samples: list[Sample]) -> AsyncIterator[dict[int, tuple[str, list[Token]]]]:
  """What each step adds to which choice. The samples are kept up to date."""
  first = [sum(request.samples for request in requests[:i]) for i in range(len(requests))]
  async for pieces in stream:
    out: dict[int, tuple[str, list[Token]]] = {}
    for number, piece in pieces:
      i = first[number] + piece.sample
      sample = samples[i]
      if sample.finish:
        continue  # met its stop string while this was being drawn
      text, tokens = sample.transcript.feed(piece.tokens.tolist(), piece.logps.tolist())
      if piece.finish:
        rest, more = sample.transcript.end()
        text, tokens = text + rest, tokens + more
      sample.finish = 'stop' if sample.transcript.met else piece.finish
      if sample.finish and not piece.finish:
        stream.drop(number, piece.sample)
      sample.count += len(piece.tokens)
      sample.tokens += tokens
      before, earlier = out.get(i, ('', []))
      out[i] = before + text, earlier + tokens
    yield out


async def grow(
  service: Service, messages: list[dict], n: int, sampling: Sampling, most: int
) -> AsyncIterator[list[Sample]]:
  """n samples of a conversation after each step, for whoever sits in the same process.

  `most` new tokens where there is room. Raises ApiError, EngineFailure and Closing.
  """
  request = service.request(service.ids(messages), n, None, most, sampling, None)
  samples = _empty(service, [request], (), False)
  with service.ask([request]) as stream:
    async for _ in _deltas(stream, [request], samples):
      yield samples


async def _unless_gone(service: Service, http: Request, work: Awaitable):
  """The result of `work`, which is given up when the client goes away."""
  work, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(http.receive))
  try:
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
      return work.result()
    service.worker.meters.gone.inc()
    raise ApiError(499, 'the client went away')  # nobody reads it
  finally:
    for task in (work, gone):
      task.cancel()
    await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(receive) -> None:
  while (await receive())['type'] != 'http.disconnect':
    pass


def _usage(requests: Sequence[engines.Request], samples: Sequence[Sample]) -> dict:
  prompt, drawn = sum(len(request.prompt) for request in requests), sum(sample.count for sample in samples)
  return {'prompt_tokens': prompt, 'completion_tokens': drawn, 'total_tokens': prompt + drawn}


def _event(value: dict) -> str:
  return f'data: {json.dumps(value)}\n\n'


def _name(prefix: str) -> str:
  return f'{prefix}-{secrets.token_hex(12)}'


def _model(service: Service) -> dict:
  longest = service.worker.engine.max_length
  return {'id': service.name, 'object': 'model', 'created': 0, 'owned_by': 'vibethinker_jax', 'max_model_len': longest}


def _check_model(service: Service, name: str | None) -> None:
  if name not in (None, service.name):
    raise ApiError(
      404, f'The model {name!r} does not exist, this server has {service.name!r}', 'model', 'model_not_found'
    )


# ---- errors


class _ErrorObject(BaseModel):
  message: str
  type: str
  param: str | None
  code: str | None


class _Error(BaseModel):
  """OpenAI's error object."""

  error: _ErrorObject


_REFUSALS: dict = {
  '4XX': {'model': _Error, 'description': 'What was asked cannot be done, and why'},
  '5XX': {'model': _Error, 'description': 'The server failed or is shutting down'},
}


def _failed(error: EngineFailure) -> ApiError:
  return ApiError(500, str(error), code='engine_failure')


def _closed(error: Closing) -> ApiError:
  return ApiError(503, str(error), code='shutting_down', retry_s=5)


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


def _handle_errors(app: FastAPI) -> None:
  @app.exception_handler(ApiError)
  async def refused(http: Request, error: ApiError) -> Response:
    return error.response()

  @app.exception_handler(RequestValidationError)
  async def invalid(http: Request, error: RequestValidationError) -> Response:
    return _invalid(error).response()

  @app.exception_handler(HTTPException)
  async def other(http: Request, error: HTTPException) -> Response:
    return ApiError(error.status_code, str(error.detail)).response(error.headers)

  @app.exception_handler(EngineFailure)
  async def failed(http: Request, error: EngineFailure) -> Response:
    return _failed(error).response()

  @app.exception_handler(Closing)
  async def closed(http: Request, error: Closing) -> Response:
    return _closed(error).response()

  @app.exception_handler(Exception)
  async def unforeseen(http: Request, error: Exception) -> Response:
    return ApiError(500, f'the server failed ({type(error).__name__})').response()


def _invalid(error: RequestValidationError) -> ApiError:
  """One line out of pydantic's list: the field, and what was expected there."""
  first = error.errors()[0]
  if first['type'] == 'json_invalid':
    return ApiError(400, f'the body is not JSON ({first["ctx"]["error"]})')
  path = lambda fault: [str(p) for p in fault['loc'][1:] if isinstance(p, int) or p.isidentifier()]
  param = '.'.join(path(first)) or None
  if first['type'] == 'extra_forbidden':
    return ApiError(400, f'Unrecognized request argument supplied: {param}', param)
  # a field of several types has a complaint for each of them
  messages = dict.fromkeys(f['msg'] for f in error.errors() if path(f)[:1] == path(first)[:1])
  return ApiError(400, f'{param or "the body"}: {", or: ".join(list(messages)[:4])}', param)


# ---- around the application


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
