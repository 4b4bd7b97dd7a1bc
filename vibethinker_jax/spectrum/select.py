"""Domain-Aware Diversity Probing: select, for each domain, the checkpoint with the highest Pass@K (widest spectrum)."""

import math
from collections.abc import Mapping, Sequence


def select(scores: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
  """The expert of each domain: the checkpoint with the highest Pass@K (VibeThinker-1.5B, section 3.3).

  Of tied checkpoints the latest one is selected. Ties are common, because Pass@K on a probing set has few distinct
  values; and the checkpoint that was trained longer has the lower loss and keeps the format more reliably.

  The score of a selected checkpoint is biased upwards, since it is the best of several noisy scores. Report it on
  problems that were not used for the selection.

  Args:
    scores: {step: {domain: Pass@K}}; every step has the same domains.

  Returns:
    {domain: step}, with the domains in the order of the first step.

  Raises:
    ValueError: no checkpoint, no domain, steps with different domains, or a score that is not finite.
  """
  if not scores:
    raise ValueError('no checkpoint to select from: scores is empty')
  first = next(iter(scores))
  domains = list(scores[first])
  if not domains:
    raise ValueError(f'no domain to select for: the scores of step {first} are empty')
  for step, row in scores.items():
    if set(row) != set(domains):
      raise ValueError(f'step {step} scores the domains {sorted(row)}, step {first} {sorted(domains)}')
    for domain, value in row.items():
      if not math.isfinite(value):
        raise ValueError(f'the score of step {step} on {domain} is {value}')
  return {domain: max(scores, key=lambda step: (scores[step][domain], step)) for domain in domains}


def has_signal(scores: Sequence[float]) -> bool:
  """Whether a domain's scores decide which checkpoint is its expert: they differ, or a single score is above 0."""
  return len({*scores}) > 1 if len(scores) > 1 else scores[0] > 0
