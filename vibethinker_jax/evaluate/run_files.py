"""The files of a workdir that its page is made of, read and checked: config, summary, metrics, samples.

A file may be missing, and so may every part of it: a run that stopped early still gets a page. What is there has to be
of the right type.
"""

import fnmatch
import json
import pathlib

_NUMBER = ('a number', lambda x: isinstance(x, int | float))
_TEXT = ('a text', lambda x: isinstance(x, str))
_LIST = ('a list', lambda x: isinstance(x, list))
_NUMBERS = ('a list of numbers', lambda x: isinstance(x, list) and all(isinstance(y, int | float) for y in x))
_SCORES = (
  'a list of numbers',
  lambda x: isinstance(x, list) and all(y is None or isinstance(y, int | float) for y in x),
)
_INTERVAL = ('a list of two numbers', lambda x: _SCORES[1](x) and len(x) == 2)

# a pattern of field names -> the fields below it, or what a value has to be; the first pattern that fits counts
_SUMMARY = {
  'models': {'*': {'*': {'pass@*_ci': _INTERVAL, 'pass@*': _NUMBER, 'n_*': _NUMBER}}},
  'experts': {
    '*': {
      **{'run': _TEXT, 'steps': _NUMBERS, 'pass_at_k': _SCORES},
      **{'k': _NUMBER, 'selected_step': _NUMBER, 'held_out': _NUMBER},
    }
  },
  'mgpo': {'stages': ('a list of objects', lambda x: isinstance(x, list) and all(isinstance(y, dict) for y in x))},
  'seconds': {'*': _NUMBER},
  'tokens': {'*': _NUMBER},
  'cost': {'*': _NUMBER},
  'device': {},
  'versions': {},
  'left_out': _LIST,
}
_CONFIG = {'fusion': {'weights': _NUMBERS}}


def read_summary(workdir: pathlib.Path) -> dict:
  """The object of summary.json, {} where there is none. Raises ValueError, which names the file and the field."""
  return _checked(workdir / 'summary.json', _SUMMARY)


def read_config(workdir: pathlib.Path) -> dict:
  """The object of config.json, {} where there is none. Raises ValueError, which names the file and the field."""
  return _checked(workdir / 'config.json', _CONFIG)


def read_rows(path: pathlib.Path) -> list[dict]:
  """The objects of a JSON Lines file, none where there is no file. Raises ValueError, which names file and line."""
  # A last line without its newline was being written when the program was killed, or is being written now.
  lines = path.read_bytes().split(b'\n')[:-1] if path.exists() else []
  return [_object(line, f'{path}:{i}') for i, line in enumerate(lines, 1) if line.strip()]


def _object(text: bytes, where: str) -> dict:
  try:
    data = json.loads(text.decode('utf-8'))
  except ValueError as error:
    raise ValueError(f'{where}: expected a JSON object: {error}') from error
  if not isinstance(data, dict):
    raise ValueError(f'{where}: expected a JSON object, got a {type(data).__name__}')
  return data


def _checked(path: pathlib.Path, shape: dict) -> dict:
  data = _object(path.read_bytes(), str(path)) if path.exists() else {}
  _check(data, shape, '', path)
  return data


def _check(value, shape: dict | tuple, field: str, path: pathlib.Path) -> None:
  """Raises ValueError for the first value that is not of its shape; null stands for a value that is missing."""
  if value is None:
    return
  expected, fits = shape if isinstance(shape, tuple) else ('an object', lambda x: isinstance(x, dict))
  if not fits(value):
    text = json.dumps(value)
    found = text if len(text) <= 60 else f'{text[:57]}...'
    raise ValueError(f'{path}: {field}: expected {expected}, found {found}')
  for name, inner in value.items() if isinstance(shape, dict) else ():
    pattern = next((pattern for pattern in shape if fnmatch.fnmatchcase(name, pattern)), None)
    if pattern is not None:
      _check(inner, shape[pattern], f'{field}.{name}' if field else name, path)
