"""A look into one step: what ran when on the device, and what lay in its memory."""

import pathlib

import jax

from vibethinker_jax.errors import BadInput


class Profile:
  """Told of every step as it begins, it traces the one that was asked for and is idle else.

  WORKDIR/profile/<stage>/<step>/ then holds the trace (TensorBoard's profile plugin, or Perfetto, read it) and
  memory.prof, what lay on the device after the step (`pprof` reads it).
  """

  def __init__(self, asked: str = '', workdir: pathlib.Path = pathlib.Path()):
    """`asked`: STAGE:STEP, as metrics.jsonl names them, such as rl/math_short:3; '' is none. Raises BadInput."""
    stage, _, step = asked.rpartition(':')
    if asked and not (stage and step.isdecimal()):
      raise BadInput(f'--profile {asked}: expected STAGE:STEP, for example rl/math_short:3')
    self._asked = (stage, int(step)) if asked else None
    self._folder = pathlib.Path(workdir) / 'profile' / stage / step
    self._on = False

  def __call__(self, stage: str, step: int) -> None:
    """Step `step` of `stage` begins."""
    self.end()
    if (stage, step) == self._asked:
      self._folder.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(str(self._folder))
      self._on = True

  def end(self) -> None:
    """The last step was the last of its stage."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
      jax.profiler.save_device_memory_profile(str(self._folder / 'memory.prof'))
