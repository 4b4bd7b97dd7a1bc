"""State, the two halves of a training step, and checkpoints that remember the data position.

A step is `add_gradients` once for every micro-batch, then `update`: losses come as (sum, count) and are divided last,
so accumulation, packing and data parallelism give the same number.
"""

import dataclasses
import functools
import json
import logging
import math
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from orbax.checkpoint import v1 as ocp
from tqdm import tqdm

from vibethinker_jax.disk import writing
from vibethinker_jax.errors import BadInput, Failure
from vibethinker_jax.model.mesh import InFlight
from vibethinker_jax.model.qwen2 import Qwen2


@functools.partial(jax.tree_util.register_dataclass, data_fields=['model', 'opt_state', 'step'], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class State:
  """What training changes."""

  model: Qwen2
  opt_state: optax.OptState
  step: jax.Array  # int32 []: updates made


class Diverged(Failure):
  """Loss, gradient or update is not finite. The message names stage, step and value."""


def start(model: Qwen2, optimizer: optax.GradientTransformation) -> State:
  """The state before the first step. The model is copied: updates give its buffers away, and the caller keeps his."""
  opt_state, step = jax.jit(lambda model: (optimizer.init(model), jnp.int32(0)))(model)
  return State(jax.tree.map(jnp.copy, model), opt_state, step)


def gradient_adder(loss: Callable) -> Callable:
  """(sums, model, batch) -> sums with the batch's gradient in it, and its metrics.

  `loss(model, batch)` -> (sum, count, metrics). `sums` is None at first, then (gradient sum, count). A call returns
  before its batch is computed; of those before it at most two are still on their way.
  """
  in_flight = InFlight()

  def value(model, batch):
    total, count, metrics = loss(model, batch)
    return total, (count, metrics)

  @functools.partial(jax.jit, donate_argnums=0)
  def add(sums, model, batch):
    (total, (count, metrics)), gradient = jax.value_and_grad(value, has_aux=True)(model, batch)
    return jax.tree.map(jnp.add, sums, (gradient, count)), {'loss_sum': total, **metrics}

  nothing = jax.jit(lambda model: (jax.tree.map(jnp.zeros_like, model), jnp.float32(0)))

  def add_next(sums, model, batch):
    sums, metrics = add(nothing(model) if sums is None else sums, model, batch)
    in_flight(metrics['loss_sum'])
    return sums, metrics

  return add_next


def updater(optimizer: optax.GradientTransformation) -> Callable:
  """(state, sums) -> (state after one update, {'grad_norm', 'update_norm', 'moved', 'count'})."""

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state: State, sums):
    gradient, count = sums
    gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1e-6).astype(g.dtype), gradient)
    change, opt_state = optimizer.update(gradient, state.opt_state, state.model)
    model = optax.apply_updates(state.model, change)
    norms = {
      'grad_norm': optax.global_norm(gradient),
      'update_norm': optax.global_norm(change),
      'moved': moved(state.model, model, change),
      'count': count,
    }
    return State(model, opt_state, state.step + 1), norms

  return update


def moved(before: Qwen2, after: Qwen2, change: Qwen2) -> jax.Array:
  """Of the weights that `change` was to move, the share that moved: what is less than half a step of a weight's dtype
  (in bfloat16 2^-9 of it) is lost when it is added, however healthy the norm of the update."""
  count = lambda parts: sum(part.sum(dtype=jnp.int32).astype(jnp.float32) for part in jax.tree.leaves(parts))
  asked = count(jax.tree.map(lambda c: c != 0, change))
  return jnp.where(asked > 0, count(jax.tree.map(jnp.not_equal, before, after)) / jnp.maximum(asked, 1.0), 1.0)


def check_finite(stage: str, step: int, values: dict) -> None:
  """Raises Diverged where loss, gradient norm or update norm is not a finite number."""
  for name in ('loss', 'grad_norm', 'update_norm'):
    if name in values and not math.isfinite(values[name]):
      raise Diverged(
        f'{stage}, step {step}: {name} is {values[name]}; stopped. The last checkpoint is sound: copy the workdir '
        'without its config.json, and go on there with a lower learning rate or a tighter clip'
      )


