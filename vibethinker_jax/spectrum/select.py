"""Domain-Aware Diversity Probing: for each domain the checkpoint with the widest spectrum."""

import math
from collections.abc import Mapping, Sequence


def select(scores: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
  """The expert of each domain, argmax over checkpoints of Pass@K (VibeThinker-1.5B, section 3.3).

  Ties go to the later step: Pass@K on a probing set takes few distinct values, so ties are common, and of two
  equally wide checkpoints the more trained one has the lower loss and the more settled format.

  The score of a selected checkpoint is biased upwards, being the best of several noisy ones: report it on
  problems that took no part in the selection.

  Args:
    scores: {step: {domain: Pass@K}}; every step scores the same domains.

  Returns:
    {domain: step}, domains in the order of the first step.

  Raises:
    ValueError: no checkpoint, no domain, a domain that some step lacks, or a score that is not finite.
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


def told(scores: Sequence[float]) -> bool:
  """Whether the scores of a domain's checkpoints tell its expert: not all are one, and a single one is not 0."""
  return len({*scores}) > 1 if len(scores) > 1 else scores[0] > 0
