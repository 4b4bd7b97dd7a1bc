"""The likeliest tokens: of given sequences, and of what is drawn."""

import jax
import numpy as np
import pytest

from vibethinker_jax.engine import score as module
from vibethinker_jax.engine.engine import Engine, Request, Scheduler
from vibethinker_jax.engine.sampling import TOP, SamplingParams
from vibethinker_jax.engine.score import score
from vibethinker_jax.model.int8 import quantize


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def direct(model, ids) -> np.ndarray:
  """ln p [T-1,V] of every token in every place but the first."""
  T = len(ids)
  hidden = model(np.array([ids]), np.arange(T)[None], np.ones((1, T), np.int32))
  return np.asarray(jax.nn.log_softmax(model.logits(hidden)[0]))[:-1]


def test_likeliest_tokens_of_sequences(model, monkeypatch):
  monkeypatch.setattr(module, '_TOKENS', 64)
  monkeypatch.setattr(module, '_LOGITS', 40)  # several parts of a row, the last one not full
  rng = np.random.default_rng(0)
  sequences = [rng.integers(0, model.config.V, n).tolist() for n in (1, 30, 2, 33, 9, 31, 40)]
  plain, found = dict(score(model, sequences)), dict(score(model, sequences, top=True))
  assert sorted(found) == list(range(7)) and plain[0].likeliest_ids is None
  for i, ids in enumerate(sequences):
    expected = direct(model, ids)
    assert found[i].likeliest_logps.shape == (len(ids) - 1, min(TOP, model.config.V))
    np.testing.assert_array_equal(found[i].logps, plain[i].logps)
    np.testing.assert_allclose(found[i].logps, expected[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    np.testing.assert_allclose(found[i].likeliest_logps, -np.sort(-expected)[:, :TOP], atol=1e-4)
    at_ids = np.take_along_axis(expected, found[i].likeliest_ids, axis=1)
    np.testing.assert_allclose(at_ids, found[i].likeliest_logps, atol=1e-4)


def test_decoding_weights_score_too(model):
  ids = list(range(20))
  ((_, exact),), ((_, rounded),) = score(model, [ids]), score(quantize(model), [ids])
  assert 0 < np.abs(exact.logps - rounded.logps).max() < 0.5


def test_likeliest_tokens_of_what_is_drawn_are_those_of_scoring_it(model):
  """Of the sample that asks, whoever sits beside it; the tokens are those drawn without asking."""
  requests = [
    Request((3, 1, 4), 20, 2, SamplingParams(0.8, top_k=5), seed=1, top=True),
    Request((2, 7), 9, 1, SamplingParams(1.0), seed=2),
  ]
  engine = Engine(model.config, (), rows=4, block=8)
  silent = {(c.request, c.sample): c.tokens.tolist() for c in engine.generate(model, requests[1:])}
  run, chunks = Scheduler(engine, model), {}
  for number, request in enumerate(requests):
    for sample in range(request.samples):
      run.add(number, request, sample)
  while run.busy:
    for chunk in run.step():
      chunks.setdefault((chunk.request_id, chunk.sample), []).append(chunk)
  assert all(chunk.likeliest is None for chunk in chunks[1, 0])
  assert [t for chunk in chunks[1, 0] for t in chunk.tokens.tolist()] == silent[0, 0]
  for sample in range(2):
    own = chunks[0, sample]
    tokens = np.concatenate([chunk.tokens for chunk in own])
    ids, logps = (np.concatenate([chunk.likeliest[i] for chunk in own]) for i in range(2))
    ((_, scored),) = score(model, [[*requests[0].prompt, *tokens.tolist()]], top=True)
    np.testing.assert_allclose(logps, scored.likeliest_logps[2:], atol=1e-4)
    np.testing.assert_array_equal(ids[:, 0], scored.likeliest_ids[2:, 0])
