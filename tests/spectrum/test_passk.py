import collections
import itertools
import math

import numpy as np
import pytest

from vibethinker_jax.spectrum import passk


@pytest.mark.parametrize('n', [1, 2, 5, 8])
def test_pass_at_k_equals_the_share_of_subsets_with_a_right_sample(n):
  for k in range(1, n + 1):
    want = []
    for c in range(n + 1):
      subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
      want.append(sum(any(s) for s in subsets) / len(subsets))
    np.testing.assert_allclose(passk.pass_at_k(n, np.arange(n + 1), k), want, atol=1e-14)


def test_pass_at_k_is_exactly_0_or_1_at_the_ends():
  got = passk.pass_at_k(16, np.array([0, 9, 12, 16]), 8)
  assert got.tolist()[0] == 0.0
  assert got.tolist()[1:] == [1.0, 1.0, 1.0]


def test_pass_at_1_is_the_share_of_right_samples():
  passed = np.random.default_rng(0).random((20, 6)) < 0.4
  assert passk.mean_pass_at_k(passed, 1) == pytest.approx(passed.mean())


def test_pass_at_n_is_the_share_of_problems_with_a_right_sample():
  passed = np.random.default_rng(1).random((50, 4)) < 0.2
  assert passk.mean_pass_at_k(passed, 4) == pytest.approx(passed.any(axis=1).mean())


def test_pass_at_k_where_binomials_overflow():
  n, c, k = 10_000, 3, 2_500
  want = 1 - math.comb(n - c, k) / math.comb(n, k)
  assert passk.pass_at_k(n, np.array([c]), k)[0] == pytest.approx(want, rel=1e-10)


def test_problems_may_have_different_numbers_of_samples():
  n, c = np.array([4, 8]), np.array([1, 3])
  both = passk.pass_at_k(n, c, 2)
  assert both.shape == (2,)
  assert both[0] == passk.pass_at_k(4, np.array([1]), 2)[0]
  assert both[1] == passk.pass_at_k(8, np.array([3]), 2)[0]


def test_pass_at_k_is_unbiased():
  # The mean of the estimate over binomial draws is the Pass@K of the true rate; that of the plug-in estimate is not.
  n, k, p = 10, 4, 0.3
  c = np.arange(n + 1)
  weight = np.array([math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in c])
  want = 1 - (1 - p) ** k
  assert (weight * passk.pass_at_k(n, c, k)).sum() == pytest.approx(want, abs=1e-12)
  assert abs((weight * (1 - (1 - c / n) ** k)).sum() - want) > 0.01


@pytest.mark.parametrize(('n', 'c', 'k'), [(4, 2, 5), (4, 5, 2), (4, -1, 2), (4, 2, 0), (4, 2, -1)])
def test_pass_at_k_checks_its_arguments(n, c, k):
  with pytest.raises(ValueError, match='pass@'):
    passk.pass_at_k(n, np.array([1, c]), k)


@pytest.mark.parametrize('shape', [(0, 4), (4,)])
def test_mean_needs_problems_by_samples(shape):
  with pytest.raises(ValueError, match='problems, samples'):
    passk.mean_pass_at_k(np.zeros(shape, bool), 1)


def test_bootstrap_is_deterministic_and_contains_the_mean():
  values = np.random.default_rng(2).random(40)
  lo, hi = passk.bootstrap_ci(values)
  assert (lo, hi) == passk.bootstrap_ci(values)
  assert (lo, hi) != passk.bootstrap_ci(values, seed=1)
  assert values.min() < lo < values.mean() < hi < values.max()
  wide = passk.bootstrap_ci(values, level=0.99)
  assert wide[0] < lo and hi < wide[1]


def test_bootstrap_of_equal_scores_is_a_single_point():
  assert passk.bootstrap_ci(np.full(7, 0.25)) == (0.25, 0.25)


def test_wilson_agrees_with_scipy_and_is_used_if_all_scores_are_equal():
  stats = pytest.importorskip('scipy.stats')
  for right, n in ((0, 20), (20, 20), (3, 11), (1, 1)):
    theirs = stats.binomtest(right, n).proportion_ci(method='wilson')
    assert passk.wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
  assert passk.interval(np.zeros(20)) == passk.wilson(0.0, 20)
  assert passk.interval(np.ones(20)) == passk.wilson(1.0, 20)
  assert passk.interval(np.full(7, 0.25)) == passk.wilson(0.25, 7)
  values = np.random.default_rng(2).random(40)
  assert passk.interval(values) == passk.bootstrap_ci(values)


def test_bootstrap_does_not_depend_on_the_chunk(monkeypatch):
  values = np.random.default_rng(3).random(30)
  want = passk.bootstrap_ci(values)
  monkeypatch.setattr(passk, '_CHUNK', 70)
  assert passk.bootstrap_ci(values) == pytest.approx(want, abs=1e-15)


def test_bootstrap_agrees_with_scipy():
  stats = pytest.importorskip('scipy.stats')
  values = np.random.default_rng(4).beta(0.6, 0.9, 120)
  reference = stats.bootstrap(
    (values,), np.mean, n_resamples=4000, method='percentile', rng=np.random.default_rng(5)
  ).confidence_interval
  got = passk.bootstrap_ci(values, resamples=4000)
  np.testing.assert_allclose(got, (reference.low, reference.high), atol=0.006)


@pytest.mark.parametrize(
  ('values', 'resamples', 'level'),
  [([], 10, 0.95), ([[0.5]], 10, 0.95), ([0.5], 0, 0.95), ([0.5], 10, 1.0), ([0.5], 10, 0.0)],
)
def test_bootstrap_checks_its_arguments(values, resamples, level):
  with pytest.raises(ValueError):
    passk.bootstrap_ci(np.array(values), resamples=resamples, level=level)


def majority_by_brute_force(answers: list, k: int) -> float:
  """maj@k over all subsets; 1 is the right answer, None means no answer."""
  scores = []
  for subset in itertools.combinations(answers, k):
    votes = collections.Counter(a for a in subset if a is not None)
    top = [a for a, n in votes.items() if n == max(votes.values())]
    scores.append((1 in top) / len(top) if top else 0.0)
  return sum(scores) / len(scores)


@pytest.mark.parametrize(
  'answers',
  [
    [1, 1, 2, 2, 3],
    [1, 2, 3, 4, 5, None],
    [1, 1, 1, 2, 2, 2, 3, None],
    [2, 2, 3],
    [None, None],
    [1, 1, 1],
    [1, 2, 2, 3, 3, 4, 4, None, None],
  ],
)
def test_majority_equals_brute_force(answers):
  counts = collections.Counter(answers)
  wrong = [n for a, n in counts.items() if a not in (1, None)]
  for k in range(1, len(answers) + 1):
    want = majority_by_brute_force(answers, k)
    assert passk.maj_at_k(counts[1], wrong, counts[None], k) == pytest.approx(want, abs=1e-12)


def test_majority_of_one_is_pass_at_one():
  assert passk.maj_at_k(3, [4, 1], 2, 1) == pytest.approx(0.3)


@pytest.mark.parametrize(('right', 'wrong', 'silent', 'k'), [(1, [1], 0, 3), (1, [1], 0, 0), (-1, [3], 0, 1)])
def test_majority_checks_its_arguments(right, wrong, silent, k):
  with pytest.raises(ValueError, match='maj@'):
    passk.maj_at_k(right, wrong, silent, k)
