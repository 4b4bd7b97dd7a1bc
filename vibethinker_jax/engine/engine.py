"""The only autoregressive code: rollouts, probing, evaluation and serving all call it. Token ids in, token ids out.

A fixed number of rows decodes in step. A row holds one sample of one request; when it is done the row is given to the
next one waiting. The prompt of a group of samples is prefilled once and its keys and values copied to the group's rows.
Slot s of a row's cache holds position s, so a row is taken over by writing from slot 0; whatever stands above the
current position is not seen (attention.cached_mask). The cache is as long as the longest live sample, in buckets, and
when nothing waits the rows themselves are thinned out, so that work follows the live tokens and little is compiled.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vibethinker_jax.engine.sampling import Sampling, draw, row_keys
from vibethinker_jax.model.mesh import no_mesh
from vibethinker_jax.model.qwen2 import Cache, Config, Qwen2


@dataclasses.dataclass(frozen=True)
class Request:
  """A prompt to be continued `samples` times. (seed, number, sample, position) decide every random number."""

  prompt: tuple[int, ...]
  max_tokens: int
  samples: int = 1
  sampling: Sampling = dataclasses.field(default_factory=Sampling)
  seed: int = 0
  number: int = 0


@dataclasses.dataclass(frozen=True)
class Completion:
  """One finished sample. The stop token, where there is one, is the last of `tokens`."""

  request: int  # index into the requests given
  sample: int  # 0 .. samples - 1
  tokens: np.ndarray  # int32 [n]
  logps: np.ndarray  # float32 [n]: ln p under the model at temperature 1, what scoring the sequence gives
  law_logps: np.ndarray  # float32 [n]: ln p under the law each was drawn from
  finish: str  # 'stop', 'length', or 'refused: why'


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['token', 'position', 'count', 'left', 'key', 'temperature', 'top_k', 'top_p', 'min_p'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Rows:
  """What every row is doing; all [R]."""

  token: jax.Array  # int32: the last token drawn, not yet in the cache
  position: jax.Array  # int32: the slot it goes to
  count: jax.Array  # int32: tokens drawn so far
  left: jax.Array  # int32: tokens that may still be drawn; 0 means the row is free
  key: jax.Array  # uint32 [R,2], the data of the sample's key
  temperature: jax.Array  # float32
  top_k: jax.Array  # int32
  top_p: jax.Array  # float32
  min_p: jax.Array  # float32


class Engine:
  """Samples from any model of one config. It owns no weights: the policy is an argument of `generate`.

  rows: samples decoded at a time. block: most tokens drawn between two looks by the host. prefill: prompts
  prefilled at a time. max_length: prompt and response together. With a mesh (mesh.decode_mesh) the rows are spread over
  its data axis.
  """

  def __init__(
    self,
    config: Config,
    stop_ids: Iterable[int],
    rows: int = 64,
    block: int = 32,
    prefill: int = 32,
    max_length: int | None = None,
    mesh: Mesh | None = None,
  ):
    self.config = config
    self.stop_ids = tuple(sorted(stop_ids))
    self.rows = rows
    self.block = block
    self.prefill = prefill
    self.max_length = max_length or config.positions
    self.mesh = mesh
    self.row_steps = 0  # rows x decode steps so far: what decoding costs

  def refusal(self, request: Request) -> str | None:
    """Why a request cannot be served, in words, or None."""
    length = len(request.prompt)
    if length == 0:
      return 'empty prompt'
    if not 0 <= min(request.prompt) <= max(request.prompt) < self.config.V:
      return f'prompt ids must lie in 0..{self.config.V - 1}'
    if request.samples < 1:
      return f'samples {request.samples}: expected at least 1'
    if request.max_tokens < 1:
      return f'max_tokens {request.max_tokens}: expected at least 1'
    if length + request.max_tokens > self.max_length:
      return f'prompt of {length} and {request.max_tokens} new tokens exceed the length {self.max_length}'
    if not 0 <= request.seed < 2**32 or not 0 <= request.number < 2**32:
      return f'seed {request.seed}, number {request.number}: expected 0 to {2**32 - 1}'
    return request.sampling.fault()

  def generate(self, model: Qwen2, requests: list[Request]) -> Iterator[Completion]:
    """Every sample of every request, in the order in which they finish. A request refused comes first, alone."""
    completions = self._run(model, requests)
    while True:
      # the trainer's mesh, if one is set, is not the one that decodes; no context may stay open across a yield
      with no_mesh():
        completion = next(completions, None)
      if completion is None:
        return
      yield completion

  def _run(self, model: Qwen2, requests: list[Request]) -> Iterator[Completion]:
    waiting: collections.deque[tuple[int, int]] = collections.deque()
    for i, request in enumerate(requests):
      why = self.refusal(request)
      if why is None:
        waiting.extend((i, s) for s in range(request.samples))
      else:
        none = np.zeros(0, np.float32)
        yield Completion(i, 0, none.astype(np.int32), none, none, f'refused: {why}')
    if not waiting:
      return
    filters = any(r.sampling.filters for r in requests)
    model = self._spread(model, PartitionSpec())
    R = min(self.rows, bucket(len(waiting), powers=True))
    if self.mesh is not None:
      R = -(-R // self.mesh.shape['data']) * self.mesh.shape['data']
    longest = max(len(r.prompt) for r in requests)
    S = bucket(min(longest + self.block, self.max_length))
    cache = self._spread(empty_cache(self.config, R, S, model.embed[...].dtype), PartitionSpec('data'))
    state = self._spread(free_rows(R), PartitionSpec('data'))
    seats: list[_Seat | None] = [None] * R

    while True:
      free = [r for r in range(R) if seats[r] is None]
      if waiting and len(free) >= min(len(waiting), max(1, R // 4)):
        batch = [waiting.popleft() for _ in range(min(len(free), len(waiting)))]
        dest = free[: len(batch)]
        S, cache = self._resize(cache, S, max(len(requests[i].prompt) for i, _ in batch) + self.block)
        state, cache, first = self._refill(model, state, cache, requests, batch, dest, filters)
        for row, (i, s) in zip(dest, batch):
          seats[row] = _Seat(i, s, len(requests[i].prompt))
        yield from self._collect(seats, requests, *first)
        continue
      live = [r for r in range(R) if seats[r] is not None]
      if not live:
        return
      if not waiting and 4 * len(live) <= R > _FEWEST_ROWS and self.mesh is None:
        R = max(_FEWEST_ROWS, R // 4)
        order = np.array((live + free)[:R])
        state, cache = thin_rows(state, cache, order)
        seats = [seats[r] for r in order]
        continue
      used = max(seat.prompt + len(seat.tokens) for seat in seats if seat is not None)
      S, cache = self._resize(cache, S, min(used + self.block, self.max_length))
      # stop early once enough rows are free to be worth a refill; a lone waiting sample wants one row
      enough = R - min(len(waiting), max(1, R // 4)) if waiting else 0
      steps = min(self.block, S - used + 1)
      state, cache, *out = decode_block(
        model, state, cache, np.int32(steps), np.int32(enough), self.stop_ids, self.block, filters
      )
      out = jax.device_get(out)
      self.row_steps += R * int(out.pop())
      yield from self._collect(seats, requests, *out)

  def _spread(self, tree, spec: PartitionSpec):
    return tree if self.mesh is None else jax.device_put(tree, NamedSharding(self.mesh, spec))

  def _resize(self, cache: Cache, S: int, wanted: int) -> tuple[int, Cache]:
    size = min(bucket(wanted), bucket(self.max_length))
    return (S, cache) if size <= S else (size, grow_cache(cache, size))

  def _refill(self, model, state, cache, requests, batch, dest, filters):
    """Prefill the prompts of `batch` [(request, sample)], once each, and seat its samples in rows `dest`.

    Returns the rows, the cache, and the first tokens as decode_block returns its own.
    """
    R = len(state.token)
    tokens, logps, laws = np.zeros((R, 1), np.int32), np.zeros((R, 1), np.float32), np.zeros((R, 1), np.float32)
    drawn = np.zeros(R, np.int32)
    order = list(dict.fromkeys(i for i, _ in batch))
    P = min(self.prefill, bucket(len(order), powers=True))
    T = bucket(max(len(requests[i].prompt) for i in order))
    for begin in range(0, len(order), P):
      where = {i: p for p, i in enumerate(order[begin : begin + P])}
      prompts, lengths = np.zeros((P, T), np.int32), np.ones(P, np.int32)
      for i, p in where.items():
        lengths[p] = len(requests[i].prompt)
        prompts[p, : lengths[p]] = requests[i].prompt
      seated = [(i, s, row) for (i, s), row in zip(batch, dest) if i in where]
      kept, logits = prefill(model, prompts, lengths)
      rows = [row for _, _, row in seated]
      state, cache, *first = seat_samples(
        state, cache, kept, logits, lengths, _seats(requests, seated, where, R), self.stop_ids, filters
      )
      for table, column in zip((tokens, logps, laws), jax.device_get(first)):
        table[rows, 0] = column[: len(rows)]
      drawn[rows] = 1
    return state, cache, (tokens, logps, laws, drawn)

  def _collect(self, seats, requests, tokens, logps, law, drawn) -> Iterator[Completion]:
    """Hand each row's new tokens to its seat; yield and vacate the seats that are done."""
    for row, seat in enumerate(seats):
      n = int(drawn[row])
      if seat is None or n == 0:
        continue
      seat.tokens.extend(tokens[row, :n].tolist())
      seat.logps.extend(logps[row, :n].tolist())
      seat.law.extend(law[row, :n].tolist())
      stopped = seat.tokens[-1] in self.stop_ids
      if stopped or len(seat.tokens) == requests[seat.request].max_tokens:
        seats[row] = None
        yield Completion(
          seat.request,
          seat.sample,
          np.array(seat.tokens, np.int32),
          np.array(seat.logps, np.float32),
          np.array(seat.law, np.float32),
          'stop' if stopped else 'length',
        )


