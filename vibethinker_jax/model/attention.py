"""Attention: grouped queries against keys, under a mask.

`attend` is the plain XLA form with any mask; decoding uses it. `attend_packed` is for training on packed rows. It
chooses one of these kernels by name (Config.attention); all of them give the same numbers:

  xla     the plain form, in chunks of queries; runs everywhere
  splash  jax's Pallas kernel for TPUs; the sequence may be sharded, each shard has a multiple of 128 tokens
  triton  jax's Pallas kernel for GPUs; every device has whole sequences, of a multiple of 64 tokens

cuDNN is not one of them: `jax.nn.dot_product_attention` takes no segment ids, and a bias in their place would be a
[T,S] array.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as triton_kernel
from jax.experimental.pallas.ops.gpu import paged_attention as paged_gpu_kernel
from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention_kernel as paged_tpu_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import NamedSharding, PartitionSpec

from vibethinker_jax.model.mesh import ACTIVATION, einsum, reshape, shard, spec

QUERIES = 512  # the most queries whose scores the plain form has in memory at a time
FUSED = 16384  # the most tokens for which `splash` computes all gradients in one pass


def cached_mask(positions: jax.Array, size: int) -> jax.Array:
  """Mask bool [B,T,S] in a cache of S = `size` positions: a query at position p sees the positions 0 .. p.

  positions: int [B,T], those of the queries.
  """
  return jnp.arange(size)[None, None, :] <= positions[:, :, None]


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """softmax(q k / sqrt(H)) v, with the softmax in float32.

  Keys are transposed, as in the cache, so that both products read contiguous memory.

  Args:
    q: queries [B,K,G,T,H].
    k: keys [B,K,H,S].
    v: values [B,K,S,H].
    mask: bool [B,T,S], which keys a query sees.

  Returns:
    [B,K,G,T,H].
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  return einsum('BKGTS,BKSH->BKGTH', weights, v)


def attend_packed(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, kernel: str) -> jax.Array:
  """`attend`, where each token sees itself and the tokens before it in its own segment.

  Args:
    q: queries [B,K,G,T,H]; T may be sharded.
    k: keys [B,K,H,T], whole along T.
    v: values [B,K,T,H], whole along T.
    segments: int [B,T], the segment of each token.
    kernel: 'xla', 'splash' or 'triton'.

  Returns:
    [B,K,G,T,H].

  Raises:
    KeyError: unknown kernel.
    ValueError: the kernel does not take this length.
  """
  return {'xla': plain, 'splash': splash, 'triton': triton}[kernel](q, k, v, segments)


def unit(kernel: str, shards: int) -> int:
  """The number of tokens of a row must be a multiple of this, for a kernel and a sequence divided into `shards`."""
  return {'xla': 32, 'splash': 128, 'triton': 64}[kernel] * shards


def plain(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
  """The plain form, by chunks of at most QUERIES queries; the backward pass computes their scores again."""
  T = segments.shape[1]
  every, at = shard(segments, 'BS'), jnp.arange(T)
  n = next(n for n in range(1, T + 1) if T % n == 0 and T // n <= QUERIES)
  if n == 1:
    return attend(q, k, v, packed_mask(shard(at, 'T'), segments, every))
  # chunks are strided: a chunk of neighbouring queries would lie on a part of the devices over which T is sharded
  split = lambda x, axis, axes: shard(
    jnp.moveaxis(x.reshape(*x.shape[:axis], T // n, n, *x.shape[axis + 1 :]), axis + 1, 0), 'n' + axes
  )
  one = jax.checkpoint(lambda part: attend(part[0], k, v, packed_mask(part[1], part[2], every)))
  out = jax.lax.map(one, (split(q, 3, 'BKGTH'), split(at, 0, 'T'), split(segments, 1, 'BT')))
  return jnp.moveaxis(out, 0, 4).reshape(q.shape)


def packed_mask(at: jax.Array, segments: jax.Array, every: jax.Array) -> jax.Array:
  """Mask bool [B,T,S]: queries at the places `at` [T] with `segments` [B,T], keys with the segments `every` [B,S]."""
  causal = at[:, None] >= jnp.arange(every.shape[1])
  return causal[None] & (segments[:, :, None] == every[:, None, :])


def splash(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, interpret: bool = False) -> jax.Array:
  """jax's splash attention in its multi-query form, for every row and kv head. `interpret`: run it without a TPU.

  One backward pass for all gradients is faster, but it keeps the gradient of the queries once for every block of keys:
  3.2 GB for a row of 32K tokens (12 heads of 128). Beyond FUSED tokens that gradient gets a pass of its own.
  """
  mesh = jax.sharding.get_abstract_mesh()
  shards = 1 if mesh.empty else mesh.shape['seq']
  T, G = segments.shape[1], q.shape[2]
  if T % (128 * shards):
    raise ValueError(f'splash attention: {T} tokens over {shards} shards, expected a multiple of {128 * shards}')
  block = max(b for b in (128, 256, 512, 1024) if T // shards % b == 0)
  sizes = splash_kernel.BlockSizes(
    block_q=block,
    block_kv=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_q_dq=None if T <= FUSED else block,
    block_kv_dq=None if T <= FUSED else block,
    use_fused_bwd_kernel=T <= FUSED,
  )
  causal = splash_mask.MultiHeadMask([splash_mask.CausalMask((T, T))] * G)
  kernel = splash_kernel.make_splash_mqa(
    causal, block_sizes=sizes, head_shards=1, q_seq_shards=shards, interpret=interpret
  )

  def local(kernel, q, k, v, own, every):
    row = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=ids), (0, 0, 0, None))
    ids = splash_kernel.SegmentIds(own, every)
    return jax.vmap(row)(q * q.shape[-1] ** -0.5, jnp.swapaxes(k, 2, 3), v, ids).astype(v.dtype)

  every = shard(segments, 'BS')
  if mesh.empty:
    return local(kernel, q, k, v, segments, every)
  blocks = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, 'seq')))
  kernel = jax.tree.map(jax.reshard, kernel, blocks)
  return _by_shard(local, (blocks, *_specs('BKGTH', 'BKHS', 'BKSH', 'BT', 'BS')))(kernel, q, k, v, segments, every)


