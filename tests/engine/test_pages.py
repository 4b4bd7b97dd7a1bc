"""The paged cache: the same tokens as with the contiguous cache, even with few pages, and no page is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.engine.allocators import PageAllocator
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.engine.scheduler import Scheduler
from vibethinker_jax.model.attention import attend, attend_paged, cached_mask, paged_gpu
from vibethinker_jax.model.mesh import MeshShape, decode_mesh, make_mesh

REQUESTS = [
  Request(
    tuple(range(1, 2 + 5 * i)), (3, 30, 41)[i % 3], 1 + i % 2, SamplingParams(repetition_penalty=1 + i % 3 / 4), 5, i
  )
  for i in range(6)
]


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def run(model, **more) -> dict:
  engine = Engine(model.config, (9,), block=8, max_length=96, **more)
  return {(c.request, c.sample): c for c in engine.generate(model, REQUESTS)}


@pytest.fixture(scope='module')
def contiguous(model):
  return run(model, rows=4)


def same(one: dict, other: dict) -> None:
  assert set(one) == set(other)
  for key, c in one.items():
    assert other[key].tokens.tolist() == c.tokens.tolist() and other[key].finish == c.finish
    np.testing.assert_allclose(other[key].logps, c.logps, atol=1e-4)


def test_paged_kernels_equal_attend():
  """Rows of 1 to 64 positions, in pages of 16 that are scattered over a larger pool."""
  B, K, G, H, size, W = 3, 2, 6, 32, 16, 4
  rng = np.random.default_rng(0)
  q = jnp.asarray(rng.normal(size=(B, K, G, H)), jnp.float32)
  k, v = (jnp.asarray(rng.normal(size=(K, 20, size, H)), jnp.float32) for _ in range(2))
  table = rng.permutation(20)[: B * W].reshape(B, W).astype(np.int32)
  lengths = jnp.array([1, 37, 64], jnp.int32)
  whole = lambda x: jnp.moveaxis(x[:, table].reshape(K, B, W * size, H), 0, 1)
  mask = cached_mask(lengths[:, None] - 1, W * size)
  expected = attend(q[:, :, :, None], jnp.swapaxes(whole(k), 2, 3), whole(v), mask)[:, :, :, 0]
  np.testing.assert_allclose(attend_paged(q, k, v, lengths, table, 'xla'), expected, atol=2e-6)
  np.testing.assert_allclose(paged_gpu(q, k, v, lengths, jnp.asarray(table), interpret=True), expected, atol=2e-6)


@pytest.mark.parametrize('pages, size', [(60, 8), (12, 8), (6, 16)])
def test_paged_equals_contiguous(model, contiguous, pages, size):
  """With many pages, and with just enough for one sample of the longest length, so that samples are preempted."""
  same(run(model, rows=4, cache=PagedLayout(pages, size)), contiguous)


@pytest.mark.slow
def test_paged_equals_contiguous_on_eight_devices(model, contiguous):
  """Each device has its own pool."""
  mesh = decode_mesh(make_mesh(MeshShape(data=8)))
  same(run(model, rows=8, cache=PagedLayout(8 * 12, 8), mesh=mesh), contiguous)


def test_no_page_is_lost(model):
  """Few pages, and one request is cancelled meanwhile: in the end all pages are free."""
  engine = Engine(model.config, (9,), rows=4, block=8, max_length=96, cache=PagedLayout(12, 8))
  scheduler, preempted = Scheduler(engine, model), 0
  for i, r in enumerate(REQUESTS):
    for sample in range(r.samples):
      scheduler.add(i, r, sample)
  while scheduler.busy:
    queued = scheduler.queued
    scheduler.step()
    preempted += scheduler.queued > queued
    scheduler.cancel(4)
  assert preempted > 0, 'no sample was preempted: there were too many pages for this test'
  assert scheduler._allocator.free_pages(0) == 12


def test_slots_take_pages_from_the_pool_of_their_device():
  """Two devices with two slots and four pages of 16 positions each."""
  mesh = decode_mesh(make_mesh(MeshShape(data=2), jax.devices()[:2]))
  allocator = PageAllocator(PagedLayout(8, 16), rows=4, mesh=mesh)
  assert allocator.reserve(0, 33)
  assert [allocator.free_pages(slot) for slot in range(3)] == [1, 1, 4] and allocator.missing(0, 49) == 1
  assert not allocator.reserve(1, 16), 'the last page is kept for slot 0'
  assert allocator.grow(0, 80) == [0] and allocator.free_pages(0) == 1
  assert allocator.reserve(3, 16) and allocator.grow(3, 16) == []
  table = allocator.table(3)
  assert (table[1] == 4).all() and sorted(table[0]) == [0, 1, 2] and table[3].tolist() == [0, 4, 4]
  allocator.release(0)
  assert allocator.free_pages(1) == 4 and (allocator.table(3)[0] == 4).all()


def test_a_pool_that_is_too_small_for_one_sample_is_refused(model):
  with pytest.raises(ValueError, match='11 pages of 8 positions over 1 devices: expected room for a sample of 96'):
    Engine(model.config, (), max_length=96, cache=PagedLayout(11, 8))


def test_nothing_compiles_after_the_warm_up(model):
  engine = Engine(model.config, (9,), rows=4, block=8, max_length=96, cache=PagedLayout(40, 8))
  engine.warm_up(model, longest_prompt=30, longest=80, filters=False)
  compiled = []
  listen = lambda event, seconds, **more: compiled.append(event) if 'backend_compile' in event else None
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    plain = [Request(r.prompt, r.max_tokens, r.samples, seed=5, number=r.number) for r in REQUESTS]
    assert len(list(engine.generate(model, plain))) == 9
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled
