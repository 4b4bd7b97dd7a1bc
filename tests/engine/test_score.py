"""The most likely tokens: of given sequences, and of tokens that are drawn."""

import jax
import numpy as np
import pytest

from vibethinker_jax.engine import score as module
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import TOP, SamplingParams
from vibethinker_jax.engine.scheduler import Scheduler
from vibethinker_jax.engine.score import score
from vibethinker_jax.model.int8 import quantize


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def direct(model, ids) -> np.ndarray:
  """ln p [T-1,V] of every token of the vocabulary at every place but the first."""
  T = len(ids)
  hidden = model(np.array([ids]), np.arange(T)[None], np.ones((1, T), np.int32))
  return np.asarray(jax.nn.log_softmax(model.logits(hidden)[0]))[:-1]


def test_top_logprobs_of_sequences(model, monkeypatch):
  monkeypatch.setattr(module, '_TOKENS', 64)
  monkeypatch.setattr(module, '_LOGITS', 40)  # several chunks for each row, the last one not full
  rng = np.random.default_rng(0)
  sequences = [rng.integers(0, model.config.V, n).tolist() for n in (1, 30, 2, 33, 9, 31, 40)]
  plain, found = dict(score(model, sequences)), dict(score(model, sequences, top=True))
  assert sorted(found) == list(range(7)) and plain[0].top_ids is None
  for i, ids in enumerate(sequences):
    expected = direct(model, ids)
    assert found[i].top_logps.shape == (len(ids) - 1, min(TOP, model.config.V))
    np.testing.assert_array_equal(found[i].logps, plain[i].logps)
    np.testing.assert_allclose(found[i].logps, expected[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    np.testing.assert_allclose(found[i].top_logps, -np.sort(-expected)[:, :TOP], atol=1e-4)
    at_ids = np.take_along_axis(expected, found[i].top_ids, axis=1)
    np.testing.assert_allclose(at_ids, found[i].top_logps, atol=1e-4)


def test_int8_weights_can_be_scored(model):
  ids = list(range(20))
  ((_, exact),), ((_, rounded),) = score(model, [ids]), score(quantize(model), [ids])
  assert 0 < np.abs(exact.logps - rounded.logps).max() < 0.5


def test_top_logprobs_of_drawn_tokens_equal_those_of_scoring(model):
  """A sample gets them if it asks, whatever else is in the batch; asking does not change the tokens."""
  requests = [
    Request((3, 1, 4), 20, 2, SamplingParams(0.8, top_k=5), seed=1, top_logprobs=True),
    Request((2, 7), 9, 1, SamplingParams(1.0), seed=2),
  ]
  engine = Engine(model.config, (), rows=4, block=8)
  without = {(c.request, c.sample): c.tokens.tolist() for c in engine.generate(model, requests[1:])}
  scheduler, chunks = Scheduler(engine, model), {}
  for number, request in enumerate(requests):
    for sample in range(request.samples):
      scheduler.add(number, request, sample)
  while scheduler.busy:
    for chunk in scheduler.step():
      chunks.setdefault((chunk.request_id, chunk.sample), []).append(chunk)
  assert all(chunk.top_logprobs is None for chunk in chunks[1, 0])
  assert [t for chunk in chunks[1, 0] for t in chunk.tokens.tolist()] == without[0, 0]
  for sample in range(2):
    own = chunks[0, sample]
    tokens = np.concatenate([chunk.tokens for chunk in own])
    ids, logps = (np.concatenate([chunk.top_logprobs[i] for chunk in own]) for i in range(2))
    ((_, scored),) = score(model, [[*requests[0].prompt, *tokens.tolist()]], top=True)
    np.testing.assert_allclose(logps, scored.top_logps[2:], atol=1e-4)
    np.testing.assert_array_equal(ids[:, 0], scored.top_ids[2:, 0])
