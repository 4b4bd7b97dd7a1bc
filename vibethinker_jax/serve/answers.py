"""Samples written as OpenAI's clients expect them, whole or as server-sent events, for as long as somebody listens."""

import asyncio
import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from vibethinker_jax.serve.refusals import ApiError, engine_failed, shutting_down
from vibethinker_jax.serve.service import Sample, Service, collect, each_step, empty_samples, usage_of
from vibethinker_jax.serve.transcript import Token
from vibethinker_jax.serve.worker import Closing, EngineFailure, Stream


@dataclasses.dataclass(frozen=True)
class Chat:
  """How a chat's answer is written."""

  model: str
  kind: str = 'chat.completion'
  prefix: str = 'chatcmpl'

  def whole(self, sample: Sample, logprobs: bool) -> dict:
    """A choice's own fields, all at once."""
    message = {'role': 'assistant', 'content': sample.text, 'refusal': None}
    return {'message': message, 'logprobs': self.logprobs(sample.tokens) if logprobs else None}

  def part(self, text: str, tokens: list[Token], first: bool, at: int, logprobs: bool) -> dict:
    """The same of one event: what is new, from character `at` on."""
    delta = ({'role': 'assistant'} if first else {}) | ({'content': text} if text or first else {})
    return {'delta': delta, 'logprobs': self.logprobs(tokens) if logprobs else None}

  def logprobs(self, tokens: list[Token]) -> dict:
    """Token by token."""
    content = [{'token': t.text, 'logprob': t.logprob, 'bytes': t.bytes, 'top_logprobs': []} for t in tokens]
    return {'content': content, 'refusal': None}


@dataclasses.dataclass(frozen=True)
class Completion:
  """How a completion's answer is written."""

  model: str
  kind: str = 'text_completion'
  prefix: str = 'cmpl'

  def whole(self, sample: Sample, logprobs: bool) -> dict:
    """See Chat."""
    return {'text': sample.text, 'logprobs': self.logprobs(sample.tokens, 0) if logprobs else None}

  def part(self, text: str, tokens: list[Token], first: bool, at: int, logprobs: bool) -> dict:
    """See Chat."""
    return {'text': text, 'logprobs': self.logprobs(tokens, at) if logprobs else None}

  def logprobs(self, tokens: list[Token], at: int) -> dict:
    """Lists side by side, with each token's place in the text."""
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


async def respond(service: Service, http: Request, form, requests, asked, logprobs: bool) -> Response:
  """The samples of some requests, streamed or whole. Choices are numbered through the requests."""
  stream = service.ask(requests)
  samples = empty_samples(service, requests, asked.stops, logprobs)
  head = {'id': new_id(form.prefix), 'object': form.kind, 'created': int(time.time()), 'model': form.model}
  if asked.stream:
    usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    return _Events(service, stream, _events(stream, requests, samples, form, head, logprobs, usage))
  with stream:
    await unless_gone(service, http, collect(stream, requests, samples))
  choices = [{'index': i, **form.whole(s, logprobs), 'finish_reason': s.finish} for i, s in enumerate(samples)]
  return JSONResponse({**head, 'choices': choices, 'usage': usage_of(requests, samples)})


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
    async for deltas in each_step(stream, requests, samples):
      out = []
      for i, (text, tokens) in deltas.items():
        finish = samples[i].finish or None
        if text or tokens or finish:
          part = form.part(text, tokens, i not in begun, len(samples[i].text) - len(text), logprobs)
          out.append(f'{lead}[{json.dumps({"index": i, **part, "finish_reason": finish})}]{tail}')
          begun.add(i)
      if all(sample.finish for sample in samples):  # with the last piece, for every write wakes the client
        if usage:
          out.append(f'{lead}[], "usage": {json.dumps(usage_of(requests, samples))}}}\n\n')
        out.append('data: [DONE]\n\n')
      if out:
        yield ''.join(out)
  except EngineFailure as error:
    yield _event(engine_failed(error).body)
  except Closing as error:
    yield _event(shutting_down(error).body)


async def unless_gone(service: Service, http: Request, work: Awaitable):
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


def _event(value: dict) -> str:
  return f'data: {json.dumps(value)}\n\n'


def new_id(prefix: str) -> str:
  """An answer's own name, of this kind."""
  return f'{prefix}-{secrets.token_hex(12)}'
