"""The only autoregressive code: rollouts, probing, evaluation and serving all call it. Token ids in, token ids out.

A number of rows decodes in step. A row holds one sample of one request; when it is done the row is given to the next
one waiting. The prompt of a group of samples is prefilled once, long prompts in chunks, and its keys and values are
copied to the group's rows. Work and memory follow the live tokens: the cache is as long as the longest live sample, in
buckets, and there are no more rows than somebody needs, in a few sizes; so little is compiled, once. Or the cache lies
in pages (pages.py): each row has as many as its own length wants, and where they run out, the sample that has drawn
least goes back to the queue with what it has.

The device never waits for the host to read tokens: a step reads who is done (a few numbers a row), starts the next
block, and only then hands out what the last one drew.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vibethinker_jax.engine import decode
from vibethinker_jax.engine.cache import Int8KVCache, KVCache
from vibethinker_jax.engine.pages import PageAllocator, PagedLayout
from vibethinker_jax.engine.sampling import SamplingParams, batched
from vibethinker_jax.model.mesh import InFlight, no_mesh
from vibethinker_jax.model.qwen2 import Config, Qwen2


@dataclasses.dataclass(frozen=True)
class Request:
  """A prompt to be continued `samples` times. (seed, number, sample, position) decide every random number."""

  prompt: tuple[int, ...]
  max_tokens: int
  samples: int = 1
  sampling: SamplingParams = dataclasses.field(default_factory=SamplingParams)
  seed: int = 0
  number: int = 0
  top: bool = False  # whether its chunks also tell the likeliest tokens


@dataclasses.dataclass(frozen=True)
class TokenChunk:
  """Tokens just drawn for one sample. The stop token, where there is one, is the last."""

  request_id: int  # as given to Scheduler.add
  sample: int
  tokens: np.ndarray  # int32 [n], n >= 0
  logps: np.ndarray  # float32 [n]: ln p under the model at temperature 1, what scoring the sequence gives
  sampler_logps: np.ndarray  # float32 [n]: ln p under the sampling parameters each was drawn from
  finish: str  # '' while there is more to come, then 'stop' or 'length'
  likeliest: tuple[np.ndarray, np.ndarray] | None = None  # with Request.top: ids and ln p [n,TOP] (sampling.likeliest)


@dataclasses.dataclass(frozen=True)
class Completion:
  """One sample, whole: arrays [n] as in TokenChunk."""

  request: int  # index into the requests given
  sample: int  # 0 .. samples - 1
  tokens: np.ndarray
  logps: np.ndarray
  sampler_logps: np.ndarray
  finish: str  # 'stop', 'length', 'suspended' or 'refused: why'


class Engine:
  """Samples from any model of one config. It owns no weights: the policy is an argument.

  rows: most samples decoded at a time. block: most tokens drawn between two looks by the host. chunk: most tokens of a
  prompt prefilled at a time. max_length: prompt and response together. cache: how keys and values are kept (cache.py,
  pages.py); ValueError where the pages do not hold one sample of max_length for every device.
  With a mesh (mesh.decode_mesh) the rows are spread over its data axis.
  """

  def __init__(
    self,
    config: Config,
    stop_ids: Iterable[int],
    rows: int = 64,
    block: int = 32,
    chunk: int = 512,
    max_length: int | None = None,
    cache: type[KVCache] | type[Int8KVCache] | PagedLayout = KVCache,
    mesh: Mesh | None = None,
  ):
    self.config = config
    self.stop_ids = tuple(sorted(stop_ids))
    self.block = min(block, max_length or config.positions)  # no sample has more tokens
    self.chunk = bucket(chunk)
    self.max_length = max_length or config.positions
    self.cache = cache
    self.mesh = mesh
    # every size is four times the next: few shapes, and never many more rows than samples
    whole = lambda n: n if mesh is None else -(-n // mesh.shape['data']) * mesh.shape['data']
    sizes = {whole(max(1, rows >> shift)) for shift in range(0, rows.bit_length() + 1, 2)}
    self.row_sizes = sorted(sizes, reverse=True)
    self.prefill_batches = (whole(PREFILL_BATCH), 1)  # prompts prefilled at a time
    self.paging = cache if isinstance(cache, PagedLayout) else None
    if self.paging is not None:
      self.row_sizes = self.row_sizes[:1]  # a free row has no pages, and costs no more than it did
      pools = 1 if mesh is None else mesh.shape['data']
      if self.paging.pages // pools * self.paging.size < self.max_length:
        raise ValueError(
          f'{self.paging.pages} pages of {self.paging.size} positions over {pools} devices: expected room for a sample '
          f'of {self.max_length} on each'
        )
    self.row_steps = 0  # rows x decode steps so far: what decoding costs

  def validate(self, request: Request) -> str | None:
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

  def generate(
    self,
    model: Qwen2,
    requests: list[Request],
    resume_from: Iterable[Completion] = (),
    stop: Callable[[], bool] = lambda: False,
  ) -> Iterator[Completion]:
    """Every sample of every request, in the order in which they finish. Requests refused come first, one each.

    `stop` is asked between blocks; once it says True, what is unfinished comes out as 'suspended', and given to a later
    call as `resume_from` goes on from there (as may what has finished, which is not drawn again). The policy may be
    another by then: each token keeps the log-probs it was drawn with.
    """
    run, parts = Scheduler(self, model), {}
    earlier = {(c.request, c.sample): c for c in resume_from}
    for i, request in enumerate(requests):
      if (why := self.validate(request)) is not None:
        yield _whole(i, 0, [], f'refused: {why}')
        continue
      for sample in range(request.samples):
        before = earlier.get((i, sample))
        if before is None:
          parts[i, sample] = []
          run.add(i, request, sample)
        elif before.finish == 'suspended':
          parts[i, sample] = [before]
          run.add(i, request, sample, before.tokens)
        else:
          yield before
    while run.busy:
      leaving = stop()
      for chunk in run.unread() if leaving else run.step():
        parts[chunk.request_id, chunk.sample].append(chunk)
        if chunk.finish:
          yield _whole(chunk.request_id, chunk.sample, parts.pop((chunk.request_id, chunk.sample)), chunk.finish)
      if leaving:
        break
    for (i, sample), drawn in parts.items():
      yield _whole(i, sample, drawn, 'suspended')

  def warm_up(
    self,
    model: Qwen2,
    longest_prompt: int,
    longest: int,
    filters: bool = True,
    stop: Callable[[], bool] = lambda: False,
  ) -> None:
    """Compile what requests with prompts and whole lengths up to these may need, with and without `filters`.

    The likeliest tokens, which are asked for now and then, are left out.
    `stop` is asked between compilations, and ends
    it.
    """
    kinds = (False, True) if filters else (False,)
    with no_mesh():
      model = self.place(model)
      prefill_caches = []
      for size in sorted({bucket(_padded(n, self.chunk)) for n in range(1, longest_prompt + 1)}):
        for P in self.prefill_batches if size <= self.chunk else self.prefill_batches[-1:]:
          if stop():
            return
          at, tokens = np.zeros(P, np.int32), np.zeros((P, min(size, self.chunk)), np.int32)
          prefill_caches.append(
            self.spread(decode.prefill(model, self.prefill_cache(P, size), tokens, at, at), PartitionSpec())
          )
      sizes = _buckets(min(longest + self.block, self.max_length))  # there is room for the block to come
      for R in self.row_sizes:
        for S, larger in zip(sizes, [*sizes[1:], None]):
          sequences = _insert_batch([], [], R, None)
          for kind in kinds:
            if stop():
              return
            numbers = np.int32(0), np.int32(0)
            decode.decode_block(model, *self.fresh(R, S), *numbers, self.stop_ids, self.block, kind, False)
            for logits in {len(logits): logits for _, logits in prefill_caches}.values():
              lengths = np.ones(len(logits), np.int32)
              decode.insert(self.fresh(R, S)[0], logits, lengths, sequences, self.stop_ids, kind, False)
          rows, (kept, *_) = self.fresh(R, S)
          for prefill_cache, _ in prefill_caches:
            if stop():
              return
            kept = decode.insert_prefill(kept, rows.pages, prefill_cache[0], sequences.source, sequences.dest)
          decode.release(rows, np.zeros(R, bool))
          if larger is not None and self.paging is None:
            decode.resize_cache(decode.resize_cache(kept, S=larger), S=S)
          for other in self.row_sizes:
            if other != R:
              order = np.zeros(other, np.int32)
              decode.take_rows(rows, order), decode.take_cache_rows(kept, order)

  def fresh(self, R: int, S: int) -> tuple[decode.DecodeState, tuple]:
    """R free rows, and their empty cache of S positions."""
    rows = self.spread(decode.free_rows(R), PartitionSpec('data'))
    if self.paging is not None:
      rows = self.mapped(rows, self.book(R).table(self.width(S)))
      return rows, self.paging.empty(self.config, self.config.dtype, self.mesh)
    return rows, self.spread(self.cache.empty(self.config, R, S, self.config.dtype), PartitionSpec('data'))

  def book(self, R: int) -> PageAllocator:
    """Who has which pages: nobody any."""
    return PageAllocator(self.paging, R, 1 if self.mesh is None else self.mesh.shape['data'])

  def width(self, positions: int) -> int:
    """Pages a row may have in tables for rows of up to `positions`: in buckets, as they are compiled for."""
    return -(-bucket(positions) // self.paging.size)

  def mapped(self, rows: decode.DecodeState, table: np.ndarray) -> decode.DecodeState:
    """The rows with a new table of their pages."""
    return dataclasses.replace(rows, pages=self.spread(jnp.asarray(table), PartitionSpec('data')))

  def prefill_cache(self, P: int, S: int) -> tuple:
    """An empty cache for P prompts; one prompt is prefilled on every device."""
    where = PartitionSpec('data' if self.prefill_batches[0] == P else None)
    kind = KVCache if self.paging is not None else self.cache
    return self.spread(kind.empty(self.config, P, S, self.config.dtype), where)

  def place(self, model: Qwen2) -> Qwen2:
    """The policy as decoding wants it: in the dtype it computes in, on every device; no copy where it already is."""
    if model.embed[...].dtype != model.config.dtype:
      model = decode.cast(model)
    return self.spread(model, PartitionSpec())

  def spread(self, tree, spec: PartitionSpec):
    """`tree` laid out by `spec` on the engine's mesh; without one, as it is."""
    return tree if self.mesh is None else jax.device_put(tree, NamedSharding(self.mesh, spec))


