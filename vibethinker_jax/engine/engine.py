"""The engine: the only autoregressive code. Rollouts, probing, evaluation and serving all draw their tokens here.

`Engine.generate` takes all requests at once; a `Scheduler` (scheduler.py) takes them one by one, for a server.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jax.sharding import Mesh

from vibethinker_jax.engine.cache import Int8KVCache, KVCache
from vibethinker_jax.engine.layout import DecodeLayout
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.engine.request import Completion, Request, TokenChunk
from vibethinker_jax.engine.scheduler import Scheduler
from vibethinker_jax.engine.warm_up import warm_up
from vibethinker_jax.model.qwen2 import Config, Qwen2


class Engine(DecodeLayout):
  """Draws samples from any model of one config. It owns no weights: the model is an argument of every call."""

  def __init__(
    self,
    config: Config,
    stop_ids: Iterable[int],
    rows: int = 64,
    block: int = 32,
    prefill_chunk: int = 512,
    max_length: int | None = None,
    cache: type[KVCache] | type[Int8KVCache] | PagedLayout = KVCache,
    mesh: Mesh | None = None,
    vocabulary: int | None = None,
  ):
    """What is decided once, before the first request.

    Args:
      config: of the models.
      stop_ids: tokens after which a sample has finished.
      rows: the most samples that are decoded at a time.
      block: the most tokens of a sample that are drawn before the host looks at the batch again.
      prefill_chunk: the most tokens of a prompt that are prefilled at a time; rounded up to a bucket.
      max_length: the most tokens of prompt and response together; None: config.positions.
      cache: how keys and values are kept (cache.py, pages.py).
      mesh: `mesh.decode_mesh`, over whose data axis the rows are divided; None: one device.
      vocabulary: ids from this on are never drawn (ChatTokenizer.size: a model may have more rows than its tokenizer
        has ids); None: all ids of the config may be.

    Raises:
      ValueError: the pages of a device do not hold one sample of max_length.
    """
    super().__init__(config, stop_ids, rows, block, prefill_chunk, max_length, cache, mesh, vocabulary)

  def validate(self, request: Request) -> str | None:
    """Why the request cannot be served, in words, or None if it can."""
    length = len(request.prompt)
    if length == 0:
      return 'empty prompt'
    if not 0 <= min(request.prompt) <= max(request.prompt) < self.config.V:
      return f'prompt ids must lie in 0..{self.config.V - 1}'
    if request.samples < 1:
      return f'samples {request.samples}: expected at least 1'
    if request.max_tokens < 1:
      return f'max_tokens {request.max_tokens}: expected at least 1'
    if length + request.max_tokens > self.max_length:
      return f'prompt of {length} and {request.max_tokens} new tokens exceed the length {self.max_length}'
    if not 0 <= request.seed < 2**32 or not 0 <= request.number < 2**32:
      return f'seed {request.seed}, number {request.number}: expected 0 to {2**32 - 1}'
    return request.sampling.fault()

  def generate(
    self,
    model: Qwen2,
    requests: list[Request],
    resume_from: Iterable[Completion] = (),
    stop: Callable[[], bool] = lambda: False,
  ) -> Iterator[Completion]:
    """Draw every sample of every request.

    Args:
      model: the policy.
      requests: those that `validate` does not accept come out first, as one Completion with finish 'refused: ...'.
      resume_from: completions of an earlier call with the same requests. Suspended samples are continued from their
        tokens, finished ones are given back as they are. The model may be another one than in the earlier call: each
        token keeps the log-probs with which it was drawn.
      stop: asked between blocks. Once it returns True, the samples that have not finished come out as 'suspended'.

    Yields:
      The completions, in the order in which they finish.
    """
    scheduler, parts = Scheduler(self, model), {}
    earlier = {(c.request, c.sample): c for c in resume_from}
    for i, request in enumerate(requests):
      if (why := self.validate(request)) is not None:
        yield _joined(i, 0, [], f'refused: {why}')
        continue
      for sample in range(request.samples):
        before = earlier.get((i, sample))
        if before is None:
          parts[i, sample] = []
          scheduler.add(i, request, sample)
        elif before.finish == 'suspended':
          parts[i, sample] = [before]
          scheduler.add(i, request, sample, before.tokens)
        else:
          yield before
    while scheduler.busy:
      stopping = stop()
      for chunk in scheduler.flush() if stopping else scheduler.step():
        parts[chunk.request_id, chunk.sample].append(chunk)
        if chunk.finish:
          yield _joined(chunk.request_id, chunk.sample, parts.pop((chunk.request_id, chunk.sample)), chunk.finish)
      if stopping:
        break
    for (i, sample), drawn in parts.items():
      yield _joined(i, sample, drawn, 'suspended')

  def warm_up(
    self,
    model: Qwen2,
    longest_prompt: int,
    longest: int,
    filters: bool = True,
    stop: Callable[[], bool] = lambda: False,
  ) -> None:
    """Compile the programs that requests may need. Those for top_logprobs, which are rarely asked for, are left out.

    Args:
      model: one of those that will draw.
      longest_prompt: the most tokens of a prompt.
      longest: the most tokens of prompt and response together.
      filters: whether some requests use top_k, top_p or min_p.
      stop: asked between compilations; once it returns True, nothing more is compiled.
    """
    warm_up(self, model, longest_prompt, longest, filters, stop)


def _joined(request: int, sample: int, parts: list[TokenChunk | Completion], finish: str) -> Completion:
  """One completion from the chunks of a sample, which may begin with an earlier completion."""
  join = lambda name, kind: np.concatenate([np.zeros(0, kind), *(vars(part)[name] for part in parts)]).astype(kind)
  tokens, logps, sampler_logps = join('tokens', np.int32), join('logps', np.float32), join('sampler_logps', np.float32)
  return Completion(request, sample, tokens, logps, sampler_logps, finish)
