"""Kinds of task and how each is sampled; a request may override every value.

Mathematics, code and exploration as in the material this project started from, evaluation as in the VibeThinker-1.5B
report (docs of evaluate/benchmarks.py).
"""

import dataclasses

from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.evaluate import benchmarks

STEP_BY_STEP = 'Please reason step by step, and put your final answer within \\boxed{}.'
PROGRAMMER = (
  'You are a programming assistant. Think the problem through, then give the whole program in one ```python block.'
)
_AIME = benchmarks.named('aime25')


@dataclasses.dataclass(frozen=True)
class Preset:
  """How one kind of task is asked and sampled."""

  title: str
  temperature: float
  top_p: float
  top_k: int = -1
  max_tokens: int = 40960
  system: str = STEP_BY_STEP
  instruction: str = ''  # what follows a problem's statement

  def sampling(self, temperature: float | None = None, top_p: float | None = None) -> SamplingParams:
    """How to draw, with what is given in place of the preset's."""
    return SamplingParams(
      self.temperature if temperature is None else float(temperature),
      self.top_k,
      self.top_p if top_p is None else float(top_p),
    )


PRESETS = {
  'math': Preset('Mathematics', 0.6, 0.95),
  'code': Preset('Code', 0.8, 0.90, system=PROGRAMMER),
  'explore': Preset('Exploration', 1.0, 0.98),
  'evaluate': Preset(
    'Evaluation',
    _AIME.protocol.temperature,
    _AIME.protocol.top_p,
    _AIME.protocol.top_k,
    _AIME.protocol.max_tokens,
    instruction=_AIME.instruction,
  ),
}
