import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibethinker_jax.engine.cache import Int8KVCache
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.engine.scheduler import Scheduler
from vibethinker_jax.model import hf
from vibethinker_jax.model.int8 import quantize
from vibethinker_jax.model.mesh import MeshShape, decode_mesh, make_mesh
from vibethinker_jax.model.qwen2 import Config

STOPS = (9, 21, 29)  # some samples of REQUESTS draw one as their first token, some later, and some never


@pytest.mark.parametrize('G, tied, theta', [(3, True, 1e4), (7, False, 1e6)])
def test_greedy_equals_transformers(transformers_qwen2, tmp_path, G, tied, theta):
  c = Config(V=50, D=32, L=2, K=2, G=G, H=8, F=40, rope_theta=theta, positions=256, tied=tied)
  theirs = transformers_qwen2.make(tmp_path, c, seed=G)
  rng = np.random.default_rng(G)
  prompts = [[0, *rng.integers(1, c.V, n).tolist(), 0, 7] for n in (1, 4, 9, 20, 2, 27)]  # 0 is transformers' pad id
  requests = [Request(tuple(p), 12, sampling=SamplingParams(temperature=0)) for p in prompts]
  done = list(Engine(c, STOPS, rows=4, block=8).generate(hf.load(tmp_path), requests))
  assert sorted(d.request for d in done) == list(range(6))
  for d in done:
    assert d.tokens.tolist() == transformers_qwen2.greedy(theirs, prompts[d.request], 12, list(STOPS))
    assert d.finish == ('stop' if d.tokens[-1] in STOPS else 'length')
    assert not d.sampler_logps.any()  # ln 1: greedy draws with probability 1


REQUESTS = [
  Request(tuple(range(1, 2 + 3 * i)), max_tokens=(1, 7, 20)[i % 3], samples=1 + i % 2, sampling=s, seed=9, number=i)
  for i, s in enumerate(
    [
      SamplingParams(),
      SamplingParams(temperature=0.7, top_k=9),
      SamplingParams(top_p=0.8),
      SamplingParams(min_p=0.02),
      SamplingParams(),
      SamplingParams(0.0),
    ]
  )
]


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def run(model, requests, rows: int = 4, block: int = 8, **more) -> dict:
  engine = Engine(model.config, STOPS, rows=rows, block=block, **more)
  return {(requests[c.request].number, c.sample): c for c in engine.generate(model, requests)}


@pytest.fixture(scope='module')
def reference(model):
  return run(model, REQUESTS)


@jax.jit
def scored(model, tokens):
  """ln p [B,T] of the token after each place, by a forward pass over whole sequences [B,T]."""
  at = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  return model.token_logps(model(tokens, at, jnp.ones_like(tokens)), jnp.roll(tokens, -1, 1))[0]


def check_log_probs(model, requests, done, size: int, tolerance: float = 1e-4) -> None:
  """The engine's ln p of every token equals that of a forward pass over the finished sequence.

  There are always eight rows, so that all calls use one compiled program.
  """
  rows = [(r.prompt, c) for r in requests for (number, _), c in done.items() if number == r.number]
  for begin in range(0, len(rows), 8):
    tokens = np.zeros((8, size), np.int32)
    for row, (prompt, c) in zip(tokens, rows[begin : begin + 8]):
      row[: len(prompt) + len(c.tokens)] = [*prompt, *c.tokens]
    for row, (prompt, c) in zip(scored(model, tokens), rows[begin : begin + 8]):
      np.testing.assert_allclose(c.logps, row[len(prompt) - 1 :][: len(c.tokens)], atol=tolerance)


def test_log_probs_equal_scoring(model, reference):
  check_log_probs(model, REQUESTS, reference, 48)
  plain = [c for (number, _), c in reference.items() if REQUESTS[number].sampling == SamplingParams()]
  for c in plain:
    np.testing.assert_allclose(c.sampler_logps, c.logps, atol=1e-5)


LENGTHS = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 50), st.integers(1, 3)), min_size=4, max_size=9)


@settings(max_examples=5, deadline=None)
@given(shapes=LENGTHS, seed=st.integers(0, 2**32 - 1), stops=st.sets(st.integers(0, 47), max_size=3))
@pytest.mark.slow
def test_log_probs_through_refills_chunks_and_growth(model, shapes, seed, stops):
  """Random lengths and stops in four slots: prompts longer than a chunk of 32, queued samples, a cache that grows."""
  rng = np.random.default_rng(seed)
  requests = [
    Request(tuple(rng.integers(0, 48, p).tolist()), n, samples, seed=seed, number=i)
    for i, (p, n, samples) in enumerate(shapes)
  ]
  engine = Engine(model.config, stops, rows=4, block=8, prefill_chunk=32)
  done = {(c.request, c.sample): c for c in engine.generate(model, requests)}
  assert sorted(done) == [(i, s) for i, r in enumerate(requests) for s in range(r.samples)]
  check_log_probs(model, requests, done, 128)


