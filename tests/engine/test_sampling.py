import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vibethinker_jax.engine.sampling import SamplingParams, batched, draw, keep, pick, row_keys

N, V = 20000, 16
LOGITS = np.random.default_rng(0).normal(0, 1.5, V).astype(np.float32)

draws = jax.jit(draw, static_argnames='filters')


def distribution(s: SamplingParams) -> np.ndarray:
  """The probabilities [V] by definition, token by token: temperature, then top-k, top-p and min-p."""
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


def sample(s: SamplingParams, logits=LOGITS, seed: int = 0, filters: bool | None = None):
  whole = lambda value, kind: np.full(N, value, kind)
  keys = row_keys(whole(seed, np.uint32), np.arange(N, dtype=np.uint32), whole(0, np.uint32))
  tables = jnp.broadcast_to(logits, (N, V))
  out = draws(
    tables, keys, whole(3, np.int32), batched([s] * N), None, filters=s.filters if filters is None else filters
  )
  return [np.asarray(x) for x in out]


@pytest.mark.parametrize(
  's',
  [
    SamplingParams(),
    SamplingParams(temperature=0.6),
    SamplingParams(temperature=1.7),
    SamplingParams(top_k=1),
    SamplingParams(top_k=5),
    SamplingParams(top_k=40),
    SamplingParams(top_p=0.7),
    SamplingParams(top_p=1e-6),
    SamplingParams(min_p=0.1),
    SamplingParams(temperature=0.8, top_k=6, top_p=0.9),
    SamplingParams(temperature=1.5, top_k=9, top_p=0.85, min_p=0.15),
  ],
  ids=repr,
)
def test_frequencies_and_reported_log_probs(s):
  expected = distribution(s)
  token, logp, sampler_logp = sample(s)
  counts = np.bincount(token, minlength=V)
  assert counts[expected == 0].sum() == 0
  possible = expected > 0
  if possible.sum() > 1:
    assert scipy.stats.chisquare(counts[possible], N * expected[possible]).pvalue > 1e-3
  np.testing.assert_allclose(sampler_logp, np.log(expected[token]), atol=1e-5)
  plain = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
  np.testing.assert_allclose(logp, plain[token], atol=1e-5)


def test_the_chi_square_test_can_fail():
  """It rejects samples whose temperature is off by a twentieth."""
  counts = np.bincount(sample(SamplingParams(temperature=1.05))[0], minlength=V)
  assert scipy.stats.chisquare(counts, N * distribution(SamplingParams())).pvalue < 1e-3


def test_greedy():
  token, logp, sampler_logp = sample(SamplingParams(temperature=0, top_k=3))
  assert set(token) == {LOGITS.argmax()} and set(sampler_logp) == {0.0}
  np.testing.assert_allclose(logp, (LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())).max(), atol=1e-5)


def test_filters_that_are_off_change_nothing():
  for a, b in zip(sample(SamplingParams(), filters=True), sample(SamplingParams(), filters=False)):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_impossible_tokens_are_never_drawn():
  """Also not at the ends of the vocabulary, where rounding of the cumulative sum could put a draw."""
  logits = np.full(V, -np.inf, np.float32)
  logits[[4, 9]] = 0.0
  token, _, sampler_logp = sample(SamplingParams(), logits)
  assert set(token) == {4, 9}
  np.testing.assert_allclose(sampler_logp, np.log(0.5), atol=1e-6)


FILTERS = (
  SamplingParams(),
  SamplingParams(temperature=0.6, top_p=0.95),
  SamplingParams(temperature=1e-30),
  SamplingParams(temperature=1.3, top_p=0.7, min_p=0.02),
  SamplingParams(top_k=1),
  SamplingParams(top_k=40, top_p=0.999999),
  SamplingParams(top_p=1e-6),
  SamplingParams(min_p=1.0),
  SamplingParams(temperature=3.0, min_p=1e-4, repetition_penalty=1.7),
)


def tables(V: int, rng: np.random.Generator) -> np.ndarray:
  """Rows of logits [6,V]: wide, flat, peaked, with ties, with impossible tokens, and with only one possible token."""
  rows = rng.normal(0, 3, (6, V)).astype(np.float32)
  rows[1] *= 0.01
  rows[2, rng.integers(V)] = 40
  rows[3] = np.round(rows[3])
  rows[4, rng.random(V) < 0.9] = -np.inf
  rows[5] = -np.inf
  rows[4:, rng.integers(V)] = 1.0
  return rows


