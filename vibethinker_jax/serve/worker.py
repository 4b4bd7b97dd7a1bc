"""The worker: one thread that runs the engine for many requests at once.

Only this thread uses the rows of the engine. Requests reach it through a queue, which it reads between two blocks of
tokens; the tokens of each step go back to the event loop as chunks. Closing a stream frees its
slots. If the engine fails, every waiting request gets an error, and the next request creates a new Scheduler.
"""

import asyncio
import collections
import dataclasses
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Sequence

import jax
import numpy as np

from vibethinker_jax import runtime
from vibethinker_jax.engine.engine import Engine, Request, TokenChunk
from vibethinker_jax.engine.scheduler import Scheduler
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.serve.errors import Busy, Closing, EngineFailure
from vibethinker_jax.serve.metrics import Metrics
from vibethinker_jax.serve.scorer import Scorer

_log = logging.getLogger('vibethinker')
_WINDOW_S = 10.0  # seconds over which "tokens per second" is averaged
_TIDY_S = 5.0  # seconds between two checks of the memory mappings of compiled programs
_ENOUGH = 0.5  # share of the memory mappings that programs compiled in advance may use


class Worker:
  """Owns a Scheduler. All methods but the constructor are for one event loop, the one that calls `start`.

  Args:
    engine, model: draw the tokens.
    waiting: samples that may wait for a row. `scorer` takes as many prompts as rows and waiting samples together.
    warm: shapes for prompts and samples up to this many tokens are compiled in advance, in another thread; 0 for none.
  """

  def __init__(self, engine: Engine, model: Qwen2, waiting: int, warm: int = 0):
    self.engine, self.metrics = engine, Metrics()
    self.capacity = engine.row_sizes[0] + waiting
    self.scorer = Scorer(model, self.capacity)
    self._model = model
    self._warm = min(warm, engine.max_length)
    self._ops: queue.SimpleQueue = queue.SimpleQueue()
    self._streams: dict[int, Stream] = {}
    self._open = 0  # samples asked for and not finished
    self._request_ids = 0
    self._closing = False
    self._look = 0.0  # when to check the memory mappings again
    self._recent: collections.deque[tuple[float, int]] = collections.deque()  # (when, tokens) of the last steps
    self._loop: asyncio.AbstractEventLoop | None = None
    self._threads = [threading.Thread(target=self._work, name='engine', daemon=True)]
    if self._warm:
      self._threads.append(threading.Thread(target=self._warm_up, name='warm-up', daemon=True))
    self.warm = not self._warm
    self.metrics.watch(engine.row_sizes[0], self)

  # ---- for the event loop

  def start(self) -> None:
    """Starts the threads."""
    self._loop = asyncio.get_running_loop()
    for thread in self._threads:
      thread.start()

  @property
  def open(self) -> int:
    """The number of samples that are being drawn or are waiting."""
    return self._open

  @property
  def closing(self) -> bool:
    """Whether new requests are refused."""
    return self._closing

  @property
  def tokens_per_second(self) -> float:
    """Tokens drawn per second, over the last ten seconds."""
    since = time.monotonic() - _WINDOW_S
    while self._recent and self._recent[0][0] < since:
      self._recent.popleft()
    return sum(n for _, n in self._recent) / _WINDOW_S

  def ask(self, requests: Sequence[Request]) -> 'Stream':
    """The stream of some requests, a context. Engine.validate must accept the requests.

    Raises Busy if there is no room for their samples, Closing while the server shuts down.
    """
    samples = sum(request.samples for request in requests)
    if self._closing:
      raise Closing('the server is shutting down')
    if self._open + samples > self.capacity:
      raise Busy(
        f'{self._open} samples are being served, {samples} more exceed the limit {self.capacity}', self._retry()
      )
    first, self._request_ids = self._request_ids, self._request_ids + len(requests)
    stream = Stream(self, first, requests)
    self._open += samples
    for request_id, request in enumerate(requests, first):
      self._streams[request_id] = stream
      self._ops.put(_Add(request_id, request))
    return stream

  async def drain(self, grace_s: float) -> None:
    """Refuses new requests, lets the present ones finish, and after `grace_s` seconds ends the others with Closing."""
    self._closing = True
    self.scorer.close()
    end = time.monotonic() + grace_s
    while (self._streams or self.scorer.open) and time.monotonic() < end:
      await asyncio.sleep(0.02)
    self.scorer.give_up()
    for stream in set(self._streams.values()):
      stream.fail(Closing('the server was shut down before the answer was complete'))

  async def stop(self) -> None:
    """Ends the threads; streams that are still open end with Closing."""
    await self.drain(0)
    self._ops.put(None)
    for thread in self._threads:
      await asyncio.to_thread(thread.join, 60)
    await self.scorer.stop()

  def _retry(self) -> int:
    """Seconds until some open samples are probably finished, estimated from the rate at which tokens are drawn."""
    return max(1, min(60, round(self._open / max(self.tokens_per_second, 1.0))))

  def _forget(self, request_id: int, samples: int) -> None:
    """Ends a request of which `samples` are unfinished."""
    if self._streams.pop(request_id, None) is not None:
      self._open -= samples
      if samples:
        self._ops.put(_Cancel(request_id, None))

  def _drop(self, request_id: int, sample: int) -> None:
    self._open -= 1
    self._ops.put(_Cancel(request_id, sample))

  def _deliver(self, chunks: list[TokenChunk]) -> None:
    """Gives the chunks of a step to their streams."""
    now, drawn = time.monotonic(), sum(len(chunk.tokens) for chunk in chunks)
    self.metrics.tokens.inc(drawn)
    self._recent.append((now, drawn))
    for chunk in chunks:
      stream = self._streams.get(chunk.request_id)
      if stream is not None:
        stream.put(chunk, now)

  def _broken(self, request_ids: list[int], error: Exception) -> None:
    self.metrics.restarts.inc()
    why = EngineFailure(f'the engine failed ({type(error).__name__}) and was started again')
    for stream in {self._streams[t] for t in request_ids if t in self._streams}:
      stream.fail(why)

  # ---- for the threads

  def _work(self) -> None:
    run, left = None, {}  # left: the unfinished samples of each request
    while True:
      try:
        op = self._ops.get(block=run is None or not run.busy)
        while op is not None:
          run = run or Scheduler(self.engine, self._model)
          op.do(run, left)
          op = self._ops.get(block=False)
        return
      except queue.Empty:
        pass
      except Exception as error:
        run = self._restart(left, error)
        continue
      try:
        self._tidy()
        chunks = run.step() if run.busy else []
      except Exception as error:  # the device may raise anything, out-of-memory most often
        run = self._restart(left, error)
        continue
      self.metrics.live, self.metrics.queued = run.live, run.queued
      for chunk in chunks:
        if chunk.finish:
          _strike(left, chunk.request_id, {chunk.sample})
      if chunks:
        self._loop.call_soon_threadsafe(self._deliver, chunks)

  def _tidy(self) -> None:
    """Drops compiled programs if they leave too few memory mappings; those still needed are compiled again."""
    if time.monotonic() < self._look:
      return
    self._look = time.monotonic() + _TIDY_S
    if runtime.crowded():
      jax.clear_caches()
      if runtime.crowded():
        self._look = math.inf
        _log.warning('memory mappings run short, and compiled programs are not the reason')

  def _restart(self, left: dict[int, set[int]], error: Exception) -> None:
    _log.exception('the engine failed and is started again')
    request_ids = list(left)
    left.clear()
    self.metrics.live = self.metrics.queued = 0
    self._loop.call_soon_threadsafe(self._broken, request_ids, error)

  def _warm_up(self) -> None:
    try:
      for longest in sorted({min(128, self._warm), min(512, self._warm), self._warm}):
        self.engine.warm_up(self._model, longest // 2, longest, stop=lambda: self._closing or runtime.crowded(_ENOUGH))
      self.warm = True
    except Exception:  # serving goes on: a shape for which memory is missing here may never be needed
      _log.exception('the warm-up failed')


class Stream:
  """The chunks drawn for some requests: `async for chunks in stream` gives a list of (index of request, TokenChunk).

  A context: leaving it gives the rows back. Iterating raises EngineFailure or Closing if no more chunks will come.
  """

  def __init__(self, worker: Worker, first: int, requests: Sequence[Request]):
    self._worker, self._first = worker, first
    self._unfinished = {(first + i, s) for i, request in enumerate(requests) for s in range(request.samples)}
    self._request_ids = range(first, first + len(requests))
    self._chunks: list[tuple[int, TokenChunk]] = []
    self._news = asyncio.Event()
    self._failure: Exception | None = None
    self._born: float | None = time.monotonic()  # until its first token

  def __enter__(self) -> 'Stream':
    return self

  def __exit__(self, *exc) -> None:
    for request_id in self._request_ids:
      self._worker._forget(request_id, sum(t == request_id for t, _ in self._unfinished))
    self._unfinished.clear()

  async def __aiter__(self) -> AsyncIterator[list[tuple[int, TokenChunk]]]:
    while self._unfinished or self._chunks:
      await self._news.wait()
      self._news.clear()
      if self._failure is not None:
        raise self._failure
      chunks, self._chunks = self._chunks, []
      if chunks:
        yield chunks

  def drop(self, request: int, sample: int) -> None:
    """Ends a sample of which no more is wanted. request: the index of its request."""
    key = self._first + request, sample
    if key in self._unfinished:
      self._unfinished.remove(key)
      self._worker._drop(*key)
      self._news.set()

  def put(self, chunk: TokenChunk, now: float) -> None:
    """Takes a chunk from the worker; `now` is the time (time.monotonic)."""
    key = chunk.request_id, chunk.sample
    if key not in self._unfinished:
      return  # the sample was dropped while this was being drawn
    if not np.isfinite(chunk.logps).all():
      self.fail(EngineFailure('log-probabilities are not finite: the weights are broken'))
      return
    if self._born is not None:
      self._worker.metrics.first_token.observe(now - self._born)
      self._born = None
    if chunk.finish:
      self._unfinished.remove(key)
      self._worker._open -= 1
    self._chunks.append((chunk.request_id - self._first, chunk))
    self._news.set()

  def fail(self, why: Exception) -> None:
    """Ends the stream: iterating raises `why`."""
    if self._failure is None:
      self._failure = why
      self._news.set()


@dataclasses.dataclass(frozen=True)
class _Add:
  request_id: int
  request: Request

  def do(self, run: Scheduler, left: dict[int, set[int]]) -> None:
    left[self.request_id] = set(range(self.request.samples))
    for sample in range(self.request.samples):
      run.add(self.request_id, self.request, sample)


@dataclasses.dataclass(frozen=True)
class _Cancel:
  request_id: int
  sample: int | None

  def do(self, run: Scheduler, left: dict[int, set[int]]) -> None:
    run.cancel(self.request_id, self.sample)
    _strike(left, self.request_id, left.get(self.request_id, set()) if self.sample is None else {self.sample})


def _strike(left: dict[int, set[int]], request_id: int, samples: set[int]) -> None:
  """Removes finished samples of a request from `left`."""
  rest = left.pop(request_id, set()) - samples
  if rest:
    left[request_id] = rest
