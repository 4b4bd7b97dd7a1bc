"""What runs on the device: prefill prompts, insert their samples in rows, draw tokens in blocks.

Pure functions of arrays, jitted; which of them runs when is the host's affair (engine.py). R rows, N samples to insert,
P prompts; other letters: qwen2.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vibethinker_jax.engine.pages import PagedKVCache
from vibethinker_jax.engine.sampling import TOP, BatchedSampling, draw, likeliest, row_keys
from vibethinker_jax.model.qwen2 import Qwen2


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['token', 'position', 'count', 'left', 'key', 'sampling', 'seen', 'pages'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class DecodeState:
  """What every row is doing. All zeros is a free row."""

  token: jax.Array  # int32 [R]: the last token drawn, not yet in the cache
  position: jax.Array  # int32 [R]: the position it goes to
  count: jax.Array  # int32 [R]: tokens drawn so far
  left: jax.Array  # int32 [R]: tokens that may still be drawn; 0 means the row is free
  key: jax.Array  # uint32 [R,2]: the data of the sample's key
  sampling: BatchedSampling
  seen: jax.Array | None  # bool [R,V]: tokens of prompt and sample; None while no row penalizes repetition
  pages: jax.Array | None  # int32 [R,W]: where the cache has the row's positions (pages.py); None with KVCache


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['source', 'dest', 'seed', 'number', 'sample', 'count', 'left', 'sampling', 'seen'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class InsertBatch:
  """Samples about to get a row; those that only fill up the N have a `dest` past the last row."""

  source: np.ndarray  # int32 [N]: which of the prefilled prompts
  dest: np.ndarray  # int32 [N]: which row
  seed: np.ndarray  # uint32 [N]; with the two below, what the sample's key is made of
  number: np.ndarray
  sample: np.ndarray
  count: np.ndarray  # int32 [N]: tokens drawn before, which the prompt ends with
  left: np.ndarray  # int32 [N]: tokens that may be drawn
  sampling: BatchedSampling
  seen: np.ndarray | None  # bool [N,V], as in DecodeState


def free_rows(R: int) -> DecodeState:
  """R rows with nobody in them."""
  whole, real = (lambda: jnp.zeros(R, jnp.int32)), (lambda: jnp.zeros(R, jnp.float32))
  sampling = BatchedSampling(real(), whole(), real(), real(), real())
  return DecodeState(whole(), whole(), whole(), whole(), jnp.zeros((R, 2), jnp.uint32), sampling, None, None)


def _found(layer, pages: jax.Array | None):
  """A layer of the cache with the rows' table, where it lies in pages."""
  return layer if pages is None else dataclasses.replace(layer, table=pages)


def _at_rest(layer):
  return dataclasses.replace(layer, table=None) if isinstance(layer, PagedKVCache) else layer


@jax.jit
def cast(model: Qwen2) -> Qwen2:
  """The model with its parameters in the dtype its layers compute in."""
  return jax.tree.map(lambda x: x.astype(model.config.dtype), model)


@functools.partial(jax.jit, donate_argnames=['prefill_cache'])
def prefill(model: Qwen2, prefill_cache: tuple, tokens, start, last):
  """Tokens [P,T] into the positions from start [P] on of a cache of P rows.

  Returns the cache and the logits [P,V] that follow token last[P] of each row.
  """
  hidden, prefill_cache = model.extend(
    model.unstacked(), tokens, start[:, None] + jnp.arange(tokens.shape[1]), prefill_cache
  )
  return prefill_cache, model.logits(jnp.take_along_axis(hidden, last[:, None, None], axis=1))[:, 0]


@functools.partial(jax.jit, static_argnames=['stop_ids', 'filters', 'top'], donate_argnames=['rows'])
def insert(rows: DecodeState, logits, lengths, sequences: InsertBatch, stop_ids: tuple, filters: bool, top: bool):
  """Give rows to samples of prefilled prompts (`logits` [P,V], `lengths` [P]), and draw the first token of each.

  Returns the rows, and token, ln p and ln p under the sampling parameters of the first tokens [N]; with `top`, also
  `likeliest` in their place, ids and ln p [N,TOP]. The prompts' keys and values are for `insert_prefill`.
  """
  key = row_keys(sequences.seed, sequences.number, sequences.sample)
  token, logp, sampler_logp = draw(
    logits[sequences.source], key, sequences.count, sequences.sampling, sequences.seen, filters
  )
  new = DecodeState(
    token,
    lengths[sequences.source],
    sequences.count + 1,
    jnp.where(jnp.isin(token, jnp.array(stop_ids, jnp.int32)), 0, sequences.left - 1),
    jax.random.key_data(key),
    sequences.sampling,
    None if sequences.seen is None else sequences.seen.at[jnp.arange(len(token)), token].set(True),
    None,
  )
  pages, others = rows.pages, dataclasses.replace(rows, pages=None)
  others = jax.tree.map(lambda a, b: a.at[sequences.dest].set(b, mode='drop'), others, new)
  likely = likeliest(logits[sequences.source]) if top else ()
  return dataclasses.replace(others, pages=pages), token, logp, sampler_logp, *likely


