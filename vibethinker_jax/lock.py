"""One run at a time in a workdir.

The first process of a run holds a lock on the file WORKDIR/.lock for as long as it lives. Every few seconds it writes a
record to the file: host, boot, process, start time, and a counter. The operating system releases the lock of a process
that has died, and no lock survives a restart of the machine. Some file systems have no locks, or locks that other hosts
do not see. There the counter decides: a run whose counter does not change for some time is dead. The clocks of two
hosts are never compared.
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
_BYTES = 512  # the constant size of the record, which is overwritten in place: this works on a full disk too


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """No other run works in `workdir` within the block. The directory is made where it does not exist.

  Raises BadInput, on all processes, where another run works there (the message names it), or where the directory cannot
  be written.
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
  """The lock of one workdir. Raises BadInput where another run holds it."""

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
    """Release the lock. A directory that was made for this run is removed where it is still empty."""
    self._over.set()
    self._thread.join()
    with contextlib.suppress(OSError):
      self._path.unlink(missing_ok=True)
      if self._made:
        self._path.parent.rmdir()  # the system refuses where it is not empty
    os.close(self._file)

  def _beat(self) -> None:
    while not self._over.wait(_BEAT_S):
      with contextlib.suppress(OSError):  # a mount may come back; the run itself reports what is wrong
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
  """Open the lock file and take the lock. Raises BadInput."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      locked = _locked(file, path)
      if not _same(file, path):  # its holder has just deleted it
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
  """Take the lock. False where the file system has no locks. Raises BadInput where another process holds it."""
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
  """Whether the run of the record `before` is alive. A run on another host is watched: does its counter change?"""
  if before['boot'] == _boot():
    try:
      os.kill(before['process'], 0)
    except ProcessLookupError:
      return False
    except PermissionError:
      pass
  tqdm.write(f'{path.parent}: {_who(before)} was at work here; checking whether it still is', file=sys.stderr)
  until = time.monotonic() + _WATCHED_S
  while time.monotonic() < until:
    time.sleep(min(1.0, _BEAT_S))
    if (now := _record(path)) != before:
      return now is not None
  return False


def _record(path: pathlib.Path) -> dict | None:
  """The record of the lock file, opened again, so that a shared file system asks its server. None: no record."""
  try:
    record = json.loads(path.read_bytes())
    return {name: record[name] for name in ('host', 'boot', 'process', 'since', 'beats')}
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _taken(path: pathlib.Path, record: dict | None) -> str:
  return f'{path.parent}: another run is at work here ({_who(record)}); wait until it ends, or use another workdir'


def _who(record: dict | None) -> str:
  if record is None:
    return 'started just now'
  return f'host {record["host"]}, process {record["process"]}, since {record["since"]}'


def _boot() -> str:
  """The id of this machine's last start; the name of the host where the system has no such id."""
  try:
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
  except OSError:
    return platform.node()
