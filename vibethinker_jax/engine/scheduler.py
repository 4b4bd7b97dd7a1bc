"""Continuous batching: which sample decodes in which row of the batch, and which program runs next.

A *slot* is a row of the decode batch: slot r is row r of every array. It holds one sample, and when that sample has
finished the slot is given to the next one in the queue. The prompt of a group of samples is prefilled once, long
prompts in chunks, and its keys and values are copied to the slots of the group. Cost and memory follow the live tokens:
the cache is as long as the longest live sample, and the batch has no more rows than samples want, both rounded up to a
few sizes (buckets.py), each of which is compiled once. A paged cache (pages.py) instead gives each slot the pages that
its own length needs; when they run out, the sample that has drawn least is preempted: it goes back to the queue and
keeps its tokens.

The device never waits until the host has read tokens. A step first reads which samples have finished (a few numbers a
row), then starts the next block, and only then hands out the tokens of the block before.
"""

import collections
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vibethinker_jax.engine import decode
from vibethinker_jax.engine.allocators import ContiguousAllocator, PageAllocator
from vibethinker_jax.engine.buckets import bucket, padded_prompt
from vibethinker_jax.engine.cache import ROWS
from vibethinker_jax.engine.layout import DecodeLayout
from vibethinker_jax.engine.request import Request, TokenChunk
from vibethinker_jax.engine.sequence import DrawnTokens, Sequence, Share, insert_batch
from vibethinker_jax.model.mesh import InFlight, lay_out, no_mesh
from vibethinker_jax.model.qwen2 import Qwen2

_FEWEST_ROWS = 16


