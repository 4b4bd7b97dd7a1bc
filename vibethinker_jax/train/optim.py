"""The optimizer: AdamW with warm-up and cosine decay, gradients clipped by their global norm."""

import dataclasses

import jax
import optax

from vibethinker_jax.model.mesh import is_param


@dataclasses.dataclass(frozen=True)
class Optim:
  """learning_rate is the peak, reached after `warmup` steps; cosine decay to `end` times the peak (1: constant).

  The decay ends with the run, or at step `horizon` where that is given: a run may stop in the middle of its decay.
  """

  learning_rate: float
  warmup: int = 0
  end: float = 0.0
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip: float = 1.0
  horizon: int = 0


def schedule(o: Optim, steps: int) -> optax.Schedule:
  """Learning rate at each of `steps` steps."""
  peak, steps = o.learning_rate, o.horizon or steps
  rise = optax.linear_schedule(peak / max(o.warmup, 1), peak, max(o.warmup - 1, 1))
  fall = optax.cosine_decay_schedule(peak, max(steps - o.warmup, 1), alpha=o.end)
  return optax.join_schedules([rise, fall], [o.warmup]) if o.warmup else fall


def optimizer(o: Optim, steps: int) -> optax.GradientTransformation:
  """Weight decay acts on matrices only; norms and biases keep theirs."""
  is_matrix = lambda param: 'D' in param.axes and len(param.axes) > 1
  matrices = lambda tree: jax.tree.map(lambda p: p.replace(is_matrix(p)), tree, is_leaf=is_param)
  return optax.chain(
    optax.clip_by_global_norm(o.clip),
    optax.scale_by_adam(o.b1, o.b2, o.eps),
    optax.add_decayed_weights(o.weight_decay, mask=matrices),
    optax.scale_by_learning_rate(schedule(o, steps)),
  )