def exactly(s: SamplingParams, logits: np.ndarray) -> np.ndarray:
  """Which tokens the parameters allow, bool [V], computed in float64; of equally likely tokens all or none."""
  p = np.exp((logits.astype(np.float64) - logits.max()) / np.float32(s.temperature))
  if s.top_k != -1:
    p = np.where(p >= np.sort(p)[-min(s.top_k, len(p))], p, 0)
  values, places, counts = np.unique(-p, return_inverse=True, return_counts=True)
  likelier = np.concatenate([[0], np.cumsum(-values * counts)])[places] / p.sum()  # mass of the more likely tokens
  return (p > 0) & ((likelier < np.float32(s.top_p)) | (s.top_p == 1)) & (p >= s.min_p * (1 - 1e-5))


@pytest.mark.parametrize('V', [1, 2, 33, 5000, pytest.param(151936, marks=pytest.mark.slow)])
def test_kept_tokens_are_those_the_parameters_allow(V):
  """No token more is kept, and the tokens that rounding leaves out have a mass below 1e-5."""
  for s in FILTERS:
    rows = tables(V, np.random.default_rng(V))
    of = batched([s] * len(rows))
    scaled = (rows - rows.max(-1, keepdims=True)) / of.temperature[:, None]
    kept = np.asarray(jax.jit(keep)(scaled, of.top_k, of.top_p, of.min_p))
    for row, own, logits in zip(kept, scaled, rows):
      allowed, mass = exactly(s, logits), np.exp(own.astype(np.float64))
      assert not (row & ~allowed & (mass > 0)).any(), s
      assert mass[allowed & ~row].sum() / mass.sum() < 1e-5, s
      assert row[logits.argmax()]


def drawn(V: int, R: int, times: int) -> int:
  """The number of wrong draws among `times` x R of each of FILTERS, at uniforms for which rounding matters most."""
  rng, wrong = np.random.default_rng(V), 0

  @jax.jit
  def find(mass, u):
    token = pick(mass, u)
    return token, jnp.take_along_axis(mass, token[:, None], -1)[:, 0]

  for s in FILTERS:
    rows = np.tile(tables(V, rng), (-(-R // 6), 1))[:R]
    of = batched([s] * R)
    scaled = (rows - rows.max(-1, keepdims=True)) / of.temperature[:, None]
    mass = jnp.exp(jnp.where(jax.jit(keep)(scaled, of.top_k, of.top_p, of.min_p), scaled, -jnp.inf))
    sums = np.asarray(jnp.cumsum(mass, -1))
    for i in range(times):
      u = rng.random(R, np.float32)
      if i % 2:  # at a cumulative sum or next to it, which is the border between two tokens
        u = (sums[np.arange(R), rng.integers(0, V, R)] / sums[:, -1]).astype(np.float32)
        u = np.clip(np.nextafter(u, np.float32(rng.integers(0, 2))), 0, np.nextafter(np.float32(1), np.float32(0)))
      if i == 0:
        u[::2], u[1::2] = 0, np.nextafter(np.float32(1), np.float32(0))
      token, its = (np.asarray(x) for x in find(mass, u))
      wrong += int((~(its > 0) | ~np.isfinite(np.log(its)) | (token < 0) | (token >= V)).sum())
  return wrong


def test_no_draw_of_a_token_that_is_ruled_out():
  """Parallel cumulative sums have rounding errors, need not be monotonic, and were not."""
  assert drawn(5000, 60, 16) == 0


@pytest.mark.slow
def test_no_draw_of_a_token_that_is_ruled_out_in_ten_millions():
  sizes = {32: (4096, 150), 512: (4096, 120), 8192: (256, 60), 151936: (24, 60)}
  print(sum(R * times for R, times in sizes.values()) * len(FILTERS), 'draws')
  assert {V: drawn(V, *size) for V, size in sizes.items()} == dict.fromkeys(sizes, 0)


def test_broken_or_extreme_logits_give_a_token():
  """Logits that are all nan, temperatures near 0 and penalties that overflow still give an id of the vocabulary."""
  assert np.asarray(pick(jnp.full((1, 7), jnp.nan), jnp.zeros(1))) == 6
  assert set(sample(SamplingParams(temperature=1e-40))[0]) == {LOGITS.argmax()}
  keys = row_keys(*(np.zeros(1, np.uint32) for _ in range(3)))
  of = batched([SamplingParams(repetition_penalty=1e-30)])
  seen = np.arange(V)[None] < 3
  token, _, under = draw(jnp.abs(LOGITS)[None] * 1e20, keys, np.zeros(1, np.int32), of, seen, False)
  assert int(token[0]) < 3 and np.isfinite(under[0])


def test_bad_sampling_params_have_a_fault():
  assert SamplingParams(temperature=0, top_k=1, top_p=1, min_p=1).fault() is None
  for bad in (
    SamplingParams(temperature=-0.1),
    SamplingParams(top_k=0),
    SamplingParams(top_k=-2),
    SamplingParams(top_p=1.1),
    SamplingParams(min_p=-1),
  ):
    assert bad.fault() is not None
