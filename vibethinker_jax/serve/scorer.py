"""Given tokens scored beside the engine (by engine/score.py): in one thread, a batch at a time, whoever asks."""

import asyncio
import concurrent.futures
from collections.abc import Sequence

import numpy as np

from vibethinker_jax.engine.score import Score, score
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.serve.exceptions import Busy, Closing, EngineFailure

_WAIT_S = 5  # when it may be worth another try


class Scorer:
  """Scores for many at once. All methods are for one event loop. capacity: sequences that may be open."""

  def __init__(self, model: Qwen2, capacity: int):
    self.capacity, self.open = capacity, 0
    self._model = model
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'score')
    self._failure: Exception | None = None
    self._closing = False

  async def score(self, sequences: Sequence[Sequence[int]], top: bool) -> list[Score]:
    """One Score for each sequence. Whoever is cancelled waits for no more than the batch at work.

    Raises Busy, Closing, EngineFailure.
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
      except Exception as error:  # whatever the device may raise, memory first of all
        raise EngineFailure(f'scoring failed ({type(error).__name__})') from error
      if not np.isfinite(one.logps).all():
        raise EngineFailure('log-probabilities are not finite: the weights are broken')
      out[i] = one
    return [out[i] for i in range(len(sequences))]

  def close(self) -> None:
    """Turn away who comes."""
    self._closing = True

  def give_up(self) -> None:
    """Who waits is told that it is over, once the batch at work is through."""
    self._failure = Closing('the server was shut down before the answer was complete')

  async def stop(self) -> None:
    """End the thread."""
    await asyncio.to_thread(self._thread.shutdown)
