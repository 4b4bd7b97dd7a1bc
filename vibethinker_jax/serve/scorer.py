"""Scores given tokens (with engine/score.py) beside the engine: in one thread, one batch at a time, for all callers."""

import asyncio
import concurrent.futures
from collections.abc import Sequence

import numpy as np

from vibethinker_jax.engine.score import Score, score
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.serve.errors import Busy, Closing, EngineFailure

_WAIT_S = 5  # when it may be worth another try


class Scorer:
  """Scores for many callers. All methods are for one event loop.

  model: the one that scores. capacity: sequences that may be scored or waiting at the same time.
  """

  def __init__(self, model: Qwen2, capacity: int):
    self.capacity, self.open = capacity, 0
    self._model = model
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'score')
    self._failure: Exception | None = None
    self._closing = False

  async def score(self, sequences: Sequence[Sequence[int]], top: bool) -> list[Score]:
    """One Score for each sequence. A caller that is cancelled waits for the current batch at most.

    sequences: token ids. top: whether the likeliest tokens are wanted. Raises Busy, Closing, EngineFailure.
    """
    if self._closing:
      raise Closing('the server is shutting down')
    if self.open + len(sequences) > self.capacity:
      raise Busy(
        f'{self.open} prompts are being scored, {len(sequences)} more exceed the limit {self.capacity}', _WAIT_S
      )
    self.open += len(sequences)
    try:
      return await self._all(sequences, top)
    finally:
      self.open -= len(sequences)

  async def _all(self, sequences: Sequence[Sequence[int]], top: bool) -> list[Score]:
    out: dict[int, Score] = {}
    scores, loop = score(self._model, sequences, top), asyncio.get_running_loop()
    while len(out) < len(sequences):
      if self._failure is not None:
        raise self._failure
      try:
        i, one = await loop.run_in_executor(self._thread, next, scores)
      except Exception as error:  # the device may raise anything, out-of-memory most often
        raise EngineFailure(f'scoring failed ({type(error).__name__})') from error
      if not np.isfinite(one.logps).all():
        raise EngineFailure('log-probabilities are not finite: the weights are broken')
      out[i] = one
    return [out[i] for i in range(len(sequences))]

  def close(self) -> None:
    """Refuses new calls."""
    self._closing = True

  def give_up(self) -> None:
    """Ends the waiting calls with Closing, once the current batch is finished."""
    self._failure = Closing('the server was shut down before the answer was complete')

  async def stop(self) -> None:
    """Ends the thread."""
    await asyncio.to_thread(self._thread.shutdown)
