import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.model.mesh import MeshShape, make_mesh, place
from vibethinker_jax.spectrum.fusion import check_weights, dare, ema_weights, fuse, simplex_grid, slerp, ties


def test_weighted_mean_of_every_parameter(make_model):
  models = [make_model(seed=s, tied=False) for s in range(3)]
  weights = [0.5, 0.2, 0.3]
  fused = fuse(models, weights)
  for f, *parts in zip(jax.tree.leaves(fused), *map(jax.tree.leaves, models), strict=True):
    np.testing.assert_allclose(f, sum(w * np.asarray(x, np.float64) for w, x in zip(weights, parts)), atol=1e-6)
  again = fuse(models[:1] * 2, [0.25, 0.75])
  for f, x in zip(jax.tree.leaves(again), jax.tree.leaves(models[0])):
    np.testing.assert_allclose(f, x, atol=1e-7)


def test_sum_is_float32_and_result_has_the_first_dtype():
  small, wide = jnp.full(4, 2**-9, 'bfloat16'), jnp.ones(4, 'bfloat16')
  # a sum in bfloat16 would lose each of the small terms
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


def trees(n, seed=0):
  rng = np.random.default_rng(seed)
  return [{'a': jnp.array(rng.normal(size=(3, 4)), jnp.float32), 'b': jnp.array(rng.normal(size=5))} for _ in range(n)]


def test_slerp_keeps_the_norm_and_its_end_points():
  a, b = trees(2)
  unit = lambda tree: jax.tree.map(lambda x: x / jnp.linalg.norm(x), tree)
  a, b = unit(a), unit(b)
  for t, end in ((0.0, a), (1.0, b)):
    for x, y in zip(jax.tree.leaves(slerp(a, b, t)), jax.tree.leaves(end)):
      np.testing.assert_allclose(x, y, atol=1e-6)
  for x, y, z in zip(*map(jax.tree.leaves, (slerp(a, b, 0.3), a, b))):
    assert float(jnp.linalg.norm(x)) == pytest.approx(1, abs=1e-5)
    angle = lambda u, v: float(jnp.arccos((u * v).sum()))
    assert angle(x, y) == pytest.approx(0.3 * angle(y, z), abs=1e-4)
  parallel = slerp(a, jax.tree.map(lambda x: 3 * x, a), 0.5)
  np.testing.assert_allclose(parallel['a'], 2 * a['a'], rtol=1e-5)


def test_ties_by_hand():
  base = {'x': jnp.array([1.0, 1, 1, 1])}
  first, second = {'x': jnp.array([1.0, 5, 3, 1.5])}, {'x': jnp.array([1.0, 7, 0, 0.9])}
  # the changes are [0, 4, 2, .5] and [0, 6, -1, -.1]; half of each is kept: [0, 4, 2, 0] and [0, 6, -1, 0]
  got = ties(base, [first, second], [0.5, 0.5], density=0.5)
  np.testing.assert_allclose(got['x'], [1, 6, 3, 1], rtol=1e-6)
  # with these weights the sum 0.1 * 2 - 0.9 * 1 is negative, so the -1 is taken
  np.testing.assert_allclose(ties(base, [first, second], [0.1, 0.9], 0.5)['x'], [1, 6.8, 0, 1], rtol=1e-6)


def test_ties_equals_the_mean_if_nothing_is_trimmed_and_signs_agree():
  base = jax.tree.map(jnp.zeros_like, trees(1)[0])
  models = [jax.tree.map(jnp.abs, tree) for tree in trees(3)]
  for x, y in zip(*map(jax.tree.leaves, (ties(base, models, [0.2, 0.3, 0.5], 1.0), fuse(models, [0.2, 0.3, 0.5])))):
    np.testing.assert_allclose(x, y, rtol=1e-5)


def test_dare_equals_the_mean_in_expectation_and_exactly_without_drops():
  base, *models = trees(3)
  weights = [0.4, 0.6]
  mean = fuse(models, weights)
  np.testing.assert_allclose(dare(base, models, weights, 0.0, jax.random.key(0))['a'], mean['a'], atol=1e-6)
  draws = jax.vmap(lambda key: dare(base, models, weights, 0.5, key)['a'])(jax.random.split(jax.random.key(1), 4000))
  assert bool((draws.std(0) > 0).all())
  np.testing.assert_allclose(draws.mean(0), mean['a'], atol=5 * float(draws.std(0).max()) / 4000**0.5)


def test_merges_check_density_drop_and_weights():
  base, *models = trees(3)
  with pytest.raises(ValueError, match='density 0'):
    ties(base, models, [0.5, 0.5], 0)
  with pytest.raises(ValueError, match='drop 1'):
    dare(base, models, [0.5, 0.5], 1, jax.random.key(0))
  with pytest.raises(ValueError, match='sum to 1.5'):
    ties(base, models, [0.5, 1.0], 0.5)


def test_ema_weights_equal_the_recursion():
  values, decay = [3.0, -1.0, 2.0, 5.0], 0.6
  average = values[0]
  for value in values[1:]:
    average = decay * average + (1 - decay) * value
  weights = ema_weights(4, decay)
  assert sum(weights) == pytest.approx(1) and np.dot(weights, values) == pytest.approx(average)
  assert ema_weights(1, decay) == [1]


def test_simplex_grid_has_every_point_once():
  grid = simplex_grid(4, 4)
  assert len(set(grid)) == len(grid) == 35
  assert all(sum(w) == 1 and min(w) >= 0 for w in grid)
  assert {(1, 0, 0, 0), (0.25, 0.25, 0.25, 0.25), (0, 0.5, 0.5, 0)} <= set(grid)


def test_merges_on_a_mesh(make_model):
  """Merging models that are sharded over fsdp and tensor gives the same as merging whole ones."""
  a, b, c = (make_model(seed=s) for s in range(3))
  even, key = [0.5, 0.5], jax.random.key(0)
  merge = jax.jit(lambda a, b, c: (slerp(a, b, 0.3), ties(c, [a, b], even, 0.4), dare(c, [a, b], even, 0.5, key)))
  expected = merge(a, b, c)
  mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
  with jax.set_mesh(mesh):
    merged = merge(*(place(m, mesh) for m in (a, b, c)))
  for x, y in zip(jax.tree.leaves(merged), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-6)
