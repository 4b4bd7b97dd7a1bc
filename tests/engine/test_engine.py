import dataclasses
import math

import jax
import numpy as np
import pytest

from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import Sampling
from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config

STOPS = (9, 21, 29)  # in REQUESTS: met by the first token of a sample, by later ones, and never


@pytest.mark.parametrize('G, tied, theta', [(3, True, 1e4), (7, False, 1e6)])
def test_greedy_equals_transformers(transformers_qwen2, tmp_path, G, tied, theta):
  c = Config(V=50, D=32, L=2, K=2, G=G, H=8, F=40, rope_theta=theta, positions=256, tied=tied)
  theirs = transformers_qwen2.make(tmp_path, c, seed=G)
  rng = np.random.default_rng(G)
  prompts = [[0, *rng.integers(1, c.V, n).tolist(), 0, 7] for n in (1, 4, 9, 20, 2, 27)]  # 0 is transformers' pad id
  requests = [Request(tuple(p), 12, sampling=Sampling(temperature=0)) for p in prompts]
  done = list(Engine(c, STOPS, rows=4, block=8).generate(hf.load(tmp_path), requests))
  assert sorted(d.request for d in done) == list(range(6))
  for d in done:
    assert d.tokens.tolist() == transformers_qwen2.greedy(theirs, prompts[d.request], 12, list(STOPS))
    assert d.finish == ('stop' if d.tokens[-1] in STOPS else 'length')
    assert not d.law_logps.any()  # greedy draws with certainty


REQUESTS = [
  Request(tuple(range(1, 2 + 3 * i)), max_tokens=(1, 7, 20)[i % 3], samples=1 + i % 2, sampling=s, seed=9, number=i)
  for i, s in enumerate(
    [
      Sampling(),
      Sampling(temperature=0.7, top_k=9),
      Sampling(top_p=0.8),
      Sampling(min_p=0.02),
      Sampling(),
      Sampling(0.0),
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
def together(model):
  return run(model, REQUESTS)


def test_log_probs_equal_scoring(model, together):
  """What the engine reports for a token is what a forward pass over the finished sequence gives it."""
  tokens = np.zeros((len(together), 48), np.int32)
  spans = []
  for row, ((number, _), c) in enumerate(together.items()):
    prompt = REQUESTS[number].prompt
    tokens[row, : len(prompt) + len(c.tokens)] = [*prompt, *c.tokens]
    spans.append(slice(len(prompt) - 1, len(prompt) - 1 + len(c.tokens)))
  at = np.broadcast_to(np.arange(48), tokens.shape)
  score = jax.jit(lambda m: m.token_logps(m(tokens, at, np.ones_like(tokens)), np.roll(tokens, -1, 1))[0])
  for row, span, c in zip(score(model), spans, together.values()):
    np.testing.assert_allclose(c.logps, row[span], atol=1e-4)
  plain = [c for (number, _), c in together.items() if REQUESTS[number].sampling == Sampling()]
  for c in plain:
    np.testing.assert_allclose(c.law_logps, c.logps, atol=1e-5)


def test_limits_are_kept(together):
  assert len(together) == sum(r.samples for r in REQUESTS)
  for (number, _), c in together.items():
    assert 1 <= len(c.tokens) == len(c.logps) == len(c.law_logps) <= REQUESTS[number].max_tokens
    assert not set(STOPS) & set(c.tokens[:-1].tolist())
    assert c.finish == ('stop' if c.tokens[-1] in STOPS else 'length')
    assert c.finish == 'stop' or len(c.tokens) == REQUESTS[number].max_tokens
  assert {min(len(c.tokens), 2) for c in together.values() if c.finish == 'stop'} == {1, 2}
  assert any(len(c.tokens) > 8 for c in together.values())  # more than a block


@pytest.mark.parametrize('rows, block', [(1, 32), (4, 1), (64, 32)])
def test_the_company_changes_no_token(model, together, rows, block):
  other = run(model, REQUESTS[::-1], rows, block)
  assert set(other) == set(together)
  for key, c in together.items():
    assert other[key].tokens.tolist() == c.tokens.tolist()
    np.testing.assert_allclose(other[key].logps, c.logps, atol=1e-4)


def test_a_request_alone(model, together):
  for request in REQUESTS[1:3]:
    for key, c in run(model, [request], rows=1, block=32).items():
      assert c.tokens.tolist() == together[key].tokens.tolist()


def test_seed_request_and_sample_each_matter(model, together):
  assert together[1, 0].tokens.tolist() != together[1, 1].tokens.tolist()
  for change in ({'seed': 10}, {'number': 11}):
    changed = [dataclasses.replace(r, **change) if r.number == 1 else r for r in REQUESTS]
    c = run(model, changed)[change.get('number', 1), 0]
    assert c.tokens.tolist() != together[1, 0].tokens.tolist()


def test_refusals_by_name_while_the_others_go_on(model, together):
  good = REQUESTS[1]
  faults = {
    'empty prompt': {'prompt': ()},
    'prompt ids': {'prompt': (3, 48)},
    'prompt ids must': {'prompt': (-1,)},
    'samples 0': {'samples': 0},
    'max_tokens 0': {'max_tokens': 0},
    'exceed the length 40': {'max_tokens': 40 - len(good.prompt) + 1},
    'temperature -1': {'sampling': Sampling(temperature=-1)},
    'temperature nan': {'sampling': Sampling(temperature=math.nan)},
    'top_k 0': {'sampling': Sampling(top_k=0)},
    'top_p 0': {'sampling': Sampling(top_p=0)},
    'min_p 2': {'sampling': Sampling(min_p=2)},
    'seed -1': {'seed': -1},
  }
  bad = [dataclasses.replace(good, number=100 + i, **change) for i, change in enumerate(faults.values())]
  done = run(model, [*bad[:6], *REQUESTS, *bad[6:]], max_length=40)
  for i, why in enumerate(faults):
    c = done[100 + i, 0]
    assert c.finish.startswith('refused: ') and why in c.finish and len(c.tokens) == 0
  assert len(done) == len(bad) + len(together)
  for key, c in together.items():
    assert done[key].tokens.tolist() == c.tokens.tolist()
  assert list(Engine(model.config, STOPS).generate(model, [])) == []


def test_a_sample_may_fill_the_whole_length(model):
  request = Request(tuple(range(1, 9)), 32, samples=3, sampling=Sampling(0.0, top_k=9))  # greedy meets no stop
  assert [len(c.tokens) for c in run(model, [request], max_length=40).values()] == [32, 32, 32]
