"""How much there is of everything: rows and positions follow the live samples, in sizes that are compiled once."""

import jax
import numpy as np
import pytest

from vibethinker_jax.engine.engine import Engine, Request, Scheduler
from vibethinker_jax.engine.sampling import SamplingParams

STOPS = (9, 21, 29)


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def test_rows_and_slotsfollow_the_live(model):
  """A long sample after many short ones works on few rows; a short one after it on few positions again."""
  rows = Scheduler(Engine(model.config, (), rows=64, block=8), model)
  for i in range(64):
    rows.add(i, Request((1, 2), 200 if i == 0 else 4, number=i), 0)
  sizes = []
  while rows.busy:
    rows.step()
    sizes.append((len(rows._slots), rows._cache[0].size))
  assert sizes[0][0] == 64 and sizes[-1][0] == 16 and max(s for _, s in sizes) == 256
  rows.add(100, Request((1, 2), 4), 0)
  while rows.busy:
    rows.step()
  assert rows._cache[0].size == 32 or rows._cache[0].size == 48


def test_nothing_compiles_after_the_warm_up(model):
  """500 requests of mixed lengths and batched, counted by JAX's own compilation events."""
  engine = Engine(model.config, STOPS, rows=4, block=8, chunk=32)
  engine.warm_up(model, longest_prompt=34, longest=40)
  rng = np.random.default_rng(0)
  requests = [
    Request(
      tuple(rng.integers(0, 48, rng.integers(1, 35)).tolist()),
      int(rng.integers(1, 7)),
      samples=int(rng.integers(1, 3)),
      sampling=(SamplingParams(), SamplingParams(0.7, top_p=0.9), SamplingParams(0.0))[i % 3],
      number=i,
    )
    for i in range(500)
  ]
  compiled = []
  listen = lambda event, seconds, **more: compiled.append(event) if 'backend_compile' in event else None
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    done = list(engine.generate(model, requests))
    assert not compiled
    jax.jit(lambda x: x + 500)(np.zeros(3))
    assert compiled, 'the counter counts'
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert len(done) == sum(r.samples for r in requests)
