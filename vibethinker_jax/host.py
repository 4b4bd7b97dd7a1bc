"""What a process asks of the machine it starts on, before anything of JAX is imported."""

import os
import platform
import sys


def huge_pages() -> None:
  """Have large allocations backed by huge pages (Linux with glibc; elsewhere nothing happens).

  On CPU, XLA takes the buffers of a step from the C library and gives them back after it; in pages of 4 KiB the kernel
  hands over and clears hundreds of thousands of them a second (docs/performance.md). glibc reads the setting when a
  program starts, so the program is started anew, in the same process. A GLIBC_TUNABLES of the user's is left alone.
  """
  if sys.platform == 'linux' and platform.libc_ver()[0] == 'glibc' and 'GLIBC_TUNABLES' not in os.environ:
    os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