_FEWEST_ROWS = 16


class _Seat:
  """The host's side of a row: which sample sits there and what it has drawn."""

  def __init__(self, request: int, sample: int, prompt: int):
    self.request, self.sample, self.prompt = request, sample, prompt
    self.tokens: list[int] = []
    self.logps: list[float] = []
    self.law: list[float] = []


def _seats(requests: list[Request], seated: list[tuple[int, int, int]], where: dict[int, int], N: int) -> dict:
  """Columns [N] for seat_samples from `seated` (request, sample, row), padded with samples that go nowhere.

  `source` is a prompt's place (`where`), `dest` a row; then what the sample's key is made of, its budget and its law.
  """
  chosen = [requests[i] for i, _, _ in seated]
  pad = lambda values, fill, kind: np.array([*values, *[fill] * (N - len(seated))], kind)
  return dict(
    source=pad((where[i] for i, _, _ in seated), 0, np.int32),
    dest=pad((row for _, _, row in seated), N, np.int32),  # one past the last row: dropped by the scatter
    seed=pad((r.seed for r in chosen), 0, np.uint32),
    number=pad((r.number for r in chosen), 0, np.uint32),
    sample=pad((s for _, s, _ in seated), 0, np.uint32),
    budget=pad((r.max_tokens for r in chosen), 1, np.int32),
    temperature=pad((r.sampling.temperature for r in chosen), 1, np.float32),
    top_k=pad((r.sampling.top_k for r in chosen), -1, np.int32),
    top_p=pad((r.sampling.top_p for r in chosen), 1, np.float32),
    min_p=pad((r.sampling.min_p for r in chosen), 0, np.float32),
  )


