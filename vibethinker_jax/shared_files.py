"""Files of a workdir, which all processes of a run see: the first process writes, the others wait for the file."""

import json
import pathlib

import jax

from vibethinker_jax.disk import atomic
from vibethinker_jax.distributed import barrier, wait_for_file
from vibethinker_jax.errors import BadInput

_REMEDY = 'delete the file, and the same command writes it again'


def write_text(path: pathlib.Path, text: str) -> None:
  """Write a text file in UTF-8, atomically. All processes call this; the first one writes, and the others wait for the
  file. Raises CannotWrite.
  """
  path = pathlib.Path(path)
  barrier(f'write {path.name}')  # every process has seen by now that the file was not there
  if jax.process_index() == 0:
    with atomic(path) as scratch:
      scratch.write_text(text, encoding='utf-8')
  wait_for_file(path)


def write_json(path: pathlib.Path, value) -> None:
  """Write `value` as JSON, as `write_text` does."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def read_json(path: pathlib.Path) -> dict:
  """The object of a JSON file of a workdir. Raises BadInput, which names the file and the line."""
  if not path.exists():
    raise BadInput(f'{path}: not found; the stage that writes it has not run in this workdir')
  try:
    value = json.loads(path.read_bytes().decode())
  except UnicodeDecodeError as error:
    line = error.object.count(b'\n', 0, error.start) + 1
    raise BadInput(f'{path}, line {line}: damaged (not UTF-8), expected JSON; {_REMEDY}') from None
  except json.JSONDecodeError as error:
    raise BadInput(f'{path}, line {error.lineno}: damaged ({error.msg}), expected JSON; {_REMEDY}') from None
  if not isinstance(value, dict):
    raise BadInput(f'{path}: damaged, expected a JSON object, found {type(value).__name__}; {_REMEDY}')
  return value
