"""Qwen2, Qwen3 and Llama, whole: a Flax NNX module, used as a plain pytree (jax.jit, grad, vmap and scan).

One alphabet, for einsums, shapes, docstrings and sharding rules (mesh.py):

  B batch        T query length   S key length    L layers   D model width
  K kv heads     G query heads per kv head        H head width
  F feed-forward width            V vocabulary

RMSNorm before each half of a layer, rotary positions, grouped-query attention, SwiGLU. The families differ in two
things: Qwen2 has biases on q, k and v, the others none (with `attention_bias` on q, k, v and the output); Qwen3 has an
RMSNorm on each head's queries and keys.
The layers are stacked along a leading axis and scanned. The model returns hidden states; `logits` and `token_logps`
turn them into numbers over the vocabulary, in chunks, so that no [B,T,V] array exists in training.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from annotated_types import Interval, MultipleOf
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from pydantic import PositiveFloat, PositiveInt

from vibethinker_jax.model.attention import attend_packed, attend_shared
from vibethinker_jax.model.mesh import ACTIVATION, AT_REST, einsum, shard, spec, use
from vibethinker_jax.model.rope import Scaling

Size = Annotated[int, Interval(ge=1, le=1 << 24)]
Theta = Annotated[float, Interval(gt=1)]
Positions = Annotated[int, Interval(ge=1, le=1 << 24)]  # angles are float32, which is exact up to 2^24 only
Dtype = Literal['float32', 'bfloat16']
Kernel = Literal['xla', 'splash', 'triton']
Remat = Literal['none', 'dots', 'full', 'offload']
Family = Literal['qwen2', 'qwen3', 'llama']


@dataclasses.dataclass(frozen=True)
class Config:
  """Sizes by their letters, and what else decides the function (config.json of a causal language model; see config.py).

  V: vocabulary.
  D: model width.
  L: layers.
  K: kv heads.
  G: query heads of a kv head.
  H: head width, even: rotary positions turn pairs.
  F: feed-forward width.
  rope_theta: base of the rotary frequencies.
  rope_scaling: how rotary frequencies are stretched (model/rope.py).
  positions: the longest sequence.
  norm_eps: what is added to a mean square before its root.
  tied: whether the embedding is the un-embedding too.
  family: 'qwen2' (2.5 too), 'qwen3' (dense) or 'llama' (SmolLM2 too): which biases and norms attention has.
  attention_bias: whether a Qwen3 or a Llama has biases on q, k, v and the output; a Qwen2 has its own three.
  dtype: what the layers compute in; parameters keep their own.
  attention: the kernel for packed rows: 'xla', 'splash' (TPU) or 'triton' (GPU).
  remat: what backward need not compute again: 'none' is everything kept, 'dots' matmul results, 'full' layer inputs
    only, 'offload' those on the host.
  logit_chunk: positions whose logits exist at the same time.
  unroll: layers that a scan step holds: more compiles longer, and saves copies of what backward needs.
  """

  V: Size
  D: Size
  L: Annotated[int, Interval(ge=1, le=4096)]
  K: Annotated[int, Interval(ge=1, le=4096)]
  G: Annotated[int, Interval(ge=1, le=4096)]
  H: Annotated[int, Interval(ge=2, le=1 << 16), MultipleOf(2)]
  F: Size
  rope_theta: Theta = 1e6
  rope_scaling: Scaling | None = None
  positions: Positions = 32768
  norm_eps: PositiveFloat = 1e-6
  tied: bool = True
  family: Family = 'qwen2'
  attention_bias: bool = False
  dtype: Dtype = 'float32'
  attention: Kernel = 'xla'
  remat: Remat = 'none'
  logit_chunk: PositiveInt = 1024
  unroll: PositiveInt = 1

  @property
  def biased(self) -> str:
    """Which of q, k, v and o (the output) have a bias: 'qkv', 'qkvo' or ''."""
    if self.family == 'qwen2':
      return 'qkv'
    return 'qkvo' if self.attention_bias else ''

  @property
  def qk_norm(self) -> bool:
    """Whether each head's queries and keys are normed before they are turned."""
    return self.family == 'qwen3'