def bucket(n: int, powers: bool = False) -> int:
  """The size n is rounded up to, so that few sizes are compiled: powers of two, and (not `powers`) 1.5 times them."""
  size = 1 if powers else 32
  while size < n:
    if not powers and size * 3 // 2 >= n:
      return size * 3 // 2
    size *= 2
  return size


def empty_cache(c: Config, R: int, S: int, dtype) -> Cache:
  """A cache of R rows and S slots."""
  return tuple((jnp.zeros((R, c.K, c.H, S), dtype), jnp.zeros((R, c.K, S, c.H), dtype)) for _ in range(c.L))


def free_rows(R: int) -> Rows:
  """R rows with nobody in them."""
  whole, real = (lambda v: jnp.full(R, v, jnp.int32)), (lambda v: jnp.full(R, v, jnp.float32))
  return Rows(
    whole(0),
    whole(0),
    whole(0),
    whole(0),
    jnp.zeros((R, 2), jnp.uint32),
    real(1),
    whole(-1),
    real(1),
    real(0),
  )


@functools.partial(jax.jit, static_argnames=['size'])
def grow_cache(cache: Cache, size: int) -> Cache:
  """The cache with room for `size` slots."""
  more = (0, size - cache[0][1].shape[2])
  pad = lambda x, slots: jnp.pad(x, [more if axis == slots else (0, 0) for axis in range(4)])
  return tuple((pad(k, 3), pad(v, 2)) for k, v in cache)


