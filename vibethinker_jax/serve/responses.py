"""Samples as OpenAI's clients expect them, whole or as server-sent events, while the client is connected."""

import asyncio
import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from vibethinker_jax.engine import engine as engines
from vibethinker_jax.serve import logprobs
from vibethinker_jax.serve.detokenizer import Token
from vibethinker_jax.serve.errors import ApiError, Closing, EngineFailure, engine_failed, shutting_down
from vibethinker_jax.serve.reasoning import ReasoningParser
from vibethinker_jax.serve.service import Sample, Service, collect, each_step, usage_of
from vibethinker_jax.serve.worker import Stream


class ChatForm:
  """The form of the answer to a chat.

  Args:
    top: likeliest tokens beside each token; None for no log-probabilities.
    parsers: one for each choice, if thinking is separated from the content; else ().
    reasoning: whether separated thinking is in the answer.
  """

  kind, prefix = 'chat.completion', 'chatcmpl'

  def __init__(self, top: int | None, parsers: Sequence[ReasoningParser] = (), reasoning: bool = True):
    self._top, self._parsers, self._reasoning = top, parsers, reasoning

  def whole(self, i: int, sample: Sample) -> dict:
    """The fields of choice i in a whole answer."""
    reasoning, content = self._parsed(i, sample.text, True)
    message = {'role': 'assistant', 'content': content, 'refusal': None}
    if reasoning:
      message['reasoning_content'] = reasoning
    return {'message': message, 'logprobs': None if self._top is None else logprobs.of_chat(sample.tokens)}

  def part(self, i: int, text: str, tokens: list[Token], first: bool, last: bool) -> dict:
    """The fields of choice i in one event: what is new. first, last: whether it is the first or last of the choice."""
    reasoning, content = self._parsed(i, text, last)
    delta = {'role': 'assistant'} if first else {}
    if reasoning:
      delta['reasoning_content'] = reasoning
    if content or first:
      delta['content'] = content
    return {'delta': delta, 'logprobs': None if self._top is None else logprobs.of_chat(tokens)}

  def _parsed(self, i: int, text: str, last: bool) -> tuple[str, str]:
    """The new reasoning and the new content of choice i."""
    if not self._parsers:
      return '', text
    parser = self._parsers[i]
    parts = [parser.feed(text), parser.end()] if last else [parser.feed(text)]
    reasoning, content = (''.join(column) for column in zip(*parts))
    return reasoning if self._reasoning else '', content


class CompletionForm:
  """The form of the answer to a completion. top: as in ChatForm. echoes: the prompt of each choice, () for no echo."""

  kind, prefix = 'text_completion', 'cmpl'

  def __init__(self, top: int | None, echoes: Sequence[logprobs.Echo] = ()):
    self._top, self._echoes = top, echoes

  def whole(self, i: int, sample: Sample) -> dict:
    """See ChatForm."""
    return self.part(i, sample.text, sample.tokens, True, True)

  def part(self, i: int, text: str, tokens: list[Token], first: bool, last: bool) -> dict:
    """See ChatForm."""
    echo = self._echoes[i] if self._echoes else _SILENCE
    told = None if self._top is None else logprobs.of_completion(tokens, self._top, len(echo.text))
    if not first:
      return {'text': text, 'logprobs': told}
    if told is not None:
      prompt = logprobs.of_completion(echo.tokens, self._top, 0)
      told = {name: None if value is None else prompt[name] + value for name, value in told.items()}
    return {'text': echo.text + text, 'logprobs': told}


_SILENCE = logprobs.Echo('', [])


@dataclasses.dataclass(frozen=True)
class Work:
  """What an HTTP request asks for.

  prompts: token ids. requests: one to the engine for each prompt, or none to draw nothing. samples: of all prompts.
  """

  prompts: Sequence[Sequence[int]]
  requests: Sequence[engines.Request]
  samples: list[Sample]


async def respond(service: Service, http: Request, form: ChatForm | CompletionForm, work: Work, asked) -> Response:
  """The response with the samples, streamed or whole. Choices are numbered across the prompts.

  Args:
    service: the model.
    http: the request.
    form: of the answer.
    work: what to draw.
    asked: the body of the request (schema.py).
  """
  stream = service.ask(work.requests)
  head = {'id': new_id(form.prefix), 'object': form.kind, 'created': int(time.time()), 'model': service.name}
  if asked.stream:
    return _Events(service, stream, _events(stream, work, form, head, asked.counted))
  with stream:
    await unless_gone(service, http, collect(stream, work.requests, work.samples))
  choices = [{'index': i, **form.whole(i, s), 'finish_reason': s.finish} for i, s in enumerate(work.samples)]
  return JSONResponse({**head, 'choices': choices, 'usage': usage_of(work.prompts, work.samples)})


class _Events(Response):
  """Server-sent events of a stream. Its rows are given back, however the response ends."""

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
        self._service.worker.metrics.gone.inc()
      finally:
        gone.cancel()


class _Left(Exception):
  """The client went away."""


async def _events(
  stream: Stream, work: Work, form: ChatForm | CompletionForm, head: dict, usage: bool
) -> AsyncIterator[str]:
  """Server-sent events, those of one step at a time. usage: whether the last one has the numbers of tokens."""
  kind = 'chat.completion.chunk' if form.kind == 'chat.completion' else form.kind
  lead = f'data: {json.dumps({**head, "object": kind})[:-1]}, "choices": '  # the same for every event
  tail = ', "usage": null}\n\n' if usage else '}\n\n'
  begun: set[int] = set()
  try:
    async for deltas in each_step(stream, work.requests, work.samples):
      out = []
      for i, (text, tokens) in deltas.items():
        finish = work.samples[i].finish or None
        if text or tokens or finish:
          part = form.part(i, text, tokens, i not in begun, finish is not None)
          if tokens or finish or part.get('delta', True):  # the delta is empty while the text may be part of a tag
            out.append(f'{lead}[{json.dumps({"index": i, **part, "finish_reason": finish})}]{tail}')
          begun.add(i)
      if all(sample.finish for sample in work.samples):  # with the last piece: every write wakes the client
        if usage:
          out.append(f'{lead}[], "usage": {json.dumps(usage_of(work.prompts, work.samples))}}}\n\n')
        out.append('data: [DONE]\n\n')
      if out:
        yield ''.join(out)
  except EngineFailure as error:
    yield _event(engine_failed(error).body)
  except Closing as error:
    yield _event(shutting_down(error).body)


async def unless_gone(service: Service, http: Request, work: Awaitable):
  """The result of `work`, which is cancelled when the client disconnects."""
  work, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(http.receive))
  try:
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
      return work.result()
    service.worker.metrics.gone.inc()
    raise ApiError(499, 'the client went away')  # nobody reads it
  finally:
    for task in (work, gone):
      task.cancel()
    await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(receive) -> None:
  while (await receive())['type'] != 'http.disconnect':
    pass


def _event(value: dict) -> str:
  return f'data: {json.dumps(value)}\n\n'


def new_id(prefix: str) -> str:
  """A new id for an answer."""
  return f'{prefix}-{secrets.token_hex(12)}'
