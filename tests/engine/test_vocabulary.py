"""Rows of the embedding that the tokenizer has no id for are never drawn, and change nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax import api
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.engine.score import score
from vibethinker_jax.model import hf

IDS = 12  # of 48 rows: three of four draws would be of no id
SAMPLINGS = [
  SamplingParams(0.0),
  SamplingParams(0.0, repetition_penalty=1.3),
  SamplingParams(),
  SamplingParams(1.5, top_k=40),
  SamplingParams(top_p=0.9),
  SamplingParams(min_p=0.01),
  SamplingParams(0.8, repetition_penalty=1.2),
]


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(scale=0.3)


def drawn(model, samplings, vocabulary: int | None, **more) -> list:
  requests = [Request((1, 2, 3), 24, samples=4, sampling=s, number=i, **more) for i, s in enumerate(samplings)]
  engine = Engine(model.config, (9,), rows=8, block=8, vocabulary=vocabulary)
  return sorted(engine.generate(model, requests), key=lambda c: (c.request, c.sample))


@pytest.mark.parametrize('sampling', SAMPLINGS, ids=str)
def test_no_such_id_is_drawn(model, sampling):
  assert max(c.tokens.max() for c in drawn(model, [sampling], None)) >= IDS  # who would be
  done = drawn(model, [sampling], IDS)
  assert len(done) == 4 and max(c.tokens.max() for c in done) < IDS
  for c in done:  # as scored, over all rows; and more likely under the sampling parameters, which has fewer
    _, scored = next(score(model, [[1, 2, 3, *c.tokens]]))
    np.testing.assert_allclose(c.logps, scored.logps[2:], atol=1e-5)
    if sampling == SamplingParams():
      assert (c.sampler_logps > c.logps + 0.1).all()


def test_the_distribution_is_that_of_a_model_without_the_rows(model):
  """Token for token, and so are the probabilities under the sampling parameters."""
  cut = jax.tree.map(lambda x: x, model)
  cut.embed = model.embed.replace(model.embed[...][:IDS])
  cut.config = dataclasses.replace(model.config, V=IDS)
  for a, b in zip(drawn(model, SAMPLINGS, IDS), drawn(cut, SAMPLINGS, None), strict=True):
    assert a.tokens.tolist() == b.tokens.tolist()
    np.testing.assert_allclose(a.sampler_logps, b.sampler_logps, atol=1e-5)


def test_broken_weights_draw_no_such_id(model):
  broken = jax.tree.map(lambda x: x * jnp.nan, model)
  assert max(c.tokens.max() for c in drawn(broken, [SamplingParams(), SamplingParams(0.0)], IDS)) < IDS


def test_a_vocabulary_that_is_not_padded_is_none(model):
  assert [Engine(model.config, (), vocabulary=n).vocabulary for n in (None, 48, 60, 47)] == [None, None, None, 47]


def test_callers_say_what_ids_there_are(make_model, tmp_path):
  """A random model of twice as many rows as its tokenizer has ids."""
  ids = load_chat_tokenizer(TINY_BASE).size
  hf.save(make_model(V=2 * ids), tmp_path / 'm', TINY_BASE)
  model, text = api.load(tmp_path / 'm')
  for temperature in (0.0, 1.0):
    rows = api.generate(model, text, ['x'], n=4, max_tokens=40, temperature=temperature)[0]
    assert max(sample.tokens.max() for sample in rows) < ids
  assert max(s.tokens.max() for s in api.generate(model, None, [[1]], n=4, max_tokens=40)[0]) >= ids