class Layer(nnx.Module):
  """One transformer layer. Each parameter stores its axis letters; a bias or norm that the family lacks is None."""

  def __init__(self, c: Config, key: jax.Array):
    keys = iter(jax.random.split(key, 7))
    bias = lambda of, axes: zeros(c, axes) if of in c.biased else None
    self.attention_norm = ones(c, 'D')
    self.wq, self.bq = normal(c, 'DKGH', next(keys)), bias('q', 'KGH')
    self.wk, self.bk = normal(c, 'DKH', next(keys)), bias('k', 'KH')
    self.wv, self.bv = normal(c, 'DKH', next(keys)), bias('v', 'KH')
    self.wo, self.bo = normal(c, 'KGHD', next(keys)), bias('o', 'D')
    self.q_norm, self.k_norm = (ones(c, 'H'), ones(c, 'H')) if c.qk_norm else (None, None)
    self.mlp_norm = ones(c, 'D')
    self.w_gate = normal(c, 'DF', next(keys))
    self.w_up = normal(c, 'DF', next(keys))
    self.w_down = normal(c, 'FD', next(keys))

  def __call__(self, x: jax.Array, rope: tuple, eps: float, mix: Callable):
    """x [B,T,D] -> (x, whatever `mix` keeps).

    `mix(q, k, v)` of q [B,K,G,T,H], k [B,K,H,S] and v [B,K,S,H] -> (attended [B,K,G,T,H], kept).
    """
    w = functools.partial(use, dtype=x.dtype)
    y = rms_norm(x, w(self.attention_norm), eps)
    plus = lambda x, bias: x if bias is None else x + jnp.expand_dims(w(bias), -2)  # the same at each of T
    normed = lambda x, scale: x if scale is None else rms_norm(x, w(scale), eps)
    q = normed(plus(einsum('BTD,DKGH->BKGTH', y, w(self.wq)), self.bq), self.q_norm)
    k = normed(plus(einsum('BTD,DKH->BKTH', y, w(self.wk)), self.bk), self.k_norm)
    v = plus(einsum('BTD,DKH->BKTH', y, w(self.wv)), self.bv)
    k = shard(jnp.swapaxes(rotate(k, rope), 2, 3), 'BKHS')
    out, kept = mix(rotate(q, rope), k, shard(v, 'BKSH'))
    x = x + plus(einsum('BKGTH,KGHD->BTD', out, w(self.wo)), self.bo)
    y = rms_norm(x, w(self.mlp_norm), eps)
    y = jax.nn.silu(einsum('BTD,DF->BTF', y, w(self.w_gate))) * einsum('BTD,DF->BTF', y, w(self.w_up))
    return x + einsum('BTF,FD->BTD', y, w(self.w_down)), kept


