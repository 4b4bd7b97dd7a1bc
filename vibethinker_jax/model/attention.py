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
  # every continuation becomes a row of its own, with the prompt's keys and values before its own
  apart = lambda x, axis: jnp.moveaxis(x, axis, 1).reshape(B * n, *x.shape[1:axis], *x.shape[axis + 1 :])
  again = lambda x: jnp.repeat(x, n, axis=0)
  q_own = apart(q[:, :, :, S:].reshape(B, K, G, n, T, H), 3)
  k_own = apart(k[..., S:].reshape(B, K, H, n, T), 3)
  v_own = apart(v[:, :, S:].reshape(B, K, n, T, H), 2)
  filled = jnp.broadcast_to((jnp.arange(S) < again(lengths)[:, None])[:, None], (B * n, T, S))
  mask = jnp.concatenate([filled, jnp.broadcast_to(causal(T), (B * n, T, T))], axis=2)
  keys, values = jnp.concatenate([again(k[..., :S]), k_own], 3), jnp.concatenate([again(v[:, :, :S]), v_own], 2)
  own = attend(q_own, keys, values, mask)
  own = jnp.moveaxis(own.reshape(B, n, K, G, T, H), 1, 3).reshape(B, K, G, n * T, H)
  return jnp.concatenate([prompt, own], axis=3)


def attend_scaled(q, k, k_scale, v, v_scale, mask: jax.Array) -> jax.Array:
  """`attend` to keys and values kept as int8: k [B,K,H,S] times k_scale [B,K,S], v [B,K,S,H] times v_scale [B,K,S].

  The scales multiply the scores and the weights, so that no widened copy of the cache need exist.
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k.astype(q.dtype)).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores * k_scale[:, :, None, None], jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1) * v_scale[:, :, None, None]
  return einsum('BKGTS,BKSH->BKGTH', weights.astype(q.dtype), v.astype(q.dtype))
