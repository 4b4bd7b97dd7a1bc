"""The loss of RL on a batch of responses: the model's log-probabilities put into mgpo.py's formulas."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.train import mgpo
from vibethinker_jax.train.rl_batches import Responses


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The fields of MGPO that are compiled into the loss. The weight of a question scales the advantages, outside it."""

  clip_low: float
  clip_high: float
  aggregate: Literal['sequence', 'token']
  kl_coef: float


def make_loss(c: LossConfig, temperature: float) -> Callable:
  """loss(model, Responses) -> (sum, count, metrics), for state.gradient_adder. `temperature`: that of sampling."""

  def loss(model: Qwen2, batch: Responses):
    hidden = hidden_states(model, batch)
    logps, entropy = model.token_logps(hidden, batch.targets, temperature)
    total, count = mgpo.policy_loss(
      logps, batch.old_logps, batch.advantages, batch.mask, c.clip_low, c.clip_high, c.aggregate
    )
    log_ratio = jnp.where(batch.mask > 0, logps - batch.old_logps, 0.0)
    ratio = jnp.exp(log_ratio)
    drift = jnp.zeros_like(logps)
    if c.kl_coef:
      drift = mgpo.kl_k3(logps, batch.ref_logps)
      total = total + c.kl_coef * mgpo.reduce(drift, batch.mask, c.aggregate)[0]
    outside = (ratio < 1 - c.clip_low) | (ratio > 1 + c.clip_high)
    metrics = {
      'tokens': batch.mask.sum(),
      'entropy_sum': (entropy * batch.mask).sum(),
      'kl_sum': (drift * batch.mask).sum(),
      'clipped_sum': (outside * batch.mask).sum(),
      'gap_sum': jnp.abs(log_ratio).sum(),
      'ratio_min': ratio.min(),
      'ratio_max': ratio.max(),
    }
    return total, count, metrics

  return loss


def hidden_states(model: Qwen2, batch: Responses) -> jax.Array:
  """The hidden states of the responses, [B,T,D]."""
  N, (B, T) = len(batch.lengths), batch.tokens.shape
  return model.continued(batch.prompts, batch.lengths, batch.tokens.reshape(N, B // N, T)).reshape(B, T, -1)


@jax.jit
def score(model: Qwen2, batch: Responses, temperature: float) -> jax.Array:
  """ln p of the targets at `temperature`, [B,T]."""
  hidden = hidden_states(model, batch)
  return model.token_logps(hidden, batch.targets, temperature)[0]
