"""How samples are drawn in order to measure a model: the one protocol of probing and of evaluation."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import PositiveInt

from vibethinker_jax.engine.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a model is sampled: n samples of each problem, and Pass@k from them.

  samples: n, of each problem; 1 where the temperature is 0, which makes all samples of a problem equal.
  k: of Pass@k, at most `samples`.
  max_tokens: of a response; a problem is left out where its prompt leaves fewer of the model's positions than this.
  temperature: of sampling; 0 always takes the most likely token.
  top_p: tokens are drawn from the most likely ones that together have this probability; 1 is off.
  top_k: tokens are drawn from this many of the most likely ones; -1 is off.
  """

  samples: Annotated[int, Interval(ge=1, le=1 << 16)]
  k: PositiveInt
  max_tokens: PositiveInt
  temperature: Annotated[float, Interval(ge=0, le=100)] = 1.0
  top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0
  top_k: Literal[-1] | PositiveInt = -1

  @property
  def sampling(self) -> SamplingParams:
    """How a token is drawn."""
    return SamplingParams(self.temperature, self.top_k, self.top_p)
