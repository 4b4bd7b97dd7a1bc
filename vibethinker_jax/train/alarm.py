"""Warnings of training: a line when most of the computation is without effect, once until the condition has ended."""

from tqdm import tqdm

GAP = 0.02  # nats between two computations of one ln p; in bfloat16 we measured 0.003 (docs/performance.md)


class Alarm:
  """The warnings of one stage of training."""

  def __init__(self, name: str):
    self._name, self._on = name, set()

  def look_at_rollouts(self, row: dict) -> None:
    """Check the metrics of a step's samples."""
    silent = row['all_right'] + row['all_wrong']
    self._say('truncated', row['truncated'] > 0.5, f'{row["truncated"]:.0%} of samples ran out of tokens')
    self._say('signal', silent > 0.8, f'{silent:.0%} of groups are all right or all wrong: they give no signal')
    self._say('ratio', row['ratio_max'] > 5, f'a probability ratio of {row["ratio_max"]:.1f}: far off-policy')
    self._say(
      'gap',
      row['logp_gap'] > GAP,
      f'engine and trainer differ by {row["logp_gap"]:.3f} nats a token before the first update: ratios and clipping '
      'have noise of this size (model.dtype float32 has none)',
    )

  def look_at_update(self, row: dict) -> None:
    """Check the metrics of a step's update."""
    self._say(
      'moved',
      row['moved'] < 0.5,
      f'an update changed {row["moved"]:.1%} of the weights, it is too small for the precision of the others: '
      'train with model.param_dtype float32, or with a higher learning rate',
    )

  def _say(self, what: str, now: bool, text: str) -> None:
    if now and what not in self._on:
      tqdm.write(f'WARNING {self._name}: {text}')
    (self._on.add if now else self._on.discard)(what)
