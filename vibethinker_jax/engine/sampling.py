"""From logits to one token a row, and the two log-probabilities it had.

A random number belongs to (seed, request, sample, position) and to nothing else: not to the row a sample happens to
sit in, nor to who sits beside it. One uniform number a token, read through the inverse of the cumulative distribution.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How to draw. temperature 0 is greedy; top_k -1, top_p 1 and min_p 0 are off."""

  temperature: float = 1.0
  top_k: int = -1
  top_p: float = 1.0
  min_p: float = 0.0

  def fault(self) -> str | None:
    """What is wrong with these values, in words, or None."""
    if not self.temperature >= 0:
      return f'temperature {self.temperature}: expected 0 or more'
    if self.top_k != -1 and self.top_k < 1:
      return f'top_k {self.top_k}: expected -1 (off) or at least 1'
    if not 0 < self.top_p <= 1:
      return f'top_p {self.top_p}: expected more than 0 and at most 1'
    if not 0 <= self.min_p <= 1:
      return f'min_p {self.min_p}: expected 0 to 1'
    return None

  @property
  def filters(self) -> bool:
    """Whether any token is ruled out before drawing; where not, nothing is sorted."""
    return self.top_k != -1 or self.top_p < 1 or self.min_p > 0


def row_keys(seed: jax.Array, request: jax.Array, sample: jax.Array) -> jax.Array:
  """uint32 [N] each -> keys [N]: the stream of random numbers of one sample of one request."""
  fold = jax.vmap(jax.random.fold_in)
  return fold(fold(jax.vmap(jax.random.key)(seed), request), sample)


def keep(scaled: jax.Array, top_k: jax.Array, top_p: jax.Array, min_p: jax.Array) -> jax.Array:
  """Which tokens may be drawn: bool [R,V] from scaled logits [R,V] and each row's filters [R].

  top-k keeps the k likeliest (ties with the k-th included), top-p the smallest set of likeliest tokens whose mass,
  after top-k, reaches p, min-p those at least min_p times as likely as the likeliest. The likeliest is always kept.
  """
  V = scaled.shape[-1]
  ordered = jnp.flip(jnp.sort(scaled, axis=-1), -1)
  rank = jnp.arange(V)
  within_k = rank < jnp.where(top_k < 0, V, top_k)[:, None]
  mass = jax.nn.softmax(jnp.where(within_k, ordered, -jnp.inf), axis=-1)
  before = jnp.cumsum(mass, axis=-1) - mass
  kept = within_k & (before < top_p[:, None]) & (ordered >= ordered[:, :1] + jnp.log(min_p)[:, None])
  last = jnp.maximum(kept.sum(-1) - 1, 0)
  return scaled >= jnp.take_along_axis(ordered, last[:, None], axis=-1)


def draw(logits, keys, position, temperature, top_k, top_p, min_p, filters: bool):
  """One token a row.

  logits float32 [R,V], keys [R], position int32 [R] (how many tokens the sample has), the filters [R]. `filters`
  False says that none is on. Returns token int32 [R], its ln p under the model at temperature 1, and its ln p under the
  law it was drawn from (0 where greedy), float32 [R].
  """
  norm = jax.nn.logsumexp(logits, axis=-1)
  greedy = temperature == 0
  scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None]
  if filters:
    scaled = jnp.where(keep(scaled, top_k, top_p, min_p), scaled, -jnp.inf)
  mass = jnp.exp(scaled - scaled.max(-1, keepdims=True))
  cumulated = jnp.cumsum(mass, axis=-1)
  uniform = jax.vmap(lambda key, i: jax.random.uniform(jax.random.fold_in(key, i)))(keys, position)
  # uniform < 1, so the threshold stays below the total and a token of positive mass crosses it
  threshold = jnp.minimum(uniform * cumulated[:, -1], jnp.nextafter(cumulated[:, -1], 0.0))
  sampled = (cumulated <= threshold[:, None]).sum(-1)
  token = jnp.where(greedy, jnp.argmax(logits, -1), sampled).astype(jnp.int32)
  pick = lambda table: jnp.take_along_axis(table, token[:, None], axis=-1)[:, 0]
  law = jnp.log(pick(mass)) - jnp.log(mass.sum(-1))
  return token, pick(logits) - norm, jnp.where(greedy, 0.0, law)
