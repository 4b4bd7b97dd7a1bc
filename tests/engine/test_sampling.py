import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vibethinker_jax.engine.sampling import Sampling, draw, laws, row_keys

N, V = 20000, 16
LOGITS = np.random.default_rng(0).normal(0, 1.5, V).astype(np.float32)

draws = jax.jit(draw, static_argnames='filters')


def law(s: Sampling) -> np.ndarray:
  """The distribution by its definition, one token after the other: temperature, then top-k, top-p and min-p."""
  p = np.exp(LOGITS.astype(np.float64) / s.temperature)
  p /= p.sum()
  order = np.argsort(-p)
  kept = order if s.top_k == -1 else order[: s.top_k]
  mass, nucleus = 0.0, []
  for token in kept:
    if mass / p[kept].sum() < s.top_p:
      nucleus.append(token)
    mass += p[token]
  out = np.zeros(V)
  for token in nucleus:
    if p[token] >= s.min_p * p.max():
      out[token] = p[token]
  return out / out.sum()


def sample(s: Sampling, logits=LOGITS, seed: int = 0, filters: bool | None = None):
  whole = lambda value, kind: np.full(N, value, kind)
  keys = row_keys(whole(seed, np.uint32), np.arange(N, dtype=np.uint32), whole(0, np.uint32))
  tables = jnp.broadcast_to(logits, (N, V))
  out = draws(tables, keys, whole(3, np.int32), laws([s] * N), None, filters=s.filters if filters is None else filters)
  return [np.asarray(x) for x in out]


@pytest.mark.parametrize(
  's',
  [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(temperature=1.7),
    Sampling(top_k=1),
    Sampling(top_k=5),
    Sampling(top_k=40),
    Sampling(top_p=0.7),
    Sampling(top_p=1e-6),
    Sampling(min_p=0.1),
    Sampling(temperature=0.8, top_k=6, top_p=0.9),
    Sampling(temperature=1.5, top_k=9, top_p=0.85, min_p=0.15),
  ],
  ids=repr,
)
def test_frequencies_and_reported_laws(s):
  expected = law(s)
  token, logp, law_logp = sample(s)
  counts = np.bincount(token, minlength=V)
  assert counts[expected == 0].sum() == 0
  possible = expected > 0
  if possible.sum() > 1:
    assert scipy.stats.chisquare(counts[possible], N * expected[possible]).pvalue > 1e-3
  np.testing.assert_allclose(law_logp, np.log(expected[token]), atol=1e-5)
  plain = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
  np.testing.assert_allclose(logp, plain[token], atol=1e-5)


def test_the_chi_square_would_notice():
  """The same test rejects a law that is off by a twentieth: it has the power to fail."""
  counts = np.bincount(sample(Sampling(temperature=1.05))[0], minlength=V)
  assert scipy.stats.chisquare(counts, N * law(Sampling())).pvalue < 1e-3


def test_greedy():
  token, logp, law_logp = sample(Sampling(temperature=0, top_k=3))
  assert set(token) == {LOGITS.argmax()} and set(law_logp) == {0.0}
  np.testing.assert_allclose(logp, (LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())).max(), atol=1e-5)


def test_filters_that_are_off_change_nothing():
  for a, b in zip(sample(Sampling(), filters=True), sample(Sampling(), filters=False)):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_impossible_tokens_are_never_drawn():
  """Also at the ends of the vocabulary, where rounding of the cumulated mass would put a draw."""
  logits = np.full(V, -np.inf, np.float32)
  logits[[4, 9]] = 0.0
  token, _, law_logp = sample(Sampling(), logits)
  assert set(token) == {4, 9}
  np.testing.assert_allclose(law_logp, np.log(0.5), atol=1e-6)


def test_faults():
  assert Sampling(temperature=0, top_k=1, top_p=1, min_p=1).fault() is None
  for bad in (
    Sampling(temperature=-0.1),
    Sampling(top_k=0),
    Sampling(top_k=-2),
    Sampling(top_p=1.1),
    Sampling(min_p=-1),
  ):
    assert bad.fault() is not None
