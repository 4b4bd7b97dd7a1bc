"""metrics.jsonl: one JSON object a line, {"stage", "step", values}; and what a run that starts again does with it.

With several processes the first one writes, and the others wait until a file is there whole.
"""

import json
import math
import os
import pathlib

import jax

from vibethinker_jax.cluster import together


class Journal:
  """Appends rows. A run that goes on from a checkpoint first takes back what came after it."""

  def __init__(self, path: pathlib.Path):
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)

  def write(self, stage: str, step: int, values: dict) -> None:
    """One row. A value that is not finite is written as null: JSON has no NaN."""
    if jax.process_index() > 0:
      return
    clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
    with self._path.open('a') as file:
      file.write(json.dumps({'stage': stage, 'step': step, **clean}) + '\n')

  def rows(self, stage: str) -> list[dict]:
    """Whole rows of one stage."""
    return [row for row in self._read() if row['stage'] == stage]

  def rewind(self, stage: str, step: int) -> None:
    """Take back the stage's rows after `step`, and a last line cut short by a kill."""
    kept = [row for row in self._read() if row['stage'] != stage or row['step'] <= step]
    write_text(self._path, ''.join(json.dumps(row) + '\n' for row in kept))

  def _read(self) -> list[dict]:
    if not self._path.exists():
      return []
    lines = self._path.read_text().split('\n')
    return [json.loads(line) for line in lines[:-1] if line]


def write_text(path: pathlib.Path, text: str) -> None:
  """Write a file that is there whole or not at all. With several processes all of them call this."""
  path = pathlib.Path(path)
  together(f'write {path.name}')  # not before all have seen that it was not there
  if jax.process_index() == 0:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    scratch.write_text(text)
    scratch.replace(path)
  together(f'wrote {path.name}')


def write_json(path: pathlib.Path, value) -> None:
  """Write JSON that is there whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + '\n')
