"""Settings of the process and of its terminal. This module does not import JAX."""

import os
import pathlib
import platform
import sys

from tqdm import tqdm


def begin() -> None:
  """What a program that trains does before its imports: huge pages, and no advice of transformers to install PyTorch
  (only its tokenizers are used).
  """
  huge_pages()
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')


def huge_pages() -> None:
  """Let large allocations use huge pages (Linux with glibc; elsewhere it has no effect).

  On CPU, XLA allocates the buffers of a step with the C library and frees them after it. With pages of 4 KiB the kernel
  has to map and clear hundreds of thousands of pages a second (docs/performance.md). glibc reads the setting when a
  program starts, so this executes the program again in the same process. If the user has set GLIBC_TUNABLES, nothing is
  done.
  """
  if sys.platform == 'linux' and platform.libc_ver()[0] == 'glibc' and 'GLIBC_TUNABLES' not in os.environ:
    os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def most_of_the_gpu() -> None:
  """Let jax use 95% of a GPU's memory, as plans assume, unless the user has set a share. Call it before jax is used."""
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.95')


def user_cache(name: str) -> pathlib.Path:
  """A path in the user's cache, for files that can be made again. Raises RuntimeError without a home directory."""
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / 'vibethinker' / name


def crowded(share: float = 0.75) -> bool:
  """Whether the process uses more than `share` of the memory mappings it may have; False if the limit is unknown.

  On CPU every compiled program that is kept takes about a hundred of them. Linux allows 65,530 by default; when there
  are none left, the compiler aborts the process.
  """
  try:
    held = pathlib.Path('/proc/self/maps').read_bytes().count(b'\n')
    return held > share * int(pathlib.Path('/proc/sys/vm/max_map_count').read_text())
  except OSError:
    return False


def bar(total: int | None, name: str, unit: str, done: int = 0, leave: bool = True, shown: bool = True) -> tqdm:
  """A progress bar on standard error, updated ten times a second on a terminal, else every two seconds.

  total: number of units, None if unknown. name: text before the bar. unit: their name. done: units that are complete at
  the start. leave: whether the bar stays after the end. shown: False disables it.
  """
  every = 0.1 if sys.stderr.isatty() else 2.0
  return tqdm(
    total=total,
    initial=done,
    desc=name,
    unit=unit,
    leave=leave,
    disable=not shown,
    mininterval=every,
    maxinterval=every,
    dynamic_ncols=True,
  )
