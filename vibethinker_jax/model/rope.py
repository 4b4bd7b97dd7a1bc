"""Rotary positions: how fast each pair of a head's entries turns, and how that is stretched for longer contexts.

The three ways of stretching have the fields, names and defaults of transformers (modeling_rope_utils): what a
config.json says of them is what stands here. Each gives the frequencies [H/2] of a head and the amplitude of its
cosines and sines. `dynamic` and `longrope` are not among them: their frequencies follow the length of the sequence, and
keys that are in the cache would have to be turned again.
"""

import dataclasses
import math

import numpy as np
from pydantic import PositiveFloat


@dataclasses.dataclass(frozen=True)
class Linear:
  """Every frequency divided.

  factor: by how much.
  """

  factor: PositiveFloat

  def stretched(self, theta: float, H: int) -> tuple[np.ndarray, float]:
    """Frequencies float64 [H/2], radians a position, and their amplitude."""
    return plain(theta, H) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class Yarn:
  """High frequencies kept, low ones divided, those between mixed (arXiv 2309.00071).

  factor: by how much low ones are divided.
  original_max_position_embeddings: positions that the model was trained for before.
  attention_factor: the amplitude.
  beta_fast: turns within those positions from which on a frequency is kept.
  beta_slow: and up to which it is divided.
  truncate: both bounds put to whole pairs.
  """

  factor: PositiveFloat
  original_max_position_embeddings: PositiveFloat
  attention_factor: PositiveFloat
  beta_fast: PositiveFloat = 32.0
  beta_slow: PositiveFloat = 1.0
  truncate: bool = True

  def stretched(self, theta: float, H: int) -> tuple[np.ndarray, float]:
    """As Linear.stretched."""
    at = lambda turns: H * math.log(self.original_max_position_embeddings / (turns * 2 * math.pi)) / 2 / math.log(theta)
    low, high = at(self.beta_fast), at(self.beta_slow)
    if self.truncate:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, H - 1)
    high += 0.001 * (low == high)
    divided = np.clip((np.arange(H // 2) - low) / (high - low), 0, 1)
    return plain(theta, H) * (divided / self.factor + 1 - divided), self.attention_factor


@dataclasses.dataclass(frozen=True)
class Llama3:
  """Short waves kept, long ones stretched, those between mixed, as in Llama 3.1.

  factor: by how much long waves are stretched.
  original_max_position_embeddings: positions that the model was trained for before.
  low_freq_factor: a wave longer than the original positions over this is stretched whole.
  high_freq_factor: a shorter one than over this not at all; more than low_freq_factor.
  """

  factor: PositiveFloat
  original_max_position_embeddings: PositiveFloat
  low_freq_factor: PositiveFloat
  high_freq_factor: PositiveFloat

  def stretched(self, theta: float, H: int) -> tuple[np.ndarray, float]:
    """As Linear.stretched."""
    frequency = plain(theta, H)
    turns = self.original_max_position_embeddings * frequency / (2 * math.pi)
    kept = np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
    return frequency * ((1 - kept) / self.factor + kept), 1.0


Scaling = Linear | Yarn | Llama3


def plain(theta: float, H: int) -> np.ndarray:
  """theta^(-2i/H), float64 [H/2]."""
  return theta ** (-np.arange(0, H, 2) / H)
