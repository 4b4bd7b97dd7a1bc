"""The state of training, the two parts of a step, and checkpoints with the position in the data.

A step adds the gradient of each micro-batch (`gradient_adder`) and then updates the model (`updater`). A loss is a pair
(sum, count) and is divided at the end, so that accumulation, packing and data parallelism give the same number.
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
  """The state before the first step. The model is copied, since updates reuse its buffers (donation)."""
  opt_state, step = jax.jit(lambda model: (optimizer.init(model), jnp.int32(0)))(model)
  return State(jax.tree.map(jnp.copy, model), opt_state, step)


def gradient_adder(loss: Callable) -> Callable:
  """A function (sums, model, batch) -> (sums, metrics) that adds the gradient of a batch to `sums`.

  `loss(model, batch)` -> (sum, count, metrics). `sums` is None at first, then (gradient sum, count). A call returns
  before its batch is computed; at most two earlier batches are still being computed then.
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
  """A function (state, sums) -> (state after one update, {'grad_norm', 'update_norm', 'moved', 'count'})."""

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
  """Of the weights with a `change` other than 0, the share that has changed.

  A change of less than half the spacing of a weight's dtype (2^-9 of the weight in bfloat16) is lost in the addition.
  The norm of the update does not show this.
  """
  count = lambda parts: sum(part.sum(dtype=jnp.int32).astype(jnp.float32) for part in jax.tree.leaves(parts))
  asked = count(jax.tree.map(lambda c: c != 0, change))
  return jnp.where(asked > 0, count(jax.tree.map(jnp.not_equal, before, after)) / jnp.maximum(asked, 1.0), 1.0)


def check_finite(stage: str, step: int, values: dict) -> None:
  """Raises Diverged where the loss, the gradient's norm or the update's norm is not finite."""
  for name in ('loss', 'grad_norm', 'update_norm'):
    if name in values and not math.isfinite(values[name]):
      raise Diverged(
        f'{stage}, step {step}: {name} is {values[name]}; stopped. The last checkpoint is sound: copy the workdir '
        'without its config.json, and continue there with a lower learning rate or a smaller clip'
      )


@functools.cache
def _quiet() -> None:
  """Silence the checkpoint library: its line for every save, and the tracebacks of its threads.

  The caller that waits for a save gets its error anyway. The library's native threads report a closed event loop
  through sys.unraisablehook after the first error.
  """
  logging.getLogger('absl').addFilter(lambda record: 'orbax' not in pathlib.Path(record.pathname).parts)
  before = sys.unraisablehook
  ended = lambda error: isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
  sys.unraisablehook = lambda found: None if ended(found.exc_value) else before(found)


class Checkpoints:
  """States by step in one directory, each with the position in the data, as JSON.

  A checkpoint is sharded as the state is, and can be restored on any mesh and number of processes. A save that is
  interrupted leaves nothing that counts as a checkpoint.
  """

  def __init__(self, directory: pathlib.Path, keep: int | None = None, every: int | None = None):
    """`keep`: keep so many of the latest; `every`: keep the latest, and each multiple of this step. None: keep all."""
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
    self._last = self._directory  # the checkpoint that is being written, or was written last

  def steps(self) -> list[int]:
    """The steps with a complete checkpoint, ascending. Raises CannotWrite where the last save has failed."""
    self._wait()
    return sorted(c.step for c in self._orbax.checkpoints)

  def begin_save(self, state: State, position: dict) -> None:
    """Save the state under its step, in the background; a checkpoint of that step is replaced.

    Returns when the state is copied, so that its buffers may be reused. `steps` and `close` wait until the checkpoint
    is on disk, and raise CannotWrite where the save has failed.
    """
    self._wait()
    self._last = self._directory / str(int(state.step))
    with writing(self._last):
      self._orbax.save_async(int(state.step), state, custom_metadata={'position': json.dumps(position)}, overwrite=True)

  def restore(self, like: State) -> tuple[State, dict] | None:
    """The latest state that can be read, with the shapes, dtypes and shardings of `like`; and its data position.

    A damaged checkpoint is named in a line, and the one before it is read. None where there is no checkpoint; raises
    BadInput where all are damaged.
    """
    return self._read(jax.tree.map(_abstract, like), self.steps())

  def model(self, like: Qwen2, optimizer: optax.GradientTransformation, step: int) -> Qwen2:
    """The model at `step`, with the shapes, dtypes and shardings of `like`; the optimizer's state is not read.

    `optimizer`: of the run that saved it. Raises BadInput.
    """
    unread = jax.tree.map(lambda _: ocp.PLACEHOLDER, jax.eval_shape(optimizer.init, like))
    return self._read(State(jax.tree.map(_abstract, like), unread, ocp.PLACEHOLDER), [step])[0].model

  def _read(self, asked: State, steps: Sequence[int]) -> tuple[State, dict] | None:
    """The parts of a state in `asked`, from the last of `steps` that can be read; and its data position."""
    for candidate in reversed(steps):
      try:
        state = self._orbax.load(candidate, asked)
        return state, json.loads(self._orbax.metadata(candidate).custom_metadata['position'])
      except Exception as error:  # a damaged file can raise any error in its readers
        why = ' '.join(str(error).split())[:200]
        tqdm.write(f'{self._directory / str(candidate)}: this checkpoint cannot be read ({why})')
    if steps:
      raise BadInput(f'{self._directory}: no checkpoint of step {" or ".join(map(str, steps))} can be read')
    return None

  def delete(self, steps: Sequence[int]) -> None:
    """Delete the checkpoints of `steps`."""
    for step in steps:
      self._orbax.delete(step)

  def close(self) -> None:
    """Wait for a save that is under way. Raises CannotWrite."""
    with writing(self._last):
      self._orbax.close()

  def _wait(self) -> None:
    with writing(self._last):
      self._orbax.wait()


def _abstract(x) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
