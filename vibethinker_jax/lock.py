"""One run at a time in a workdir.

The first process of a run holds a lock on WORKDIR/.lock as long as it lives, and writes there every few seconds: host,
boot, process, since when, and a count. The system frees the lock of a process that dies, however it dies, and a kernel
that has started anew knows nothing of it. Where a file system has no locks, or keeps them on each host by itself, the
count tells: a run whose count stands still for some beats is gone. No clocks of two hosts are compared.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import platform
import sys
import threading
import time
from collections.abc import Iterator

import jax
from tqdm import tqdm

from vibethinker_jax.disk import beginning
from vibethinker_jax.distributed import gather
from vibethinker_jax.errors import BadInput

_BEAT_S = 5.0
_WATCHED_S = 4 * _BEAT_S
_BYTES = 512  # of the record, always: it is written over in place, which a full disk does not hinder


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Nobody else works in `workdir`, which is made where it is missing, until the block ends.

  Raises BadInput, on all processes, where another run does, naming it; and where the workdir cannot be written.
  """
  lock, refused = None, None
  if jax.process_index() == 0:
    try:
      lock = _Lock(pathlib.Path(workdir))
    except Exception as error:
      refused = error
  refused = gather(refused)[0]
  if refused is not None:
    raise refused
  try:
    yield
  finally:
    if lock is not None:
      lock.release()


class _Lock:
  """Raises BadInput where somebody else has it."""

  def __init__(self, workdir: pathlib.Path):
    self._path, self._made = workdir / '.lock', not workdir.exists()
    with beginning(workdir):
      if workdir.exists() and not workdir.is_dir():
        raise BadInput(f'{workdir}: is a file, expected a directory')
      workdir.mkdir(parents=True, exist_ok=True)
      self._file = _open(self._path)
      self._since, self._beats = time.strftime('%Y-%m-%d %H:%M:%S'), 0
      try:
        self._write()
      except BaseException:
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        raise
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()

  def release(self) -> None:
    """Others may work here. A workdir made for a run that left nothing goes."""
    self._over.set()
    self._thread.join()
    with contextlib.suppress(OSError):
      self._path.unlink(missing_ok=True)
      if self._made:
        self._path.parent.rmdir()  # refused by the system where there is anything
    os.close(self._file)

  def _beat(self) -> None:
    while not self._over.wait(_BEAT_S):
      with contextlib.suppress(OSError):  # a mount may come back; the run itself meets what is wrong
        self._write()

  def _write(self) -> None:
    self._beats += 1
    record = {
      'host': platform.node(),
      'boot': _boot(),
      'process': os.getpid(),
      'since': self._since,
      'beats': self._beats,
    }
    os.pwrite(self._file, json.dumps(record).ljust(_BYTES - 1).encode()[: _BYTES - 1] + b'\n', 0)


def _open(path: pathlib.Path) -> int:
  """The lock file, held. Raises BadInput."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      locked = _locked(file, path)
      if not _same(file, path):  # who had it has just taken it away
        os.close(file)
        continue
      before = _record(path)
      if before is not None and not (locked and before['boot'] == _boot()) and _alive(path, before):
        raise BadInput(_taken(path, before))
      if _same(file, path):
        return file
      os.close(file)
    except BaseException:
      with contextlib.suppress(OSError):
        os.close(file)
      raise


def _locked(file: int, path: pathlib.Path) -> bool:
  """Whether the file system lets us have the lock; False where it has none. Raises BadInput where another has it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except OSError as error:
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
      raise BadInput(_taken(path, _record(path))) from None
    return False


def _same(file: int, path: pathlib.Path) -> bool:
  """Whether `path` still names the open file."""
  try:
    return os.path.samestat(os.fstat(file), os.stat(path))
  except FileNotFoundError:
    return False


def _alive(path: pathlib.Path, before: dict) -> bool:
  """Whether the run of record `before` still counts, which is watched for some beats. It may be on another host."""
  if before['boot'] == _boot():
    try:
      os.kill(before['process'], 0)
    except ProcessLookupError:
      return False
    except PermissionError:
      pass
  tqdm.write(f'{path.parent}: {_who(before)} was at work here; looking whether it still is', file=sys.stderr)
  until = time.monotonic() + _WATCHED_S
  while time.monotonic() < until:
    time.sleep(min(1.0, _BEAT_S))
    if (now := _record(path)) != before:
      return now is not None
  return False


def _record(path: pathlib.Path) -> dict | None:
  """What the lock file says, opened anew: a shared file system then asks its server. None where it says nothing."""
  try:
    record = json.loads(path.read_bytes())
    return {name: record[name] for name in ('host', 'boot', 'process', 'since', 'beats')}
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _taken(path: pathlib.Path, record: dict | None) -> str:
  return f'{path.parent}: another run is at work here ({_who(record)}); wait until it ends, or use another workdir'


def _who(record: dict | None) -> str:
  if record is None:
    return 'begun this moment'
  return f'host {record["host"]}, process {record["process"]}, since {record["since"]}'


def _boot() -> str:
  """Names this start of this machine's kernel; only its host where the system tells no more."""
  try:
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
  except OSError:
    return platform.node()
