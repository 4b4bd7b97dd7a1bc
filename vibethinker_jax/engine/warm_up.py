"""Compiles beforehand what requests may need, so that none of them waits for the compiler."""

from collections.abc import Callable

import numpy as np

from vibethinker_jax.engine import decode
from vibethinker_jax.engine.buckets import bucket, buckets, padded_prompt
from vibethinker_jax.engine.layout import DecodeLayout
from vibethinker_jax.engine.sequence import insert_batch
from vibethinker_jax.model.mesh import no_mesh
from vibethinker_jax.model.qwen2 import Qwen2


def warm_up(
  layout: DecodeLayout, model: Qwen2, longest_prompt: int, longest: int, filters: bool, stop: Callable[[], bool]
) -> None:
  """As Engine.warm_up, whose arguments these are."""
  with no_mesh():
    model = layout.place(model)
    prefilled = _prefills(layout, model, longest_prompt, stop)
    sizes = buckets(min(longest + layout.block, layout.max_length))  # the cache has room for the next block
    for R in layout.row_sizes:
      for S, larger in zip(sizes, [*sizes[1:], None]):
        if stop():
          return
        _batch(layout, model, R, S, larger, prefilled, (False, True) if filters else (False,), stop)


def _prefills(layout: DecodeLayout, model: Qwen2, longest_prompt: int, stop: Callable[[], bool]) -> list[tuple]:
  """Prefill prompts of every size; returns the caches and logits [P,V]."""
  out = []
  for size in sorted({bucket(padded_prompt(n, layout.prefill_chunk)) for n in range(1, longest_prompt + 1)}):
    for P in layout.prefill_batches if size <= layout.prefill_chunk else layout.prefill_batches[-1:]:
      if stop():
        return out
      zeros, tokens = np.zeros(P, np.int32), np.zeros((P, min(size, layout.prefill_chunk)), np.int32)
      out.append(layout.replicate(decode.prefill(model, layout.prefill_cache(P, size), tokens, zeros, zeros)))
  return out


def _batch(
  layout: DecodeLayout,
  model: Qwen2,
  R: int,
  S: int,
  larger: int | None,
  prefilled: list[tuple],
  kinds: tuple[bool, ...],
  stop: Callable[[], bool],
) -> None:
  """Everything that is done with a batch of R rows of S positions; `larger`: the next bucket, None after the last."""
  nobody = insert_batch([], [], R, None)
  for kind in kinds:
    if stop():
      return
    state, cache, _ = layout.empty(R, S)
    fixed = layout.stop_ids, layout.block, kind, False, layout.vocabulary
    decode.decode_block(model, state, cache, np.int32(0), np.int32(0), *fixed)
    for logits in {len(logits): logits for _, logits in prefilled}.values():
      lengths = np.ones(len(logits), np.int32)
      fixed = layout.stop_ids, kind, False, layout.vocabulary
      decode.insert(layout.empty(R, S)[0], logits, lengths, nobody, *fixed)
  state, (layer, *_), allocator = layout.empty(R, S)
  for cache, _ in prefilled:
    if stop():
      return
    layer = decode.insert_prefill(layer, state.pages, cache[0], nobody.source, nobody.dest)
  decode.release(state, np.zeros(R, bool))
  if larger is not None:
    allocator.warm_up(layer, S, larger)
  for other in layout.row_sizes:
    if other != R:
      order = np.zeros(other, np.int32)
      decode.take_rows(state, order)
      decode.take_cache_rows(layer, order)