def triton(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, interpret: bool = False) -> jax.Array:
  """jax's Pallas kernel for GPUs, with K and V repeated for every query head. `interpret`: run it without a GPU."""
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty and mesh.shape['seq'] > 1:
    raise ValueError(f'triton attention: the sequence is divided over {mesh.shape["seq"]} devices, expected seq=1')
  if segments.shape[1] % 64:
    raise ValueError(f'triton attention: {segments.shape[1]} tokens, expected a multiple of 64')
  block = 128 if segments.shape[1] % 128 == 0 else 64
  sizes = triton_kernel.BlockSizes(
    block_q=block, block_k=64, block_q_dkv=64, block_kv_dkv=64, block_q_dq=64, block_kv_dq=64
  )

  def local(q, k, v, segments):
    B, K, G, T, H = q.shape
    heads = lambda x: jnp.repeat(jnp.moveaxis(x, 1, 2), G, axis=2)
    out = triton_kernel.mha(
      jnp.moveaxis(q.reshape(B, K * G, T, H), 1, 2),
      heads(jnp.swapaxes(k, 2, 3)),
      heads(v),
      segments,
      H**-0.5,
      True,
      sizes,
      interpret=interpret,
    )
    return jnp.moveaxis(out, 2, 1).reshape(q.shape)

  if mesh.empty:
    return local(q, k, v, segments)
  return _by_shard(local, _specs('BKGTH', 'BKHS', 'BKSH', 'BT'))(q, k, v, segments)


def _specs(*axes: str) -> tuple[PartitionSpec, ...]:
  return tuple(spec(letters, ACTIVATION) for letters in axes)


def _by_shard(local, in_specs: tuple):
  """`local` on the part of each device. check_vma is off: kernels do not declare how results vary over the mesh."""
  return jax.shard_map(local, in_specs=in_specs, out_specs=spec('BKGTH', ACTIVATION), check_vma=False)


def attend_shared(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, S: int, n: int) -> jax.Array:
  """Attention of rows that hold a prompt and n continuations of it.

  Tokens of the prompt see the prompt; tokens of a continuation see the prompt and the past of their own continuation.
  Queries are gathered over seq, so every device computes whole rows.

  Args:
    q: queries [B,K,G,S+n*Q,H]: the prompt in S positions, then n continuations of Q positions each.
    k: keys [B,K,H,S+n*Q].
    v: values [B,K,S+n*Q,H].
    lengths: int [B], how many of the S positions are filled.
    S: positions of the prompt.
    n: continuations.

  Returns:
    [B,K,G,S+n*Q,H].
  """
  B, K, G, whole, H = q.shape
  Q = (whole - S) // n
  q = shard(q, 'BKGQH')
  causal = lambda size: jnp.arange(size)[:, None] >= jnp.arange(size)[None]
  prompt = attend(q[:, :, :, :S], k[..., :S], v[:, :, :S], jnp.broadcast_to(causal(S), (B, S, S)))
  # All continuations attend to the one prompt, and each attends to itself as a row of its own. Only the results of the
  # two are combined, not the scores: those are several times as large.
  apart = lambda x, axis: jnp.moveaxis(x, axis, 1).reshape(B * n, *x.shape[1:axis], *x.shape[axis + 1 :])
  split = lambda x: reshape(x, (B, n, K, G, Q, x.shape[-1]), 'BnKGQH')
  joined = lambda x: jnp.moveaxis(split(x), 1, 3).reshape(B, K, G, n * Q, -1)
  q = q[:, :, :, S:]
  q_own = apart(q.reshape(B, K, G, n, Q, H), 3)
  k_own = apart(k[..., S:].reshape(B, K, H, n, Q), 3)
  v_own = apart(v[:, :, S:].reshape(B, K, n, Q, H), 2)
  filled = (jnp.arange(S) < lengths[:, None])[:, None, None, None]
  of_prompt = _unnormalized(q, k[..., :S], v[:, :, :S], filled)
  of_own = (joined(x) for x in _unnormalized(q_own, k_own, v_own, causal(Q)))
  own = _combined(of_prompt, of_own).astype(v.dtype)
  return shard(jnp.concatenate([shard(prompt, 'BKGQH'), own], axis=3), 'BKGTH')


