"""Kernels for packed rows: each equals the plain form, values and gradients, on one device and on a mesh."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.model import attention
from vibethinker_jax.model.mesh import ACTIVATION, MeshShape, make_mesh, spec

B, K, G, H = 2, 2, 2, 128


def arrays(T: int):
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  segments = np.sort(rng.integers(1, 4, (B, T), np.int32), 1)
  segments[0, -T // 8 :] = 0  # padding
  return normal(B, K, G, T, H), normal(B, K, H, T), normal(B, K, T, H), segments


def run(kernel, q, k, v, segments):
  """Output, and gradients of q, k and v, where there is something to see."""
  seen = (segments > 0)[:, None, None, :, None]
  out = lambda *qkv: jnp.where(seen, kernel(*qkv, segments), 0)
  pull = jnp.cos(jnp.arange(q.size, dtype=jnp.float32)).reshape(q.shape)
  value, back = jax.vjp(out, q, k, v)
  return value, back(jax.device_put(pull, jax.typeof(value).sharding))


def reference(q, k, v, segments):
  at = np.arange(segments.shape[1])
  return attention.attend(q, k, v, attention.packed_mask(at, segments, segments))


def check(kernel, T: int, sizes=None):
  inputs = arrays(T)
  expected = jax.jit(functools.partial(run, reference))(*inputs)
  if sizes is None:
    got = jax.jit(functools.partial(run, kernel))(*inputs)
  else:
    mesh = make_mesh(sizes, jax.devices()[: math.prod(dataclasses.astuple(sizes))])
    with jax.set_mesh(mesh):
      letters = ('BKGTH', 'BKHS', 'BKSH', 'BT')
      spread = [jax.device_put(x, jax.NamedSharding(mesh, spec(a, ACTIVATION))) for x, a in zip(inputs, letters)]
      got = jax.jit(functools.partial(run, kernel))(*spread)
      assert got[0].sharding.spec == spec('BKGTH', ACTIVATION)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('sizes', [None, MeshShape(fsdp=2, seq=2, tensor=2)])
def test_chunks_of_queries(monkeypatch, sizes):
  monkeypatch.setattr(attention, 'QUERIES', 48)  # 192 = 4 chunks
  check(attention.plain, 192, sizes)


@pytest.mark.parametrize('sizes, fused', [(None, 16384), (None, 128), (MeshShape(fsdp=2, seq=2, tensor=2), 128)])
def test_splash(monkeypatch, sizes, fused):
  monkeypatch.setattr(attention, 'FUSED', fused)
  check(functools.partial(attention.splash, interpret=True), 256, sizes)


@pytest.mark.parametrize('sizes', [None, MeshShape(data=2, fsdp=1, tensor=2)])
def test_triton(sizes):
  check(functools.partial(attention.triton, interpret=True), 128, sizes)


def test_lengths_that_a_kernel_does_not_take():
  with pytest.raises(ValueError, match='160 tokens .* expected a multiple of 128'):
    attention.attend_packed(*arrays(160), 'splash')
  with pytest.raises(ValueError, match='96 tokens, expected a multiple of 64'):
    attention.attend_packed(*arrays(96), 'triton')
  with pytest.raises(KeyError):
    attention.attend_packed(*arrays(64), 'flash')
