"""The files of all verbs: rows that are read, and files that appear whole or not at all."""

import contextlib
import gzip
import io
import json
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TextIO

from vibethinker_jax import disk
from vibethinker_jax.data.problem import Number, field, named, opened, read_rows, reason
from vibethinker_jax.errors import BadInput

Named = tuple[str, pathlib.Path | str | None]  # a flag and the path that was given with it, None where none was

# ---- in


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
  """The lines of a text file, as editors count them: only a newline ends a line. Raises BadInput."""
  with opened(path) as file:
    content = file.read()
  try:
    found = content.decode('utf-8-sig').split('\n')
  except UnicodeDecodeError as error:
    raise BadInput(f'{named(path)}: cannot be read ({error})') from None
  return found[:-1] if found[-1] == '' else found  # a newline at the end of a file begins no new line


def json_of(path: pathlib.Path) -> dict | None:
  """The object in a JSON file, None where there is no such file. Raises BadInput."""
  if not path.exists():
    return None
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise BadInput(f'{path}: cannot be read as JSON ({error})') from None
  if not isinstance(value, dict):
    raise BadInput(f'{path}: expected a JSON object, found {type(value).__name__}')
  return value


# ---- apart


def apart(inputs: Sequence[Named], outputs: Sequence[Named]) -> None:
  """Raises BadInput where an output is also an input or another output, under any name, or in a directory that is read.

  Two inputs may not both be stdin: the second would find it empty. inputs, outputs: each a flag and its path.
  """
  inputs, outputs = ([(flag, path) for flag, path in given if path is not None] for given in (inputs, outputs))
  if len(stdin := [flag for flag, path in inputs if _is_standard(path)]) > 1:
    raise BadInput(f'{stdin[0]} and {stdin[1]} are both stdin, expected one')
  for i, (flag, path) in enumerate(outputs):
    for other, theirs in outputs[:i]:
      if (_is_standard(path) and _is_standard(theirs)) or _same(path, theirs):
        raise BadInput(f'{path}: {other} and {flag} name the same file')
    for other, theirs in inputs:
      if _is_standard(path) or _is_standard(theirs):
        continue  # - is stdin as an input and stdout as an output
      if _same(path, theirs):
        raise BadInput(f'{path}: {other} and {flag} name the same file')
      if os.path.isdir(theirs) and os.path.exists(path) and _inside(path, theirs):
        raise BadInput(f'{path}: {flag} would replace a file of {other} {theirs}')


def apart_from_directory(inputs: Sequence[Named], path: pathlib.Path) -> None:
  """Raises BadInput where `path`, a directory to be written or replaced, is an input or contains one."""
  for flag, theirs in inputs:
    if os.path.exists(theirs) and _inside(theirs, path):
      raise BadInput(f'{path}: expected a new directory, or one that does not hold {flag} {theirs}')


def _is_standard(path: pathlib.Path | str) -> bool:
  return str(path) == '-'


def _same(one: pathlib.Path | str, other: pathlib.Path | str) -> bool:
  try:
    found = os.stat(one), os.stat(other)
  except OSError:
    return os.path.realpath(one) == os.path.realpath(other)
  return os.path.samestat(*found) and not stat.S_ISCHR(found[0].st_mode)  # all may write to /dev/null


def _inside(path: pathlib.Path | str, folder: pathlib.Path | str) -> bool:
  return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


# ---- out


@contextlib.contextmanager
def output(path: pathlib.Path) -> Iterator[TextIO]:
  """A text file that appears under `path` when the block ends well, and not at all when it does not.

  A link stays a link: the file that it leads to is replaced. A pipe, a device and stdout (which is `-`) get everything
  at the end. A name that ends in `.gz` is compressed. Raises BadInput.
  """
  target = _target(path)
  if target is None:
    with tempfile.TemporaryFile() as raw:
      with _text(raw, path) as text:
        yield text
      with _writing(path):
        _pass_on(raw, path)
    return
  with _writing(path):
    target.parent.mkdir(parents=True, exist_ok=True)
  with disk.replacing(target) as scratch:
    with _writing(path):
      raw = scratch.open('xb')
    with raw:
      if target.exists():
        shutil.copymode(target, scratch)
      with _text(raw, path) as text:
        yield text


