"""Keys and values in pages of a pool: memory is proportional to the live tokens, not to rows x the longest of them.

A page holds `size` consecutive positions of one row. The page table says which page of the pool holds which positions
of a row; the host keeps it (allocators.py). On a mesh every device along `data` has its own pool for its own rows. The
last page of a pool is the one that free rows write to; nobody reads it. Pages are for decoding only: prompts are
prefilled into a KVCache and then copied.

R rows, N pages of all pools, W the most pages of a row; the other letters are those of qwen2.py.
"""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vibethinker_jax.engine.cache import ROWS, KVCache
from vibethinker_jax.model.attention import attend_paged
from vibethinker_jax.model.mesh import lay_out
from vibethinker_jax.model.qwen2 import Config

POOL = PartitionSpec(None, 'data')  # the pages, over the devices of decode_mesh


@dataclasses.dataclass(frozen=True)
class PagedLayout:
  """Size of a paged cache: `Engine(cache=PagedLayout(...))`."""

  pages: int  # of all pools together
  size: int = 128  # positions of a page
  kernel: str = 'xla'  # of attention.attend_paged: 'xla', 'tpu' or 'gpu'

  def shape(self, c: Config, pools: int) -> tuple[int, ...]:
    """Shape [K,N,size,H] of one layer's keys or values: the pools of all devices, one after the other along N."""
    return c.K, self.pages // pools * pools + pools, self.size, c.H

  def empty(self, c: Config, dtype, mesh: Mesh | None) -> tuple['PagedKVCache', ...]:
    """The pool of every layer, divided over the data axis of `mesh`."""
    pools = 1 if mesh is None else mesh.shape['data']
    zeros = lambda: lay_out(jnp.zeros(self.shape(c, pools), dtype), mesh, POOL)
    return tuple(PagedKVCache(zeros(), zeros(), None, self.kernel, mesh) for _ in range(c.L))


@functools.partial(jax.tree_util.register_dataclass, data_fields=['k', 'v', 'table'], meta_fields=['kernel', 'mesh'])
@dataclasses.dataclass(frozen=True)
class PagedKVCache:
  """One layer's pool."""

  k: jax.Array  # [K,N,size,H], the layout of both Pallas kernels
  v: jax.Array  # [K,N,size,H]
  table: jax.Array | None  # int32 [R,W], page numbers within a device's pool; set only inside decode.py
  kernel: str
  mesh: Mesh | None

  def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, Self]:
    """Write one token for each row, then attend to all tokens of the row up to it.

    Args:
      q: queries [R,K,G,1,H].
      k: keys [R,K,H,1].
      v: values [R,K,1,H].
      positions: int32 [R,1], the position of the token in its row.

    Returns:
      The attention's output [R,K,G,1,H], and the layer with the token in it.
    """
    local = functools.partial(_attend, kernel=self.kernel)
    ins, outs = (POOL, POOL, *[ROWS] * 5), (ROWS, POOL, POOL)
    out, new_k, new_v = self._by_device(local, ins, outs)(self.k, self.v, self.table, q, k, v, positions)
    return out, dataclasses.replace(self, k=new_k, v=new_v)

  def inserted(self, other: KVCache, source: jax.Array, dest: jax.Array) -> Self:
    """The layer after row source[n] of `other` was copied to row dest[n]; a `dest` past the last row copies nothing."""
    whole = PartitionSpec()
    ins = (POOL, POOL, ROWS, whole, whole, whole, whole)
    k, v = self._by_device(_inserted, ins, (POOL, POOL))(self.k, self.v, self.table, other.k, other.v, source, dest)
    return dataclasses.replace(self, k=k, v=v)

  def bound(self, table: jax.Array | None) -> Self:
    """The layer with this page table, as `attend` and `inserted` need it; None takes the table off again."""
    return dataclasses.replace(self, table=table)

  def _by_device(self, local, ins: tuple, outs):
    """`local` on every device's own pool; its argument `first` gives the number of the device's first row."""
    if self.mesh is None:
      return functools.partial(local, first=lambda R: 0)
    first = lambda R: R * jax.lax.axis_index('data')
    return jax.shard_map(
      functools.partial(local, first=first), mesh=self.mesh, in_specs=ins, out_specs=outs, check_vma=False
    )


def _attend(pool_k, pool_v, table, q, k, v, positions, kernel: str, first):
  """`PagedKVCache.attend` on one device's pool and rows."""
  del first
  at, size = positions[:, 0], pool_k.shape[2]
  page, offset = jnp.take_along_axis(table, at[:, None] // size, axis=1)[:, 0], at % size
  put = lambda pool, new: pool.at[:, page, offset].set(jnp.moveaxis(new, 0, 1).astype(pool.dtype))
  pool_k, pool_v = put(pool_k, k[..., 0]), put(pool_v, v[:, :, 0])
  out = attend_paged(q[:, :, :, 0], pool_k, pool_v, at + 1, table, kernel)
  return out[:, :, :, None], pool_k, pool_v


def _inserted(pool_k, pool_v, table, k, v, source, dest, first):
  """`PagedKVCache.inserted` on one device's pool and rows; prompts for the rows of other devices are dropped."""
  (R, W), (_, N, size, _) = table.shape, pool_k.shape
  mine = dest - first(R)
  mine = jnp.where((mine >= 0) & (mine < R), mine, R)
  pages = -(-v.shape[2] // size)
  k, v = (jnp.pad(x, [(0, 0), (0, 0), (0, pages * size - v.shape[2]), (0, 0)]) for x in (jnp.swapaxes(k, 2, 3), v))
  w = min(pages, W)  # a padded prompt may be longer than the row's pages; the prompt itself is not
  where = table.at[mine, :w].get(mode='fill', fill_value=N)

  def put(pool, x):
    x = x[source].reshape(len(source), x.shape[1], pages, size, -1)[:, :, :w]
    return pool.at[:, where].set(jnp.moveaxis(x, 1, 0).astype(pool.dtype), mode='drop')

  return put(pool_k, k), put(pool_v, v)
