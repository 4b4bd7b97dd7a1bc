"""Weights rounded to int8 for decoding, where reading them is what takes the time.

Every matrix of the layers keeps an int8 value for each weight and a scale for each output channel; norms, biases, the
embedding and the head stay as they are. The error is measured in docs/performance.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from vibethinker_jax.model.mesh import is_param
from vibethinker_jax.model.qwen2 import Qwen2


@functools.partial(jax.tree_util.register_dataclass, data_fields=['values', 'scale'], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Int8:
  """Takes the place of a weight's array: `param[...].astype(dtype)` gives the weight back, to within half a step."""

  values: jax.Array  # int8
  scale: jax.Array  # float32, of length 1 along the axes that are summed over

  @property
  def ndim(self) -> int:
    """Axes, as of the array it stands for."""
    return self.values.ndim

  def __getitem__(self, everything) -> 'Int8':
    assert everything is Ellipsis
    return self

  def astype(self, dtype) -> jax.Array:
    """The widened weight."""
    return self.values.astype(dtype) * self.scale.astype(dtype)


@jax.jit
def quantize(model: Qwen2) -> Qwen2:
  """The model with the matrices of its layers in int8, and the rest in the dtype that the layers compute in.

  It decodes (Engine, Qwen2.extend); it is not trained.
  """
  out = jax.tree.map(lambda x: x.astype(model.config.dtype), model)
  out.layers = jax.tree.map(_rounded, model.layers, out.layers, is_leaf=is_param)
  return out


def _rounded(param: nnx.Param, cast: nnx.Param) -> nnx.Param:
  """A matrix in int8; what is none as it was `cast`."""
  if 'D' not in param.axes or len(param.axes) == 1:
    return cast
  stacked = param[...].ndim - len(param.axes)
  # 'DF' sums over D, 'FD' and 'KGHD' over all but D
  summed = [i + stacked for i, a in enumerate(param.axes) if (a == 'D') == (param.axes[0] == 'D')]
  wide = param[...].astype(jnp.float32)
  scale = jnp.maximum(jnp.abs(wide).max(summed, keepdims=True), 1e-30) / 127
  return param.replace(Int8(jnp.round(wide / scale).astype(jnp.int8), scale))
