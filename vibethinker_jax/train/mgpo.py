"""MaxEnt-Guided Policy Optimization as pure functions of arrays, without tokenizer, mesh or config.

VibeThinker-1.5B report (arXiv 2511.06221), section 3.4. P questions, G rollouts each; B rows of T tokens.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy


def maxent_weight(pass_rate: jax.Array, lam: float, p0: float = 0.5) -> jax.Array:
  """The weight of a question: exp(-lam D(p || p0)), which is 1 where the pass rate p is p0, and less elsewhere.

  D is the Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(p0), in nats; lam = 0 gives 1 everywhere (GRPO).
  `pass_rate` [...] in [0,1] -> weights [...] in (0,1].
  """
  p = jnp.asarray(pass_rate, jnp.float32)
  divergence = xlogy(p, p / p0) + xlogy(1 - p, (1 - p) / (1 - p0))
  return jnp.exp(-lam * divergence)


def variance_weight(pass_rate: jax.Array) -> jax.Array:
  """4p(1-p), the variance of a verdict over its maximum: 1 at p = 1/2, 0 at 0 and 1. [...] -> [...]."""
  p = jnp.asarray(pass_rate, jnp.float32)
  return 4 * p * (1 - p)


def band_weight(pass_rate: jax.Array, low: float, high: float) -> jax.Array:
  """1 where low <= p <= high, else 0. [...] -> [...]."""
  p = jnp.asarray(pass_rate, jnp.float32)
  return ((p >= low) & (p <= high)).astype(jnp.float32)


def rescaled(weights: jax.Array, advantages: jax.Array) -> jax.Array:
  """The weights [P] divided by their mean, which is weighted by the sum of each group's |advantages| [P,G].

  Every weight is at most 1, so that weights also shorten the gradient, in some steps more than in others. After this
  division the sum of |advantage| is the same as without weights, and only the balance between questions differs. (Adam
  cancels a constant factor; what the division removes is the change of the mean weight from step to step.)
  """
  size = jnp.abs(advantages).sum(axis=1)
  total = (weights * size).sum()
  return jnp.where(total > 0, weights * size.sum() / jnp.where(total > 0, total, 1.0), weights)


def advantages(rewards: jax.Array, std_normalize: bool = True, eps: float = 1e-6) -> jax.Array:
  """The group-relative advantages of GRPO: rewards [P,G] -> [P,G].

  The weight of a question multiplies its advantages. If it multiplied the rewards, the division by the group's standard
  deviation would cancel it. Without `std_normalize` there is no such division (Dr. GRPO). With `eps`, a group of equal
  rewards has advantages of 0.
  """
  rewards = jnp.asarray(rewards, jnp.float32)
  centred = rewards - rewards.mean(axis=1, keepdims=True)
  return centred / (rewards.std(axis=1, keepdims=True) + eps) if std_normalize else centred


def policy_loss(
  logps: jax.Array,
  old_logps: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  clip_low: float,
  clip_high: float,
  aggregate: str,
) -> tuple[jax.Array, jax.Array]:
  """The negated clipped objective as (sum, count). They are divided at the end, so that micro-batches do not matter.

  Args:
    logps: [B,T], ln p of the policy that is trained.
    old_logps: [B,T], ln p of the policy that sampled.
    advantages: [B].
    mask: [B,T], 1 on response tokens.
    clip_low, clip_high: the ratio is clipped to 1 - clip_low .. 1 + clip_high.
    aggregate: 'sequence': the mean over each sequence's tokens, and the count of sequences, as in the report; 'token':
      the sum over tokens, and their count.
  """
  ratio = jnp.exp(jnp.where(mask > 0, logps - old_logps, 0.0))
  clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
  gain = jnp.minimum(ratio * advantages[:, None], clipped * advantages[:, None])
  return reduce(-gain, mask, aggregate)


def reduce(values: jax.Array, mask: jax.Array, aggregate: str) -> tuple[jax.Array, jax.Array]:
  """Sum and count of per-token values [B,T] under mask [B,T], by 'sequence' or by 'token'. Raises ValueError."""
  lengths = mask.sum(axis=1)
  if aggregate == 'sequence':
    return ((values * mask).sum(axis=1) / jnp.maximum(lengths, 1)).sum(), (lengths > 0).sum().astype(jnp.float32)
  if aggregate == 'token':
    return (values * mask).sum(), lengths.sum().astype(jnp.float32)
  raise ValueError(f"aggregate is {aggregate!r}, expected 'sequence' or 'token'")


def kl_k3(logps: jax.Array, ref_logps: jax.Array) -> jax.Array:
  """The k3 estimate of KL(policy || reference) for each token: r - 1 - ln r with r = reference / policy; 0 or more."""
  log_ratio = ref_logps - logps
  return jnp.exp(log_ratio) - 1 - log_ratio


def overlong_penalty(lengths: jax.Array, limit: int, buffer: int) -> jax.Array:
  """DAPO's soft overlong punishment: 0 up to limit - buffer tokens, then linearly to -1 at `limit`. [...] -> [...]."""
  over = jnp.asarray(lengths, jnp.float32) - (limit - buffer)
  return -jnp.clip(over / buffer, 0.0, 1.0)
