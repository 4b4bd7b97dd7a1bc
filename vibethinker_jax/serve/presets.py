"""Presets: kinds of tasks, and how each is asked and sampled. A request may override every value.

The values of mathematics, code and exploration are those of the material with which this project started; those of
evaluation are the VibeThinker-1.5B report's (evaluate/benchmarks.py).
"""

import dataclasses

from vibethinker_jax.data.instructions import PROGRAMMER, STEP_BY_STEP
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.evaluate import benchmarks

_AIME = benchmarks.named('aime25')


@dataclasses.dataclass(frozen=True)
class Preset:
  """How one kind of task is asked and sampled. instruction: text after the statement of a problem."""

  title: str
  temperature: float
  top_p: float
  top_k: int = -1
  max_tokens: int = 40960
  system: str = STEP_BY_STEP
  instruction: str = ''

  def sampling(self, temperature: float | None = None, top_p: float | None = None) -> SamplingParams:
    """The parameters of the sampling; values that are given replace those of the preset."""
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
