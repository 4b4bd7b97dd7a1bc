"""Attention: grouped queries against keys, under a mask. The plain XLA form, which every fused kernel must equal."""

import jax
import jax.numpy as jnp

from vibethinker_jax.model.mesh import einsum, shard


def packed_mask(segments: jax.Array) -> jax.Array:
  """[B,T] segment ids -> [B,T,S] bool: each token sees itself and what stands before it in its own segment."""
  T = segments.shape[1]
  causal = jnp.arange(T)[:, None] >= jnp.arange(T)[None, :]
  return causal[None] & (segments[:, :, None] == shard(segments, 'BS')[:, None, :])


def cached_mask(positions: jax.Array, slots: int) -> jax.Array:
  """[B,T] positions -> [B,T,S] bool over a cache whose slot s holds position s."""
  return jnp.arange(slots)[None, None, :] <= positions[:, :, None]


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """softmax(q k / sqrt(H)) v. q [B,K,G,T,H], k [B,K,H,S], v [B,K,S,H], mask [B,T,S] -> [B,K,G,T,H]; float32 softmax.

  Keys stand transposed, as the cache holds them: both products then run along contiguous memory.
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  return einsum('BKGTS,BKSH->BKGTH', weights, v)


def attend_shared(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, S: int, n: int) -> jax.Array:
  """Attention of rows that hold a prompt in S slots, lengths [B] of them filled, and n continuations of it, T each.

  A prompt's tokens see the prompt; a continuation's see the prompt and their own past. q [B,K,G,S+n*T,H], k and v
  likewise -> [B,K,G,S+n*T,H].
  """
  B, K, G, whole, H = q.shape
  T = (whole - S) // n
  causal = lambda size: jnp.arange(size)[:, None] >= jnp.arange(size)[None]
  prompt = attend(q[:, :, :, :S], k[..., :S], v[:, :, :S], jnp.broadcast_to(causal(S), (B, S, S)))
  # Two blocks of scores: all continuations against the one prompt, and each, as a row of its own, against itself.
  apart = lambda x, axis: jnp.moveaxis(x, axis, 1).reshape(B * n, *x.shape[1:axis], *x.shape[axis + 1 :])
  joined = lambda x: jnp.moveaxis(x.reshape(B, n, K, G, T, -1), 1, 3).reshape(B, K, G, n * T, -1)
  q = q[:, :, :, S:] * H**-0.5
  q_own = apart(q.reshape(B, K, G, n, T, H), 3)
  k_own = apart(k[..., S:].reshape(B, K, H, n, T), 3)
  v_own = apart(v[:, :, S:].reshape(B, K, n, T, H), 2)
  least = jnp.finfo(jnp.float32).min
  to_prompt = einsum('BKGTH,BKHS->BKGTS', q, k[..., :S]).astype(jnp.float32)
  to_prompt = jnp.where((jnp.arange(S) < lengths[:, None])[:, None, None, None], to_prompt, least)
  to_own = jnp.where(causal(T), einsum('BKGTH,BKHS->BKGTS', q_own, k_own).astype(jnp.float32), least)
  weights = jax.nn.softmax(jnp.concatenate([to_prompt, joined(to_own)], axis=-1), axis=-1).astype(v.dtype)
  from_prompt = einsum('BKGTS,BKSH->BKGTH', weights[..., :S], v[:, :, :S])
  weights = apart(weights[..., S:].reshape(B, K, G, n, T, T), 3)
  own = from_prompt + joined(einsum('BKGTS,BKSH->BKGTH', weights, v_own))
  return jnp.concatenate([prompt, own], axis=3)


def attend_scaled(q, k, k_scale, v, v_scale, mask: jax.Array) -> jax.Array:
  """`attend` to keys and values kept as int8: k [B,K,H,S] times k_scale [B,K,S], v [B,K,S,H] times v_scale [B,K,S].

  The scales multiply the scores and the weights, so that no widened copy of the cache need exist.
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k.astype(q.dtype)).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores * k_scale[:, :, None, None], jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1) * v_scale[:, :, None, None]
  return einsum('BKGTS,BKSH->BKGTH', weights.astype(q.dtype), v.astype(q.dtype))
