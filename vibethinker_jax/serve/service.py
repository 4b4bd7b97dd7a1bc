"""A model being served: conversations in, samples that grow step by step out. API and chat pages share it."""

import dataclasses
import secrets
from collections.abc import AsyncIterator, Sequence

import jinja2

from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.engine import engine as engines
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.engine.score import Score
from vibethinker_jax.serve import solve
from vibethinker_jax.serve.detokenizer import Detokenizer, Token, Wanted
from vibethinker_jax.serve.errors import ApiError, Busy, Closing, busy, shutting_down
from vibethinker_jax.serve.presets import Preset
from vibethinker_jax.serve.worker import Stream, Worker


@dataclasses.dataclass(frozen=True)
class Service:
  """A model being served, and what is needed to answer with it.

  name: of the model. tokenizer: of the model. worker: runs the engine. graders: of solutions. keys: API keys,
  () asks for none. separate: whether thinking is separated from the content where a request does not say.
  """

  name: str
  tokenizer: ChatTokenizer
  worker: Worker
  graders: solve.GraderPool
  keys: tuple[str, ...] = ()
  separate: bool = True

  def ids(self, messages: list[dict]) -> list[int]:
    """A conversation as token ids. Raises ApiError where the chat template refuses it."""
    try:
      return self.tokenizer.chat(messages)
    except jinja2.TemplateError as error:
      raise ApiError(400, f'the chat template refuses the messages ({error})', 'messages') from None

  def with_system(self, messages: list[dict], system: str) -> list[dict]:
    """The messages after a system prompt, unless they have one, or the model's chat template has no system turn."""
    if not system or messages[0]['role'] == 'system' or 'system' not in (self.tokenizer.hf.chat_template or ''):
      return messages
    return [{'role': 'system', 'content': system}, *messages]

  def opens_thinking(self, ids: Sequence[int]) -> bool:
    """Whether the ids of a conversation end with the `<think>` of the chat template."""
    return self.tokenizer.hf.decode(ids[-16:]).rstrip().endswith('<think>')

  def request(
    self,
    ids: Sequence[int],
    n: int,
    limit: int | None,
    most: int,
    sampling: SamplingParams,
    seed: int | None,
    top: bool,
  ) -> engines.Request:
    """A request to the engine.

    Args:
      ids: of the prompt.
      n: samples.
      limit: new tokens of a sample, as the client asks for; None or 0 takes `most`.
      most: new tokens of a sample if the client does not say, and if there is room.
      sampling: how tokens are drawn.
      seed: None draws one.
      top: whether the likeliest tokens are returned.

    Raises:
      ApiError: it does not fit; the message has the numbers.
    """
    self.check_room(ids, limit or 1)
    room = self.worker.engine.max_length - len(ids)
    if n > self.worker.capacity:
      raise ApiError(400, f'n is {n}, this server takes at most {self.worker.capacity} samples at a time', 'n')
    seed = secrets.randbits(32) if seed is None else seed
    request = engines.Request(
      tuple(ids),
      limit or min(most, room),
      n,
      sampling,
      seed=seed % 2**32,
      number=(seed >> 32) % 2**32,
      top_logprobs=top,
    )
    if (why := self.worker.engine.validate(request)) is not None:
      raise ApiError(400, why)
    return request

  def check_room(self, ids: Sequence[int], drawn: int) -> None:
    """Raises ApiError where a prompt and `drawn` new tokens do not fit, or an id is not in the vocabulary."""
    longest, V = self.worker.engine.max_length, self.worker.engine.config.V
    if len(ids) + drawn > longest:
      raise ApiError(
        400,
        f'This model takes {longest} tokens in all. The prompt has {len(ids)} and {drawn} are to be generated: '
        'shorten the prompt or ask for less.',
        code='context_length_exceeded',
      )
    if not ids:
      raise ApiError(400, 'the prompt is empty, expected at least one token', 'prompt')
    if not 0 <= min(ids) <= max(ids) < V:
      raise ApiError(400, f'prompt ids must lie in 0..{V - 1}', 'prompt')

  def ask(self, requests: Sequence[engines.Request]) -> Stream:
    """Worker.ask, where Busy becomes status 429 and Closing 503."""
    try:
      stream = self.worker.ask(requests)
    except Busy as error:
      raise busy(error) from None
    except Closing as error:
      raise shutting_down(error) from None
    self.worker.metrics.prompt_tokens.inc(sum(len(request.prompt) for request in requests))
    return stream

  async def scores(self, prompts: Sequence[Sequence[int]], top: bool) -> list[Score]:
    """Scorer.score, where Busy becomes status 429 and Closing 503."""
    try:
      scores = await self.worker.scorer.score(prompts, top)
    except Busy as error:
      raise busy(error) from None
    except Closing as error:
      raise shutting_down(error) from None
    self.worker.metrics.scored.inc(sum(map(len, prompts)))
    return scores


