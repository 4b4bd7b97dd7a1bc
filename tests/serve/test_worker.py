"""The engine's thread: what it does beside drawing."""

import asyncio
import pathlib

import jax
import pytest

from vibethinker_jax import runtime
from vibethinker_jax.engine.engine import Request
from vibethinker_jax.serve import worker as module
from vibethinker_jax.serve.worker import Worker

REQUEST = Request((1, 2, 3), 24, samples=2)


async def drawn(worker: Worker) -> dict[int, list[int]]:
  worker.start()
  tokens = {sample: [] for sample in range(REQUEST.samples)}
  with worker.ask([REQUEST]) as stream:
    async for chunks in stream:
      for _, chunk in chunks:
        tokens[chunk.sample] += chunk.tokens.tolist()
  await worker.stop()
  return tokens


def test_programs_are_dropped_where_mappings_run_out(tiny, monkeypatch):
  """In the middle of an answer, and the answer is the same."""
  engine, model, _ = tiny
  wanted = {c.sample: c.tokens.tolist() for c in engine.generate(model, [REQUEST])}
  cleared, clear = [], jax.clear_caches
  answers = iter([True, False, True, False, *[False] * 1000])  # asked again after each clearing
  monkeypatch.setattr(runtime, 'crowded', lambda share=0.75: next(answers))
  monkeypatch.setattr(module, '_TIDY_S', 0.0)
  monkeypatch.setattr(jax, 'clear_caches', lambda: cleared.append(clear()))
  assert asyncio.run(drawn(Worker(engine, model, 8))) == wanted and len(cleared) == 2


def test_how_many_mappings_there_are():
  if pathlib.Path('/proc/self/maps').exists():
    assert runtime.crowded(0.0) and not runtime.crowded(1.0)


@pytest.mark.slow
def test_programs_and_their_mappings_go(tiny):
  engine, model, _ = tiny
  before = list(engine.generate(model, [REQUEST]))
  held = pathlib.Path('/proc/self/maps').read_bytes().count(b'\n')
  jax.clear_caches()
  assert pathlib.Path('/proc/self/maps').read_bytes().count(b'\n') < held - 100
  assert [c.tokens.tolist() for c in engine.generate(model, [REQUEST])] == [c.tokens.tolist() for c in before]
