"""Unbiased estimates of Pass@K and maj@K, and their confidence intervals. P problems, N samples of each."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

# The most resampled values that the bootstrap has in memory at a time.
_CHUNK = 4_000_000


def pass_at_k(n: int | np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
  """The probability that a right sample is among k samples, drawn without replacement from n of which c are right.

  Args:
    n: samples per problem, one number or int [P].
    c: right samples per problem, int [P] (any shape that broadcasts with n).
    k: samples drawn, 1 <= k <= n.

  Returns:
    float64 [P] in [0, 1]: 1 - C(n-c, k) / C(n, k), the unbiased estimate of Pass@K
    (VibeThinker-1.5B, section 2).

  Raises:
    ValueError: k < 1, k > n, c < 0 or c > n.
  """
  n, c = np.broadcast_arrays(np.asarray(n), np.asarray(c))
  if k < 1:
    raise ValueError(f'pass@k needs k >= 1, got k = {k}')
  if np.any(n < k):
    raise ValueError(f'pass@{k} needs at least {k} samples of each problem, got n = {int(n.min())}')
  if np.any(c < 0) or np.any(c > n):
    raise ValueError('pass@k needs 0 <= c <= n: more right samples than samples, or fewer than none')
  # The binomials overflow although their ratio does not, so the ratio is computed factor by factor. With fewer than k
  # wrong samples one of the factors is exactly 0.
  j = np.arange(k)
  factors = (n[..., None] - c[..., None] - j) / (n[..., None] - j)
  return 1.0 - np.prod(factors, axis=-1)


def mean_pass_at_k(passed: np.ndarray, k: int) -> float:
  """Pass@K of a problem set: the mean over problems of `pass_at_k`.

  Args:
    passed: bool [P, N], whether each sample is right.
    k: samples drawn, 1 <= k <= N.

  Raises:
    ValueError: passed is not two-dimensional or has no problem, or k does not fit N.
  """
  passed = np.asarray(passed, dtype=bool)
  if passed.ndim != 2 or passed.shape[0] == 0:
    raise ValueError(f'verdicts must be [problems, samples], not empty, got shape {passed.shape}')
  return float(pass_at_k(passed.shape[1], passed.sum(axis=1), k).mean())


def maj_at_k(right: int, wrong: Sequence[int], silent: int, k: int) -> float:
  """The probability that the most frequent answer of k samples, drawn without replacement, is the right one.

  Args:
    right: number of samples with the right answer.
    wrong: for each wrong answer, the number of samples with it.
    silent: number of samples without an answer; they are drawn, but do not vote.
    k: samples drawn, 1 <= k <= all samples.

  Returns:
    The exact mean score of majority voting over all subsets of size k. Of tied answers each is chosen with the same
    probability; a subset without votes counts as wrong.

  Raises:
    ValueError: k does not fit, or a count is negative.
  """
  n = right + sum(wrong) + silent
  if not 1 <= k <= n or min(right, silent, *wrong, 0) < 0:
    raise ValueError(f'maj@{k} needs 1 <= k <= {n} samples and counts that are not negative')
  total = 0.0
  for votes in range(1, min(right, k) + 1):
    # ways[t][m]: subsets of m other samples in which no wrong answer has more votes than the right one and t have equal
    ways = [[math.comb(silent, m) for m in range(k - votes + 1)]]
    for count in wrong:
      ways = _with_answer(ways, count, votes)
    total += math.comb(right, votes) * sum(row[-1] / (ties + 1) for ties, row in enumerate(ways))
  return total / math.comb(n, k)


def _with_answer(ways: list[list[int]], count: int, votes: int) -> list[list[int]]:
  """`ways` after one more wrong answer was added, which `count` samples have and which gets at most `votes` votes."""
  size = len(ways[0])
  out = [[0] * size for _ in range(len(ways) + (count >= votes))]
  for ties, row in enumerate(ways):
    for drawn in range(min(count, votes, size - 1) + 1):
      choices = math.comb(count, drawn)
      into = out[ties + (drawn == votes)]
      for m, subsets in enumerate(row[: size - drawn]):
        into[m + drawn] += choices * subsets
  return out


def interval(values: np.ndarray) -> tuple[float, float]:
  """The 95% interval of a mean of per-problem scores: by bootstrap, or by `wilson` if that gives a single point.

  If all scores are equal, all resamples are equal too: from 20 problems without a right sample the bootstrap would
  conclude that exactly 0% of all problems can be solved.

  Args:
    values: float [P] in [0, 1], one score per problem.

  Returns:
    (lo, hi).
  """
  lo, hi = bootstrap_ci(values)
  return (lo, hi) if lo < hi else wilson(float(np.mean(values)), len(values))


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
  """Wilson's score interval of a proportion (Journal of the American Statistical Association 22, 1927).

  Args:
    share: the proportion, in [0, 1].
    n: number of trials, 1 or more.
    level: coverage, 0 < level < 1.

  Returns:
    (lo, hi), within [0, 1].
  """
  z2 = statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2
  middle = (share + z2 / (2 * n)) / (1 + z2 / n)
  half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
  return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_ci(values: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
  """Percentile bootstrap interval of a mean of per-problem scores.

  Problems are resampled, not samples: samples of one problem are not independent of each other, and the question is how
  the score would change with other problems of the same kind.

  Args:
    values: float [P], one score per problem, for example from `pass_at_k`.
    seed: of the resampling.
    resamples: number of problem sets of size P that are drawn.
    level: coverage, 0 < level < 1.

  Returns:
    (lo, hi) in the unit of values.

  Raises:
    ValueError: values is empty or not one-dimensional, resamples < 1, or level is out of range.
  """
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 1 or values.size == 0:
    raise ValueError(f'the bootstrap needs one score per problem, got shape {values.shape}')
  if resamples < 1:
    raise ValueError(f'the bootstrap needs resamples >= 1, got {resamples}')
  if not 0 < level < 1:
    raise ValueError(f'the level of an interval lies between 0 and 1, got {level}')
  rng = np.random.default_rng(seed)
  rows = max(1, _CHUNK // values.size)
  means = [
    values[rng.integers(values.size, size=(min(rows, resamples - start), values.size))].mean(axis=1)
    for start in range(0, resamples, rows)
  ]
  lo, hi = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
  return float(lo), float(hi)
