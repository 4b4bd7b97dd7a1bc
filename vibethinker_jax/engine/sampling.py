"""From logits to one token a row, and the two log-probabilities it had.

A random number belongs to (seed, request, sample, position) and to nothing else: not to the row a sample happens to
sit in, nor to who sits beside it. One uniform number a token, read through the inverse of the cumulative distribution.
"""

import dataclasses
import functools
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np

_JITTER = 2e-6  # a bound on what rounding does to a sum of V = 151,936 probabilities in float32
TOP = 20  # tokens that `likeliest` names

# the largest logit and the smallest temperature that are told from others: infinities would have no differences
_LARGEST, _COLDEST = 1e18, 1e-20


@dataclasses.dataclass(frozen=True)
class SamplingParams:
  """How to draw. temperature 0 is greedy; top_k -1, top_p 1, min_p 0 and repetition_penalty 1 are off."""

  temperature: float = 1.0
  top_k: int = -1
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0

  def fault(self) -> str | None:
    """What is wrong with these values, in words, or None."""
    if not 0 <= self.temperature < math.inf:
      return f'temperature {self.temperature}: expected 0 or more'
    if self.top_k != -1 and self.top_k < 1:
      return f'top_k {self.top_k}: expected -1 (off) or at least 1'
    if not 0 < self.top_p <= 1:
      return f'top_p {self.top_p}: expected more than 0 and at most 1'
    if not 0 <= self.min_p <= 1:
      return f'min_p {self.min_p}: expected 0 to 1'
    if not 0 < self.repetition_penalty < math.inf:
      return f'repetition_penalty {self.repetition_penalty}: expected more than 0'
    return None

  @property
  def filters(self) -> bool:
    """Whether any token is ruled out before drawing; where not, nothing is sorted."""
    return self.top_k != -1 or self.top_p < 1 or self.min_p > 0

  @property
  def penalizes(self) -> bool:
    """Whether tokens seen before count for less; where no row does, nobody remembers what was seen."""
    return self.repetition_penalty != 1


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class BatchedSampling:
  """The SamplingParams of every row: float32 [R] each, but for top_k, int32 [R]."""

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  min_p: jax.Array
  repetition_penalty: jax.Array


def batched(samplings: list[SamplingParams]) -> BatchedSampling:
  """One row for each."""
  column = lambda name, kind: np.array([vars(s)[name] for s in samplings], kind)
  kinds = {f.name: np.int32 if f.name == 'top_k' else np.float32 for f in dataclasses.fields(BatchedSampling)}
  return BatchedSampling(**{name: column(name, kind) for name, kind in kinds.items()})


def number_of(name: str) -> int:
  """The number of the random stream that belongs to a request of that name: 32 bits of a hash, anywhere the same.

  Two names that share one draw by the same numbers, each from its own prompt.
  """
  return int.from_bytes(hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest()[:4], 'big')


def row_keys(seed: jax.Array, request: jax.Array, sample: jax.Array) -> jax.Array:
  """uint32 [N] each -> keys [N]: the stream of random numbers of one sample of one request."""
  fold = jax.vmap(jax.random.fold_in)
  return fold(fold(jax.vmap(jax.random.key)(seed), request), sample)


def keep(scaled: jax.Array, top_k: jax.Array, top_p: jax.Array, min_p: jax.Array) -> jax.Array:
  """Which tokens may be drawn: bool [R,V] from scaled logits [R,V] and each row's filters [R].

  top-k keeps the k likeliest, top-p the smallest set of likeliest tokens whose mass, after top-k, reaches p, min-p
  those at least min_p times as likely as the likeliest. What is exactly as likely as the last one kept is kept too,
  and the likeliest always.
  """
  V = scaled.shape[-1]
  ordered = jnp.flip(jnp.sort(scaled, axis=-1), -1)
  at = lambda rank: jnp.take_along_axis(ordered, rank[:, None], axis=-1)
  kth = at(jnp.where(top_k < 0, V, jnp.minimum(top_k, V)) - 1)
  mass = jax.nn.softmax(jnp.where(ordered >= kth, ordered, -jnp.inf), axis=-1)
  before = jnp.cumsum(mass, axis=-1) - mass
  # Sums made in parallel jitter, and need not rise: the set ends with the first token before which p is reached
  reached = (before >= (top_p - _JITTER)[:, None]) & (top_p < 1)[:, None]
  rank = jnp.arange(V)
  beyond = jnp.where(reached & (rank > 0), rank, V).min(-1)
  least = jnp.maximum(at(beyond - 1), jnp.maximum(kth, ordered[:, :1] + jnp.log(min_p)[:, None]))
  return scaled >= least