def test_limits_are_kept(reference):
  assert len(reference) == sum(r.samples for r in REQUESTS)
  for (number, _), c in reference.items():
    assert 1 <= len(c.tokens) == len(c.logps) == len(c.sampler_logps) <= REQUESTS[number].max_tokens
    assert not set(STOPS) & set(c.tokens[:-1].tolist())
    assert c.finish == ('stop' if c.tokens[-1] in STOPS else 'length')
    assert c.finish == 'stop' or len(c.tokens) == REQUESTS[number].max_tokens
  assert {min(len(c.tokens), 2) for c in reference.values() if c.finish == 'stop'} == {1, 2}
  assert any(len(c.tokens) > 8 for c in reference.values())  # more than a block


OTHERS = [Request((1 + i % 40, 2, i % 7), 1 + i % 9, seed=i % 3, number=100 + i) for i in range(100)]


@pytest.mark.parametrize('rows, block, devices', [(1, 32, 1), (4, 1, 1), (64, 32, 1), (64, 1, 8)])
def test_batch_invariance(model, reference, rows, block, devices):
  """The same tokens with a hundred other requests in the queue, in one row or many, on one device or eight."""
  where = {} if devices == 1 else {'mesh': decode_mesh(make_mesh(MeshShape(data=devices)))}
  other = run(model, [*OTHERS[:50], *REQUESTS[::-1], *OTHERS[50:]], rows, block, **where)
  assert set(other) == set(reference) | {(r.number, 0) for r in OTHERS}
  for key, c in reference.items():
    assert other[key].tokens.tolist() == c.tokens.tolist()
    np.testing.assert_allclose(other[key].logps, c.logps, atol=1e-4)


def test_batch_invariance_of_a_single_request(model, reference):
  for request in REQUESTS[1:3]:
    for key, c in run(model, [request], rows=1, block=32).items():
      assert c.tokens.tolist() == reference[key].tokens.tolist()


def test_seed_request_and_sample_each_matter(model, reference):
  assert reference[1, 0].tokens.tolist() != reference[1, 1].tokens.tolist()
  for change in ({'seed': 10}, {'number': 11}):
    changed = [dataclasses.replace(r, **change) if r.number == 1 else r for r in REQUESTS]
    c = run(model, changed)[change.get('number', 1), 0]
    assert c.tokens.tolist() != reference[1, 0].tokens.tolist()


def test_bad_requests_are_refused_and_the_others_served(model, reference):
  good = REQUESTS[1]
  faults = {
    'empty prompt': {'prompt': ()},
    'prompt ids': {'prompt': (3, 48)},
    'prompt ids must': {'prompt': (-1,)},
    'samples 0': {'samples': 0},
    'max_tokens 0': {'max_tokens': 0},
    'exceed the length 40': {'max_tokens': 40 - len(good.prompt) + 1},
    'temperature -1': {'sampling': SamplingParams(temperature=-1)},
    'temperature nan': {'sampling': SamplingParams(temperature=math.nan)},
    'top_k 0': {'sampling': SamplingParams(top_k=0)},
    'top_p 0': {'sampling': SamplingParams(top_p=0)},
    'min_p 2': {'sampling': SamplingParams(min_p=2)},
    'seed -1': {'seed': -1},
  }
  bad = [dataclasses.replace(good, number=100 + i, **change) for i, change in enumerate(faults.values())]
  done = run(model, [*bad[:6], *REQUESTS, *bad[6:]], max_length=40)
  for i, why in enumerate(faults):
    c = done[100 + i, 0]
    assert c.finish.startswith('refused: ') and why in c.finish and len(c.tokens) == 0
  assert len(done) == len(bad) + len(reference)
  for key, c in reference.items():
    assert done[key].tokens.tolist() == c.tokens.tolist()
  assert list(Engine(model.config, STOPS).generate(model, [])) == []


def test_a_sample_may_fill_the_whole_length(model):
  request = Request(tuple(range(1, 9)), 32, samples=3, sampling=SamplingParams(0.0, top_k=9))  # no stop is drawn
  assert [len(c.tokens) for c in run(model, [request], max_length=40).values()] == [32, 32, 32]


def test_suspended_and_resumed_equals_uninterrupted(model, reference):
  blocks = iter(range(100))
  engine = Engine(model.config, STOPS, rows=4, block=4)
  first = list(engine.generate(model, REQUESTS, stop=lambda: next(blocks) == 3))
  cut = [c for c in first if c.finish == 'suspended']
  assert any(len(c.tokens) for c in cut) and any(c.finish == 'stop' for c in first), 'both kinds must occur'
  second = {(c.request, c.sample): c for c in engine.generate(model, REQUESTS, resume_from=first)}
  assert set(second) == set(reference)
  for key, c in reference.items():
    assert second[key].tokens.tolist() == c.tokens.tolist() and second[key].finish == c.finish
    np.testing.assert_allclose(second[key].logps, c.logps, atol=1e-4)
    np.testing.assert_allclose(second[key].sampler_logps, c.sampler_logps, atol=1e-4)
  finished = next(c for c in first if c.finish == 'stop')
  assert second[finished.request, finished.sample] is finished


