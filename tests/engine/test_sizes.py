"""Sizes: the batch and the cache follow the live samples, and every size is compiled once."""

import jax
import numpy as np
import pytest

from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.engine.scheduler import Scheduler

STOPS = (9, 21, 29)


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def test_batch_and_cache_follow_the_live_samples(model):
  """A long sample that outlives many short ones ends in a small batch; a short one after it, in a short cache."""
  scheduler = Scheduler(Engine(model.config, (), rows=64, block=8), model)
  for i in range(64):
    scheduler.add(i, Request((1, 2), 200 if i == 0 else 4, number=i), 0)
  sizes = []
  while scheduler.busy:
    scheduler.step()
    sizes.append((len(scheduler._slots), scheduler._cache[0].size))
  assert sizes[0][0] == 64 and sizes[-1][0] == 16 and max(s for _, s in sizes) == 256
  scheduler.add(100, Request((1, 2), 4), 0)
  while scheduler.busy:
    scheduler.step()
  assert scheduler._cache[0].size == 32 or scheduler._cache[0].size == 48


def test_nothing_compiles_after_the_warm_up(model):
  """500 requests of mixed lengths and sampling parameters; JAX reports its own compilations."""
  engine = Engine(model.config, STOPS, rows=4, block=8, prefill_chunk=32)
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
    assert compiled, 'the counter works'
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert len(done) == sum(r.samples for r in requests)
