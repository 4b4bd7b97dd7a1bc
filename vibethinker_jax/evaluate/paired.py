"""The difference between two ways of training on the same seeds and problems, and what can be concluded from it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
  """A mean difference and its interval."""

  mean: float
  low: float
  high: float

  @property
  def is_clear(self) -> bool:
    """Whether the interval does not contain 0."""
    return self.low > 0 or self.high < 0


def difference(a: np.ndarray, b: np.ndarray, level: float = LEVEL) -> Difference:
  """The mean of a - b, with an interval that covers other seeds *and* other problems of the same kinds.

  Args:
    a, b: scores [S,P] of S seeds on P problems, paired by seed and by problem. With P = 1 the interval is that of the
      paired t test over seeds. With S = 1 it is that of the paired t test over problems, and says nothing about other
      seeds.
    level: the coverage of the interval, between 0 and 1.

  Seeds and problems are crossed random effects. The variance of the mean comes from the mean squares (MS) of the
  two-way table of a - b: it is (MS_seeds + MS_problems - MS_rest) / SP, but not less than the larger of MS_seeds / SP
  and MS_problems / SP. The degrees of freedom are Satterthwaite's (Searle, Casella and McCulloch, Variance Components,
  1992).

  Raises:
    ValueError: the shapes differ, or there is only one seed and one problem.
  """
  if np.shape(a) != np.shape(b) or np.ndim(a) != 2 or max(np.shape(a)) < 2:
    raise ValueError(f'expected two tables [seeds, problems] of one shape, got {np.shape(a)} and {np.shape(b)}')
  d = np.asarray(a, np.float64) - np.asarray(b, np.float64)
  S, P = d.shape
  mean, by_seed, by_problem = d.mean(), d.mean(1), d.mean(0)
  rest = d - by_seed[:, None] - by_problem + mean
  parts = [  # sum of squares, degrees of freedom, sign
    (P * ((by_seed - mean) ** 2).sum(), S - 1, 1),
    (S * ((by_problem - mean) ** 2).sum(), P - 1, 1),
    ((rest**2).sum(), (S - 1) * (P - 1), -1),
  ]
  squares = [(total / free, free, sign) for total, free, sign in parts if free > 0]
  variance = max(sum(sign * m for m, _, sign in squares), *(m for m, _, sign in squares if sign > 0), 0.0)
  if variance < 1e-24:  # a difference that is the same everywhere, up to rounding
    return Difference(float(mean), float(mean), float(mean))
  free = variance**2 / sum(m**2 / free for m, free, _ in squares)
  half = stats.t.ppf((1 + level) / 2, free) * np.sqrt(variance / (S * P))
  return Difference(float(mean), float(mean - half), float(mean + half))


def conclusion(
  what: str,
  reference: str,
  differences: Mapping[str, tuple[Difference, Difference]],
  comparisons: int,
  seeds: int,
  problems: int,
) -> str:
  """What can be concluded from the intervals and what cannot, in sentences.

  Args:
    what: what was measured.
    reference: the name of what the others are compared with.
    differences: from the reference, by name, in points; each at LEVEL and at `strict_level(comparisons)`.
    comparisons: how many differences were looked at, in all.
    seeds: of each.
    problems: that each was measured on.
  """
  named = lambda names: ', '.join(f'{name} by {differences[name][0].mean:+.1f} points' for name in names)
  clear = [name for name, (_, strict) in differences.items() if strict.is_clear]
  hints = [name for name, (one, _) in differences.items() if one.is_clear and name not in clear]
  rest = [name for name in differences if name not in (*clear, *hints)]
  said = []
  if clear:
    counted = f'all {comparisons} comparisons counted' if comparisons > 1 else 'the only comparison'
    noise, then = (
      ('noise', 'Fresh seeds should confirm it.')
      if seeds > 1
      else ('the noise of the problems', 'What other seeds would give was not tried.')
    )
    said.append(f'{what} differs from {reference} beyond {noise} for {named(clear)}, {counted}. {then}')
  if hints:
    said.append(
      f'In {what} the 95% interval of {named(hints)} leaves out 0 by itself, but not once all {comparisons} '
      'comparisons are counted: a hint to repeat, not a result.'
    )
  if rest:
    low, high = (f([differences[name][0] for name in rest]) for f in (_least, _most))
    said.append(
      f'For {", ".join(rest)} no difference from {reference} in {what} can be concluded, and none of them is shown to '
      f'be equal: the intervals allow anything from {low:+.1f} to {high:+.1f} points.'
    )
  halves = [(one.high - one.low) / 2 for one, _ in differences.values()]
  reach = f'{min(halves):.1f}' + (f' to {max(halves):.1f}' if len(halves) > 1 else '')
  said.append(
    f'With {seeds} seed{"s" if seeds > 1 else ""} and {problems} problems the 95% intervals reach {reach} points to '
    'either side. Nothing is said about other models, budgets or data.'
  )
  return ' '.join(said)


def strict_level(comparisons: int) -> float:
  """Bonferroni's level: at it, all `comparisons` intervals together have the coverage LEVEL."""
  return 1 - (1 - LEVEL) / comparisons


def _least(ones: list[Difference]) -> float:
  return min(d.low for d in ones)


def _most(ones: list[Difference]) -> float:
  return max(d.high for d in ones)
