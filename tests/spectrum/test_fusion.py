import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.spectrum.fusion import check_weights, fuse


def test_the_weighted_mean_of_every_parameter(make_model):
  models = [make_model(seed=s, tied=False) for s in range(3)]
  weights = [0.5, 0.2, 0.3]
  fused = fuse(models, weights)
  for f, *parts in zip(jax.tree.leaves(fused), *map(jax.tree.leaves, models), strict=True):
    np.testing.assert_allclose(f, sum(w * np.asarray(x, np.float64) for w, x in zip(weights, parts)), atol=1e-6)
  again = fuse(models[:1] * 2, [0.25, 0.75])
  for f, x in zip(jax.tree.leaves(again), jax.tree.leaves(models[0])):
    np.testing.assert_allclose(f, x, atol=1e-7)


def test_sums_in_float32_and_keeps_the_first_dtype():
  small, wide = jnp.full(4, 2**-9, 'bfloat16'), jnp.ones(4, 'bfloat16')
  # 0.5 * 2**-9 + 0.5 + ... : summed in bfloat16 each small part would be lost
  fused = fuse([wide, *[small] * 4], [0.5, *[0.125] * 4])
  assert fused.dtype == jnp.bfloat16
  np.testing.assert_array_equal(fused, np.full(4, 0.5 + 2**-10).astype(jnp.bfloat16))
  assert fuse([jnp.ones(2), small[:2]], [0.5, 0.5]).dtype == jnp.float32


@pytest.mark.parametrize(
  'weights, message',
  [
    ([0.5, 0.6], 'sum to 1.1, expected 1'),
    ([1.0], '1 weights for 2 models'),
    ([1.5, -0.5], '0 or more'),
    ([float('nan'), 1.0], 'finite'),
  ],
)
def test_weights_are_checked(weights, message):
  with pytest.raises(ValueError, match=message):
    check_weights(weights, 2)


def test_shapes_are_checked(make_model):
  with pytest.raises(ValueError, match='shapes'):
    fuse([make_model(), make_model(F=44)], [0.5, 0.5])