@jax.jit
def thin_rows(state: Rows, cache: Cache, order: np.ndarray) -> tuple[Rows, Cache]:
  """Only the rows `order`, in that order."""
  return jax.tree.map(lambda x: x[order], (state, cache))


@jax.jit
def prefill(model: Qwen2, prompts, lengths):
  """Keys and values of prompts [P,T] (Qwen2.prefill), and the logits [P,V] after each one's last token.

  `lengths` int32 [P] are the prompts' own.
  """
  hidden, kept = model.prefill(prompts)
  last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
  return kept, model.logits(last)[:, 0]


@functools.partial(jax.jit, static_argnames=['stop_ids', 'filters'], donate_argnames=['state', 'cache'])
def seat_samples(state: Rows, cache: Cache, kept, logits, lengths, seats: dict, stop_ids, filters: bool):
  """Give prefilled prompts to the rows of their samples and draw every sample's first token.

  `seats` is _seats(); `kept`, `logits` and `lengths` belong to the P prompts. Returns the rows, the cache, and token,
  logp and law logp of the first tokens [N].
  """
  source, dest = seats['source'], seats['dest']
  key = row_keys(seats['seed'], seats['number'], seats['sample'])
  law_of = [seats[name] for name in ('temperature', 'top_k', 'top_p', 'min_p')]
  first = jnp.zeros_like(dest)
  token, logp, law = draw(logits[source], key, first, *law_of, filters)
  k_kept, v_kept = kept
  S = min(k_kept.shape[4], cache[0][1].shape[2])  # a bucketed prompt may be longer than the cache; the prompt is not
  cache = tuple(
    (
      k.at[dest, :, :, :S].set(k_kept[layer, source, :, :, :S].astype(k.dtype), mode='drop'),
      v.at[dest, :, :S].set(v_kept[layer, source, :, :S].astype(v.dtype), mode='drop'),
    )
    for layer, (k, v) in enumerate(cache)
  )
  left = jnp.where(jnp.isin(token, jnp.array(stop_ids, jnp.int32)), 0, seats['budget'] - 1)
  new = Rows(token, lengths[source], first + 1, left, jax.random.key_data(key), *law_of)
  return jax.tree.map(lambda a, b: a.at[dest].set(b, mode='drop'), state, new), cache, token, logp, law


@functools.partial(jax.jit, static_argnames=['stop_ids', 'block', 'filters'], donate_argnames=['state', 'cache'])
def decode_block(model: Qwen2, state: Rows, cache: Cache, steps, enough, stop_ids, block: int, filters: bool):
  """Up to `steps` <= `block` tokens for every row, ending early when at most `enough` rows are still drawing.

  Returns the rows, the cache, tokens int32 and the two log-probs float32 [R,block], how many of them each row drew [R],
  and the steps made.
  """
  R = state.token.shape[0]
  layers = model.unstacked()
  stops = jnp.array(stop_ids, jnp.int32)

  def going(carry):
    i, state, *_ = carry
    live = (state.left > 0).sum()
    return (i < steps) & (live > 0) & ((i == 0) | (live > enough))

  def step(carry):
    i, state, cache, tokens, logps, laws, drawn = carry
    hidden, cache = model.extend(layers, state.token[:, None], state.position[:, None], cache)
    token, logp, law = draw(
      model.logits(hidden)[:, 0],
      jax.random.wrap_key_data(state.key),
      state.count,
      state.temperature,
      state.top_k,
      state.top_p,
      state.min_p,
      filters,
    )
    live = state.left > 0
    put = lambda table, column: jax.lax.dynamic_update_slice(table, column[:, None], (0, i))
    tokens, logps, laws = put(tokens, token), put(logps, logp), put(laws, law)
    left = jnp.where(jnp.isin(token, stops), 0, state.left - 1)
    state = dataclasses.replace(
      state,
      token=jnp.where(live, token, state.token),
      position=state.position + live,
      count=state.count + live,
      left=jnp.where(live, left, 0),
    )
    return i + 1, state, cache, tokens, logps, laws, drawn + live

  zeros = lambda kind: jnp.zeros((R, block), kind)
  carry = (
    jnp.int32(0),
    state,
    cache,
    zeros(jnp.int32),
    zeros(jnp.float32),
    zeros(jnp.float32),
    jnp.zeros(R, jnp.int32),
  )
  i, state, cache, tokens, logps, laws, drawn = jax.lax.while_loop(going, step, carry)
  return state, cache, tokens, logps, laws, drawn, i
