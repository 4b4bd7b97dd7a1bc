"""Contiguous caches of keys and values, layer by layer: position s of a row is stored at index s.

A new sample overwrites its row from position 0 on; attention does not see what is stored above the current position.
There are two kinds with the same methods (`empty`, `attend`, `resized`, `taken`, `inserted`, `bound`): KVCache has the
model's dtype; Int8KVCache takes half the bytes of bfloat16 and is less exact (docs/performance.md). B rows, S
positions; the other letters are those of qwen2.py.
"""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from vibethinker_jax.model.attention import attend, attend_scaled, cached_mask
from vibethinker_jax.model.qwen2 import Config

ROWS = PartitionSpec('data')  # the rows of the decode batch, over the devices of decode_mesh


@functools.partial(jax.tree_util.register_dataclass, data_fields=['k', 'v'], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class KVCache:
  """One layer's keys and values in the model's dtype."""

  k: jax.Array  # [B,K,H,S], transposed, so that both products of attention read contiguous memory
  v: jax.Array  # [B,K,S,H]

  @classmethod
  def empty(cls, c: Config, B: int, S: int, dtype) -> tuple[Self, ...]:
    """One cache of B rows and S positions for every layer."""
    return tuple(cls(jnp.zeros((B, c.K, c.H, S), dtype), jnp.zeros((B, c.K, S, c.H), dtype)) for _ in range(c.L))

  @property
  def size(self) -> int:
    """Positions of a row."""
    return self.k.shape[3]

  def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, Self]:
    """Write T tokens for each row, then attend to all tokens of the row up to each of them.

    Args:
      q: queries [B,K,G,T,H].
      k: keys [B,K,H,T].
      v: values [B,K,T,H].
      positions: int32 [B,T], the positions of the tokens, consecutive in each row.

    Returns:
      The attention's output [B,K,G,T,H], and the layer with the tokens in it.
    """
    start = positions[:, 0]
    new = type(self)(write(self.k, k, start, 3), write(self.v, v, start, 2))
    mask = cached_mask(positions, self.size)
    return attend(q, new.k.astype(q.dtype), new.v.astype(q.dtype), mask), new

  def resized(self, S: int) -> Self:
    """The layer with S positions a row: empty ones are added, or the last ones are dropped."""
    return type(self)(resize(self.k, S, 3), resize(self.v, S, 2))

  def taken(self, order: jax.Array) -> Self:
    """The layer whose row i is row order[i] of this one; an index past the last row gives an empty row."""
    return jax.tree.map(lambda x: jnp.take(x, order, axis=0, mode='fill', fill_value=0), self)

  def inserted(self, other: Self, source: jax.Array, dest: jax.Array) -> Self:
    """The layer after row source[n] of `other` was copied to row dest[n]; a `dest` past the last row copies nothing."""
    S = min(self.size, other.size)  # a padded prompt may be longer than the cache; the prompt itself is not
    copy = lambda mine, theirs: mine.at[dest, :, :, : theirs.shape[3]].set(theirs[source], mode='drop')
    k, v = copy(self.k, other.k[..., :S]), self.v.at[dest, :, :S].set(other.v[source, :, :S], mode='drop')
    return type(self)(k, v)

  def bound(self, table: None) -> Self:
    """The layer as it is: without pages there is no page table."""
    del table
    return self


@functools.partial(jax.tree_util.register_dataclass, data_fields=['k', 'v', 'k_scale', 'v_scale'], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Int8KVCache:
  """One layer's keys and values, rounded to int8, with a scale for every position and head."""

  k: jax.Array  # int8 [B,K,H,S]
  v: jax.Array  # int8 [B,K,S,H]
  k_scale: jax.Array  # float32 [B,K,1,S]
  v_scale: jax.Array  # float32 [B,K,S,1]

  @classmethod
  def empty(cls, c: Config, B: int, S: int, dtype) -> tuple[Self, ...]:
    """As KVCache.empty. `dtype`, in which attention computes, has no influence on how the values are kept."""
    del dtype
    part = lambda *shape, kind: jnp.zeros((B, c.K, *shape), kind)
    return tuple(
      cls(
        part(c.H, S, kind=jnp.int8),
        part(S, c.H, kind=jnp.int8),
        part(1, S, kind=jnp.float32),
        part(S, 1, kind=jnp.float32),
      )
      for _ in range(c.L)
    )

  @property
  def size(self) -> int:
    """Positions of a row."""
    return self.k.shape[3]

  def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, Self]:
    """As KVCache.attend, on rounded values. The new tokens are rounded too, as all later queries will see them."""
    start = positions[:, 0]
    (k, k_scale), (v, v_scale) = rounded(k, 2), rounded(v, 3)
    new = type(self)(
      write(self.k, k, start, 3),
      write(self.v, v, start, 2),
      write(self.k_scale, k_scale, start, 3),
      write(self.v_scale, v_scale, start, 2),
    )
    mask = cached_mask(positions, self.size)
    return attend_scaled(q, new.k, new.k_scale[:, :, 0], new.v, new.v_scale[..., 0], mask), new

  def resized(self, S: int) -> Self:
    """As KVCache.resized."""
    k, v = resize(self.k, S, 3), resize(self.v, S, 2)
    return type(self)(k, v, resize(self.k_scale, S, 3), resize(self.v_scale, S, 2))

  def taken(self, order: jax.Array) -> Self:
    """As KVCache.taken."""
    return jax.tree.map(lambda x: jnp.take(x, order, axis=0, mode='fill', fill_value=0), self)

  def inserted(self, other: Self, source: jax.Array, dest: jax.Array) -> Self:
    """As KVCache.inserted."""
    pairs = KVCache(self.k, self.v).inserted(KVCache(other.k, other.v), source, dest)
    scales = KVCache(self.k_scale, self.v_scale).inserted(KVCache(other.k_scale, other.v_scale), source, dest)
    return type(self)(pairs.k, pairs.v, scales.k, scales.v)

  def bound(self, table: None) -> Self:
    """As KVCache.bound."""
    del table
    return self


def rounded(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """int8 values and their float32 scales along `axis` (kept, of size 1): x = values * scale, within scale / 2."""
  wide = x.astype(jnp.float32)
  scale = jnp.maximum(jnp.abs(wide).max(axis, keepdims=True), 1e-30) / 127
  return jnp.round(wide / scale).astype(jnp.int8), scale


def write(table: jax.Array, new: jax.Array, start: jax.Array, axis: int) -> jax.Array:
  """The table after `new` was written to each row b from position start[b] on; positions are along `axis`."""
  at = lambda s: tuple(s if a == axis - 1 else 0 for a in range(table.ndim - 1))
  put = lambda c, n, s: jax.lax.dynamic_update_slice(c, n.astype(c.dtype), at(s))
  return jax.vmap(put)(table, new, start)


def resize(table: jax.Array, S: int, axis: int) -> jax.Array:
  """The table with S positions along `axis`."""
  if table.shape[axis] >= S:
    return jax.lax.slice_in_dim(table, 0, S, axis=axis)
  return jnp.pad(table, [(0, S - n if a == axis else 0) for a, n in enumerate(table.shape)])