def test_chunked_prefill_equals_whole_prefill(model):
  requests = [
    Request(tuple(np.random.default_rng(n).integers(0, 48, n).tolist()), 9, number=n) for n in (95, 96, 97, 5)
  ]
  whole, chunked = run(model, requests, prefill_chunk=128), run(model, requests, prefill_chunk=32)
  for key, c in whole.items():
    assert chunked[key].tokens.tolist() == c.tokens.tolist()
    np.testing.assert_allclose(chunked[key].logps, c.logps, atol=1e-4)


def test_cancelled_samples_stop_and_free_their_slots(model, reference):
  scheduler = Scheduler(Engine(model.config, (), rows=2, block=4), model)
  endless = Request((1, 2, 3), 400, samples=3, number=77)
  for sample in range(3):
    scheduler.add(77, endless, sample)
  scheduler.step()
  assert scheduler.live == 2 and scheduler.queued == 1
  scheduler.cancel(77, 1)
  assert scheduler.live == 1 and scheduler.queued == 1, 'only one sample is cancelled'
  scheduler.add(1, REQUESTS[1], 0)
  scheduler.cancel(77)
  assert scheduler.live == 0 and scheduler.queued == 1
  chunks = []
  while scheduler.busy:
    chunks += scheduler.step()
  assert {p.request_id for p in chunks} == {1}
  tokens = np.concatenate([p.tokens for p in chunks])
  assert len(tokens) == REQUESTS[1].max_tokens
  stops = np.isin(tokens, STOPS)  # this engine has no stop tokens, so it draws the same tokens and then more
  n = int(stops.argmax()) + 1 if stops.any() else len(tokens)
  assert tokens[:n].tolist() == reference[1, 0].tokens.tolist()


def test_repetition_penalty_equals_transformers(transformers_qwen2, tmp_path):
  import torch

  c = Config(V=50, D=32, L=2, K=2, G=2, H=8, F=40, rope_theta=1e4, positions=256)
  theirs = transformers_qwen2.make(tmp_path, c, seed=3)
  prompt = [4, 9, 17, 9, 33]
  for penalty in (1.3, 0.8):
    with torch.no_grad():
      ids = torch.tensor([prompt])
      settings = dict(do_sample=False, max_new_tokens=20, pad_token_id=0, repetition_penalty=penalty, eos_token_id=None)
      expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
    penalized = Request(tuple(prompt), 20, sampling=SamplingParams(0.0, repetition_penalty=penalty))
    plain = Request(tuple(prompt), 20, sampling=SamplingParams(0.0), number=1)
    requests = [plain, penalized, plain]  # in one row, with and without a penalty in turn
    done = {c.request: c for c in Engine(c, (), rows=1, block=8).generate(hf.load(tmp_path), requests)}
    assert done[1].tokens.tolist() == expected
    assert done[0].tokens.tolist() == done[2].tokens.tolist() != expected


@pytest.mark.parametrize('weights, cache', [(True, False), (False, True), (True, True)])
def test_int8_log_probs_are_close(model, weights, cache):
  """Rounding to 1/127 of the largest value changes the log-probs of the same tokens, and only by little."""
  requests = [Request(tuple(range(1, 20)), 1, number=i, sampling=SamplingParams(0.0)) for i in range(1)]
  requests += [Request(tuple(range(i, 20 + i)), 12, number=i) for i in range(1, 9)]
  rounded = quantize(model) if weights else model
  more = {'cache': Int8KVCache} if cache else {}
  done = run(rounded, requests, **more)
  moved = []
  for r in requests:
    c = done[r.number, 0]
    tokens = np.zeros((8, 48), np.int32)
    tokens[0, : len(r.prompt) + len(c.tokens)] = [*r.prompt, *c.tokens]
    moved.append(np.abs(c.logps - scored(model, tokens)[0, len(r.prompt) - 1 :][: len(c.tokens)]))
  moved = np.concatenate(moved)
  assert 1e-4 < moved.mean() < 0.15 and moved.max() < 1.0


def test_int8_weights_stay_int8_in_a_bfloat16_model(model):
  narrow = jax.tree.map(lambda x: x, model)
  narrow.config = dataclasses.replace(model.config, dtype='bfloat16')
  placed = Engine(narrow.config, STOPS).place(quantize(narrow))
  kinds = {str(x.dtype) for x in jax.tree.leaves(placed)}
  assert kinds == {'int8', 'float32', 'bfloat16'}, 'values, scales, the rest'
  assert all(x.dtype == 'bfloat16' for x in jax.tree.leaves(Engine(narrow.config, STOPS).place(narrow)))