@functools.partial(jax.jit, static_argnames=['stop_ids', 'block', 'filters', 'top'], donate_argnames=['rows', 'cache'])
def decode_block(
  model: Qwen2, rows: DecodeState, cache: tuple, steps, enough, stop_ids: tuple, block: int, filters: bool, top: bool
):
  """Up to `steps` <= `block` tokens for every row, ending early when at most `enough` rows are still drawing.

  Returns the rows, the cache, tokens int32 and the two log-probs float32 [R,block], with `top` also `likeliest` in
  their place, ids and ln p [R,block,TOP], how many of them each row drew [R], and the steps made.
  """
  R = rows.token.shape[0]
  layers = model.unstacked()
  stops = jnp.array(stop_ids, jnp.int32)

  def going(carry):
    i, rows, *_ = carry
    live = (rows.left > 0).sum()
    return (i < steps) & (live > 0) & ((i == 0) | (live > enough))

  def step(carry):
    i, rows, cache, tokens, logps, sampler_logps, likely, drawn = carry
    found = tuple(_found(layer, rows.pages) for layer in cache)
    hidden, cache = model.extend(layers, rows.token[:, None], rows.position[:, None], found)
    cache = tuple(_at_rest(layer) for layer in cache)
    key = jax.random.wrap_key_data(rows.key)
    logits = model.logits(hidden)[:, 0]
    token, logp, sampler_logp = draw(logits, key, rows.count, rows.sampling, rows.seen, filters)
    live = rows.left > 0
    put = lambda table, column: jax.lax.dynamic_update_slice(table, column[:, None], (0, i, 0)[: table.ndim])
    if top:
      likely = tuple(put(table, column) for table, column in zip(likely, likeliest(logits)))
    rows = dataclasses.replace(
      rows,
      token=jnp.where(live, token, rows.token),
      position=rows.position + live,
      count=rows.count + live,
      left=jnp.where(live & ~jnp.isin(token, stops), rows.left - 1, 0),
      seen=None if rows.seen is None else rows.seen.at[jnp.arange(R), token].max(live),
    )
    return (
      i + 1,
      rows,
      cache,
      put(tokens, token),
      put(logps, logp),
      put(sampler_logps, sampler_logp),
      likely,
      drawn + live,
    )

  zeros = lambda kind, *more: jnp.zeros((R, block, *more), kind)
  columns = zeros(jnp.int32), zeros(jnp.float32), zeros(jnp.float32)
  most = min(TOP, model.config.V)
  likely = (zeros(jnp.int32, most), zeros(jnp.float32, most)) if top else ()
  start = (jnp.int32(0), rows, cache, *columns, likely, jnp.zeros(R, jnp.int32))
  i, rows, cache, *columns, likely, drawn = jax.lax.while_loop(going, step, start)
  return rows, cache, *columns, *likely, drawn, i


@jax.jit
def take_rows(rows: DecodeState, order) -> DecodeState:
  """Only the rows `order`, in that order; an index past the last gives a free row."""
  return jax.tree.map(lambda x: jnp.take(x, order, axis=0, mode='fill', fill_value=0), rows)


@jax.jit
def release(rows: DecodeState, gone) -> DecodeState:
  """The rows `gone` (bool [R]) made free."""
  return dataclasses.replace(rows, left=jnp.where(gone, 0, rows.left))


# ---- one layer of a cache: there is a program for every pair of sizes, so each should be a small one -----------------


@functools.partial(jax.jit, donate_argnames=['layer'])
def insert_prefill(layer, pages, prefill_cache, source, dest):
  """The layer with prompts source [N] of the layer `prefill_cache` in its rows dest [N]; `pages` as in DecodeState."""
  return _at_rest(_found(layer, pages).inserted(prefill_cache, source, dest))


@functools.partial(jax.jit, static_argnames=['S'])
def resize_cache(layer, S: int):
  """The layer with S positions a row."""
  return layer.resized(S)


@jax.jit
def take_cache_rows(layer, order):
  """The layer of only the rows `order`, as take_rows."""
  return layer.taken(order)
