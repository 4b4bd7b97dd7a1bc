"""The optimizer: AdamW with warm-up and cosine decay, gradients clipped by their global norm."""

import dataclasses
from typing import Annotated

import jax
import optax
from annotated_types import Interval
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from vibethinker_jax.model.mesh import is_param


@dataclasses.dataclass(frozen=True)
class Optim:
  """AdamW with a learning rate that rises linearly to its peak and falls along a cosine, in each RL stage anew.

  learning_rate: the peak.
  warmup: updates until the peak.
  end: the last learning rate, as a share of the peak; 1 keeps it constant.
  b1: the decay of the mean of gradients.
  b2: the decay of the mean of their squares.
  eps: the number that is added to the square root of that mean.
  weight_decay: of matrices only, times the learning rate.
  clip: longer gradients are scaled to this norm.
  horizon: the update at which the cosine ends, where a run ends before it; 0 is the last update.
  """

  learning_rate: PositiveFloat
  warmup: NonNegativeInt = 0
  end: Annotated[float, Interval(ge=0, le=1)] = 0.0
  b1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
  b2: Annotated[float, Interval(ge=0, lt=1)] = 0.95
  eps: PositiveFloat = 1e-8
  weight_decay: NonNegativeFloat = 0.0
  clip: PositiveFloat = 1.0
  horizon: NonNegativeInt = 0


def remark(o: Optim, steps: int) -> str:
  """A warning about `steps` updates with this optimizer; '' where there is none."""
  if o.warmup <= steps:
    return ''
  return f'{steps} updates end within a warm-up of {o.warmup}: the learning rate never reaches its peak'


def schedule(o: Optim, steps: int) -> optax.Schedule:
  """The learning rate at each of `steps` updates."""
  peak, steps = o.learning_rate, o.horizon or steps
  rise = optax.linear_schedule(peak / max(o.warmup, 1), peak, max(o.warmup - 1, 1))
  fall = optax.cosine_decay_schedule(peak, max(steps - o.warmup, 1), alpha=o.end)
  return optax.join_schedules([rise, fall], [o.warmup]) if o.warmup else fall


def optimizer(o: Optim, steps: int) -> optax.GradientTransformation:
  """The optimizer for `steps` updates. Weight decay acts on matrices only, not on norms and biases."""
  is_matrix = lambda param: 'D' in param.axes and len(param.axes) > 1
  matrices = lambda tree: jax.tree.map(lambda p: p.replace(is_matrix(p)), tree, is_leaf=is_param)
  return optax.chain(
    optax.clip_by_global_norm(o.clip),
    optax.scale_by_adam(o.b1, o.b2, o.eps),
    optax.add_decayed_weights(o.weight_decay, mask=matrices),
    optax.scale_by_learning_rate(schedule(o, steps)),
  )
