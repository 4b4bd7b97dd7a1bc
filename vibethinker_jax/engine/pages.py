"""Keys and values in pages of one pool: memory follows the tokens that live, not rows x the longest of them.

A page holds `size` positions of one row; the table says which page of the pool holds which of a row's positions, and
the host keeps it (PageAllocator). On a mesh every device along `data` has a pool of its own for its rows. The last page
of a pool is written by rows that are free and read by nobody. Decoding only: prompts are prefilled into KVCache and
copied over.

R rows, N pages of a pool, W pages a row at most; other letters: qwen2.py.
"""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vibethinker_jax.engine.cache import KVCache
from vibethinker_jax.model.attention import attend_paged
from vibethinker_jax.model.qwen2 import Config

POOL, ROWS = PartitionSpec(None, 'data'), PartitionSpec('data')


@dataclasses.dataclass(frozen=True)
class PagedLayout:
  """How much is kept, for `Engine(cache=PagedLayout(...))`."""

  pages: int  # of all pools together
  size: int = 128  # positions of a page
  kernel: str = 'xla'  # which attend_paged: 'xla', 'tpu' or 'gpu'

  def shape(self, c: Config, pools: int) -> tuple[int, ...]:
    """Of one layer's keys or values [K,N,size,H], the pools of all devices one behind the other."""
    return c.K, self.pages // pools * pools + pools, self.size, c.H

  def empty(self, c: Config, dtype, mesh: Mesh | None) -> tuple['PagedKVCache', ...]:
    """Every layer's pool, all pages free."""
    pools = 1 if mesh is None else mesh.shape['data']
    put = lambda x: x if mesh is None else jax.device_put(x, NamedSharding(mesh, POOL))
    zeros = lambda: put(jnp.zeros(self.shape(c, pools), dtype))
    return tuple(PagedKVCache(zeros(), zeros(), None, self.kernel, mesh) for _ in range(c.L))


@functools.partial(jax.tree_util.register_dataclass, data_fields=['k', 'v', 'table'], meta_fields=['kernel', 'mesh'])
@dataclasses.dataclass(frozen=True)
class PagedKVCache:
  """One layer's pool."""

  k: jax.Array  # [K,N,size,H], as both Pallas kernels want it
  v: jax.Array  # [K,N,size,H]
  table: jax.Array | None  # int32 [R,W], pages counted within a device's pool; only inside decode's functions
  kernel: str
  mesh: Mesh | None

  def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, Self]:
    """Put one token a row, k [R,K,H,1] and v [R,K,1,H], in its position `positions` [R,1], then attend to the row so
    far.

    q [R,K,G,1,H] -> ([R,K,G,1,H], the layer with the new in it).
    """
    local = functools.partial(_attend, kernel=self.kernel)
    ins, outs = (POOL, POOL, *[ROWS] * 5), (ROWS, POOL, POOL)
    out, new_k, new_v = self._by_device(local, ins, outs)(self.k, self.v, self.table, q, k, v, positions)
    return out, dataclasses.replace(self, k=new_k, v=new_v)

  def inserted(self, other: KVCache, source: jax.Array, dest: jax.Array) -> Self:
    """Row source[n] of `other` copied to the pages of row dest[n]; a `dest` past the last row goes nowhere."""
    whole = PartitionSpec()
    ins = (POOL, POOL, ROWS, whole, whole, whole, whole)
    k, v = self._by_device(_inserted, ins, (POOL, POOL))(self.k, self.v, self.table, other.k, other.v, source, dest)
    return dataclasses.replace(self, k=k, v=v)

  def _by_device(self, local, ins: tuple, outs):
    if self.mesh is None:
      return functools.partial(local, first=lambda R: 0)
    first = lambda R: R * jax.lax.axis_index('data')
    return jax.shard_map(
      functools.partial(local, first=first), mesh=self.mesh, in_specs=ins, out_specs=outs, check_vma=False
    )


def _attend(pool_k, pool_v, table, q, k, v, positions, kernel: str, first):
  del first
  at, size = positions[:, 0], pool_k.shape[2]
  page, slot = jnp.take_along_axis(table, at[:, None] // size, axis=1)[:, 0], at % size
  put = lambda pool, new: pool.at[:, page, slot].set(jnp.moveaxis(new, 0, 1).astype(pool.dtype))
  pool_k, pool_v = put(pool_k, k[..., 0]), put(pool_v, v[:, :, 0])
  out = attend_paged(q[:, :, :, 0], pool_k, pool_v, at + 1, table, kernel)
  return out[:, :, :, None], pool_k, pool_v


def _inserted(pool_k, pool_v, table, k, v, source, dest, first):
  (R, W), (_, N, size, _) = table.shape, pool_k.shape
  mine = dest - first(R)
  mine = jnp.where((mine >= 0) & (mine < R), mine, R)
  pages = -(-v.shape[2] // size)
  k, v = (jnp.pad(x, [(0, 0), (0, 0), (0, pages * size - v.shape[2]), (0, 0)]) for x in (jnp.swapaxes(k, 2, 3), v))
  w = min(pages, W)  # a bucketed prompt may be longer than the rows' pages; the prompt itself is not
  where = table.at[mine, :w].get(mode='fill', fill_value=N)

  def put(pool, x):
    x = x[source].reshape(len(source), x.shape[1], pages, size, -1)[:, :, :w]
    return pool.at[:, where].set(jnp.moveaxis(x, 1, 0).astype(pool.dtype), mode='drop')

  return put(pool_k, k), put(pool_v, v)


class PageAllocator:
  """Which pages belong to which row. Rows of one device take from that device's pool."""

  def __init__(self, paging: PagedLayout, rows: int, pools: int):
    """Pages of `pools` equal pools for `rows` rows, spread over them in order."""
    self._size, self._rows_a_pool = paging.size, rows // pools
    self._trash = paging.pages // pools  # the page after the last
    self._free = [list(range(self._trash))[::-1] for _ in range(pools)]
    self._of: list[list[int]] = [[] for _ in range(rows)]

  def pool(self, row: int) -> int:
    """The pool a row takes from."""
    return row // self._rows_a_pool

  def spare(self, row: int) -> int:
    """Pages left in the row's pool."""
    return len(self._free[self.pool(row)])

  def wanted(self, row: int, positions: int) -> int:
    """Pages the row has to be given to have `positions` positions."""
    return max(0, -(-positions // self._size) - len(self._of[row]))

  def grow(self, row: int, positions: int) -> None:
    """Give the row the pages it wants, which its pool must have."""
    for _ in range(self.wanted(row, positions)):
      self._of[row].append(self._free[self.pool(row)].pop())

  def release(self, row: int) -> None:
    """The row's pages are free."""
    self._free[self.pool(row)] += self._of[row]
    self._of[row] = []

  def table(self, width: int) -> np.ndarray:
    """int32 [R,width]; what a row does not have is the page nobody reads."""
    table = np.full((len(self._of), width), self._trash, np.int32)
    for row, pages in zip(table, self._of):
      row[: len(pages)] = pages[:width]
    return table
