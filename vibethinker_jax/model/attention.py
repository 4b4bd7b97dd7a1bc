"""Attention: grouped queries against keys, under a mask.

`attend` is the plain XLA form over any mask; decoding uses it. `attend_packed` is for training on packed rows and
chooses a kernel by name (Config.attention), all of which give the same numbers:

  xla     the plain form, in chunks of queries; everywhere
  splash  jax's Pallas kernel for TPUs; the sequence may be sharded, and needs a multiple of 128 tokens a shard
  triton  jax's Pallas kernel for GPUs; the sequence is whole on each device, a multiple of 64 tokens

cuDNN is not among them: `jax.nn.dot_product_attention` takes no segment ids, and as a bias they would be a [T,S] array.
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

QUERIES = 512  # of the plain form, whose scores exist at the same time
FUSED = 16384  # tokens up to which splash makes all gradients in one pass, see there


def cached_mask(positions: jax.Array, size: int) -> jax.Array:
  """[B,T] positions -> [B,T,S] bool over a cache whose position s holds position s."""
  return jnp.arange(size)[None, None, :] <= positions[:, :, None]


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """softmax(q k / sqrt(H)) v. q [B,K,G,T,H], k [B,K,H,S], v [B,K,S,H], mask [B,T,S] -> [B,K,G,T,H]; float32 softmax.

  Keys stand transposed, as the cache holds them: both products then run along contiguous memory.
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  return einsum('BKGTS,BKSH->BKGTH', weights, v)


def attend_packed(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, kernel: str) -> jax.Array:
  """`attend` where each token sees itself and what stands before it in its own segment; segments [B,T], S = T.

  Keys and values come whole along the sequence, queries may be sharded along it. Raises KeyError for an unknown
  `kernel`, ValueError for a length that it does not take.
  """
  return {'xla': plain, 'splash': splash, 'triton': triton}[kernel](q, k, v, segments)


def unit(kernel: str, shards: int) -> int:
  """Tokens of which a row must have a multiple, for a kernel and a sequence cut into `shards`."""
  return {'xla': 32, 'splash': 128, 'triton': 64}[kernel] * shards