@functools.cache
def _quiet() -> None:
  """Hear nothing of every save, nor page after page of what goes wrong in the checkpoint library's threads: it comes
  back as an error to whoever waits. Threads of it that are none of Python's report to the hook for what nobody can
  catch, once the first of them has ended their loop.
  """
  logging.getLogger('absl').addFilter(lambda record: 'orbax' not in pathlib.Path(record.pathname).parts)
  before = sys.unraisablehook
  ended = lambda error: isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
  sys.unraisablehook = lambda found: None if ended(found.exc_value) else before(found)


class Checkpoints:
  """States by step in one directory, each with the JSON of where its data stood.

  They are sharded as the state is, and restored onto any mesh and number of processes. One cut short leaves nothing
  that would be taken for a checkpoint.
  """

  def __init__(self, directory: pathlib.Path, keep: int | None = None, every: int | None = None):
    """`keep`: how many of the latest to keep; `every`: keep the latest, and each step that this divides. None: all."""
    policies = ocp.training.preservation_policies
    policy = None if keep is None else policies.LatestN(keep)
    if every is not None:
      policy = policies.AnyPreservationPolicy([policies.EveryNSteps(every), policies.LatestN(keep or 1)])
    self._directory = pathlib.Path(directory).absolute()
    _quiet()
    with writing(self._directory):
      self._orbax = ocp.training.Checkpointer(
        self._directory,
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=policy,
        cleanup_tmp_directories=True,
      )
    self._last = self._directory  # what is being written, or was last

  def steps(self) -> list[int]:
    """Steps with a whole checkpoint, ascending. Raises CannotWrite where one that was begun could not be written."""
    self._wait()
    return sorted(c.step for c in self._orbax.checkpoints)

  def begin_save(self, state: State, position: dict) -> None:
    """Save under the state's own step, in the background, and in place of what has been saved under it.

    Returns when the state is copied, so that it may be given away; `steps` and `close` wait until it is on disk, and
    raise CannotWrite where the disk does not take it.
    """
    self._wait()
    self._last = self._directory / str(int(state.step))
    with writing(self._last):
      self._orbax.save_async(int(state.step), state, custom_metadata={'position': json.dumps(position)}, overwrite=True)

  def restore(self, like: State) -> tuple[State, dict] | None:
    """The latest state that can be read (shapes, dtypes and layout of `like`) and its data position.

    Of a damaged one a line tells. None where there is none; raises BadInput where every one there is is damaged.
    """
    return self._read(jax.tree.map(_abstract, like), self.steps())

  def model(self, like: Qwen2, optimizer: optax.GradientTransformation, step: int) -> Qwen2:
    """Only the model at `step`, laid out as `like`; of what the optimizer keeps nothing is read. Raises BadInput."""
    unread = jax.tree.map(lambda _: ocp.PLACEHOLDER, jax.eval_shape(optimizer.init, like))
    return self._read(State(jax.tree.map(_abstract, like), unread, ocp.PLACEHOLDER), [step])[0].model

  def _read(self, asked: State, steps: Sequence[int]) -> tuple[State, dict] | None:
    """What is `asked` for, of the last of `steps` that can be read, and its data position."""
    for candidate in reversed(steps):
      try:
        state = self._orbax.load(candidate, asked)
        return state, json.loads(self._orbax.metadata(candidate).custom_metadata['position'])
      except Exception as error:  # what a damaged file makes of the readers is not to be foreseen
        why = ' '.join(str(error).split())[:200]
        tqdm.write(f'{self._directory / str(candidate)}: this checkpoint cannot be read ({why})')
    if steps:
      raise BadInput(f'{self._directory}: no checkpoint of step {" or ".join(map(str, steps))} can be read')
    return None

  def delete(self, steps: Sequence[int]) -> None:
    """Those of `steps`, for good."""
    for step in steps:
      self._orbax.delete(step)

  def close(self) -> None:
    """Wait for what is being written. Raises CannotWrite."""
    with writing(self._last):
      self._orbax.close()

  def _wait(self) -> None:
    with writing(self._last):
      self._orbax.wait()


def _abstract(x) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