@contextlib.contextmanager
def _text(raw: BinaryIO, path: pathlib.Path | str) -> Iterator[TextIO]:
  """Text that is written to `raw`, compressed where `path` asks for it. Raises BadInput."""
  packed = gzip.GzipFile('', 'wb', fileobj=raw, mtime=0) if pathlib.Path(path).suffix == '.gz' else raw
  text = io.TextIOWrapper(packed, 'utf-8')
  yield text
  with _writing(path):
    text.flush()
    text.detach()
    if packed is not raw:
      packed.close()
    raw.flush()


def _target(path: pathlib.Path | str) -> pathlib.Path | None:
  """The file to be replaced, None for a pipe or a device, which cannot be. Raises BadInput."""
  if _is_standard(path) or _is_descriptor(path):
    return None
  target = pathlib.Path(os.path.realpath(path))
  try:
    kind = target.stat().st_mode
  except OSError:
    if target.is_symlink():
      raise BadInput(f'{path}: cannot be written (its links lead to each other)') from None
    _check_made(target.parent, path)
    return target
  if stat.S_ISDIR(kind):
    raise BadInput(f'{path}: is a directory, expected a file to write')
  if stat.S_ISREG(kind):
    return target
  if not (stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)) or not os.access(path, os.W_OK):
    raise BadInput(f'{path}: cannot be written, expected a file or a pipe')
  return None


def _is_descriptor(path: pathlib.Path | str) -> bool:
  """Whether a path is another name of an open file, such as /dev/stdout or /dev/fd/3."""
  path = os.fspath(path)
  for _ in range(40):
    folder = os.path.realpath(os.path.dirname(path))
    if folder.startswith('/proc/'):
      return True
    if not os.path.islink(path):
      return False
    path = os.path.join(folder, os.readlink(path))
  return False


def _pass_on(file: BinaryIO, path: pathlib.Path | str) -> None:
  """Copies a temporary file to a pipe, a device or stdout."""
  file.seek(0)
  if not _is_standard(path):
    with open(path, 'ab') as device:  # the file behind /dev/stdout may have contents already
      shutil.copyfileobj(file, device)
    return
  try:
    sys.stdout.flush()
    shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would print another error at its end
    raise


@contextlib.contextmanager
def _writing(path: pathlib.Path | str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise BadInput(f'{"stdout" if _is_standard(path) else path}: cannot be written ({reason(error)})') from None


def say(text: str, *outputs: pathlib.Path | None) -> None:
  """Prints a line for the user, on stderr if one of the outputs is stdout."""
  print(text, file=sys.stderr if any(_is_standard(path) for path in outputs) else sys.stdout)


def directory(path: pathlib.Path) -> pathlib.Path:
  """A directory to be written; for a link, the directory that it leads to.

  Raises BadInput where something else has this path, or the directory cannot be made.
  """
  if _is_standard(path) or (os.path.lexists(path) and not os.path.isdir(path)):
    raise BadInput(f'{path}: expected a directory')
  _check_made(path, path)
  return path.resolve() if path.is_symlink() else path


def _check_made(folder: pathlib.Path, path: pathlib.Path | str) -> None:
  """Raises BadInput, naming `path`, where `folder` does not exist and cannot be made."""
  above = pathlib.Path(os.path.abspath(folder))
  while not os.path.lexists(above):
    above = above.parent
  if not os.path.isdir(above):
    raise BadInput(f'{path}: cannot be written ({above} is not a directory)')
  if not os.access(above, os.W_OK | os.X_OK):
    raise BadInput(f'{path}: cannot be written (permission denied in {above})')


def write(out: TextIO, row: dict) -> None:
  """One row of JSON Lines."""
  out.write(json.dumps(row) + '\n')


def write_as_read(out: TextIO, row: dict) -> None:
  """One row of JSON Lines as it was read: numbers keep their text, letters are not escaped."""
  text = _as_read(row)
  try:
    text.encode()
  except UnicodeEncodeError:  # half a character, which JSON can hold only as an escape
    text = json.dumps(row, default=str)
  out.write(text + '\n')


def _as_read(value) -> str:
  if isinstance(value, Number):
    return value.text
  if isinstance(value, dict):
    return '{' + ', '.join(f'{json.dumps(str(k), ensure_ascii=False)}: {_as_read(v)}' for k, v in value.items()) + '}'
  if isinstance(value, list):
    return '[' + ', '.join(map(_as_read, value)) + ']'
  return json.dumps(value, ensure_ascii=False, default=str)
