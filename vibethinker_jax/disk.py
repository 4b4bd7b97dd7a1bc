"""Writing files: a file is written completely or not at all, and a file system that refuses is named in one line.

`atomic` is the one place where a file is written under a temporary name and then renamed. This module does not import
JAX.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from vibethinker_jax.errors import BadInput, CannotWrite, Failure

# error numbers by which a file system refuses a correct write: full, over quota, read-only, gone, ...
_REFUSALS = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE, errno.ENOTCONN, errno.EACCES),
  *(errno.EPERM, errno.ENODEV, errno.ENXIO, errno.ENOTDIR),
)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """A block that writes `path`. Raises CannotWrite where the file system refuses, with its name and its free space.

  Libraries that write in threads or in other languages wrap the system's error in errors of their own. It is therefore
  also looked for among the causes of an error, and in its text.
  """
  try:
    yield
  except (BadInput, Failure):
    raise
  except Exception as error:
    if (found := _refusal(error)) is None:
      raise
    why, file = found
    elsewhere = file is not None and pathlib.Path(path).parent not in pathlib.Path(file).parents
    raise CannotWrite(_line(pathlib.Path(file) if elsewhere else path, why)) from error


@contextlib.contextmanager
def beginning(path: pathlib.Path) -> Iterator[None]:
  """As `writing`, for the first write of a program: raises BadInput, since the path was wrong; CannotWrite only where
  the disk is full.
  """
  try:
    with writing(path):
      yield
  except CannotWrite as error:
    if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
      raise
    raise BadInput(str(error)) from None
  except OSError as error:
    raise BadInput(_line(path, error.strerror or str(error))) from None


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path to write to, which is renamed to `path` when the block ends without an error.

  Folders are made as needed. Where the block fails, what was at `path` before is still there. Raises CannotWrite.
  """
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
      yield scratch


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """As `atomic`, in a folder that exists. Raises OSError as it comes."""
  scratch = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield scratch
    scratch.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      scratch.unlink(missing_ok=True)
    raise


def append(path: pathlib.Path, line: str) -> None:
  """Append `line` to a file, completely or not at all. An incomplete last line is removed first.

  Raises CannotWrite.
  """
  with writing(path), open(path, 'a+b', buffering=0) as file:
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b'\n':
      size = os.pread(file.fileno(), size, 0).rfind(b'\n') + 1
      file.truncate(size)
    data = memoryview(f'{line}\n'.encode())
    try:
      while data:
        data = data[file.write(data) :]
    except OSError:
      file.truncate(size)
      raise


def _refusal(error: BaseException) -> tuple[str, str | None] | None:
  """The file system's refusal behind an error: its text, and the file where it is known; None where there is none."""
  if isinstance(error, OSError) and error.errno is not None:
    file = error.filename2 or error.filename  # a copy or a renaming has two: the second is written
    file = file if isinstance(file, str) else None
    return (os.strerror(error.errno), file) if error.errno in _REFUSALS else None
  inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
  for one in (*inner, error.__cause__, None if error.__suppress_context__ else error.__context__):
    if one is not None and (found := _refusal(one)) is not None:
      return found
  text = next((words for words in map(os.strerror, _REFUSALS[:7]) if words in str(error)), None)
  return None if text is None else (text, None)


def _line(path: pathlib.Path, why: str) -> str:
  """The message: the path, the reason, and the free space of its file system."""
  where = pathlib.Path(path).absolute()
  try:
    while not where.exists():
      where = where.parent
    usage = shutil.disk_usage(where)
    while not os.path.ismount(where):
      where = where.parent
    room = f'the file system at {where} has {_size(usage.free)} of {_size(usage.total)} free'
  except OSError as error:
    room = f'the file system at {where} does not answer ({error.strerror})'
  return f'{path}: cannot be written ({why}); {room}'


def _size(n: float) -> str:
  for unit in ('bytes', 'KB', 'MB', 'GB', 'TB'):
    if n < 1000 or unit == 'TB':
      return f'{n:.4g} {unit}'
    n /= 1000