class Scheduler:
  """Decodes samples under one policy: `add` them at any time, `step` while `busy`, `cancel` what is no longer wanted.

  The policy stays on the device between steps and is not copied.
  """

  def __init__(self, layout: DecodeLayout, model: Qwen2):
    """layout: the Engine. model: the policy."""
    self._layout = layout
    with no_mesh():
      self._model = layout.place(model)
    self._queue: collections.deque[Sequence] = collections.deque()
    self._slots: list[Sequence | None] = []  # None: the slot is free
    # the three below exist as soon as the first sample is to be inserted
    self._state: decode.DecodeState | None = None
    self._cache: tuple = ()
    self._allocator: ContiguousAllocator | PageAllocator | None = None
    self._pending: list[DrawnTokens] = []  # drawn, and not handed out yet
    self._in_flight = InFlight()

  def add(self, request_id: int, request: Request, sample: int, resume_from: np.ndarray | tuple = ()) -> None:
    """Queue one sample of a request.

    Args:
      request_id: names the request in the TokenChunks; samples that are queued with the same id share their prefill.
      request: one that Engine.validate accepts.
      sample: which of its samples, 0 .. request.samples - 1.
      resume_from: token ids of this sample that were drawn earlier; drawing continues after them.
    """
    self._queue.append(Sequence(request_id, request, sample, tuple(int(t) for t in resume_from)))

  def cancel(self, request_id: int, sample: int | None = None) -> None:
    """Draw no more tokens for `request_id`, or only for one sample of it, and free its slots."""
    cancelled = lambda sequence: sequence.request_id == request_id and sample in (None, sequence.sample)
    self._queue = collections.deque(sequence for sequence in self._queue if not cancelled(sequence))
    slots = [slot for slot, sequence in self._live() if cancelled(sequence)]
    if slots:
      self._release(slots)
    for drawn in self._pending:
      drawn.shares = [share for share in drawn.shares if not cancelled(share.sequence)]

  @property
  def busy(self) -> bool:
    """Whether a sample is queued or being decoded, or has tokens that were not handed out."""
    return bool(self._queue or self._pending or self.live)

  @property
  def live(self) -> int:
    """Slots in use."""
    return sum(sequence is not None for sequence in self._slots)

  @property
  def queued(self) -> int:
    """Samples that wait for a slot."""
    return len(self._queue)

  def step(self) -> list[TokenChunk]:
    """Fill free slots, start a block of tokens for every slot, and return what the step before has drawn."""
    with no_mesh():  # a mesh that the caller has set is the trainer's, not the one for decoding
      chunks = self._grow()
      pending, self._pending = self._pending, []
      self._resize_batch()
      self._refill()
      block = self._start_block() if self.live else None
      chunks += [chunk for drawn in pending for chunk in drawn.chunks(self._layout.stop_ids)]
      if block is not None:
        self._finish_block(*block)
    return chunks

  def flush(self) -> list[TokenChunk]:
    """Return what was drawn and not handed out, without drawing more."""
    pending, self._pending = self._pending, []
    return [chunk for drawn in pending for chunk in drawn.chunks(self._layout.stop_ids)]

  def _live(self) -> Iterator[tuple[int, Sequence]]:
    """The slots in use and their sequences."""
    return ((slot, sequence) for slot, sequence in enumerate(self._slots) if sequence is not None)

  def _release(self, slots: list[int]) -> None:
    """Stop decoding in these slots and free them."""
    self._state = decode.release(self._state, np.isin(np.arange(len(self._slots)), slots))
    for slot in slots:
      self._free(slot)

  def _free(self, slot: int) -> None:
    """Free a slot whose row has stopped on the device."""
    self._slots[slot] = None
    self._allocator.release(slot)

  def _positions_after_block(self, sequence: Sequence) -> int:
    """Positions that a sequence may have filled after the next block."""
    return min(sequence.length + self._layout.block, len(sequence.request.prompt) + sequence.request.max_tokens)

  def _grow(self) -> list[TokenChunk]:
    """Give every slot room for the next block. If there is too little, preempt samples, those that have drawn least
    first. Preemption needs their tokens on the host, so all pending chunks are flushed; returns these."""
    chunks = []
    for slot in range(len(self._slots)):
      while self._slots[slot] is not None and (
        candidates := self._allocator.grow(slot, self._positions_after_block(self._slots[slot]))
      ):
        chunks += self.flush()
        preempted = min(candidates, key=lambda candidate: self._slots[candidate].drawn)
        self._queue.appendleft(self._slots[preempted].preempted())
        self._release([preempted])
    return chunks

  def _resize_batch(self) -> None:
    """Give the decode batch as many rows as there are samples, rounded up to one of the layout's sizes."""
    layout, R = self._layout, len(self._slots)
    wanted = min(self.live + len(self._queue), layout.row_sizes[0])
    wanted = max(wanted, min(R, _FEWEST_ROWS))  # with fewer rows a block is not cheaper, and it would be compiled again
    size = min(n for n in layout.row_sizes if n >= wanted)
    if R == 0 and wanted > 0:
      longest = max(len(sequence.prefix) for sequence in self._queue)
      S = bucket(min(longest + layout.block, layout.max_length))
      self._state, self._cache, self._allocator = layout.empty(size, S)
      self._slots = [None] * size
    elif size != R and wanted > 0:
      # the slots in use first, then free ones: an index past the last row gives a free row
      in_use = [slot for slot, _ in self._live()]
      order = np.array([*in_use, *[R] * (size - len(in_use))], np.int32)
      self._state = decode.take_rows(self._state, order)
      self._cache = tuple(decode.take_cache_rows(layer, order) for layer in self._cache)
      self._slots = [self._slots[slot] if slot < R else None for slot in order]
    if any(sequence.request.sampling.penalizes for sequence in self._queue) and self._state.seen is None:
      seen = jnp.zeros((len(self._slots), layout.config.V), bool)
      self._state = dataclasses.replace(self._state, seen=lay_out(seen, layout.mesh, ROWS))

  def _refill(self) -> None:
    """Give free slots to queued samples, as soon as enough slots are free; each distinct prompt is prefilled once."""
    layout, R = self._layout, len(self._slots)
    free = [slot for slot in range(R) if self._slots[slot] is None]
    if not self._queue or len(free) < min(len(self._queue), max(1, R // 4)):
      return
    slot_of = {}
    for slot in free:
      if self._queue and self._allocator.reserve(slot, self._positions_after_block(self._queue[0])):
        sequence = self._slots[slot] = self._queue.popleft()
        slot_of[id(sequence)] = slot
    new = [self._slots[slot] for slot in slot_of.values()]
    if not new:
      return
    groups: dict[tuple, list[Sequence]] = {}
    for sequence in new:
      groups.setdefault((sequence.request_id, sequence.resume_from), []).append(sequence)
    self._fit(max(len(sequence.prefix) for sequence in new) + layout.block)
    filters = any(sequence.request.sampling.filters for sequence in new)
    top = any(sequence.request.top_logprobs for sequence in new)
    # sorted by length, so that a short prompt is not padded to the length of a long one
    for batch in _prefill_batches(sorted(groups.values(), key=lambda group: len(group[0].prefix)), layout):
      prefill_cache, logits, lengths = self._prefill([group[0].prefix for group in batch])
      inserted = [(prompt, sequence) for prompt, group in enumerate(batch) for sequence in group]
      slots = [slot_of[id(sequence)] for _, sequence in inserted]
      new_rows = insert_batch(inserted, slots, R, None if self._state.seen is None else layout.config.V)
      fixed = layout.stop_ids, filters, top, layout.vocabulary
      self._state, *first = decode.insert(self._state, logits, lengths, new_rows, *fixed)
      self._cache = tuple(
        decode.insert_prefill(layer, self._state.pages, prefilled, new_rows.source, new_rows.dest)
        for layer, prefilled in zip(self._cache, prefill_cache)
      )
      self._in_flight(first)
      shares = [Share(n, sequence, 1, False) for n, (_, sequence) in enumerate(inserted)]
      self._pending.append(DrawnTokens(first, shares))

  def _prefill(self, prompts: list[tuple[int, ...]]) -> tuple[tuple, jax.Array, np.ndarray]:
    """A cache that holds the P prompts, the logits [P,V] after the last token of each, and their lengths int32 [P]."""
    layout = self._layout
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    padded = padded_prompt(int(lengths.max()), layout.prefill_chunk)
    chunk = min(padded, layout.prefill_chunk)
    tokens = np.zeros((len(prompts), padded), np.int32)
    for row, prompt in zip(tokens, prompts):
      row[: len(prompt)] = prompt
    cache = layout.prefill_cache(len(prompts), bucket(padded))
    for begin in range(0, padded, chunk):
      start, last = np.full(len(prompts), begin, np.int32), np.clip(lengths - 1 - begin, 0, chunk - 1)
      cache, logits = decode.prefill(self._model, cache, tokens[:, begin : begin + chunk], start, last)
      self._in_flight(logits)
    return *layout.replicate((cache, logits)), lengths  # a row on any device may need any of the prompts

  def _start_block(self) -> tuple:
    """Start a block on the device, without waiting; returns its outputs, as `decode.decode_block` lists them."""
    layout, R = self._layout, len(self._slots)
    longest = max(sequence.length for _, sequence in self._live())
    self._fit(longest + layout.block)
    # the block ends early once enough slots are free for a refill; for a single queued sample one slot is enough
    enough = R - min(len(self._queue), max(1, R // 4)) if self._queue else 0
    # + 1: the last token of the longest sequence has a position, but is not in the cache yet
    steps = min(layout.block, self._allocator.positions - longest + 1)
    filters = any(sequence.request.sampling.filters for _, sequence in self._live())
    top = any(sequence.request.top_logprobs for _, sequence in self._live())
    limits = np.int32(steps), np.int32(enough)
    self._state, self._cache, *out = decode.decode_block(
      self._model, self._state, self._cache, *limits, layout.stop_ids, layout.block, filters, top, layout.vocabulary
    )
    return tuple(out)

  def _finish_block(self, *out) -> None:
    """Wait for the block and read how many tokens each row has drawn and which have finished; not the tokens."""
    *arrays, drawn, steps = out
    left, drawn, steps = jax.device_get((self._state.left, drawn, steps))
    self._layout.row_steps += len(self._slots) * int(steps)
    shares = []
    for slot, sequence in list(self._live()):
      count, finished = int(drawn[slot]), bool(left[slot] == 0)
      shares.append(Share(slot, sequence, count, finished))
      sequence.length += count
      if finished:
        self._free(slot)
    self._pending.append(DrawnTokens(arrays, shares))

  def _fit(self, positions: int) -> None:
    """Make room in the cache for `positions` positions a slot, and for the longest sequence in any case."""
    longest = max((sequence.length for _, sequence in self._live()), default=0)
    needed = min(max(positions, longest), self._layout.max_length)
    self._state, self._cache = self._allocator.fit(self._state, self._cache, needed)


def _prefill_batches(groups: list[list[Sequence]], layout: DecodeLayout) -> Iterator[list[list[Sequence]]]:
  """Groups of samples whose prompts are prefilled at a time: a full batch of short ones, or one: no padding rows."""
  while groups:
    short = sum(len(group[0].prefix) <= layout.prefill_chunk for group in groups[: layout.prefill_batches[0]])
    n = next(n for n in layout.prefill_batches if n <= max(short, 1))
    yield groups[:n]
    groups = groups[n:]
