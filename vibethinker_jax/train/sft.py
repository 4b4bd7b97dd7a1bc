"""Supervised fine-tuning: packed solutions, loss on the response only, a checkpoint every k steps."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import jax
from annotated_types import Interval
from pydantic import NonNegativeInt, PositiveInt
from tqdm import tqdm

from vibethinker_jax import runtime
from vibethinker_jax.data.augment import easy_first
from vibethinker_jax.data.batches import Batch, PackedDataset
from vibethinker_jax.data.problem import Problem, Solution
from vibethinker_jax.data.tokenizer import ChatTokenizer, render
from vibethinker_jax.distributed import Stopped
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.mesh import spread_rows
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.train.alarm import Alarm
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.optim import Optim, optimizer, remark, schedule
from vibethinker_jax.train.profile import Profile
from vibethinker_jax.train.state import (
  Checkpoints,
  State,
  check_finite,
  gradient_adder,
  start,
  updater,
)


@dataclasses.dataclass(frozen=True)
class SFT:
  """A run of supervised fine-tuning. A step has accumulation x rows x length tokens.

  steps: updates.
  rows: packed rows in a micro-batch, a multiple of data x fsdp of the mesh.
  length: tokens in a row, at most the model's positions; longer solutions are left out.
  accumulation: micro-batches in an update.
  save_every: updates between two checkpoints, each of which is probed: the report's k.
  optim: the optimizer.
  window: the solutions are sorted from easy to hard, and shuffled within windows of so many; 0 shuffles them all.
  """

  steps: PositiveInt
  rows: Annotated[int, Interval(ge=1, le=1 << 20)]
  length: PositiveInt
  accumulation: PositiveInt
  save_every: PositiveInt
  optim: Optim
  window: NonNegativeInt = 0


def loss(model: Qwen2, batch: Batch):
  """Weighted cross-entropy of the targets: (sum, sum of weights, metrics)."""
  hidden = model(batch.tokens, batch.positions, batch.segments)
  logps, _ = model.token_logps(hidden, batch.targets)
  return -(logps * batch.weights).sum(), batch.weights.sum(), {}


@functools.cache
def _compiled(o: Optim, steps: int) -> tuple[Callable, Callable]:
  """The two parts of a step, compiled once in a process, however many runs use them."""
  return gradient_adder(loss), updater(optimizer(o, steps))


def run(
  s: SFT,
  stage: str,
  model: Qwen2,
  rows: Sequence[tuple[Problem, Solution]],
  tokenizer: ChatTokenizer,
  workdir: pathlib.Path,
  writer: MetricWriter,
  seed: int,
  stop: Callable[[], bool] = lambda: False,
  profile: Profile = Profile(),  # noqa: B008
) -> State:
  """Train a model, and return the last state.

  Args:
    s: the training.
    stage: the name of the rows of metrics.
    model: the model at the start.
    rows: problems with solutions; each row is one solution.
    tokenizer: of the model.
    workdir: holds the checkpoints, one at every `save_every`-th step; where there are some, the run continues.
    writer: gets a row for each step.
    seed: of the order of the rows.
    stop: asked after each step; where it says True, the run saves and raises Stopped.
    profile: called before each step.

  Raises:
    BadInput: no row fits. Diverged, Stopped, CannotWrite.
  """
  rows = easy_first(rows) if s.window else rows
  try:
    data = PackedDataset(rows, lambda row: render(tokenizer, *row), s.rows, s.length, seed, s.window)
  except ValueError as error:
    raise BadInput(f'config.sft.length is {s.length}: {error}') from None
  transform, rate = optimizer(s.optim, s.steps), schedule(s.optim, s.steps)
  add, update = _compiled(s.optim, s.steps)
  if odd := remark(s.optim, s.steps):
    tqdm.write(f'{stage}: {odd}')
  with contextlib.closing(Checkpoints(workdir, every=s.save_every)) as checkpoints:
    state = start(model, transform)
    del model  # frees its memory where the caller holds no reference either
    if (saved := checkpoints.restore(state)) is not None:
      state, position = saved
      data.restore(position)
    done = int(state.step)
    writer.rewind(stage, done)

    alarm = Alarm(stage)
    with runtime.bar(s.steps, stage, 'step', done) as bar:
      late = None  # metrics are read one step later, so that the device never waits for the host
      clock = time.perf_counter()
      for step in range(done + 1, s.steps + 1):
        profile(stage, step)
        sums, losses = None, []
        for _ in range(s.accumulation):
          sums, metrics = add(sums, state.model, spread_rows(next(data)))
          losses.append(metrics['loss_sum'])
        state, norms = update(state, sums)
        seconds, clock = time.perf_counter() - clock, time.perf_counter()
        if late is not None:
          _record(writer, alarm, stage, bar, *late)
        values = {**norms, 'losses': losses, 'learning_rate': rate(step - 1)}
        late = (step, values, s.accumulation * s.rows * s.length / seconds)
        leaving = stop()
        if leaving or step % s.save_every == 0 or step == s.steps:
          _record(writer, alarm, stage, bar, *late)
          late = None
          checkpoints.begin_save(state, data.position())
        if leaving and step < s.steps:
          raise Stopped(f'{stage}: saved after step {step} of {s.steps}')
    profile.end()
    if data.dropped:
      tqdm.write(f'{stage}: {data.dropped} solutions longer than {s.length} tokens were left out')
  return state


def _record(
  writer: MetricWriter, alarm: Alarm, stage: str, bar: tqdm, step: int, values: dict, tokens_per_s: float
) -> None:
  """Write the metrics of a step."""
  read = jax.device_get(values)
  loss_sum = float(sum(read.pop('losses')))  # summed on the host: on the devices each sum would be a program
  read = {name: float(value) for name, value in read.items()}
  row = {
    'loss': loss_sum / max(read['count'], 1e-6),
    **read,
    'tokens_per_s': tokens_per_s,
  }
  check_finite(stage, step, row)
  writer.write(stage, step, row)
  alarm.look_at_update(row)
  bar.set_postfix_str(f'loss {row["loss"]:.3f}, {tokens_per_s / 1e3:.1f}k tokens/s', refresh=False)
  bar.update(1)
