"""From logits to one token a row, and the token's two log-probabilities.

A random number is a function of (seed, request, sample, position) alone. It does not depend on the row in which a
sample is decoded, nor on the other samples of the batch. Each token takes one uniform number, at which the inverse of
the cumulative distribution is read.
"""

import dataclasses
import functools
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np

_JITTER = 2e-6  # bounds the rounding error of a sum of V = 151,936 probabilities in float32
TOP = 20  # tokens that `top_logprobs` gives

# bounds of logits and of temperature, so that no value is infinite: a difference of infinities is not a number
_LARGEST, _COLDEST = 1e18, 1e-20


@dataclasses.dataclass(frozen=True)
class SamplingParams:
  """How tokens are drawn. temperature 0 is greedy; top_k -1, top_p 1, min_p 0 and repetition_penalty 1 are off."""

  temperature: float = 1.0
  top_k: int = -1
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0

  def fault(self) -> str | None:
    """What is wrong with the values, in words, or None if nothing is."""
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
    """Whether tokens can be ruled out before drawing. Only then the logits have to be sorted."""
    return self.top_k != -1 or self.top_p < 1 or self.min_p > 0

  @property
  def penalizes(self) -> bool:
    """Whether repetition is penalized. Only then the tokens seen so far have to be kept."""
    return self.repetition_penalty != 1


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class BatchedSampling:
  """The SamplingParams of every row: each field is float32 [R], but top_k is int32 [R]."""

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  min_p: jax.Array
  repetition_penalty: jax.Array


def batched(samplings: list[SamplingParams]) -> BatchedSampling:
  """The parameters of R rows as arrays, one entry for each of `samplings`."""
  column = lambda name, kind: np.array([vars(s)[name] for s in samplings], kind)
  kinds = {f.name: np.int32 if f.name == 'top_k' else np.float32 for f in dataclasses.fields(BatchedSampling)}
  return BatchedSampling(**{name: column(name, kind) for name, kind in kinds.items()})


def number_of(name: str) -> int:
  """The random stream (Request.number) of a request with this name: 32 bits of a hash, the same on every machine.

  Two names with the same hash draw with the same random numbers, each from its own prompt.
  """
  return int.from_bytes(hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest()[:4], 'big')


def row_keys(seed: jax.Array, request: jax.Array, sample: jax.Array) -> jax.Array:
  """uint32 [N] each -> keys [N]: the random stream of each sample."""
  fold = jax.vmap(jax.random.fold_in)
  return fold(fold(jax.vmap(jax.random.key)(seed), request), sample)


def keep(scaled: jax.Array, top_k: jax.Array, top_p: jax.Array, min_p: jax.Array) -> jax.Array:
  """Which tokens may be drawn, bool [R,V].

  A token that is exactly as likely as the least likely token kept is kept too; the most likely token is always kept.

  Args:
    scaled: float32 [R,V], logits divided by the temperature.
    top_k: int32 [R]; keeps the k most likely tokens, -1 keeps all.
    top_p: float32 [R]; keeps the smallest set of most likely tokens whose probability, after top_k, reaches p.
    min_p: float32 [R]; keeps the tokens that are at least min_p times as likely as the most likely one.
  """
  V = scaled.shape[-1]
  ordered = jnp.flip(jnp.sort(scaled, axis=-1), -1)
  at = lambda rank: jnp.take_along_axis(ordered, rank[:, None], axis=-1)
  kth = at(jnp.where(top_k < 0, V, jnp.minimum(top_k, V)) - 1)
  mass = jax.nn.softmax(jnp.where(ordered >= kth, ordered, -jnp.inf), axis=-1)
  before = jnp.cumsum(mass, axis=-1) - mass
  # A parallel cumulative sum has rounding errors and need not be monotonic: the set ends before the first token whose
  # predecessors have a sum of at least p
  reached = (before >= (top_p - _JITTER)[:, None]) & (top_p < 1)[:, None]
  rank = jnp.arange(V)
  beyond = jnp.where(reached & (rank > 0), rank, V).min(-1)
  least = jnp.maximum(at(beyond - 1), jnp.maximum(kth, ordered[:, :1] + jnp.log(min_p)[:, None]))
  return scaled >= least


def penalized(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
  """Logits after the repetition penalty of CTRL (arXiv 1909.05858), in the form that transformers applies.

  logits float32 [R,V]; seen bool [R,V]; penalty float32 [R]. A positive logit of a seen token is divided by the
  penalty, a negative one is multiplied by it.
  """
  penalty = penalty[:, None]
  wanted = jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
  return jnp.minimum(wanted, _LARGEST)


def pick(mass: jax.Array, uniform: jax.Array) -> jax.Array:
  """The inverse of the cumulative distribution.

  Only tokens with mass are considered: the answer is the first of them at which the cumulative sum exceeds the
  threshold. So a token without mass is never drawn, whatever the rounding errors of the sums (they are computed in
  parallel and need not be monotonic). Mass below the smallest normal number, whose logarithm may be lost, counts as
  none. A row without mass, which only broken logits have, gives the last token.

  Args:
    mass: float32 [R,V], probabilities up to a factor for each row.
    uniform: float32 [R] in [0, 1).

  Returns:
    Tokens, int32 [R].
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
  vocabulary: int | None = None,
):
  """Draw one token for each row.

  Args:
    logits: float32 [R,V].
    keys: [R], the random stream of each sample.
    position: int32 [R], how many tokens of the sample were drawn before.
    sampling: the parameters of each row.
    seen: bool [R,V], tokens that are in the prompt or were drawn; None if no row penalizes repetition.
    filters: False if no row rules tokens out (top_k, top_p, min_p).
    vocabulary: ids from this on are never drawn, because the tokenizer has no such ids; None: all V may be.

  Returns:
    The tokens int32 [R], their ln p under the model at temperature 1 over all V, and their ln p under the sampling
    parameters with which they were drawn (0 if greedy), both float32 [R].
  """
  norm = jax.nn.logsumexp(logits, axis=-1)
  greedy = sampling.temperature == 0
  wanted = logits if vocabulary is None else logits[:, :vocabulary]
  if seen is not None:
    wanted = penalized(wanted, seen if vocabulary is None else seen[:, :vocabulary], sampling.repetition_penalty)
  scaled = wanted / jnp.where(greedy, 1.0, jnp.maximum(sampling.temperature, _COLDEST))[:, None]
  if filters:
    scaled = jnp.where(keep(scaled, sampling.top_k, sampling.top_p, sampling.min_p), scaled, -jnp.inf)
  mass = jnp.exp(scaled - scaled.max(-1, keepdims=True))
  uniform = jax.vmap(lambda key, i: jax.random.uniform(jax.random.fold_in(key, i)))(keys, position)
  token = jnp.where(greedy, jnp.argmax(wanted, -1).astype(jnp.int32), pick(mass, uniform))
  of = lambda table: jnp.take_along_axis(table, token[:, None], axis=-1)[:, 0]
  sampler_logp = jnp.log(of(mass)) - jnp.log(mass.sum(-1))
  return token, of(logits) - norm, jnp.where(greedy, 0.0, sampler_logp)


def top_logprobs(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The TOP most likely tokens (all, if the vocabulary is smaller) of logits [...,V], the most likely first.

  Returns their ids, int32 [...,TOP], and their ln p under the model at temperature 1, float32 [...,TOP].
  """
  values, ids = jax.lax.top_k(logits, min(TOP, logits.shape[-1]))
  return ids, values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
