"""Sizes and places of the engine's arrays: what the scheduler and the warm-up have to agree on."""

from collections.abc import Callable, Iterable

from jax.sharding import Mesh, PartitionSpec

from vibethinker_jax.engine import decode
from vibethinker_jax.engine.allocators import ContiguousAllocator, PageAllocator
from vibethinker_jax.engine.buckets import PREFILL_BATCH, batch_sizes, bucket, multiple
from vibethinker_jax.engine.cache import ROWS, Int8KVCache, KVCache
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.model.mesh import lay_out
from vibethinker_jax.model.qwen2 import Config, Qwen2


class DecodeLayout:
  """How one config of a model is decoded: batch sizes, kind of cache, devices. It owns no weights and no samples.

  row_sizes: sizes of the decode batch, in descending order. prefill_batches: numbers of prompts that are prefilled at a
  time, in descending order. row_steps: rows x decode steps so far, which is what decoding costs.
  """

  def __init__(
    self,
    config: Config,
    stop_ids: Iterable[int],
    rows: int,
    block: int,
    prefill_chunk: int,
    max_length: int | None,
    cache: type[KVCache] | type[Int8KVCache] | PagedLayout,
    mesh: Mesh | None,
    vocabulary: int | None,
  ):
    """The arguments are those of Engine."""
    devices = 1 if mesh is None else mesh.shape['data']
    self.config = config
    self.stop_ids = tuple(sorted(stop_ids))
    self.max_length = max_length or config.positions
    self.block = min(block, self.max_length)  # no sample has more tokens
    self.prefill_chunk = bucket(prefill_chunk)
    self.cache = cache
    self.mesh = mesh
    self.vocabulary = None if vocabulary is None or vocabulary >= config.V else vocabulary
    self.row_sizes = batch_sizes(rows, devices)
    self.prefill_batches = (multiple(PREFILL_BATCH, devices), 1)
    self.row_steps = 0
    self._prefill_kind = cache
    self._allocator: Callable[[int], ContiguousAllocator | PageAllocator] = lambda R: ContiguousAllocator(cache, mesh)
    if isinstance(cache, PagedLayout):
      if cache.pages // devices * cache.size < self.max_length:
        raise ValueError(
          f'{cache.pages} pages of {cache.size} positions over {devices} devices: expected room for a sample of '
          f'{self.max_length} on each'
        )
      self.row_sizes = self.row_sizes[:1]  # a free row has no pages, so a smaller batch would save no memory
      self._prefill_kind = KVCache
      self._allocator = lambda R: PageAllocator(cache, R, mesh)

  def empty(self, R: int, S: int) -> tuple[decode.DecodeState, tuple, ContiguousAllocator | PageAllocator]:
    """The state of R free rows, their empty cache of S positions each, and the allocator of that cache."""
    allocator = self._allocator(R)
    return *allocator.empty(self.config, lay_out(decode.free_rows(R), self.mesh, ROWS), S), allocator

  def prefill_cache(self, P: int, S: int) -> tuple:
    """An empty cache of S positions for each of P prompts. A single prompt is prefilled on every device."""
    where = PartitionSpec('data' if self.prefill_batches[0] == P else None)
    return lay_out(self._prefill_kind.empty(self.config, P, S, self.config.dtype), self.mesh, where)

  def replicate(self, tree):
    """`tree` with every array whole on every device of the mesh."""
    return lay_out(tree, self.mesh, PartitionSpec())

  def place(self, model: Qwen2) -> Qwen2:
    """The model as decoding needs it: in its compute dtype, whole on every device. Nothing is copied if it is so."""
    if model.embed[...].dtype != model.config.dtype:
      model = decode.cast(model)
    return self.replicate(model)
