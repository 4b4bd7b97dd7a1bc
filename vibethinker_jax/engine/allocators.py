"""Which part of the cache belongs to which slot: the host's side of the two kinds of cache.

A slot is a row of the decode batch; a position is a place in that row's part of the cache. In a contiguous cache every
slot has the same number of positions. In a paged cache a slot has as many pages as its own length needs, and the pages
can run out. Both allocators answer the same calls, so the scheduler does not know which kind it uses:

  empty      an empty cache                            reserve   room for a new sample
  fit        the cache resized to what is needed       grow      room for the next block of a sample at work
  warm_up    compiles what `fit` runs on the device    release   a slot's room is free again
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vibethinker_jax.engine import decode
from vibethinker_jax.engine.buckets import bucket, bucket_below
from vibethinker_jax.engine.cache import ROWS, Int8KVCache, KVCache
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.model.mesh import lay_out
from vibethinker_jax.model.qwen2 import Config


class ContiguousAllocator:
  """Every slot has the same number of positions; there is always room, because the whole cache grows with the longest.

  positions: how many positions each slot may use now.
  """

  def __init__(self, kind: type[KVCache] | type[Int8KVCache], mesh: Mesh | None):
    self._kind, self._mesh = kind, mesh
    self.positions = 0

  def empty(self, c: Config, state: decode.DecodeState, positions: int) -> tuple[decode.DecodeState, tuple]:
    """The state of the rows, and an empty cache [L layers] with `positions` positions for each of them."""
    self.positions = positions
    return state, lay_out(self._kind.empty(c, state.token.shape[0], positions, c.dtype), self._mesh, ROWS)

  def reserve(self, slot: int, positions: int) -> bool:
    """True: the slot can hold a new sample of `positions` positions."""
    del slot, positions
    return True

  def grow(self, slot: int, positions: int) -> list[int]:
    """No slot has to be preempted so that `slot` can have `positions` positions."""
    del slot, positions
    return []

  def release(self, slot: int) -> None:
    """Nothing to do: the positions are overwritten by the slot's next sample."""

  def fit(self, state: decode.DecodeState, cache: tuple, positions: int) -> tuple[decode.DecodeState, tuple]:
    """The state as it is, and the cache with at least `positions` positions a slot, but less than twice the bucket.

    It is resized by one bucket at a time, so that programs for few pairs of sizes are compiled.
    """
    size = bucket(positions)
    while cache[0].size < size:
      cache = tuple(decode.resize_cache(layer, S=bucket(layer.size + 1)) for layer in cache)
    while cache[0].size >= 2 * size:
      cache = tuple(decode.resize_cache(layer, S=bucket_below(layer.size)) for layer in cache)
    self.positions = cache[0].size
    return state, cache

  def warm_up(self, layer, size: int, larger: int) -> None:
    """Compile the programs that resize a layer between the neighbouring buckets `size`, which it has, and `larger`."""
    decode.resize_cache(decode.resize_cache(layer, S=larger), S=size)


class PageAllocator:
  """Which pages belong to which slot. Every device has a pool of pages for its own slots.

  positions: how many positions the page table can name for each slot now.
  """

  def __init__(self, paging: PagedLayout, rows: int, mesh: Mesh | None):
    """All pages of `paging` are free; the slots 0 .. rows - 1 are divided among the devices of `mesh` in order."""
    pools = 1 if mesh is None else mesh.shape['data']
    self._paging, self._mesh, self._rows_per_pool = paging, mesh, rows // pools
    self._unused = paging.pages // pools  # the page after the last: free rows write to it, nobody reads it
    self._free = [list(range(self._unused))[::-1] for _ in range(pools)]
    self._pages: list[list[int]] = [[] for _ in range(rows)]
    self.positions = 0

  def empty(self, c: Config, state: decode.DecodeState, positions: int) -> tuple[decode.DecodeState, tuple]:
    """The state of the rows with a page table for up to `positions` positions, and an empty cache [L layers]."""
    return self.fit(state, self._paging.empty(c, c.dtype, self._mesh), positions)

  def reserve(self, slot: int, positions: int) -> bool:
    """Give a free slot the pages for a new sample of `positions` positions, if they are there.

    One page must remain for each other slot in use of the same pool, so that it can continue. If there are too few
    pages the slot gets none, and the answer is False.
    """
    if self.missing(slot, positions) + len(self._in_use(slot)) > self.free_pages(slot):
      return False
    self._take(slot, positions)
    return True

  def grow(self, slot: int, positions: int) -> list[int]:
    """Give a slot in use the pages that `positions` positions need. The answer is then the empty list.

    If its pool has too few pages the slot gets none, and the answer is the slots in use of that pool, itself included:
    one of them has to be preempted first.
    """
    if self.missing(slot, positions) > self.free_pages(slot):
      return self._in_use(slot)
    self._take(slot, positions)
    return []

  def release(self, slot: int) -> None:
    """The slot's pages are free again."""
    self._free[self._pool(slot)] += self._pages[slot]
    self._pages[slot] = []

  def fit(self, state: decode.DecodeState, cache: tuple, positions: int) -> tuple[decode.DecodeState, tuple]:
    """The state with the current page table, wide enough for `positions` positions a slot, and the cache as it is."""
    width = -(-bucket(positions) // self._paging.size)
    self.positions = width * self._paging.size
    return dataclasses.replace(state, pages=lay_out(jnp.asarray(self.table(width)), self._mesh, ROWS)), cache

  def warm_up(self, layer, size: int, larger: int) -> None:
    """Nothing to do: `fit` compiles nothing, it copies a table to the device."""

  def free_pages(self, slot: int) -> int:
    """Free pages of the pool that the slot takes from."""
    return len(self._free[self._pool(slot)])

  def missing(self, slot: int, positions: int) -> int:
    """Pages that the slot does not have yet and needs for `positions` positions."""
    return max(0, -(-positions // self._paging.size) - len(self._pages[slot]))

  def table(self, width: int) -> np.ndarray:
    """The page table, int32 [R,width]: the pages of each slot in order, filled up with the page that nobody reads."""
    table = np.full((len(self._pages), width), self._unused, np.int32)
    for row, pages in zip(table, self._pages):
      row[: len(pages)] = pages[:width]
    return table

  def _pool(self, slot: int) -> int:
    return slot // self._rows_per_pool

  def _in_use(self, slot: int) -> list[int]:
    """The slots that have pages of the same pool; a slot in use has at least one."""
    return [other for other, pages in enumerate(self._pages) if pages and self._pool(other) == self._pool(slot)]

  def _take(self, slot: int, positions: int) -> None:
    for _ in range(self.missing(slot, positions)):
      self._pages[slot].append(self._free[self._pool(slot)].pop())
