"""metrics.jsonl: one JSON object a line, {"stage", "step", values}; and what a run that starts again does with it.

The same values go to TensorBoard (a directory a stage below tensorboard/), and to Weights & Biases where asked: sinks,
without which a run goes on. With several processes the first one writes, and the others wait until a file is there
whole.
"""

import importlib.util
import json
import math
import os
import pathlib
import platform
import time
import uuid
from collections.abc import Callable

import jax
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tqdm import tqdm

from vibethinker_jax import disk
from vibethinker_jax.distributed import barrier, wait_for_file
from vibethinker_jax.errors import BadInput


class MetricWriter:
  """Appends rows. A run that goes on from a checkpoint first takes back what came after it."""

  def __init__(self, path: pathlib.Path, wandb: str = ''):
    """`wandb`: a project there. Raises BadInput where it is asked for and not installed."""
    self._path = pathlib.Path(path)
    self._boards: dict[str, _Board] = {}
    self._purge: dict[str, int] = {}  # from which step on a stage's older events are void
    self._project, self._run = wandb, None
    self._sinks = {'TensorBoard': self._to_boards} | ({'Weights & Biases': self._to_wandb} if wandb else {})
    if wandb and importlib.util.find_spec('wandb') is None:
      raise BadInput('Weights & Biases is asked for and not installed, expected: pip install wandb')

  def write(self, stage: str, step: int, values: dict) -> None:
    """One row. A value that is not finite is written as null: JSON has no NaN."""
    if jax.process_index() > 0:
      return
    clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
    self._path.parent.mkdir(parents=True, exist_ok=True)
    disk.append(self._path, json.dumps({'stage': stage, 'step': step, **clean}))
    known = {k: v for k, v in clean.items() if v is not None}
    for name, sink in [*self._sinks.items()]:
      self._try(name, lambda sink=sink: sink(stage, step, known))

  def rows(self, stage: str) -> list[dict]:
    """Whole rows of one stage."""
    return [row for row in self._read() if row['stage'] == stage]

  def rewind(self, stage: str, step: int) -> None:
    """Take back the stage's rows after `step`, a last line cut short by a kill, and lines that are no rows."""
    self._purge[stage] = step + 1
    kept = [row for row in self._read(told=True) if row['stage'] != stage or row['step'] <= step]
    write_text(self._path, ''.join(json.dumps(row) + '\n' for row in kept))

  def close(self) -> None:
    """What is still on its way to TensorBoard and Weights & Biases arrives."""
    for board in self._boards.values():
      self._try('TensorBoard', board.close)
    self._boards.clear()
    if self._run is not None:
      self._try('Weights & Biases', self._run.finish)
      self._run = None

  def _to_boards(self, stage: str, step: int, values: dict) -> None:
    if stage not in self._boards:
      self._boards[stage] = _Board(self._path.parent / 'tensorboard' / stage, self._purge.get(stage))
    self._boards[stage].add(step, values)

  def _to_wandb(self, stage: str, step: int, values: dict) -> None:
    self._run = self._run or _wandb_run(self._project, self._path.parent)
    self._run.log({f'{stage}/{name}': value for name, value in values.items()} | {f'{stage}/step': step})

  def _try(self, name: str, give: Callable[[], object]) -> None:
    """Give a sink something; one that fails is told of and gets nothing more."""
    try:
      give()
    except Exception as error:  # of the disk, the network, the library
      if self._sinks.pop(name, None) is not None:
        why = ' '.join(str(error).split())[:200]
        tqdm.write(f'WARNING {name} gets no more metrics from now on ({why}); {self._path} does')

  def _read(self, told: bool = False) -> list[dict]:
    """Whole rows. Lines that are none are left out, and with `told` they are named and kept in a file beside."""
    if not self._path.exists():
      return []
    rows, damaged = [], []
    for number, line in enumerate(self._path.read_bytes().split(b'\n')[:-1], 1):
      if not line.strip():
        continue
      try:
        row = json.loads(line.decode())
        rows.append({'stage': str(row['stage']), 'step': int(row['step']), **row})
      except (ValueError, KeyError, TypeError):
        damaged.append((number, line))
    if told and damaged and jax.process_index() == 0:
      aside = self._path.with_suffix('.damaged')
      numbers = ', '.join(str(number) for number, _ in damaged[:10]) + (', ...' if len(damaged) > 10 else '')
      tqdm.write(f'{self._path}, line {numbers}: no row of metrics; left out, and kept in {aside}')
      with disk.writing(aside), aside.open('ab') as file:
        file.writelines(line + b'\n' for _, line in damaged)
    return rows


class _Board:
  """A stage's file of TensorBoard events. Written here and now, so that who writes hears of what goes wrong."""

  def __init__(self, folder: pathlib.Path, purge: int | None):
    """`purge`: from which step on older events of the folder are void."""
    folder.mkdir(parents=True, exist_ok=True)
    # by second, process and step: no file is written over
    name = f'events.out.tfevents.{int(time.time())}.{platform.node()}.{os.getpid()}.{purge or 0}'
    self._file, self._flushed = RecordWriter(str(folder / name)), time.monotonic()
    self._file.write(Event(wall_time=time.time(), file_version='brain.Event:2').SerializeToString())
    if purge is not None:
      begin = SessionLog(status=SessionLog.START)
      self._file.write(Event(wall_time=time.time(), step=purge, session_log=begin).SerializeToString())

  def add(self, step: int, values: dict) -> None:
    """One row."""
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    self._file.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
    if time.monotonic() - self._flushed > 10:
      self._file.flush()
      self._flushed = time.monotonic()

  def close(self) -> None:
    """Everything is on disk."""
    self._file.close()


def _wandb_run(project: str, workdir: pathlib.Path):
  """The workdir's run there: begun once, gone on with when the workdir is."""
  import wandb  # not among the dependencies

  path = workdir / 'wandb.id'
  if not path.exists():
    path.write_text(uuid.uuid4().hex)
  return wandb.init(project=project, id=path.read_text(), name=workdir.resolve().name, dir=str(workdir), resume='allow')


def write_text(path: pathlib.Path, text: str) -> None:
  """Write a file that is there whole or not at all; of several processes all call this. Raises CannotWrite."""
  path = pathlib.Path(path)
  barrier(f'write {path.name}')  # not before all have seen that it was not there
  if jax.process_index() == 0:
    with disk.whole(path) as scratch:
      scratch.write_text(text, encoding='utf-8')
  wait_for_file(path)


def write_json(path: pathlib.Path, value) -> None:
  """Write JSON that is there whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def read_json(path: pathlib.Path) -> dict:
  """The object of a JSON file that a stage has written. Raises BadInput, in which `path` and the line are named."""
  if not path.exists():
    raise BadInput(f'{path}: not found; the stage that writes it has not run in this workdir')
  try:
    value = json.loads(path.read_bytes().decode())
  except UnicodeDecodeError as error:
    line = error.object.count(b'\n', 0, error.start) + 1
    raise BadInput(f'{path}, line {line}: damaged (not UTF-8), expected what was written; {_REMEDY}') from None
  except json.JSONDecodeError as error:
    raise BadInput(f'{path}, line {error.lineno}: damaged ({error.msg}), expected JSON; {_REMEDY}') from None
  if not isinstance(value, dict):
    raise BadInput(f'{path}: damaged, expected a JSON object, found {type(value).__name__}; {_REMEDY}')
  return value


_REMEDY = 'take the file away, and the same command makes it again'