class Scheduler:
  """The rows at work under one policy. `add` samples at any time, `step` until not `busy`; `cancel` what nobody wants.

  Between two steps the policy stays on the device and nothing of it is copied.
  """

  def __init__(self, engine: Engine, model: Qwen2):
    self._engine = engine
    with no_mesh():
      self._model = engine.place(model)
    self._waiting: collections.deque[_Sequence] = collections.deque()
    self._slots: list[_Sequence | None] = []
    self._rows: decode.DecodeState | None = None  # made when the first sample sits down
    self._cache: tuple = ()
    self._book: PageAllocator | None = None  # with pages, as soon as there are rows
    self._unread: list[_Drawn] = []
    self._in_flight = InFlight()

  def add(self, request_id: int, request: Request, sample: int, resume_from: np.ndarray | tuple = ()) -> None:
    """Sample number `sample` of a request that Engine.validate has nothing against joins the queue.

    `resume_from` are tokens of it drawn before. Chunks carry the `request_id`; those of equal request_ids share their
    prefill.
    """
    self._waiting.append(_Sequence(request_id, request, sample, tuple(int(t) for t in resume_from)))

  def cancel(self, request_id: int, sample: int | None = None) -> None:
    """Nothing more is drawn for this request_id, or this sample of it, and its rows are free at the next step."""
    meant = lambda sequence: sequence.request_id == request_id and sample in (None, sequence.sample)
    self._waiting = collections.deque(sequence for sequence in self._waiting if not meant(sequence))
    gone = np.array([sequence is not None and meant(sequence) for sequence in self._slots], bool)
    if gone.any():
      self._rows = decode.release(self._rows, gone)
      for row in np.flatnonzero(gone):
        self._leave(row)
    for drawn in self._unread:
      drawn.who = [one for one in drawn.who if not meant(one[1])]

  @property
  def busy(self) -> bool:
    """Whether a sample waits, is being drawn, or has tokens that were not handed out."""
    return bool(self._waiting or self._unread or self.live)

  @property
  def live(self) -> int:
    """Rows in use."""
    return sum(sequence is not None for sequence in self._slots)

  @property
  def queued(self) -> int:
    """Samples waiting for a row."""
    return len(self._waiting)

  def step(self) -> list[TokenChunk]:
    """Fill free rows, draw up to a block of tokens for every row, and hand out what the step before drew."""
    with no_mesh():  # the trainer's mesh, if one is set, is not the one that decodes
      early = self._make_room()
      before, self._unread = self._unread, []
      self._fit_rows()
      self._refill()
      block = self._decode() if self.live else None
      chunks = early + [chunk for drawn in before for chunk in drawn.chunks(self._engine.stop_ids)]
      if block is not None:
        self._look(*block)
    return chunks

  def unread(self) -> list[TokenChunk]:
    """What was drawn and not handed out, at once, for a caller who will not step again."""
    before, self._unread = self._unread, []
    return [chunk for drawn in before for chunk in drawn.chunks(self._engine.stop_ids)]

  def _fit_rows(self) -> None:
    """As many rows as there are samples, in the engine's sizes."""
    engine, R = self._engine, len(self._slots)
    wanted = min(self.live + len(self._waiting), engine.row_sizes[0])
    wanted = max(wanted, min(R, _FEWEST_ROWS))  # below that a block is no cheaper, and would be compiled again
    size = min(n for n in engine.row_sizes if n >= wanted)
    if R == 0 and wanted > 0:
      S = bucket(min(max(len(s.prefix) for s in self._waiting) + engine.block, engine.max_length))
      self._rows, self._cache = engine.fresh(size, S)
      self._book = None if engine.paging is None else engine.book(size)
      self._slots = [None] * size
    elif size != R and wanted > 0:
      # those at work first; then as many free ones as there is room for (an index past the last row gives a free one)
      at_work = [r for r in range(R) if self._slots[r] is not None]
      order = np.array([*at_work, *[R] * (size - len(at_work))], np.int32)
      self._rows = decode.take_rows(self._rows, order)
      self._cache = tuple(decode.take_cache_rows(layer, order) for layer in self._cache)
      self._slots = [self._slots[r] if r < R else None for r in order]
    if any(sequence.request.sampling.penalizes for sequence in self._waiting) and self._rows.seen is None:
      seen = jnp.zeros((len(self._slots), engine.config.V), bool)
      self._rows = dataclasses.replace(self._rows, seen=engine.spread(seen, PartitionSpec('data')))

  def _refill(self) -> None:
    """Seat who waits, once enough rows are free to be worth it: prompts prefilled once each, and no more than those."""
    engine, R = self._engine, len(self._slots)
    free = [r for r in range(R) if self._slots[r] is None]
    if not self._waiting or len(free) < min(len(self._waiting), max(1, R // 4)):
      return
    rows = {}
    for row in free:
      if self._waiting and self._has_room(row, self._waiting[0]):
        sequence = self._slots[row] = self._waiting.popleft()
        rows[id(sequence)] = row
    chosen = [self._slots[row] for row in rows.values()]
    if not chosen:
      return
    groups: dict[tuple, list[_Sequence]] = {}
    for sequence in chosen:
      groups.setdefault((sequence.request_id, sequence.resume_from), []).append(sequence)
    self._resize(max(len(sequence.prefix) for sequence in chosen) + engine.block)
    filters = any(sequence.request.sampling.filters for sequence in chosen)
    top = any(sequence.request.top for sequence in chosen)
    # neighbours in length together, so that a short prompt is not padded to a long one
    for prompts_together in _batches(sorted(groups.values(), key=lambda group: len(group[0].prefix)), engine):
      prefill_cache, logits, lengths = self._prefill([group[0].prefix for group in prompts_together])
      inserted = [(p, sequence) for p, group in enumerate(prompts_together) for sequence in group]
      dest = [rows[id(sequence)] for _, sequence in inserted]
      columns = _insert_batch(inserted, dest, R, None if self._rows.seen is None else engine.config.V)
      self._rows, *first = decode.insert(self._rows, logits, lengths, columns, engine.stop_ids, filters, top)
      source, dest, pages = columns.source, columns.dest, self._rows.pages
      self._cache = tuple(decode.insert_prefill(a, pages, b, source, dest) for a, b in zip(self._cache, prefill_cache))
      self._in_flight(first)
      self._unread.append(_Drawn(first, [(n, sequence, 1, False) for n, (_, sequence) in enumerate(inserted)]))

  def _prefill(self, prompts: list[tuple[int, ...]]) -> tuple[tuple, jax.Array, np.ndarray]:
    """A cache with the prompts in it, the logits [P,V] after each, and their lengths [P]."""
    engine = self._engine
    lengths = np.array([len(p) for p in prompts], np.int32)
    padded = _padded(int(lengths.max()), engine.chunk)
    chunk = min(padded, engine.chunk)
    tokens = np.zeros((len(prompts), padded), np.int32)
    for row, prompt in zip(tokens, prompts):
      row[: len(prompt)] = prompt
    prefill_cache = engine.prefill_cache(len(prompts), bucket(padded))
    for begin in range(0, padded, chunk):
      start, last = np.full(len(prompts), begin, np.int32), np.clip(lengths - 1 - begin, 0, chunk - 1)
      prefill_cache, logits = decode.prefill(self._model, prefill_cache, tokens[:, begin : begin + chunk], start, last)
      self._in_flight(logits)
    return *engine.spread((prefill_cache, logits), PartitionSpec()), lengths  # a row of any device may want any of them

  def _decode(self) -> tuple:
    """Start a block; returns what it will have drawn."""
    engine, R = self._engine, len(self._slots)
    used = max(
      sequence.used for sequence in self._slots if sequence is not None
    )  # with the last token, not yet in the cache
    self._resize(used + engine.block)
    # stop early once enough rows are free to be worth a refill; a lone waiting sample wants one row
    enough = R - min(len(self._waiting), max(1, R // 4)) if self._waiting else 0
    size = self._cache[0].size if self._book is None else self._rows.pages.shape[1] * engine.paging.size
    steps = min(engine.block, size - used + 1)
    filters = any(sequence is not None and sequence.request.sampling.filters for sequence in self._slots)
    top = any(sequence is not None and sequence.request.top for sequence in self._slots)
    numbers = np.int32(steps), np.int32(enough)
    self._rows, self._cache, *out = decode.decode_block(
      self._model, self._rows, self._cache, *numbers, engine.stop_ids, engine.block, filters, top
    )
    return tuple(out)

  def _look(self, *out) -> None:
    """Wait for the block, and see who drew how much and who is done; the tokens themselves are read later."""
    *columns, drawn, steps = out
    left, drawn, steps = jax.device_get((self._rows.left, drawn, steps))
    self._engine.row_steps += len(self._slots) * int(steps)
    who = []
    for row, sequence in enumerate(self._slots):
      if sequence is None:
        continue
      over = bool(left[row] == 0)
      who.append((row, sequence, int(drawn[row]), over))
      sequence.used += int(drawn[row])
      if over:
        self._leave(row)
    self._unread.append(_Drawn(columns, who))

  def _leave(self, row: int) -> None:
    """The row is free, and so are its pages."""
    self._slots[row] = None
    if self._book is not None:
      self._book.release(row)

  def _has_room(self, row: int, sequence: '_Sequence') -> bool:
    """Whether the row now has pages for a sample to begin, with one left for every row beside it to go on."""
    if self._book is None:
      return True
    positions = self._positions_wanted(sequence)
    beside = sum(s is not None and self._book.pool(r) == self._book.pool(row) for r, s in enumerate(self._slots))
    if self._book.wanted(row, positions) + beside > self._book.spare(row):
      return False
    self._book.grow(row, positions)
    return True

  def _positions_wanted(self, sequence: '_Sequence') -> int:
    """Positions that a sample may have filled after the next block."""
    return min(sequence.used + self._engine.block, len(sequence.request.prompt) + sequence.request.max_tokens)

  def _make_room(self) -> list[TokenChunk]:
    """Pages for the next block of every row. Where a pool has too few, its rows that have drawn least go back to the
    queue; their tokens must be read for that, and what was unread is returned."""
    book, chunks = self._book, []
    if book is None:
      return chunks
    for row in range(len(self._slots)):
      while self._slots[row] is not None and book.wanted(row, self._positions_wanted(self._slots[row])) > book.spare(
        row
      ):
        chunks += self.unread()
        beside = (r for r, s in enumerate(self._slots) if s is not None and book.pool(r) == book.pool(row))
        back = min(beside, key=lambda r: len(self._slots[r].resume_from) + len(self._slots[r].drawn))
        sequence = self._slots[back]
        again = _Sequence(
          sequence.request_id, sequence.request, sequence.sample, (*sequence.resume_from, *sequence.drawn)
        )
        self._waiting.appendleft(again)
        self._rows = decode.release(self._rows, np.arange(len(self._slots)) == back)
        self._leave(back)
      if self._slots[row] is not None:
        book.grow(row, self._positions_wanted(self._slots[row]))
    return chunks

  def _resize(self, wanted: int) -> None:
    """Room for `wanted` positions, and not for twice as many; one bucket at a time, so that few pairs are compiled."""
    longest = max((sequence.used for sequence in self._slots if sequence is not None), default=0)
    size = bucket(min(max(wanted, longest), self._engine.max_length))
    if self._book is not None:
      self._rows = self._engine.mapped(self._rows, self._book.table(self._engine.width(size)))
      return
    while self._cache[0].size < size:
      self._cache = tuple(decode.resize_cache(x, S=bucket(x.size + 1)) for x in self._cache)
    while self._cache[0].size >= 2 * size:
      self._cache = tuple(decode.resize_cache(x, S=_bucket_below(x.size)) for x in self._cache)


class _Sequence:
  """The host's side of one sample."""

  def __init__(self, request_id: int, request: Request, sample: int, resume_from: tuple[int, ...]):
    self.request_id, self.request, self.sample, self.resume_from = request_id, request, sample, resume_from
    self.prefix = request.prompt + resume_from
    self.used = len(self.prefix) + 1  # its first token is drawn when it sits down
    self.drawn: list[int] = []  # those handed out since it sat down


class _Drawn:
  """Tokens and log-probs still on the device, three arrays [N,block] or [N], or five; and whose they are."""

  def __init__(self, arrays: list, who: list[tuple[int, _Sequence, int, bool]]):
    self.arrays, self.who = arrays, who  # who: (index into N, sample, how many tokens, whether they are its last)

  def chunks(self, stop_ids: tuple) -> list[TokenChunk]:
    """Read, and cut up."""
    tokens, logps, sampler_logps, *likely = jax.device_get(self.arrays)
    tokens, logps, sampler_logps = (x.reshape(len(x), -1) for x in (tokens, logps, sampler_logps))
    likely = [x.reshape(*tokens.shape, -1) for x in likely]
    out = []
    for row, sequence, n, over in self.who:
      if n:
        sequence.drawn += tokens[row, :n].tolist()
      finish = ('stop' if sequence.drawn[-1] in stop_ids else 'length') if over else ''
      if n or over:
        top = tuple(x[row, :n] for x in likely) if sequence.request.top else None
        out.append(
          TokenChunk(
            sequence.request_id, sequence.sample, tokens[row, :n], logps[row, :n], sampler_logps[row, :n], finish, top
          )
        )
    return out


def _whole(request: int, sample: int, parts: list, finish: str) -> Completion:
  """The chunks (or an earlier completion) put together."""
  join = lambda name, kind: np.concatenate([np.zeros(0, kind), *(vars(p)[name] for p in parts)]).astype(kind)
  tokens, logps, sampler_logps = join('tokens', np.int32), join('logps', np.float32), join('sampler_logps', np.float32)
  return Completion(request, sample, tokens, logps, sampler_logps, finish)


PREFILL_BATCH = 8  # prompts prefilled at a time, or the next multiple of the devices they are spread over
_FEWEST_ROWS = 16


def _batches(groups: list[list[_Sequence]], engine: Engine) -> Iterator[list[list[_Sequence]]]:
  """Groups whose prompts are prefilled at a time: several short ones, else one, so that no padding row is computed."""
  while groups:
    short = sum(len(group[0].prefix) <= engine.chunk for group in groups[: engine.prefill_batches[0]])
    n = next(n for n in engine.prefill_batches if n <= max(short, 1))
    yield groups[:n]
    groups = groups[n:]


def _insert_batch(inserted: list[tuple[int, _Sequence]], dest: list[int], N: int, V: int | None) -> decode.InsertBatch:
  """Columns for `inserted` (prompt, sample) in rows `dest`, filled up to N; with V, also what each has seen."""
  sequences = [sequence for _, sequence in inserted]
  spare = N - len(sequences)
  pad = lambda values, fill, kind: np.array([*values, *[fill] * spare], kind)
  seen = None
  if V is not None:
    seen = np.zeros((N, V), bool)
    for row, sequence in zip(seen, sequences):
      row[list(sequence.prefix)] = True
  return decode.InsertBatch(
    source=pad((p for p, _ in inserted), 0, np.int32),
    dest=pad(dest, N, np.int32),  # one past the last row: dropped by the scatter
    seed=pad((s.request.seed for s in sequences), 0, np.uint32),
    number=pad((s.request.number for s in sequences), 0, np.uint32),
    sample=pad((s.sample for s in sequences), 0, np.uint32),
    count=pad((len(s.resume_from) for s in sequences), 0, np.int32),
    left=pad((s.request.max_tokens - len(s.resume_from) for s in sequences), 1, np.int32),
    sampling=batched([*(s.request.sampling for s in sequences), *[SamplingParams()] * spare]),
    seen=seen,
  )


def bucket(n: int) -> int:
  """The size n is rounded up to, so that few sizes are compiled: 32, 48, 64, 96, 128, ..."""
  size = 32
  while size < n:
    if size * 3 // 2 >= n:
      return size * 3 // 2
    size *= 2
  return size


def _padded(n: int, chunk: int) -> int:
  """Positions that n tokens of a prompt take while they are prefilled: a bucket, or whole chunks."""
  return bucket(n) if n <= chunk else -(-n // chunk) * chunk


def _bucket_below(size: int) -> int:
  """The bucket before a bucket."""
  return size * 2 // 3 if size % 3 == 0 else size * 3 // 4


def _buckets(longest: int) -> list[int]:
  """Every bucket up to the one that holds `longest`."""
  sizes = [32]
  while sizes[-1] < longest:
    sizes.append(bucket(sizes[-1] + 1))
  return sizes
