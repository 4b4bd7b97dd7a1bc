"""Expert Model Fusion: the weighted mean of models (report 3.3: M = sum_i w_i M_i, w_i = 1/N)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def check_weights(weights: Sequence[float], models: int) -> None:
  """Raises ValueError, in one line, unless there is one non-negative weight a model and they sum to 1."""
  if len(weights) != models:
    raise ValueError(f'{len(weights)} weights for {models} models, expected one each')
  if any(not math.isfinite(w) or w < 0 for w in weights):
    raise ValueError(f'weights {list(weights)}: expected finite numbers of 0 or more')
  if abs(sum(weights) - 1) > 1e-6:
    raise ValueError(f'weights {list(weights)} sum to {sum(weights):g}, expected 1')


def fuse(models: Sequence, weights: Sequence[float]):
  """Weighted mean of pytrees of equal structure: summed in float32, cast back to the first one's dtypes.

  Tied embeddings are one leaf and stay tied; a model given twice counts twice. Raises ValueError.
  """
  check_weights(weights, len(models))
  shapes = [jax.tree.map(lambda x: x.shape, model) for model in models]
  if any(jax.tree.leaves(s) != jax.tree.leaves(shapes[0]) for s in shapes[1:]):
    raise ValueError('the models differ in their shapes, expected equal ones')

  def mean(first, *rest):
    total = weights[0] * first.astype(jnp.float32)
    for weight, x in zip(weights[1:], rest):
      total = total + weight * x.astype(jnp.float32)
    return total.astype(first.dtype)

  return jax.tree.map(mean, models[0], *models[1:])
