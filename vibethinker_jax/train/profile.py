"""A trace of one step: what ran on the device and when, and what was in its memory."""

import pathlib

import jax

from vibethinker_jax.errors import BadInput


class Profile:
  """Called before every step; it traces one of them.

  WORKDIR/profile/<stage>/<step>/ then holds the trace, for TensorBoard's profile plugin or Perfetto, and memory.prof,
  what was in the device's memory after the step, for `pprof`.
  """

  def __init__(self, asked: str = '', workdir: pathlib.Path = pathlib.Path()):
    """`asked`: the step to trace, STAGE:STEP, with the names of metrics.jsonl, as rl/math_short:3; '': none.

    Raises BadInput.
    """
    stage, _, step = asked.rpartition(':')
    if asked and not (stage and step.isdecimal()):
      raise BadInput(f'--profile {asked}: expected STAGE:STEP, for example rl/math_short:3')
    self._asked = (stage, int(step)) if asked else None
    self._folder = pathlib.Path(workdir) / 'profile' / stage / step
    self._on = False

  def __call__(self, stage: str, step: int) -> None:
    """Step `step` of `stage` is about to begin."""
    self.end()
    if (stage, step) == self._asked:
      self._folder.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(str(self._folder))
      self._on = True

  def end(self) -> None:
    """The stage has ended."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
      jax.profiler.save_device_memory_profile(str(self._folder / 'memory.prof'))