class Qwen2(nnx.Module):
  """The network. `Qwen2(config, key)` is randomly initialised (normal, 0.02); hf.load reads a trained one."""

  def __init__(self, c: Config, key: jax.Array):
    embed_key, layer_key, head_key = jax.random.split(key, 3)
    self.config = c
    self.embed = normal(c, 'VD', embed_key)
    self.layers = jax.vmap(functools.partial(Layer, c))(jax.random.split(layer_key, c.L))
    self.norm = ones(c, 'D')
    self.head = None if c.tied else normal(c, 'VD', head_key)

  def __call__(self, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
    """Hidden states [B,T,D] of packed rows: tokens, positions and segments [B,T] (positions restart with a segment)."""
    kernel = self.config.attention
    return self._scan(tokens, positions, lambda q, k, v: (attend_packed(q, k, v, segments, kernel), None))[0]

  def continued(self, prompts: jax.Array, lengths: jax.Array, tokens: jax.Array) -> jax.Array:
    """Hidden states [B,n,T,D] of n continuations, tokens [B,n,T], of each prompt, which is computed once.

    prompts [B,S] are filled up to lengths [B]; a continuation's tokens stand at the positions that follow.
    """
    (B, S), (n, T) = prompts.shape, tokens.shape[1:]
    # joined while each device has whole rows: the parts of a row need not end where shards end
    join = lambda *pieces: shard(jnp.concatenate([shard(x, 'BS') for x in pieces], 1), 'BT')
    own = jnp.broadcast_to(lengths[:, None, None] + jnp.arange(T, dtype=jnp.int32), (B, n, T)).reshape(B, n * T)
    positions = join(jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S)), own)
    whole = join(prompts, shard(tokens, 'BnS').reshape(B, n * T))
    if n == 1:  # a packed row with a gap before the continuation, which whatever attends to packed rows can do
      filled = jnp.arange(S) < lengths[:, None]
      hidden = self(whole, positions, join(filled, jnp.ones((B, T), bool)).astype(jnp.int32))
      return shard(shard(hidden, 'BSD')[:, S:], 'BTD')[:, None]
    hidden, _ = self._scan(whole, positions, lambda q, k, v: (attend_shared(q, k, v, lengths, S, n), None))
    return shard(shard(hidden, 'BSD')[:, S:].reshape(B, n, T, -1), 'BnTD')

  def extend(self, layers: tuple, tokens: jax.Array, positions: jax.Array, cache: tuple):
    """Hidden states [B,T,D] of tokens that continue a cache, and the cache with them in it.

    `positions` [B,T] are consecutive in each row. `layers` is `self.unstacked()`, taken apart by the caller once and
    not for every token. `cache` holds for every layer what attends (engine/cache.py): `attend(q, k, v, positions)`.
    """
    c = self.config
    rope = rope_table(positions, c)
    x, grown = self._embed(tokens), []
    for layer, kept in zip(layers, cache):
      x, kept = layer(x, rope, c.norm_eps, lambda q, k, v, kept=kept: kept.attend(q, k, v, positions))
      grown.append(kept)
    return rms_norm(x, use(self.norm, x.dtype), c.norm_eps), tuple(grown)

  def unstacked(self) -> tuple[Layer, ...]:
    """The layers one by one, as `extend` wants them."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], self.layers) for i in range(self.config.L))

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [B,T,D] -> float32 logits [B,T,V]."""
    table = self.embed if self.head is None else self.head
    where = None if jax.sharding.get_abstract_mesh().empty else spec('BTV', ACTIVATION)
    return unembed(hidden, use(table, hidden.dtype), where)

  def token_logps(
    self, hidden: jax.Array, targets: jax.Array, temperature: jax.Array | float = 1.0
  ) -> tuple[jax.Array, jax.Array]:
    """ln p(target) at `temperature`, and the entropy (nats) of the distribution it was taken from, both float32 [B,T].

    Computed in chunks of positions, each recomputed in the backward pass, so that only `logit_chunk` positions of a
    row have their logits on a device at a time. An unused result costs nothing.

    On a mesh each device goes through its own positions by itself: the table is gathered once, and its gradient, summed
    over the chunks in float32, is reduced once. Left to the compiler, both would happen for every chunk.
    """
    table = (self.embed if self.head is None else self.head)[...].astype(hidden.dtype)
    local = functools.partial(token_logps, chunk=self.config.logit_chunk)
    if jax.sharding.get_abstract_mesh().empty:
      return local(table, hidden, targets, temperature)

    def gathered(table, hidden, targets, temperature):
      # in this order: backward scatters the gradient over fsdp first, and sums only its part over data and seq
      table = jax.lax.pcast(table, ('data', 'seq'), to='varying')
      table = jax.lax.all_gather(table, 'fsdp', axis=1, tiled=True)
      return local(table, hidden, targets, temperature, vocabulary='tensor')

    rows = spec('BT', ACTIVATION)
    ins = (spec('VD', AT_REST), spec('BTD', ACTIVATION), rows, PartitionSpec())
    temperature = jnp.asarray(temperature, jnp.float32)
    return jax.shard_map(gathered, in_specs=ins, out_specs=(rows, rows))(table, hidden, targets, temperature)

  def _scan(self, tokens: jax.Array, positions: jax.Array, mix: Callable):
    """Through all layers: hidden states, and what `mix` keeps of each layer, stacked."""
    c = self.config
    rope = rope_table(positions, c)

    def body(x, layer):
      return layer(checkpoint_name(x, 'layer input'), rope, c.norm_eps, mix)

    x, kept = jax.lax.scan(remat(body, c.remat), self._embed(tokens), self.layers, unroll=c.unroll)
    return rms_norm(x, use(self.norm, x.dtype), c.norm_eps), kept

  def _embed(self, tokens: jax.Array) -> jax.Array:
    table = shard(self.embed[...].astype(self.config.dtype), 'VD', {})
    if jax.sharding.get_abstract_mesh().empty:
      return table[tokens]
    return table.at[tokens].get(out_sharding=spec('BTD', ACTIVATION))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def unembed(hidden: jax.Array, table: jax.Array, where: PartitionSpec | None = None) -> jax.Array:
  """Logits float32 [B,T,V] of hidden [B,T,D] under `table` [V,D] of the same dtype; `where`: their layout on a mesh.

  The products are summed in float32 and stay so: rounded to bfloat16, a logit of 20 is off by up to 0.06. Gradients are
  taken in the dtype of the operands, as those of every other matrix.
  """
  return jnp.einsum('BTD,VD->BTV', hidden, table, preferred_element_type=jnp.float32, out_sharding=where)


def _unembed_backward(where, operands, gradient):
  narrow = lambda hidden, table: jnp.einsum('BTD,VD->BTV', hidden, table, out_sharding=where)
  return jax.vjp(narrow, *operands)[1](gradient.astype(operands[0].dtype))


