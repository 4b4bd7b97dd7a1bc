"""MGPO against numbers worked out by hand, and the equalities it promises."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.train import mgpo


def test_weight_at_the_derived_values():
  """METHOD: w at p = 3/8, 1/4, 1/8 for lambda 1, 2, 4."""
  derived = {1: (0.969, 0.877, 0.729), 2: (0.939, 0.770, 0.531), 4: (0.881, 0.593, 0.282)}
  for lam, expected in derived.items():
    got = mgpo.maxent_weight(jnp.array([3 / 8, 1 / 4, 1 / 8]), lam)
    np.testing.assert_allclose(got, expected, atol=6e-4)


def test_weight_peaks_at_p0_and_is_finite_at_the_ends():
  p = jnp.linspace(0, 1, 101)
  for p0 in (0.5, 0.3):
    w = mgpo.maxent_weight(p, 3.0, p0)
    assert float(p[w.argmax()]) == pytest.approx(p0)
    assert bool(jnp.isfinite(w).all()) and float(w.max()) <= 1 + 1e-6
  assert float(mgpo.maxent_weight(jnp.array(0.0), 2.0)) == pytest.approx(math.exp(-2 * math.log(2)), rel=1e-6)
  assert float(mgpo.maxent_weight(jnp.array(1.0), 2.0)) == pytest.approx(0.25, rel=1e-6)


def test_group_advantages_by_hand():
  rewards = jnp.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
  got = mgpo.advantages(rewards)
  # p = 1/4: mean .25, std sqrt(3)/4; p = 1/2: mean .5, std .5
  a, b = 0.75 / (math.sqrt(3) / 4), -0.25 / (math.sqrt(3) / 4)
  np.testing.assert_allclose(got, [[a, b, b, b], [1, 1, -1, -1], [0, 0, 0, 0]], atol=1e-4)


def test_other_weights_of_a_question():
  p = jnp.array([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
  np.testing.assert_allclose(mgpo.variance_weight(p), [0, 0.4375, 0.75, 1, 0.75, 0], rtol=1e-6)
  np.testing.assert_allclose(mgpo.variance_weight(p), 4 * np.array(p) * (1 - np.array(p)), rtol=1e-6)
  np.testing.assert_array_equal(mgpo.band_weight(p, 0.25, 0.75), [0, 0, 1, 1, 1, 0])


def test_rescaled_weights_keep_the_total_advantage_and_the_balance():
  rng = np.random.default_rng(0)
  rewards = (rng.random((9, 8)) < rng.random((9, 1))).astype(np.float32)
  rewards[0], rewards[1] = 0, 1  # groups without a signal have no part in the mean
  plain = mgpo.advantages(rewards)
  w = mgpo.maxent_weight(rewards.mean(1), 4.0)
  scaled = mgpo.rescaled(w, plain)
  np.testing.assert_allclose(jnp.abs(scaled[:, None] * plain).sum(), jnp.abs(plain).sum(), rtol=1e-5)
  np.testing.assert_allclose(scaled / scaled[2], w / w[2], rtol=1e-5)
  np.testing.assert_array_equal(mgpo.rescaled(jnp.zeros(9), plain), np.zeros(9))


def test_without_std_is_dr_grpo():
  rewards = jnp.array([[1.0, 0, 0, 0]])
  np.testing.assert_allclose(mgpo.advantages(rewards, std_normalize=False), [[0.75, -0.25, -0.25, -0.25]], rtol=1e-6)


def loss_of(logps, old, adv, mask, aggregate, low=0.2, high=0.28):
  total, count = mgpo.policy_loss(*map(jnp.array, (logps, old, adv, mask)), low, high, aggregate)
  return float(total), float(count)


def test_policy_loss_by_hand():
  logps = np.log([[0.5, 0.2], [0.3, 0.9]])
  old = np.log([[0.25, 0.25], [0.3, 0.3]])
  mask = np.array([[1.0, 1], [1, 0]])
  adv = np.array([2.0, -1])
  # row 0: ratios 2 (clipped to 1.28) and 0.8 with A = 2; row 1: ratio 1 with A = -1
  tokens = [-1.28 * 2, -0.8 * 2, 1.0]
  total, count = loss_of(logps, old, adv, mask, 'token')
  assert (total, count) == (pytest.approx(sum(tokens), rel=1e-5), 3)
  total, count = loss_of(logps, old, adv, mask, 'sequence')
  assert (total, count) == (pytest.approx((tokens[0] + tokens[1]) / 2 + tokens[2], rel=1e-5), 2)


def test_clipping_is_pessimistic_on_both_sides():
  """A positive advantage gains nothing above 1 + high, a negative one nothing below 1 - low."""
  one = lambda ratio, adv: loss_of(np.log([[ratio]]), np.zeros((1, 1)), np.array([adv]), np.ones((1, 1)), 'token')[0]
  assert one(3.0, 1.0) == pytest.approx(-1.28)
  assert one(0.1, -1.0) == pytest.approx(0.8)
  assert one(0.1, 1.0) == pytest.approx(-0.1)
  assert one(3.0, -1.0) == pytest.approx(3.0)


def test_gradient_at_ratio_one_is_the_policy_gradient():
  rng = np.random.default_rng(0)
  logps = jnp.array(rng.normal(size=(3, 5)), jnp.float32)
  adv = jnp.array([1.0, -2.0, 0.5])
  mask = jnp.array([[1.0, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
  got = jax.grad(lambda x: mgpo.policy_loss(x, logps, adv, mask, 0.2, 0.2, 'sequence')[0])(logps)
  np.testing.assert_allclose(got, -adv[:, None] * mask / mask.sum(1, keepdims=True), atol=1e-6)


def test_what_stands_outside_the_mask_does_not_matter():
  args = [np.zeros((1, 3)), np.zeros((1, 3)), np.ones(1), np.array([[0.0, 1, 0]])]
  other = [np.array([[50.0, 0, -50]]), np.array([[-50.0, 0, 50]]), *args[2:]]
  assert loss_of(*args, 'token') == loss_of(*other, 'token')
  gradient = jax.grad(lambda x: mgpo.policy_loss(x, *map(jnp.array, other[1:]), 0.2, 0.2, 'token')[0])(
    jnp.array(other[0])
  )
  assert np.isfinite(gradient).all() and float(gradient[0, 0]) == 0


def test_micro_batches_add_up():
  rng = np.random.default_rng(1)
  logps, old = rng.normal(size=(2, 6, 4))
  adv, mask = rng.normal(size=6), (rng.random((6, 4)) < 0.7).astype(float)
  for aggregate in ('sequence', 'token'):
    whole = loss_of(logps, old, adv, mask, aggregate)
    parts = [loss_of(logps[i : i + 2], old[i : i + 2], adv[i : i + 2], mask[i : i + 2], aggregate) for i in (0, 2, 4)]
    np.testing.assert_allclose(whole, np.sum(parts, 0), rtol=1e-5)


def test_unknown_aggregate():
  with pytest.raises(ValueError, match="'sequence' or 'token'"):
    loss_of(np.zeros((1, 1)), np.zeros((1, 1)), np.ones(1), np.ones((1, 1)), 'mean')


def test_k3_is_unbiased_and_never_negative():
  p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
  k3 = mgpo.kl_k3(jnp.log(p), jnp.log(q))
  assert float(k3.min()) >= 0
  assert float((p * k3).sum()) == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-5)


def test_overlong_penalty_in_tokens():
  got = mgpo.overlong_penalty(jnp.array([10, 80, 90, 100, 120]), limit=100, buffer=20)
  np.testing.assert_allclose(got, [0, 0, -0.5, -1, -1], atol=1e-6)
