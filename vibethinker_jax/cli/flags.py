"""Flags that several verbs share."""

import argparse
import pathlib

from vibethinker_jax.errors import BadInput

DTYPES = ('float32', 'bfloat16')
DAY_S = 86400


def add_model(parser: argparse.ArgumentParser) -> None:
  """--model and --dtype, as `model_directory.load_model` takes them."""
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


def path(text: str) -> pathlib.Path:
  """The type of a flag that names a file or a directory: pathlib.Path, but '' is not the current directory."""
  return pathlib.Path(filled(text))


def filled(text: str) -> str:
  """The type of a flag that takes any text but an empty one: that would come from an unset variable of a script."""
  if not text.strip():
    raise argparse.ArgumentTypeError('expected a text, found none')
  return text


def check_seconds(flag: str, value: float) -> None:
  """Raises BadInput unless `value` is more than 0 and at most a day."""
  if not 0 < value <= DAY_S:
    raise BadInput(f'{flag} {value}: expected more than 0 and at most {DAY_S} seconds')


def check_range(flag: str, value: int, low: int, high: int) -> None:
  """Raises BadInput where `value` is not in [low, high)."""
  if not low <= value < high:
    raise BadInput(f'{flag} {value}: expected {low} to {high - 1}')


def configs_are() -> str:
  """A sentence that says where configs and experiments are: in a clone, beside the package; pip installs none."""
  root = pathlib.Path(__file__).parents[2]
  if (root / 'configs' / 'tiny.py').exists():
    return f'configs/ and experiments/ are in {root}'
  return 'configs/ and experiments/ are in a clone of the repository, not in the installed package'
