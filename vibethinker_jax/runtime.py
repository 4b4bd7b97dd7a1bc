"""What a process asks of the machine and the terminal it runs on, without anything of JAX."""

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
  """Have large allocations backed by huge pages (Linux with glibc; elsewhere nothing happens).

  On CPU, XLA takes the buffers of a step from the C library and gives them back after it; in pages of 4 KiB the kernel
  hands over and clears hundreds of thousands of them a second (docs/performance.md). glibc reads the setting when a
  program starts, so the program is started anew, in the same process. A GLIBC_TUNABLES of the user's is left alone.
  """
  if sys.platform == 'linux' and platform.libc_ver()[0] == 'glibc' and 'GLIBC_TUNABLES' not in os.environ:
    os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def most_of_the_gpu() -> None:
  """Have jax take 95% of a GPU's memory, as plans count on, where the user names no share. Before its first use."""
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.95')


def crowded(share: float = 0.75) -> bool:
  """Whether the process holds more than `share` of the memory mappings that it may; False where none is known.

  On CPU every compiled program takes some hundred of them for as long as it is kept, of 65,530 that Linux allows by
  default; where they run out the compiler kills the process.
  """
  try:
    held = pathlib.Path('/proc/self/maps').read_bytes().count(b'\n')
    return held > share * int(pathlib.Path('/proc/sys/vm/max_map_count').read_text())
  except OSError:
    return False


def bar(total: int | None, name: str, unit: str, done: int = 0, leave: bool = True, shown: bool = True) -> tqdm:
  """A progress bar on standard error; written anew ten times a second on a terminal, elsewhere every other second."""
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
