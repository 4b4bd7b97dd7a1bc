"""Flags that several verbs share."""

import argparse
import os
import pathlib

from vibethinker_jax.errors import BadInput

DTYPES = ('float32', 'bfloat16')
DAY_S = 86400


def add_model(parser: argparse.ArgumentParser) -> None:
  """--model and --dtype, as `models.load` takes them."""
  parser.add_argument('--model', type=pathlib.Path, required=True, metavar='DIR', help='Hugging Face directory')
  parser.add_argument('--dtype', choices=DTYPES, default='float32', help='of weights and layers')


def add_rows(parser: argparse.ArgumentParser) -> None:
  """--in (args.input) for `files.rows`, and --out (args.output) for `files.output`."""
  parser.add_argument(
    '--in', dest='input', type=pathlib.Path, required=True, metavar='F', help='JSON Lines, - is stdin'
  )
  parser.add_argument(
    '--out', dest='output', type=pathlib.Path, required=True, metavar='F', help='JSON Lines, - is stdout'
  )


def check_seconds(flag: str, value: float) -> None:
  """Raises BadInput where `value` is no time that a worker can be given: more than 0, and a day at most."""
  if not 0 < value <= DAY_S:
    raise BadInput(f'{flag} {value}: expected more than 0 and at most {DAY_S} seconds')


def check_range(flag: str, value: int, low: int, high: int) -> None:
  """Raises BadInput where `value` is not in [low, high)."""
  if not low <= value < high:
    raise BadInput(f'{flag} {value}: expected {low} to {high - 1}')


def cache(name: str) -> pathlib.Path:
  """Where this user keeps what can be made again."""
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')) / 'vibethinker' / name