def plain(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
  """The plain form: at most QUERIES queries have their scores in memory, which the backward pass computes again."""
  T = segments.shape[1]
  every, at = shard(segments, 'BS'), jnp.arange(T)
  n = next(n for n in range(1, T + 1) if T % n == 0 and T // n <= QUERIES)
  if n == 1:
    return attend(q, k, v, packed_mask(shard(at, 'T'), segments, every))
  # strided chunks: a chunk of neighbours would cut across a sharded T
  split = lambda x, axis, axes: shard(
    jnp.moveaxis(x.reshape(*x.shape[:axis], T // n, n, *x.shape[axis + 1 :]), axis + 1, 0), 'n' + axes
  )
  one = jax.checkpoint(lambda part: attend(part[0], k, v, packed_mask(part[1], part[2], every)))
  out = jax.lax.map(one, (split(q, 3, 'BKGTH'), split(at, 0, 'T'), split(segments, 1, 'BT')))
  return jnp.moveaxis(out, 0, 4).reshape(q.shape)


def packed_mask(at: jax.Array, segments: jax.Array, every: jax.Array) -> jax.Array:
  """[B,T,S] bool for queries at places `at` [T] with segments [B,T], among all segments `every` [B,S]."""
  causal = at[:, None] >= jnp.arange(every.shape[1])
  return causal[None] & (segments[:, :, None] == every[:, None, :])


def splash(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, interpret: bool = False) -> jax.Array:
  """jax's splash attention in its multi-query form, once for each row and kv head. `interpret`: run it off a TPU.

  One backward pass for all gradients is faster, but holds the queries' gradient once for every block of keys: 3.2 GB a
  row of 32K tokens (12 heads of 128). Beyond FUSED tokens it is made by itself.
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
  """jax's Pallas kernel for GPUs, K and V repeated to the query heads. `interpret`: run it off a GPU."""
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty and mesh.shape['seq'] > 1:
    raise ValueError(f'triton attention: the sequence lies over {mesh.shape["seq"]} devices, expected seq=1')
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
  """`local` on each device's part; kernels do not say how their results vary over the mesh, so that is not checked."""
  return jax.shard_map(local, in_specs=in_specs, out_specs=spec('BKGTH', ACTIVATION), check_vma=False)


def attend_shared(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, S: int, n: int) -> jax.Array:
  """Attention of rows that hold a prompt in S positions, lengths [B] of them filled, and n continuations of it, Q each.

  A prompt's tokens see the prompt; a continuation's see the prompt and their own past. q [B,K,G,S+n*Q,H], k and v
  likewise -> [B,K,G,S+n*Q,H]. Every device has its rows whole: the queries are gathered over seq, and computed there.
  """
  B, K, G, whole, H = q.shape
  Q = (whole - S) // n
  q = shard(q, 'BKGQH')
  causal = lambda size: jnp.arange(size)[:, None] >= jnp.arange(size)[None]
  prompt = attend(q[:, :, :, :S], k[..., :S], v[:, :, :S], jnp.broadcast_to(causal(S), (B, S, S)))
  # All continuations against the one prompt, and each, as a row of its own, against itself. Only what comes out of the
  # two is brought together, not their scores: those are several times as large.
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
  """`attend` to some of the keys: the largest score m [...,1], the sum of exp(score - m) [...,1], and the sum of v so
  weighted [...,H]. All float32 but the last."""
  scores = einsum('BKGQH,BKHS->BKGQS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  peak = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - peak)
  return peak, weights.sum(-1, keepdims=True), einsum('BKGQS,BKSH->BKGQH', weights.astype(v.dtype), v)


def _combined(one: tuple, other: tuple) -> jax.Array:
  """What `attend` to both sets of keys gives, from the _unnormalized of each."""
  (peak_a, sum_a, v_a), (peak_b, sum_b, v_b) = one, other
  peak = jnp.maximum(peak_a, peak_b)
  a, b = jnp.exp(peak_a - peak), jnp.exp(peak_b - peak)
  return (a * v_a + b * v_b) / (a * sum_a + b * sum_b)


def attend_paged(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, table: jax.Array, kernel: str):
  """`attend` of one query a row to its first lengths[b] positions, which lie in pages: q [B,K,G,H], k and v
  [K,N,size,H], table [B,W] -> [B,K,G,H]. Page table[b, w] holds the row's positions from w * size on.

  `kernel`: 'xla' gathers the pages of every row; 'tpu' and 'gpu' are jax's Pallas kernels, which read each row's pages
  up to its length and no others. Raises KeyError for an unknown one.
  """
  return {'xla': paged_plain, 'tpu': paged_tpu, 'gpu': paged_gpu}[kernel](q, k, v, lengths, table)


def paged_plain(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, table: jax.Array) -> jax.Array:
  """attend_paged without a kernel."""
  pages = lambda x: x[:, table].reshape(x.shape[0], table.shape[0], -1, x.shape[-1]).astype(q.dtype)
  k, v = pages(k), pages(v)
  scores = jnp.einsum('BKGH,KBSH->BKGS', q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
  seen = jnp.arange(k.shape[2]) < lengths[:, None]
  scores = jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min)
  return jnp.einsum('BKGS,KBSH->BKGH', jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


def paged_tpu(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, table: jax.Array) -> jax.Array:
  """attend_paged by jax's Pallas kernel for TPUs; 128 must divide H."""
  B, K, G, H = q.shape
  at_once = math.gcd(table.shape[1], 8)
  heads = (q * H**-0.5).reshape(B, K * G, H)
  out = paged_tpu_kernel.paged_attention(heads, k, v, lengths, table, pages_per_compute_block=at_once)
  return out.reshape(q.shape).astype(q.dtype)


def paged_gpu(q, k, v, lengths: jax.Array, table: jax.Array, interpret: bool = False) -> jax.Array:
  """attend_paged by jax's Pallas kernel for GPUs. `interpret`: run it off a GPU."""
  B, K, G, H = q.shape
  splits = math.gcd(table.shape[1], 16)
  heads = (q * H**-0.5).reshape(B, K * G, H)
  out = paged_gpu_kernel.paged_attention(
    heads, k, v, table, lengths, k_splits=splits, pages_per_compute_block=1, interpret=interpret
  )
  return out.reshape(q.shape).astype(q.dtype)


def attend_scaled(q, k, k_scale, v, v_scale, mask: jax.Array) -> jax.Array:
  """`attend` to keys and values kept as int8: k [B,K,H,S] times k_scale [B,K,S], v [B,K,S,H] times v_scale [B,K,S].

  The scales multiply the scores and the weights, so that no widened copy of the cache need exist.
  """
  scores = einsum('BKGTH,BKHS->BKGTS', q * q.shape[-1] ** -0.5, k.astype(q.dtype)).astype(jnp.float32)
  scores = jnp.where(mask[:, None, None], scores * k_scale[:, :, None, None], jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1) * v_scale[:, :, None, None]
  return einsum('BKGTS,BKSH->BKGTH', weights.astype(q.dtype), v.astype(q.dtype))
