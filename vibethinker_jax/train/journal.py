"""metrics.jsonl: one JSON object a line, {"stage", "step", values}; and what a run that starts again does with it.

The same values go to TensorBoard (a directory a stage below tensorboard/), and to Weights & Biases where asked. With
several processes the first one writes, and the others wait until a file is there whole.
"""

import importlib.util
import json
import math
import os
import pathlib
import uuid

import jax
import tensorboardX

from vibethinker_jax.cluster import together, wrote
from vibethinker_jax.errors import BadInput


class Journal:
  """Appends rows. A run that goes on from a checkpoint first takes back what came after it."""

  def __init__(self, path: pathlib.Path, wandb: str = ''):
    """`wandb`: a project there. Raises BadInput where it is asked for and not installed."""
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._boards: dict[str, tensorboardX.SummaryWriter] = {}
    self._purge: dict[str, int] = {}  # from which step on a stage's older events are void
    self._project, self._run = wandb, None
    if wandb and importlib.util.find_spec('wandb') is None:
      raise BadInput('Weights & Biases is asked for and not installed, expected: pip install wandb')

  def write(self, stage: str, step: int, values: dict) -> None:
    """One row. A value that is not finite is written as null: JSON has no NaN."""
    if jax.process_index() > 0:
      return
    clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
    with self._path.open('a') as file:
      file.write(json.dumps({'stage': stage, 'step': step, **clean}) + '\n')
    known = {k: v for k, v in clean.items() if v is not None}
    if stage not in self._boards:
      self._boards[stage] = self._board(stage)
    for name, value in known.items():
      self._boards[stage].add_scalar(name, value, step)
    if self._project:
      self._run = self._run or _wandb_run(self._project, self._path.parent)
      self._run.log({f'{stage}/{name}': value for name, value in known.items()} | {f'{stage}/step': step})

  def rows(self, stage: str) -> list[dict]:
    """Whole rows of one stage."""
    return [row for row in self._read() if row['stage'] == stage]

  def rewind(self, stage: str, step: int) -> None:
    """Take back the stage's rows after `step`, and a last line cut short by a kill."""
    self._purge[stage] = step + 1
    kept = [row for row in self._read() if row['stage'] != stage or row['step'] <= step]
    write_text(self._path, ''.join(json.dumps(row) + '\n' for row in kept))

  def close(self) -> None:
    """What is still on its way to TensorBoard and Weights & Biases arrives."""
    for board in self._boards.values():
      board.close()
    self._boards.clear()
    if self._run is not None:
      self._run.finish()
      self._run = None

  def _board(self, stage: str) -> tensorboardX.SummaryWriter:
    folder, purge = self._path.parent / 'tensorboard' / stage, self._purge.get(stage)
    own = f'.{os.getpid()}.{purge or 0}'  # the library names files by the second, and would write over one
    return tensorboardX.SummaryWriter(str(folder), purge_step=purge, flush_secs=10, filename_suffix=own)

  def _read(self) -> list[dict]:
    if not self._path.exists():
      return []
    lines = self._path.read_text().split('\n')
    return [json.loads(line) for line in lines[:-1] if line]


def _wandb_run(project: str, workdir: pathlib.Path):
  """The workdir's run there: begun once, gone on with when the workdir is."""
  import wandb  # not among the dependencies

  path = workdir / 'wandb.id'
  if not path.exists():
    path.write_text(uuid.uuid4().hex)
  return wandb.init(project=project, id=path.read_text(), name=workdir.resolve().name, dir=str(workdir), resume='allow')


def write_text(path: pathlib.Path, text: str) -> None:
  """Write a file that is there whole or not at all. With several processes all of them call this."""
  path = pathlib.Path(path)
  together(f'write {path.name}')  # not before all have seen that it was not there
  if jax.process_index() == 0:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    scratch.write_text(text)
    scratch.replace(path)
  wrote(path)


def write_json(path: pathlib.Path, value) -> None:
  """Write JSON that is there whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + '\n')
