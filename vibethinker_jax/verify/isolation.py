"""How a process is isolated on Linux: namespaces with a small read-only tree, resource limits, rights given up.

Everything here is trusted code that runs before a program starts; sandbox.py says which process calls it, and when.
Standard library only.
"""

import ctypes
import math
import os
import resource
import signal
import sys
from typing import NamedTuple

_PROGRAM, _TESTS = 65534, 65533  # users of the test process and of the test runner
OUTPUT = 16 << 20  # bytes that a program may print, or write to one file
CHANNEL = 61  # number of the first file that a program has besides stdin, stdout and stderr
HOME = '/box'  # where the file of the program lies; its /tmp and its /dev/shm lie beside it
_PACKAGES = '/packages'  # where a program finds numpy
_SCRATCH = 64 << 20  # bytes of HOME
_STACK = 120 << 20  # of the main thread; the kernel leaves room for 128 MiB
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38


class Kernel:
  """The system calls that Python 3.11 has no names for. Every method raises OSError."""

  def __init__(self):
    self.libc = ctypes.CDLL(None, use_errno=True)

  def _check(self, result: int, what: str) -> None:
    if result < 0:
      errno = ctypes.get_errno()
      raise OSError(errno, f'{what}: {os.strerror(errno)}')

  def unshare(self, flags: int) -> None:
    self._check(self.libc.unshare(flags), 'unshare')

  def mount(self, source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    self._check(self.libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]), f'mount {source} on {target}')

  def pivot_root_here(self) -> None:
    self._check(self.libc.pivot_root(b'.', b'.'), 'pivot_root')
    self._check(self.libc.umount2(b'.', _DETACH), 'umount2')

  def _prctl(self, option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    self._check(self.libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), 'prctl')

  def be_untraceable(self) -> None:
    """From now on programs of this process's user can trace neither it nor its children."""
    self._prctl(_SET_DUMPABLE, 0)

  def die_with_parent(self) -> None:
    self._prctl(_SET_PDEATHSIG, signal.SIGKILL)

  def adopt_orphans(self) -> None:
    self._prctl(_SET_CHILD_SUBREAPER, 1)

  def drop_rights(self, user: int | None) -> None:
    """Gives up all capabilities and every way to new ones, and becomes `user` where one is given (which takes root)."""
    if user is not None:
      os.setgroups([])
      os.setresgid(user, user, user)
      os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    self._check(self.libc.capset(header, (ctypes.c_uint32 * 6)()), 'capset')
    self._prctl(_SET_NO_NEW_PRIVS, 1)


class Isolation(NamedTuple):
  """What a fork server has entered, and what it can give to the processes that it forks.

  kernel: the system calls. namespaces: whether there are any here. users: of the test process and of the test runner,
  None for the user that we are. level: all this in one line, for people.
  """

  kernel: Kernel
  namespaces: bool
  users: tuple[int | None, int | None]
  level: str

  @classmethod
  def enter(cls, packages: str) -> 'Isolation':
    """Isolates this process as far as the machine allows. packages: the folder that numpy lies in, '' for none."""
    kernel = Kernel()

    def everything():
      enter_namespaces(kernel, packages)
      enter_run(kernel)

    def as_nobody():
      kernel.drop_rights(_PROGRAM)
      os.listdir(os.path.dirname(os.__file__))

    why_not = works(everything)
    root = os.geteuid() == 0
    user = f'uid {_PROGRAM}' if root else 'no capabilities'
    limits = 'limits on cpu, memory, files and processes'
    if not why_not:
      enter_namespaces(kernel, packages)
      spaces = 'mount, pid, network, ipc and uts' if root else 'user, mount, pid, network, ipc and uts'
      level = f'{spaces} namespaces, private read-only root, {user}, {limits}'
    else:
      if root and works(as_nobody):
        # Only root may read the folder of the interpreter: better a program that runs than none that can import.
        root, user = False, 'still root'
      level = f'no namespaces ({why_not}), {user}, {limits}'
    if packages:
      sys.path.append(packages if why_not else _PACKAGES)
    return cls(kernel, not why_not, (_PROGRAM, _TESTS) if root else (None, None), level)