def penalized(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
  """Logits [R,V] of the tokens `seen` (bool [R,V]) divided by `penalty` [R] where positive, multiplied where negative.

  The repetition penalty of CTRL (arXiv 1909.05858), as transformers applies it.
  """
  penalty = penalty[:, None]
  wanted = jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
  return jnp.minimum(wanted, _LARGEST)


def pick(mass: jax.Array, uniform: jax.Array) -> jax.Array:
  """The inverse of the cumulative distribution: token int32 [R] at `uniform` [R], in [0,1), of the mass float32 [R,V].

  Only tokens with mass come into question: the answer is the first of them at which the sum so far exceeds the
  threshold. So whatever rounding does to the sums, which made in parallel need not even rise, a token without mass is
  never drawn. What is below the smallest normal number, whose logarithm may be lost, counts as none. A row without any
  mass, which only broken logits have, gives the last token.
  """
  V = mass.shape[-1]
  so_far = jnp.where(mass >= jnp.finfo(mass.dtype).tiny, jnp.cumsum(mass, axis=-1), 0.0)
  total = so_far.max(-1)
  threshold = jnp.minimum(uniform * total, jnp.nextafter(total, 0.0))  # below the total: some token exceeds it
  first = jnp.where(so_far > threshold[:, None], jnp.arange(V), V - 1).min(-1)
  return first.astype(jnp.int32)


def draw(
  logits: jax.Array,
  keys: jax.Array,
  position: jax.Array,
  sampling: BatchedSampling,
  seen: jax.Array | None,
  filters: bool,
):
  """One token a row.

  logits float32 [R,V], keys [R], position int32 [R] (how many tokens the sample has). `seen` bool [R,V] is None where
  no row penalizes repetition, `filters` False where none rules a token out. Returns token int32 [R], its ln p under the
  model at temperature 1, and its ln p under the sampling parameters it was drawn from (0 where greedy), float32 [R].
  """
  norm = jax.nn.logsumexp(logits, axis=-1)
  greedy = sampling.temperature == 0
  wanted = logits if seen is None else penalized(logits, seen, sampling.repetition_penalty)
  scaled = wanted / jnp.where(greedy, 1.0, jnp.maximum(sampling.temperature, _COLDEST))[:, None]
  if filters:
    scaled = jnp.where(keep(scaled, sampling.top_k, sampling.top_p, sampling.min_p), scaled, -jnp.inf)
  mass = jnp.exp(scaled - scaled.max(-1, keepdims=True))
  uniform = jax.vmap(lambda key, i: jax.random.uniform(jax.random.fold_in(key, i)))(keys, position)
  token = jnp.where(greedy, jnp.argmax(wanted, -1).astype(jnp.int32), pick(mass, uniform))
  of = lambda table: jnp.take_along_axis(table, token[:, None], axis=-1)[:, 0]
  sampler_logp = jnp.log(of(mass)) - jnp.log(mass.sum(-1))
  return token, of(logits) - norm, jnp.where(greedy, 0.0, sampler_logp)


def likeliest(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The TOP likeliest tokens (all, of a smaller vocabulary) of logits [...,V], the likeliest first.

  Returns their ids int32 and their ln p under the model at temperature 1, float32 [...,TOP].
  """
  values, ids = jax.lax.top_k(logits, min(TOP, logits.shape[-1]))
  return ids, values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
