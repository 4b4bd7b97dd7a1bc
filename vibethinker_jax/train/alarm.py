"""Health lines: said loudly when most of what is computed teaches nothing or goes nowhere, once until it is over."""

from tqdm import tqdm

GAP = 0.02  # between two computations of the same ln p; a mean of 0.003 was measured in bfloat16 (docs/performance.md)


class Alarm:
  """The health lines of one run of training."""

  def __init__(self, name: str):
    self._name, self._on = name, set()

  def look_at_rollouts(self, row: dict) -> None:
    """At a step's samples."""
    silent = row['all_right'] + row['all_wrong']
    self._say('truncated', row['truncated'] > 0.5, f'{row["truncated"]:.0%} of samples ran out of tokens')
    self._say('signal', silent > 0.8, f'{silent:.0%} of groups are all right or all wrong: no signal from them')
    self._say('ratio', row['ratio_max'] > 5, f'a probability ratio of {row["ratio_max"]:.1f}: far off-policy')
    self._say(
      'gap',
      row['logp_gap'] > GAP,
      f'engine and trainer differ by {row["logp_gap"]:.3f} nats a token before anything has moved: ratios and clipping '
      'are noise to that extent (model.dtype float32 has none)',
    )

  def look_at_update(self, row: dict) -> None:
    """At what a step did to the weights."""
    self._say(
      'moved',
      row['moved'] < 0.5,
      f'an update moved {row["moved"]:.1%} of the weights that it was to move, the others are too coarse for it: '
      'train with model.param_dtype float32, or at a higher rate',
    )

  def _say(self, what: str, now: bool, text: str) -> None:
    if now and what not in self._on:
      tqdm.write(f'WARNING {self._name}: {text}')
    (self._on.add if now else self._on.discard)(what)
