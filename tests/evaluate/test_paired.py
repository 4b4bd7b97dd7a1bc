"""Intervals of paired differences, and the sentences they allow."""

import numpy as np
import pytest
from scipy import stats

from vibethinker_jax.evaluate.paired import Difference, conclusion, difference, strict_level


def test_with_one_problem_it_is_the_paired_t_test():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 6, 1))
  ours = difference(a, b, 0.9)
  theirs = stats.ttest_rel(a[:, 0], b[:, 0]).confidence_interval(0.9)
  assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
  turned = difference(a.T, b.T, 0.9)  # one seed, six problems: the same numbers, another question
  assert (turned.mean, turned.low, turned.high) == pytest.approx((ours.mean, ours.low, ours.high))


def test_pairing_takes_out_what_seeds_and_problems_share():
  rng = np.random.default_rng(1)
  shared = 10 * rng.normal(size=(3, 1)) + 10 * rng.normal(size=(1, 40))
  d = difference(shared + 2, shared)
  assert (d.mean, d.low, d.high) == pytest.approx((2, 2, 2)) and d.is_clear
  assert not difference(shared, shared).is_clear


@pytest.mark.parametrize('seeds, problems, rest', [(1.0, 1.0, 1.0), (2.0, 0.0, 1.0), (0.0, 2.0, 1.0), (0.0, 0.0, 1.0)])
def test_the_interval_covers_other_seeds_and_other_problems(seeds, problems, rest):
  """Of tables drawn with a true difference of 0, about 95 in 100 intervals hold it."""
  rng = np.random.default_rng(2)
  S, P, n = 3, 30, 2000
  d = seeds * rng.normal(size=(n, S, 1)) + problems * rng.normal(size=(n, 1, P)) + rest * rng.normal(size=(n, S, P))
  held = sum(not difference(table, np.zeros((S, P))).is_clear for table in d) / n
  assert 0.93 <= held <= 1.0


def test_wrong_tables_are_refused():
  for a, b in ((np.zeros((2, 3)), np.zeros((3, 2))), (np.zeros((1, 1)), np.zeros((1, 1))), (np.zeros(3), np.zeros(3))):
    with pytest.raises(ValueError, match='two tables'):
      difference(a, b)


def test_the_sentence_says_no_more_than_the_intervals():
  wide, away, far = Difference(1, -2, 4), Difference(2, 0.5, 3.5), Difference(9, 5, 13)
  said = conclusion(
    'Pass@1',
    'GRPO',
    {'x': (wide, wide), 'y': (away, Difference(2, -0.5, 4.5)), 'z': (far, Difference(9, 3, 15))},
    6,
    3,
    64,
  )
  assert 'differs from GRPO beyond noise for z by +9.0 points, all 6 comparisons counted. Fresh seeds should' in said
  assert 'In Pass@1 the 95% interval of y by +2.0 points leaves out 0 by itself, but not' in said
  assert 'For x no difference from GRPO in Pass@1 can be concluded' in said and 'from -2.0 to +4.0 points' in said
  assert 'With 3 seeds and 64 problems the 95% intervals reach 1.5 to 4.0 points to either side' in said
  assert 'beyond noise' not in conclusion('Pass@1', 'GRPO', {'x': (wide, wide)}, 2, 3, 64)
  one = conclusion('Pass@1', 'GRPO', {'z': (far, far)}, 1, 1, 64)
  assert 'beyond the noise of the problems for z' in one and 'other seeds would give was not tried' in one


def test_the_strict_level_counts_the_comparisons():
  assert strict_level(1) == pytest.approx(0.95) and strict_level(5) == pytest.approx(0.99)