def _unnormalized(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`attend` to a part of the keys, without the division: the largest score m [...,1] and the sum of exp(score - m)
  [...,1], both float32, and the sum of v weighted by exp(score - m) [...,H]."""
  scores = einsum('BKGQH,BKHS->BKGQS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  peak = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - peak)
  return peak, weights.sum(-1, keepdims=True), einsum('BKGQS,BKSH->BKGQH', weights.astype(v.dtype), v)


def _combined(one: tuple, other: tuple) -> jax.Array:
  """`attend` to two sets of keys together, from the `_unnormalized` results of each."""
  (peak_a, sum_a, v_a), (peak_b, sum_b, v_b) = one, other
  peak = jnp.maximum(peak_a, peak_b)
  a, b = jnp.exp(peak_a - peak), jnp.exp(peak_b - peak)
  return (a * v_a + b * v_b) / (a * sum_a + b * sum_b)


def attend_paged(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, table: jax.Array, kernel: str):
  """`attend` of one query for each row to keys and values in pages.

  Args:
    q: queries [B,K,G,H].
    k: keys [K,N,size,H], the pool of N pages.
    v: values [K,N,size,H].
    lengths: int32 [B], row b sees its first lengths[b] positions.
    table: int32 [B,W], page table[b, w] holds the positions w * size ... (w + 1) * size - 1 of row b.
    kernel: 'xla' gathers the pages of every row; 'tpu' and 'gpu' are jax's Pallas kernels, which read of each row only
      the pages up to its length.

  Returns:
    [B,K,G,H].

  Raises:
    KeyError: unknown kernel.
  """
  return {'xla': paged_plain, 'tpu': paged_tpu, 'gpu': paged_gpu}[kernel](q, k, v, lengths, table)


def paged_plain(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, table: jax.Array) -> jax.Array:
  """attend_paged in plain XLA."""
  pages = lambda x: x[:, table].reshape(x.shape[0], table.shape[0], -1, x.shape[-1]).astype(q.dtype)
  k, v = pages(k), pages(v)
  scores = jnp.einsum('BKGH,KBSH->BKGS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  seen = jnp.arange(k.shape[2]) < lengths[:, None]
  scores = jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min)
  return jnp.einsum('BKGS,KBSH->BKGH', jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


def paged_tpu(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, table: jax.Array) -> jax.Array:
  """attend_paged by jax's Pallas kernel for TPUs; H must be a multiple of 128."""
  B, K, G, H = q.shape
  at_once = math.gcd(table.shape[1], 8)
  heads = (q * H**-0.5).reshape(B, K * G, H)
  out = paged_tpu_kernel.paged_attention(heads, k, v, lengths, table, pages_per_compute_block=at_once)
  return out.reshape(q.shape).astype(q.dtype)


def paged_gpu(q, k, v, lengths: jax.Array, table: jax.Array, interpret: bool = False) -> jax.Array:
  """attend_paged by jax's Pallas kernel for GPUs. `interpret`: run it without a GPU."""
  B, K, G, H = q.shape
  splits = math.gcd(table.shape[1], 16)
  heads = (q * H**-0.5).reshape(B, K * G, H)
  out = paged_gpu_kernel.paged_attention(
    heads, k, v, table, lengths, k_splits=splits, pages_per_compute_block=1, interpret=interpret
  )
  return out.reshape(q.shape).astype(q.dtype)


def attend_scaled(q, k, k_scale, v, v_scale, mask: jax.Array) -> jax.Array:
  """`attend` to int8 keys and values: k [B,K,H,S] times k_scale [B,K,S], and v [B,K,S,H] times v_scale [B,K,S].

  The scales multiply the scores and the weights instead, so that no copy of the cache in float is needed.
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k.astype(q.dtype)).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores * k_scale[:, :, None, None], jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1) * v_scale[:, :, None, None]
  return einsum('BKGTS,BKSH->BKGTH', weights.astype(q.dtype), v.astype(q.dtype))
