"""Writing to file systems that may be full, read-only or gone: one line says which, and no file is half-written."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from vibethinker_jax.errors import BadInput, CannotWrite, Failure

# what a file system may answer to a write that is right in itself
_TROUBLE = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE, errno.ENOTCONN, errno.EACCES),
  *(errno.EPERM, errno.ENODEV, errno.ENXIO, errno.ENOTDIR),
)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """What is done within writes `path`. Raises CannotWrite where the file system refuses, naming it and its room.

  Libraries that write in threads and in other languages wrap the system's answer in errors of their own: it is looked
  for in what caused an error, and in its words.
  """
  try:
    yield
  except (BadInput, Failure):
    raise
  except Exception as error:
    if (answer := _answer(error)) is None:
      raise
    why, file = answer
    elsewhere = file is not None and pathlib.Path(path).parent not in pathlib.Path(file).parents
    raise CannotWrite(_line(pathlib.Path(file) if elsewhere else path, why)) from error


@contextlib.contextmanager
def beginning(path: pathlib.Path) -> Iterator[None]:
  """As `writing`, where nothing has begun: raises BadInput, unless the disk is full."""
  try:
    with writing(path):
      yield
  except CannotWrite as error:
    if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
      raise
    raise BadInput(str(error)) from None
  except OSError as error:
    raise BadInput(_line(path, error.strerror or str(error))) from None


def append(path: pathlib.Path, line: str) -> None:
  """Add `line` to a file whole or not at all; one before it that a kill has cut short goes. Raises CannotWrite."""
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


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """As `replacing`, with the folder of `path` made where it is missing. Raises CannotWrite."""
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
      yield scratch


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Another name beside `path` to write under.

  It takes the name `path` when the block ends well, and is removed when it does not. Raises OSError.
  """
  scratch = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield scratch
    scratch.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      scratch.unlink(missing_ok=True)
    raise


def _answer(error: BaseException) -> tuple[str, str | None] | None:
  """The system's answer behind an error, in words, and the file where it is known; None where it has no part in it."""
  if isinstance(error, OSError) and error.errno is not None:
    file = error.filename2 or error.filename  # of a copy or a renaming the second is written
    file = file if isinstance(file, str) else None
    return (os.strerror(error.errno), file) if error.errno in _TROUBLE else None
  inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
  for one in (*inner, error.__cause__, None if error.__suppress_context__ else error.__context__):
    if one is not None and (found := _answer(one)) is not None:
      return found
  said = next((words for words in map(os.strerror, _TROUBLE[:7]) if words in str(error)), None)
  return None if said is None else (said, None)


def _line(path: pathlib.Path, why: str) -> str:
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
