"""Expert Model Fusion: the weighted mean of models (report 3.3: M = sum_i w_i M_i, w_i = 1/N), and other merges.

Models are pytrees of equal structure. Merges compute in float32, and the result has the dtypes of the first model. What
a method defines for each tensor is done for each leaf; stacked layers are one leaf.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def check_weights(weights: Sequence[float], models: int) -> None:
  """Raises ValueError unless there is one weight for each model, none is negative, and they sum to 1."""
  if len(weights) != models:
    raise ValueError(f'{len(weights)} weights for {models} models, expected one each')
  if any(not math.isfinite(w) or w < 0 for w in weights):
    raise ValueError(f'weights {list(weights)}: expected finite numbers of 0 or more')
  if abs(sum(weights) - 1) > 1e-6:
    raise ValueError(f'weights {list(weights)} sum to {sum(weights):g}, expected 1')


def fuse(models: Sequence, weights: Sequence[float]):
  """The weighted mean of models, summed in float32 and cast to the dtypes of the first model.

  Tied embeddings are one leaf and stay tied. A model that is given twice counts twice.

  Args:
    models: pytrees of equal structure.
    weights: one for each model; they sum to 1.

  Raises:
    ValueError: `check_weights` fails, or the models have different shapes.
  """
  check_weights(weights, len(models))
  shapes = [jax.tree.map(lambda x: x.shape, model) for model in models]
  if any(jax.tree.leaves(s) != jax.tree.leaves(shapes[0]) for s in shapes[1:]):
    raise ValueError('the models differ in their shapes, expected equal ones')

  def mean(first, *rest):
    total = weights[0] * first.astype(jnp.float32)
    for weight, x in zip(weights[1:], rest):
      total = total + weight * x.astype(jnp.float32)
    # wait for each tensor: so few programs are dispatched at a time, and few float32 sums are in memory
    return jax.block_until_ready(total.astype(first.dtype))

  return jax.tree.map(mean, models[0], *models[1:])


def slerp(a, b, t: float):
  """Spherical interpolation of each tensor (Shoemake, Animating rotation with quaternion curves, 1985).

  It moves along the arc between the directions of two tensors. If both have the same norm the result has it too; a mean
  would be shorter. Nearly parallel tensors are interpolated linearly.

  Args:
    a: the model at t = 0.
    b: the model at t = 1, a pytree of equal structure.
    t: in [0, 1].
  """

  def arc(x, y):
    u, v = x.astype(jnp.float32), y.astype(jnp.float32)
    norms = jnp.sqrt((u * u).sum() * (v * v).sum())
    cosine = jnp.clip((u * v).sum() / jnp.where(norms > 0, norms, 1.0), -1.0, 1.0)
    angle = jnp.arccos(cosine)
    bent = (norms > 0) & (jnp.abs(cosine) < 1 - 1e-6)
    sine = jnp.where(bent, jnp.sin(angle), 1.0)
    first = jnp.where(bent, jnp.sin((1 - t) * angle) / sine, 1 - t)
    second = jnp.where(bent, jnp.sin(t * angle) / sine, t)
    return (first * u + second * v).astype(x.dtype)

  return jax.tree.map(arc, a, b)


def ties(base, models: Sequence, weights: Sequence[float], density: float):
  """TIES merging (Yadav et al., 2023, arXiv 2306.01708).

  Of each model's change from the base, only the largest entries of a tensor are kept. The sign of an entry is that of
  the weighted sum of the changes. Its value is the weighted mean of the changes that have this sign.

  Args:
    base: the model from which the others were trained.
    models: pytrees of equal structure.
    weights: one for each model; they sum to 1.
    density: share of a tensor's entries that is kept, 0 < density <= 1.

  Raises:
    ValueError: weights or density out of range.
  """
  check_weights(weights, len(models))
  if not 0 < density <= 1:
    raise ValueError(f'density {density}, expected more than 0 and at most 1')

  def trimmed(change):
    kept = max(1, round(density * change.size))
    least = jax.lax.top_k(_whole(jnp.abs(change)).ravel(), kept)[0][-1]
    return jnp.where(jnp.abs(change) >= least, change, 0.0)

  def merge(origin, *parts):
    changes = jnp.stack([trimmed(x.astype(jnp.float32) - origin.astype(jnp.float32)) for x in parts])
    w = jnp.asarray(weights, jnp.float32).reshape(-1, *[1] * origin.ndim)
    sign = jnp.sign((w * changes).sum(0))
    agree = w * ((jnp.sign(changes) == sign) & (changes != 0))
    mean = (agree * changes).sum(0) / jnp.maximum(agree.sum(0), 1e-12)
    return (origin.astype(jnp.float32) + mean).astype(parts[0].dtype)

  return jax.tree.map(merge, base, *models)


def _whole(x: jax.Array) -> jax.Array:
  """`x` replicated on the mesh that is set, so that it can be flattened; without a mesh, as it is."""
  return x if jax.sharding.get_abstract_mesh().empty else jax.reshard(x, jax.sharding.PartitionSpec())


def dare(base, models: Sequence, weights: Sequence[float], drop: float, key: jax.Array):
  """DARE merging (Yu et al., 2024, arXiv 2311.03099).

  Each entry of a model's change from the base is set to 0 with probability `drop`, or else divided by 1 - drop. Then
  the weighted mean is taken. Its expectation is the mean without drops.

  Args:
    base: the model from which the others were trained.
    models: pytrees of equal structure.
    weights: one for each model; they sum to 1.
    drop: probability, 0 <= drop < 1.
    key: of the random numbers.

  Raises:
    ValueError: weights or drop out of range.
  """
  check_weights(weights, len(models))
  if not 0 <= drop < 1:
    raise ValueError(f'drop {drop}, expected 0 or more and less than 1')
  leaves, structure = jax.tree.flatten(base)
  keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))

  def merge(key, origin, *parts):
    total = origin.astype(jnp.float32)
    for one, weight, x in zip(jax.random.split(key, len(parts)), weights, parts):
      change = x.astype(jnp.float32) - origin.astype(jnp.float32)
      total = total + weight * jnp.where(jax.random.bernoulli(one, 1 - drop, x.shape), change / (1 - drop), 0.0)
    return total.astype(parts[0].dtype)

  return jax.tree.map(merge, keys, base, *models)


def ema_weights(n: int, decay: float) -> list[float]:
  """The n weights with which `fuse` gives the exponential moving average of n models, started with the first.

  decay: of the average, in [0, 1].
  """
  return [decay ** (n - 1)] + [(1 - decay) * decay ** (n - 1 - i) for i in range(1, n)]


def simplex_grid(n: int, parts: int) -> list[tuple[float, ...]]:
  """All tuples of n weights that are multiples of 1/parts and sum to 1: C(parts + n - 1, n - 1) tuples."""
  borders = itertools.combinations(range(parts + n - 1), n - 1)
  cuts = [(-1, *cut, parts + n - 1) for cut in borders]
  return [tuple((right - left - 1) / parts for left, right in itertools.pairwise(cut)) for cut in cuts]