def enter_namespaces(kernel: Kernel, packages: str) -> None:
  """Moves this process into fresh namespaces with a small read-only tree as its root. Raises OSError.

  packages: the folder that numpy lies in, '' for none.
  """
  flags = _NEWNS | _NEWNET | _NEWIPC | _NEWUTS
  uid, gid = os.geteuid(), os.getegid()
  if uid == 0:
    kernel.unshare(flags)
  else:
    kernel.unshare(flags | _NEWUSER)
    for name, text in (('setgroups', 'deny'), ('uid_map', f'{uid} {uid} 1'), ('gid_map', f'{gid} {gid} 1')):
      with open(f'/proc/self/{name}', 'w') as file:
        file.write(text)
  kernel.mount('none', '/', None, _REC | _PRIVATE)  # or every mount below would show up outside

  trees = _trees(packages)
  # The new tree is mounted on a folder that exists, so that nothing is left behind, and that hides none of its sources.
  root = next(
    place
    for place in ('/mnt', '/media', '/srv', '/tmp', '/opt')
    if os.path.isdir(place) and not any(os.path.realpath(tree).startswith(place + '/') for tree in trees.values())
  )
  kernel.mount('tmpfs', root, 'tmpfs', _NOSUID | _NODEV, 'size=1m,mode=755')
  for inside, tree in trees.items():
    inside = root + inside
    if os.path.exists(inside):
      continue  # another tree contains it
    os.makedirs(os.path.dirname(inside), mode=0o755, exist_ok=True)
    if os.path.islink(tree) and not tree.startswith('/etc/'):
      os.symlink(os.readlink(tree), inside)
      continue
    if os.path.isdir(tree):
      os.makedirs(inside, exist_ok=True)
    else:
      open(inside, 'w').close()
    kernel.mount(tree, inside, None, _BIND | _REC)
    if not tree.startswith('/dev/'):
      # Inside a user namespace a noexec may not be taken away, so it is repeated (both flags have the same value).
      kept = os.statvfs(inside).f_flag & os.ST_NOEXEC
      kernel.mount(tree, inside, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | kept)
  os.mkdir(root + HOME)
  os.symlink(f'{HOME}/tmp'[1:], root + '/tmp')
  os.symlink(f'..{HOME}/shm', root + '/dev/shm')
  os.chdir(root)
  kernel.pivot_root_here()
  os.chdir('/')
  kernel.mount('none', '/', None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _trees(packages: str) -> dict[str, str]:
  """The path that programs see -> the path of the host: the system's libraries, Python, its standard library, numpy."""
  trees = ['/usr', '/lib', '/lib64', '/lib32', '/etc/ld.so.cache', '/etc/localtime']
  trees += [os.path.join(sys.base_prefix, lib) for lib in ('lib', 'lib64')]
  trees += [sys.executable, '/dev/null', '/dev/zero', '/dev/urandom']
  inside = {tree: tree for tree in trees}
  inside |= {f'{_PACKAGES}/{name}': os.path.join(packages, name) for name in ('numpy', 'numpy.libs') if packages}
  return {name: tree for name, tree in inside.items() if os.path.exists(tree)}


def enter_run(kernel: Kernel) -> None:
  """For one run: makes a pid namespace for the next child, and a HOME that vanishes with it. Raises OSError."""
  kernel.unshare(_NEWPID | _NEWNS | _NEWIPC)
  kernel.mount('tmpfs', HOME, 'tmpfs', _NOSUID | _NODEV, f'size={_SCRATCH},mode=755,nr_inodes=4096')


def works(attempt) -> str:
  """Tries in a child what cannot be undone. Returns '' if it works, otherwise why it does not."""
  read, write = os.pipe()
  pid = os.fork()
  if pid == 0:
    try:
      attempt()
    except (OSError, StopIteration) as error:
      os.write(write, (str(error) or 'no place for the new root').encode())
    finally:
      os._exit(0)
  os.close(write)
  with os.fdopen(read, 'rb') as file:
    reason = file.read().decode()
  os.waitpid(pid, 0)
  return reason


def isolate(kernel: Kernel, user: int | None, folder: str, files: list[int], seconds: float, memory: int) -> None:
  """Takes from this process all that it does not need, before it executes code that is not trusted.

  Args:
    kernel: the system calls.
    user: whom to become; None keeps the user.
    folder: the working directory.
    files: the descriptors that stay open, as stdin, stdout, then CHANNEL, CHANNEL + 1, ...; all others are closed.
    seconds: limit on CPU time.
    memory: limit on the address space, in bytes.
  """
  os.setsid()
  os.chdir(folder)
  given, printed, *kept = files
  os.dup2(given, 0)
  os.dup2(printed, 1)
  os.dup2(os.open('/dev/null', os.O_WRONLY), 2)
  for to, fd in enumerate(kept, CHANNEL):
    os.dup2(fd, to)
  os.closerange(3, CHANNEL)
  os.closerange(CHANNEL + len(kept), 4096)
  _limit(seconds, memory)
  kernel.drop_rights(user)
  kernel.die_with_parent()  # after the change of user, which resets it
  signal.pthread_sigmask(signal.SIG_SETMASK, [])
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _limit(seconds: float, memory: int) -> None:
  for what, limit in (
    (resource.RLIMIT_CPU, math.ceil(seconds) + 1),
    (resource.RLIMIT_AS, memory),
    (resource.RLIMIT_STACK, _STACK),
    (resource.RLIMIT_FSIZE, OUTPUT),
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NPROC, 64),
  ):
    ceiling = resource.getrlimit(what)[1]  # one that is lower already cannot be raised
    if ceiling != resource.RLIM_INFINITY:
      limit = min(limit, ceiling)
    resource.setrlimit(what, (limit, limit))
