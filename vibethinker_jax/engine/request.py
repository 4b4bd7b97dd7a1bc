"""What the engine is asked for, and what it gives back: token ids in, token ids out."""

import dataclasses

import numpy as np

from vibethinker_jax.engine.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class Request:
  """A prompt to be continued `samples` times. Every random number is a function of (seed, number, sample, position)."""

  prompt: tuple[int, ...]  # token ids
  max_tokens: int  # the most new tokens of each sample
  samples: int = 1
  sampling: SamplingParams = dataclasses.field(default_factory=SamplingParams)
  seed: int = 0
  number: int = 0  # the request's random stream; two requests with the same number draw with the same random numbers
  top_logprobs: bool = False  # whether TokenChunk.top_logprobs is filled


@dataclasses.dataclass(frozen=True)
class TokenChunk:
  """The newest tokens of one sample. If the sample ended with a stop token, that token is the last one."""

  request_id: int  # as given to Scheduler.add
  sample: int
  tokens: np.ndarray  # int32 [n], n >= 0
  logps: np.ndarray  # float32 [n]: ln p under the model at temperature 1, equal to what scoring the sequence gives
  sampler_logps: np.ndarray  # float32 [n]: ln p under the sampling parameters with which the token was drawn
  finish: str  # '' if more tokens will follow, else 'stop' or 'length'
  top_logprobs: tuple[np.ndarray, np.ndarray] | None = None  # ids and ln p [n,TOP], see sampling.top_logprobs


@dataclasses.dataclass(frozen=True)
class Completion:
  """One whole sample; the arrays [n] are those of TokenChunk."""

  request: int  # index into the list of requests
  sample: int  # 0 .. samples - 1
  tokens: np.ndarray
  logps: np.ndarray
  sampler_logps: np.ndarray
  finish: str  # 'stop', 'length', 'suspended' or 'refused: ' and the reason
