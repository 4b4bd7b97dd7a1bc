import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.engine.cache import KVCache
from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config


@jax.jit
def forward(model, tokens, segments=None):
  """Logits [B,T,V]; one sequence a row unless segments are given."""
  segments = jnp.ones_like(tokens) if segments is None else segments
  starts = jnp.concatenate([jnp.ones_like(tokens[:, :1], bool), segments[:, 1:] != segments[:, :-1]], 1)
  at = jnp.arange(tokens.shape[1])
  positions = at - jax.lax.cummax(jnp.where(starts, at, 0), axis=1)
  return model.logits(model(tokens, positions, segments))


@pytest.mark.parametrize('G, tied, theta', [(1, True, 1e4), (3, False, 1e6), (6, True, 1e6), (7, False, 1e4)])
def test_forward_equals_transformers(transformers_qwen2, tmp_path, G, tied, theta):
  c = Config(V=50, D=32, L=2, K=2, G=G, H=8, F=40, rope_theta=theta, positions=256, tied=tied)
  theirs = transformers_qwen2.make(tmp_path, c, seed=G)
  ours = hf.load(tmp_path)
  assert ours.config == c
  tokens = np.random.default_rng(G).integers(0, c.V, (2, 40))
  np.testing.assert_allclose(forward(ours, tokens), transformers_qwen2.logits(theirs, tokens), atol=1e-4)


def test_cached_equals_full(make_model):
  """A ragged prefill, single tokens, then a piece: every row at its own position."""
  model, tokens = make_model(), np.random.default_rng(0).integers(0, 48, (2, 24))
  hidden = jax.jit(lambda m: m(tokens, jnp.broadcast_to(jnp.arange(24), (2, 24)), jnp.ones_like(tokens)))(model)
  extend = jax.jit(lambda m, *args: m.extend(m.unstacked(), *args))
  cache, at = KVCache.empty(model.config, 2, 32, jnp.float32), np.zeros(2, int)

  def check(n: int, kept: np.ndarray):
    nonlocal cache, at
    positions = at[:, None] + np.arange(n)
    out, cache = extend(model, np.take_along_axis(tokens, positions, 1), positions, cache)
    for row in range(2):
      np.testing.assert_allclose(out[row, : kept[row]], hidden[row, at[row] :][: kept[row]], atol=1e-5)
    at = at + kept

  check(7, np.array([4, 7]))  # what stands above a row's own length is written over
  for _ in range(4):
    check(1, np.array([1, 1]))
  check(7, np.array([7, 7]))


def test_packed_equals_unpacked(make_model):
  model, rng = make_model(), np.random.default_rng(1)
  lengths, T = (5, 1, 9), 20
  packed, segments = rng.integers(0, 48, (3, T)), np.zeros((3, T), int)
  alone, alone_segments = rng.integers(0, 48, (3, T)), np.zeros((3, T), int)
  begin = 0
  for i, n in enumerate(lengths):
    segments[0, begin : begin + n] = i + 1
    alone[i, :n], alone_segments[i, :n] = packed[0, begin : begin + n], 1
    begin += n
  together, apart = forward(model, packed, segments), forward(model, alone, alone_segments)
  begin = 0
  for i, n in enumerate(lengths):
    np.testing.assert_allclose(together[0, begin : begin + n], apart[i, :n], atol=1e-5)
    begin += n


def test_remat_changes_nothing(make_model):
  tokens = np.random.default_rng(2).integers(0, 48, (2, 12))
  at = np.broadcast_to(np.arange(12), (2, 12))

  @jax.jit
  @jax.value_and_grad
  def loss(model):
    return -model.token_logps(model(tokens, at, jnp.ones_like(tokens)), np.roll(tokens, -1, 1))[0].sum()

  model = make_model()
  value, gradient = loss(model)
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
  for policy in ('dots', 'full', 'offload'):
    model.config = dataclasses.replace(model.config, remat=policy)
    again, same = loss(model)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(gradient)):
      np.testing.assert_allclose(a, b, atol=1e-5, err_msg=policy)
  model.config = dataclasses.replace(model.config, remat='some')
  with pytest.raises(KeyError):
    loss(model)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_the_logits_of_a_bfloat16_head_are_not_rounded(make_model, temperature):
  """Engine's and trainer's are those of exact arithmetic on the same numbers; in bfloat16 they were 0.05 off."""
  model, rng = make_model(tied=False, dtype='bfloat16', D=64), np.random.default_rng(4)
  model.head = model.head.replace(jnp.asarray(rng.normal(0, 1, (48, 64)), jnp.float32))
  hidden, targets = jnp.asarray(rng.normal(0, 2, (2, 12, 64)), jnp.bfloat16), rng.integers(0, 48, (2, 12))
  exact = np.asarray(hidden, np.float64) @ np.asarray(model.head[...].astype(jnp.bfloat16), np.float64).T
  logits = jax.jit(lambda m, h: m.logits(h))(model, hidden)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, atol=1e-4)
  exact = exact / temperature
  logps = exact - np.log(np.exp(exact - exact.max()).sum(-1, keepdims=True)) - exact.max()
  ours = jax.jit(lambda m, h: m.token_logps(h, targets, temperature))(model, hidden)
  np.testing.assert_allclose(ours[0], np.take_along_axis(logps, targets[..., None], -1)[..., 0], atol=1e-4)
  np.testing.assert_allclose(ours[1], -(np.exp(logps) * logps).sum(-1), atol=1e-3)  # a difference of sums


@pytest.mark.parametrize('tied', [True, False])
def test_log_probs_in_chunks(make_model, tied):
  """Chunked, whole, and the formula in numpy give the same log-probs, entropies and gradients."""
  rng = np.random.default_rng(3)
  hidden, targets = rng.normal(size=(2, 12, 24)).astype(np.float32), rng.integers(0, 48, (2, 12))
  pull = rng.normal(size=(2, 2, 12)).astype(np.float32)

  @jax.jit
  def run(model, hidden):
    out, back = jax.vjp(lambda m, h: jnp.stack(m.token_logps(h, targets)), model, hidden)
    return out, jax.tree.leaves(back(pull))

  model = make_model(tied=tied, scale=0.5)
  whole, gradients = run(model, hidden)
  model.config = dataclasses.replace(model.config, logit_chunk=5)  # 12 = 3 chunks of 4
  chunked, chunk_gradients = run(model, hidden)
  np.testing.assert_allclose(chunked, whole, atol=1e-5)
  for a, b in zip(chunk_gradients, gradients):
    np.testing.assert_allclose(a, b, atol=1e-4)

  table = np.asarray((model.embed if tied else model.head)[...], np.float64)
  logits = hidden.astype(np.float64) @ table.T
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  np.testing.assert_allclose(whole[0], np.take_along_axis(logp, targets[..., None], -1)[..., 0], atol=1e-5)
  np.testing.assert_allclose(whole[1], -(np.exp(logp) * logp).sum(-1), atol=1e-5)
