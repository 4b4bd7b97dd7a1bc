"""Files in, and files out that appear whole or not at all."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from vibethinker_jax.data.problem import field, read_rows
from vibethinker_jax.errors import BadInput


def rows(path: pathlib.Path, fields: set[str]) -> list[tuple[str, dict]]:
  """('FILE, line N', row) of a JSON Lines file, with ids that differ and no field but `fields`. Raises BadInput."""
  found, seen = list(read_rows(path)), {}
  for where, row in found:
    if unknown := sorted(set(row) - fields):
      raise BadInput(f'{where}: unknown field "{unknown[0]}" (expected {", ".join(sorted(fields))})')
    name = field(row, 'id', (str, int), where)
    if name in seen:
      raise BadInput(f'{where}: id {name!r} was given in {seen[name]} already, expected ids that differ')
    seen[name] = where
  return found


def one_of(row: dict, names: Sequence[str], where: str) -> str:
  """The one of `names` that the row has. Raises BadInput where it has none or several."""
  given = [name for name in names if name in row]
  if len(given) != 1:
    wanted = ', '.join(f'"{name}"' for name in names)
    raise BadInput(f'{where}: expected exactly one of {wanted}, found {len(given)}')
  return given[0]


def lines(path: pathlib.Path) -> list[str]:
  """The lines of a text file, as editors count them: no other sign ends one. Raises BadInput."""
  try:
    return path.read_text(encoding='utf-8').split('\n')
  except (OSError, UnicodeDecodeError) as error:
    raise BadInput(f'{path}: cannot be read ({error})') from None


@contextlib.contextmanager
def output(path: pathlib.Path) -> Iterator:
  """A text file that appears under `path` when the block ends well, and not at all when it does not."""
  if path.is_dir():
    raise BadInput(f'{path}: is a directory, expected a file to write')
  scratch = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = scratch.open('x', encoding='utf-8')
  except OSError as error:
    raise BadInput(f'{path}: cannot be written ({error.strerror})') from None
  try:
    with file:
      yield file
    scratch.replace(path)
  finally:
    scratch.unlink(missing_ok=True)


def write(out, row: dict) -> None:
  """One row of JSON Lines."""
  out.write(json.dumps(row) + '\n')
