"""What runs on the device: prefill prompts, seat their samples in rows, draw tokens in blocks.

Pure functions of arrays, jitted; which of them runs when is the host's affair (engine.py). R rows, N samples to seat,
P prompts; other letters: qwen2.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vibethinker_jax.engine.pages import Pages
from vibethinker_jax.engine.sampling import TOP, Law, draw, likeliest, row_keys
from vibethinker_jax.model.qwen2 import Qwen2


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['token', 'position', 'count', 'left', 'key', 'law', 'seen', 'pages'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Rows:
  """What every row is doing. All zeros is a free row."""

  token: jax.Array  # int32 [R]: the last token drawn, not yet in the cache
  position: jax.Array  # int32 [R]: the slot it goes to
  count: jax.Array  # int32 [R]: tokens drawn so far
  left: jax.Array  # int32 [R]: tokens that may still be drawn; 0 means the row is free
  key: jax.Array  # uint32 [R,2]: the data of the sample's key
  law: Law
  seen: jax.Array | None  # bool [R,V]: tokens of prompt and sample; None while no row penalizes repetition
  pages: jax.Array | None  # int32 [R,W]: where the cache has the row's slots (pages.py); None with Slots


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['source', 'dest', 'seed', 'number', 'sample', 'count', 'left', 'law', 'seen'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Seats:
  """Samples about to get a row; those that only fill up the N have a `dest` past the last row."""

  source: np.ndarray  # int32 [N]: which of the prefilled prompts
  dest: np.ndarray  # int32 [N]: which row
  seed: np.ndarray  # uint32 [N]; with the two below, what the sample's key is made of
  number: np.ndarray
  sample: np.ndarray
  count: np.ndarray  # int32 [N]: tokens drawn before, which the prompt ends with
  left: np.ndarray  # int32 [N]: tokens that may be drawn
  law: Law
  seen: np.ndarray | None  # bool [N,V], as in Rows


def free_rows(R: int) -> Rows:
  """R rows with nobody in them."""
  whole, real = (lambda: jnp.zeros(R, jnp.int32)), (lambda: jnp.zeros(R, jnp.float32))
  law = Law(real(), whole(), real(), real(), real())
  return Rows(whole(), whole(), whole(), whole(), jnp.zeros((R, 2), jnp.uint32), law, None, None)


def _found(layer, pages: jax.Array | None):
  """A layer of the cache with the rows' table, where it lies in pages."""
  return layer if pages is None else dataclasses.replace(layer, table=pages)


def _at_rest(layer):
  return dataclasses.replace(layer, table=None) if isinstance(layer, Pages) else layer


@jax.jit
def cast(model: Qwen2) -> Qwen2:
  """The model with its parameters in the dtype its layers compute in."""
  return jax.tree.map(lambda x: x.astype(model.config.dtype), model)


@functools.partial(jax.jit, donate_argnames=['shelf'])
def prefill(model: Qwen2, shelf: tuple, tokens, start, last):
  """Tokens [P,T] into the slots from start [P] on of a cache of P rows.

  Returns the cache and the logits [P,V] that follow token last[P] of each row.
  """
  hidden, shelf = model.extend(model.unstacked(), tokens, start[:, None] + jnp.arange(tokens.shape[1]), shelf)
  return shelf, model.logits(jnp.take_along_axis(hidden, last[:, None, None], axis=1))[:, 0]


@functools.partial(jax.jit, static_argnames=['stop_ids', 'filters', 'top'], donate_argnames=['rows'])
def seat(rows: Rows, logits, lengths, seats: Seats, stop_ids: tuple, filters: bool, top: bool):
  """Give rows to samples of prefilled prompts (`logits` [P,V], `lengths` [P]), and draw the first token of each.

  Returns the rows, and token, ln p and ln p under the law of the first tokens [N]; with `top`, also `likeliest` in
  their place, ids and ln p [N,TOP]. The prompts' keys and values are for `copy_prompts`.
  """
  key = row_keys(seats.seed, seats.number, seats.sample)
  token, logp, law = draw(logits[seats.source], key, seats.count, seats.law, seats.seen, filters)
  new = Rows(
    token,
    lengths[seats.source],
    seats.count + 1,
    jnp.where(jnp.isin(token, jnp.array(stop_ids, jnp.int32)), 0, seats.left - 1),
    jax.random.key_data(key),
    seats.law,
    None if seats.seen is None else seats.seen.at[jnp.arange(len(token)), token].set(True),
    None,
  )
  pages, others = rows.pages, dataclasses.replace(rows, pages=None)
  others = jax.tree.map(lambda a, b: a.at[seats.dest].set(b, mode='drop'), others, new)
  likely = likeliest(logits[seats.source]) if top else ()
  return dataclasses.replace(others, pages=pages), token, logp, law, *likely


@functools.partial(jax.jit, static_argnames=['stop_ids', 'block', 'filters', 'top'], donate_argnames=['rows', 'cache'])
def decode_block(
  model: Qwen2, rows: Rows, cache: tuple, steps, enough, stop_ids: tuple, block: int, filters: bool, top: bool
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
    i, rows, cache, tokens, logps, laws, likely, drawn = carry
    found = tuple(_found(layer, rows.pages) for layer in cache)
    hidden, cache = model.extend(layers, rows.token[:, None], rows.position[:, None], found)
    cache = tuple(_at_rest(layer) for layer in cache)
    key = jax.random.wrap_key_data(rows.key)
    logits = model.logits(hidden)[:, 0]
    token, logp, law = draw(logits, key, rows.count, rows.law, rows.seen, filters)
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
    return i + 1, rows, cache, put(tokens, token), put(logps, logp), put(laws, law), likely, drawn + live

  zeros = lambda kind, *more: jnp.zeros((R, block, *more), kind)
  columns = zeros(jnp.int32), zeros(jnp.float32), zeros(jnp.float32)
  most = min(TOP, model.config.V)
  likely = (zeros(jnp.int32, most), zeros(jnp.float32, most)) if top else ()
  start = (jnp.int32(0), rows, cache, *columns, likely, jnp.zeros(R, jnp.int32))
  i, rows, cache, *columns, likely, drawn = jax.lax.while_loop(going, step, start)
  return rows, cache, *columns, *likely, drawn, i


@jax.jit
def take_rows(rows: Rows, order) -> Rows:
  """Only the rows `order`, in that order; an index past the last gives a free row."""
  return jax.tree.map(lambda x: jnp.take(x, order, axis=0, mode='fill', fill_value=0), rows)


@jax.jit
def vacate(rows: Rows, gone) -> Rows:
  """The rows `gone` (bool [R]) made free."""
  return dataclasses.replace(rows, left=jnp.where(gone, 0, rows.left))


# ---- one layer of a cache: there is a program for every pair of sizes, so each should be a small one -----------------


@functools.partial(jax.jit, donate_argnames=['layer'])
def copy_prompts(layer, pages, shelf, source, dest):
  """The layer with the prompts source [N] of the layer `shelf` in its rows dest [N]; `pages` as in Rows."""
  return _at_rest(_found(layer, pages).seated(shelf, source, dest))


@functools.partial(jax.jit, static_argnames=['S'])
def resize_slots(layer, S: int):
  """The layer with S slots a row."""
  return layer.resized(S)


@jax.jit
def take_slots(layer, order):
  """The layer of only the rows `order`, as take_rows."""
  return layer.taken(order)