unembed.defvjp(lambda hidden, table, where: (unembed(hidden, table, where), (hidden, table)), _unembed_backward)


def token_logps(
  table: jax.Array,
  hidden: jax.Array,
  targets: jax.Array,
  temperature: jax.Array | float,
  chunk: int,
  vocabulary: str | None = None,
):
  """Qwen2.token_logps of hidden [B,T,D] under the un-embedding `table` [V,D], at most `chunk` positions at a time.

  `vocabulary`: the mesh axis over which V is spread, inside jax.shard_map.
  """
  over_V = (lambda total, reduce: total) if vocabulary is None else (lambda total, reduce: reduce(total, vocabulary))
  first = 0 if vocabulary is None else jax.lax.axis_index(vocabulary) * table.shape[0]
  wide = table.astype(jnp.float32)  # so that the chunks' gradients are summed in float32; cast back, it costs nothing

  def one(part):
    h, y = part
    logits = unembed(h, wide.astype(h.dtype)) / temperature
    peak = over_V(jax.lax.stop_gradient(logits.max(-1, keepdims=True)), jax.lax.pmax)
    norm = jnp.log(over_V(jnp.exp(logits - peak).sum(-1), jax.lax.psum)) + peak[..., 0]
    here = first + jnp.arange(logits.shape[-1]) == y[..., None]
    chosen = over_V(jnp.where(here, logits, 0).sum(-1), jax.lax.psum)
    entropy = norm - over_V((jnp.exp(logits - norm[..., None]) * logits).sum(-1), jax.lax.psum)
    return chosen - norm, entropy

  B, T = targets.shape
  n = next(n for n in range(1, T + 1) if T % n == 0 and T // n <= chunk)
  if n == 1:
    return one((hidden, targets))
  split = lambda x: jnp.moveaxis(x.reshape(B, n, T // n, *x.shape[2:]), 1, 0)
  parts = jax.lax.map(jax.checkpoint(one), (split(hidden), split(targets)))
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(B, T), parts)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """x [...,D] over its root mean square (float32), times scale [D]. Of a head, H stands in D's place."""
  wide = x.astype(jnp.float32)
  normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + eps)
  return normed.astype(x.dtype) * scale


def rope_table(positions: jax.Array, c: Config) -> tuple[jax.Array, jax.Array]:
  """cos and sin [B,T,H/2], float32, of the rotary angles at `positions` [B,T], times their amplitude."""
  if c.rope_scaling is None:
    frequency, amplitude = c.rope_theta ** (-jnp.arange(0, c.H, 2, dtype=jnp.float32) / c.H), None
  else:
    frequency, amplitude = c.rope_scaling.stretched(c.rope_theta, c.H)
  angle = positions[..., None].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return (cos, sin) if amplitude is None else (cos * amplitude, sin * amplitude)


def rotate(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotary positions on x [B,...,T,H]; halves are paired as in Hugging Face's models (i with i + H/2)."""
  cos, sin = (t.reshape(t.shape[0], *[1] * (x.ndim - 3), *t.shape[1:]).astype(x.dtype) for t in rope)
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def remat(body: Callable, policy: str) -> Callable:
  """`body` recomputed in the backward pass by Config.remat. Raises KeyError for an unknown policy."""
  keep = {
    'none': jax.checkpoint_policies.everything_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
    'offload': jax.checkpoint_policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=['layer input'],
      offload_src='device',
      offload_dst='pinned_host',
    ),
  }[policy]
  return body if policy == 'none' else jax.checkpoint(body, policy=keep)


def shape(c: Config, axes: str) -> tuple[int, ...]:
  """Sizes of the letters: shape(c, 'DKGH') == (c.D, c.K, c.G, c.H)."""
  sizes = dict(V=c.V, D=c.D, L=c.L, K=c.K, G=c.G, H=c.H, F=c.F)
  return tuple(sizes[letter] for letter in axes)


def normal(c: Config, axes: str, key: jax.Array) -> nnx.Param:
  """A weight drawn from a normal distribution of standard deviation 0.02 (Qwen2's initializer_range)."""
  return nnx.Param(0.02 * jax.random.normal(key, shape(c, axes)), axes=axes)


def zeros(c: Config, axes: str) -> nnx.Param:
  """A bias."""
  return nnx.Param(jnp.zeros(shape(c, axes)), axes=axes)


def ones(c: Config, axes: str) -> nnx.Param:
  """A norm's scale."""
  return nnx.Param(jnp.ones(shape(c, axes)), axes=axes)
