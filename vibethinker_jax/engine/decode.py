"""What runs on the device: prefill prompts, insert their samples into rows, draw tokens in blocks.

Pure, jitted functions of arrays; the host decides which of them runs when (scheduler.py). R rows of the decode batch, N
samples to insert, P prompts, W pages of a row; the other letters are those of qwen2.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vibethinker_jax.engine.sampling import TOP, BatchedSampling, draw, row_keys, top_logprobs
from vibethinker_jax.model.qwen2 import Qwen2


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['token', 'position', 'count', 'left', 'key', 'sampling', 'seen', 'pages'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class DecodeState:
  """The state of every row of the decode batch. A free row is all zeros."""

  token: jax.Array  # int32 [R]: the last token drawn; its keys and values are not in the cache yet
  position: jax.Array  # int32 [R]: the position of that token
  count: jax.Array  # int32 [R]: tokens drawn so far
  left: jax.Array  # int32 [R]: tokens that may still be drawn; 0: the row is free
  key: jax.Array  # uint32 [R,2]: the data of the sample's key
  sampling: BatchedSampling
  seen: jax.Array | None  # bool [R,V]: tokens of prompt and sample; None while no row penalizes repetition
  pages: jax.Array | None  # int32 [R,W]: the page table (pages.py); None with a contiguous cache


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['source', 'dest', 'seed', 'number', 'sample', 'count', 'left', 'sampling', 'seen'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class InsertBatch:
  """Samples that are about to get a row. Entries that only pad the arrays to N have a `dest` past the last row."""

  source: np.ndarray  # int32 [N]: which of the prefilled prompts
  dest: np.ndarray  # int32 [N]: which row
  seed: np.ndarray  # uint32 [N]; the sample's key is made of this and of the two below
  number: np.ndarray  # uint32 [N]
  sample: np.ndarray  # uint32 [N]
  count: np.ndarray  # int32 [N]: tokens drawn earlier, with which the prefilled prompt ends
  left: np.ndarray  # int32 [N]: tokens that may be drawn
  sampling: BatchedSampling
  seen: np.ndarray | None  # bool [N,V], as in DecodeState


def free_rows(R: int) -> DecodeState:
  """The state of R free rows."""
  ints, floats = (lambda: jnp.zeros(R, jnp.int32)), (lambda: jnp.zeros(R, jnp.float32))
  sampling = BatchedSampling(floats(), ints(), floats(), floats(), floats())
  return DecodeState(ints(), ints(), ints(), ints(), jnp.zeros((R, 2), jnp.uint32), sampling, None, None)


@jax.jit
def cast(model: Qwen2) -> Qwen2:
  """The model with its parameters in the dtype in which its layers compute."""
  return jax.tree.map(lambda x: x.astype(model.config.dtype), model)


@functools.partial(jax.jit, donate_argnames=['prefill_cache'])
def prefill(model: Qwen2, prefill_cache: tuple, tokens, start, last):
  """Prefill one chunk of P prompts.

  Args:
    model: the policy.
    prefill_cache: a cache of P rows for every layer, which holds the chunks before.
    tokens: int32 [P,T], the chunk.
    start: int32 [P], the position of the chunk's first token.
    last: int32 [P], the index into T after which the logits are wanted.

  Returns:
    The cache with the chunk in it, and the logits float32 [P,V] after token last[p] of each prompt.
  """
  hidden, prefill_cache = model.extend(
    model.unstacked(), tokens, start[:, None] + jnp.arange(tokens.shape[1]), prefill_cache
  )
  return prefill_cache, model.logits(jnp.take_along_axis(hidden, last[:, None, None], axis=1))[:, 0]


@functools.partial(jax.jit, static_argnames=['stop_ids', 'filters', 'top', 'vocabulary'], donate_argnames=['state'])
def insert(
  state: DecodeState,
  logits,
  lengths,
  batch: InsertBatch,
  stop_ids: tuple,
  filters: bool,
  top: bool,
  vocabulary: int | None = None,
):
  """Give rows to samples of prefilled prompts, and draw the first token of each.

  The prompts' keys and values are copied by `insert_prefill`.

  Args:
    state: of the decode batch.
    logits: float32 [P,V] after each prompt.
    lengths: int32 [P], tokens of each prompt.
    batch: the N samples.
    stop_ids: tokens after which a sample has finished.
    filters: whether some of the samples rule tokens out (top_k, top_p, min_p).
    top: whether `top_logprobs` are wanted.
    vocabulary: as in sampling.draw.

  Returns:
    The state, the first tokens int32 [N], their ln p under the model and under the sampling parameters, float32 [N];
    with `top` also the ids and ln p [N,TOP] of `top_logprobs`.
  """
  key = row_keys(batch.seed, batch.number, batch.sample)
  token, logp, sampler_logp = draw(
    logits[batch.source], key, batch.count, batch.sampling, batch.seen, filters, vocabulary
  )
  new = DecodeState(
    token,
    lengths[batch.source],
    batch.count + 1,
    jnp.where(jnp.isin(token, jnp.array(stop_ids, jnp.int32)), 0, batch.left - 1),
    jax.random.key_data(key),
    batch.sampling,
    None if batch.seen is None else batch.seen.at[jnp.arange(len(token)), token].set(True),
    None,
  )
  pages, others = state.pages, dataclasses.replace(state, pages=None)
  others = jax.tree.map(lambda a, b: a.at[batch.dest].set(b, mode='drop'), others, new)
  most_likely = top_logprobs(logits[batch.source]) if top else ()
  return dataclasses.replace(others, pages=pages), token, logp, sampler_logp, *most_likely


@functools.partial(
  jax.jit, static_argnames=['stop_ids', 'block', 'filters', 'top', 'vocabulary'], donate_argnames=['state', 'cache']
)
def decode_block(
  model: Qwen2,
  state: DecodeState,
  cache: tuple,
  steps,
  enough,
  stop_ids: tuple,
  block: int,
  filters: bool,
  top: bool,
  vocabulary: int | None = None,
):
  """Draw up to `steps` tokens for every row.

  Args:
    model: the policy.
    state: of the decode batch.
    cache: one layer's cache for every layer.
    steps: int32, the most steps; at most `block`.
    enough: int32; the block ends early once at most this many rows are still drawing.
    stop_ids: tokens after which a sample has finished.
    block: columns of the arrays that are returned.
    filters: whether some row rules tokens out (top_k, top_p, min_p).
    top: whether `top_logprobs` are wanted.
    vocabulary: as in sampling.draw.

  Returns:
    The state; the cache; the tokens int32 [R,block], their ln p under the model and under the sampling parameters,
    float32 [R,block]; with `top` also the ids and ln p [R,block,TOP] of `top_logprobs`; how many tokens each row has
    drawn, int32 [R]; and the number of steps, int32.
  """
  R = state.token.shape[0]
  layers = model.unstacked()
  stops = jnp.array(stop_ids, jnp.int32)

  def unfinished(carry):
    i, state, *_ = carry
    live = (state.left > 0).sum()
    return (i < steps) & (live > 0) & ((i == 0) | (live > enough))

  def step(carry):
    i, state, cache, tokens, logps, sampler_logps, most_likely, drawn = carry
    bound = tuple(layer.bound(state.pages) for layer in cache)
    hidden, cache = model.extend(layers, state.token[:, None], state.position[:, None], bound)
    cache = tuple(layer.bound(None) for layer in cache)
    key = jax.random.wrap_key_data(state.key)
    logits = model.logits(hidden)[:, 0]
    token, logp, sampler_logp = draw(logits, key, state.count, state.sampling, state.seen, filters, vocabulary)
    live = state.left > 0
    put = lambda table, column: jax.lax.dynamic_update_slice(table, column[:, None], (0, i, 0)[: table.ndim])
    if top:
      most_likely = tuple(put(table, column) for table, column in zip(most_likely, top_logprobs(logits)))
    state = dataclasses.replace(
      state,
      token=jnp.where(live, token, state.token),
      position=state.position + live,
      count=state.count + live,
      left=jnp.where(live & ~jnp.isin(token, stops), state.left - 1, 0),
      seen=None if state.seen is None else state.seen.at[jnp.arange(R), token].max(live),
    )
    return (
      i + 1,
      state,
      cache,
      put(tokens, token),
      put(logps, logp),
      put(sampler_logps, sampler_logp),
      most_likely,
      drawn + live,
    )

  zeros = lambda kind, *more: jnp.zeros((R, block, *more), kind)
  columns = zeros(jnp.int32), zeros(jnp.float32), zeros(jnp.float32)
  n = min(TOP, model.config.V)
  most_likely = (zeros(jnp.int32, n), zeros(jnp.float32, n)) if top else ()
  start = (jnp.int32(0), state, cache, *columns, most_likely, jnp.zeros(R, jnp.int32))
  i, state, cache, *columns, most_likely, drawn = jax.lax.while_loop(unfinished, step, start)
  return state, cache, *columns, *most_likely, drawn, i


@jax.jit
def take_rows(state: DecodeState, order) -> DecodeState:
  """The state whose row i is row order[i] of this one, order int32; an index past the last row gives a free row."""
  return jax.tree.map(lambda x: jnp.take(x, order, axis=0, mode='fill', fill_value=0), state)


@jax.jit
def release(state: DecodeState, gone) -> DecodeState:
  """The state after the rows `gone` (bool [R]) were freed."""
  return dataclasses.replace(state, left=jnp.where(gone, 0, state.left))


# ---- one layer of a cache: a program is compiled for every pair of sizes, so each program should be small ----


@functools.partial(jax.jit, donate_argnames=['layer'])
def insert_prefill(layer, pages, prefill_layer, source, dest):
  """One layer of the cache after prefilled prompts were copied into it.

  Args:
    layer: of the decode batch's cache.
    pages: DecodeState.pages.
    prefill_layer: the same layer of the prefill cache.
    source: int32 [N], which row of `prefill_layer`.
    dest: int32 [N], the row of `layer` it is copied to; one past the last row copies nothing.
  """
  return layer.bound(pages).inserted(prefill_layer, source, dest).bound(None)


@functools.partial(jax.jit, static_argnames=['S'])
def resize_cache(layer, S: int):
  """The layer with S positions a row."""
  return layer.resized(S)


@jax.jit
def take_cache_rows(layer, order):
  """The layer whose row i is row order[i] of this one, as in `take_rows`."""
  return layer.taken(order)
