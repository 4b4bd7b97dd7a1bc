"""Compiled programs, kept on disk: a program that is started again compiles nothing that it compiled before."""

import contextlib
import pathlib

import jax

from vibethinker_jax import runtime

SIZE = 4 << 30  # bytes that the directory may have when a program starts; the oldest files are deleted first
_LEAST_S = 0.1  # programs that compile faster are not kept


def default() -> pathlib.Path | None:
  """The directory in the user's cache; None where the user has no home directory."""
  with contextlib.suppress(RuntimeError):
    return runtime.user_cache('xla')


def keep(directory: pathlib.Path) -> None:
  """Read compiled programs from `directory`, and write new ones to it. Call it before anything is compiled.

  A compiled program is found again if its code, its shapes, the compiler (version, flags) and the kind of device are
  the same. Several processes may use the directory together. If it cannot be written, jax warns and compiles as usual.
  """
  _trim(directory)
  jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _LEAST_S)


def _trim(directory: pathlib.Path) -> None:
  """Delete the oldest files beyond SIZE.

  (The limit of jax itself stops writing for good where a kill has left half an entry.)
  """
  with contextlib.suppress(OSError):  # another process may delete the same files
    held = 0
    for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
      held += path.stat().st_size
      if held > SIZE:
        path.unlink(missing_ok=True)
