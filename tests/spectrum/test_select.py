import math

import pytest

from vibethinker_jax.spectrum.select import select


def test_select_takes_the_best_step_of_each_domain():
  scores = {
    100: {'algebra': 0.4, 'geometry': 0.7},
    200: {'algebra': 0.6, 'geometry': 0.5},
    300: {'algebra': 0.5, 'geometry': 0.6},
  }
  assert select(scores) == {'algebra': 200, 'geometry': 100}


@pytest.mark.parametrize('order', [(100, 200, 300), (300, 200, 100), (200, 300, 100)])
def test_the_latest_of_tied_steps_in_any_order(order):
  value = {100: 0.5, 200: 0.5, 300: 0.4}
  assert select({step: {'algebra': value[step]} for step in order}) == {'algebra': 200}


def test_one_checkpoint_may_be_the_expert_of_several_domains():
  assert select({10: {'a': 0.1, 'b': 0.2}, 20: {'a': 0.3, 'b': 0.4}}) == {'a': 20, 'b': 20}


@pytest.mark.parametrize(
  ('scores', 'message'),
  [
    ({}, 'no checkpoint'),
    ({10: {}}, 'no domain'),
    ({10: {'a': 0.1}, 20: {'b': 0.1}}, 'step 20'),
    ({10: {'a': 0.1, 'b': 0.1}, 20: {'a': 0.1}}, 'step 20'),
    ({10: {'a': 0.1}, 20: {'a': math.nan}}, 'step 20 on a'),
  ],
)
def test_scores_are_checked(scores, message):
  with pytest.raises(ValueError, match=message):
    select(scores)