def ask_of(service: Service, problem: str, kind: Preset) -> list[dict]:
  """The conversation that asks for the solution of a problem, as the preset `kind` asks."""
  content = f'{problem} {kind.instruction}' if kind.instruction else problem
  return service.with_system([{'role': 'user', 'content': content}], kind.system)


@dataclasses.dataclass
class Sample:
  """One sample while it is being collected."""

  detokenizer: Detokenizer
  tokens: list[Token] = dataclasses.field(default_factory=list)
  finish: str = ''  # as OpenAI has it: 'stop' or 'length'

  @property
  def count(self) -> int:
    """Tokens drawn, up to the one that ends the sample."""
    return self.detokenizer.count

  @property
  def text(self) -> str:
    """All the text so far."""
    return self.detokenizer.text


def empty_samples(service: Service, n: int, wanted: Wanted) -> list[Sample]:
  """n samples, before anything is drawn."""
  return [Sample(Detokenizer(service.tokenizer, wanted)) for _ in range(n)]


async def each_step(
  stream: Stream, requests: Sequence[engines.Request], samples: list[Sample]
) -> AsyncIterator[dict[int, tuple[str, list[Token]]]]:
  """For each step, the new text and tokens of each choice that has any; `samples` are updated.

  Args:
    stream: of the worker.
    requests: those of the stream. Without any nothing is drawn, and all samples end at once.
    samples: of all requests, in order.
  """
  if not requests:
    for sample in samples:
      sample.finish = 'length'
    yield {i: ('', []) for i in range(len(samples))}
  first = [sum(request.samples for request in requests[:i]) for i in range(len(requests))]
  async for chunks in stream:
    out: dict[int, tuple[str, list[Token]]] = {}
    for number, chunk in chunks:
      i = first[number] + chunk.sample
      sample = samples[i]
      if sample.finish:
        continue  # met its stop string while this was being drawn
      text, tokens = sample.detokenizer.feed(chunk.tokens.tolist(), chunk.logps.tolist(), chunk.top_logprobs)
      if chunk.finish:
        rest, more = sample.detokenizer.end()
        text, tokens = text + rest, tokens + more
      sample.finish = 'stop' if sample.detokenizer.met else chunk.finish
      if sample.finish and not chunk.finish:
        stream.drop(number, chunk.sample)
      sample.tokens += tokens
      before, earlier = out.get(i, ('', []))
      out[i] = before + text, earlier + tokens
    yield out


async def collect(stream: Stream, requests: Sequence[engines.Request], samples: list[Sample]) -> None:
  """Waits for all samples."""
  async for _ in each_step(stream, requests, samples):
    pass


async def grow(
  service: Service, messages: list[dict], n: int, sampling: SamplingParams, most: int
) -> AsyncIterator[list[Sample]]:
  """n samples of a conversation, after each step. For callers in the same process.

  Args:
    service: the model.
    messages: the conversation.
    n: samples.
    sampling: how tokens are drawn.
    most: new tokens of a sample, where there is room.

  Raises:
    ApiError, EngineFailure, Closing: see errors.py.
  """
  request = service.request(service.ids(messages), n, None, most, sampling, None, top=False)
  samples = empty_samples(service, n, Wanted())
  with service.ask([request]) as stream:
    async for _ in each_step(stream, [request], samples):
      yield samples


def usage_of(prompts: Sequence[Sequence[int]], samples: Sequence[Sample]) -> dict:
  """The numbers of prompt and drawn tokens, as OpenAI counts them: a prompt once, however many samples it has."""
  prompt, drawn = sum(map(len, prompts)), sum(sample.count for sample in samples)
  return {'prompt_tokens': prompt, 'completion_tokens': drawn, 'total_tokens': prompt + drawn}
