"""Where untrusted programs run: a program of its own (`command()` starts it) and a worker of `pool.Pool`.

Starting an interpreter costs 20 ms and forking the trainer is out of the question, so a small Python process,
the zygote, does nothing but fork. Three processes take part in a run:

  zygote   enters namespaces once, reads jobs, forks a warden for each run;
  warden   gives the run its pid and mount namespace, watches the clock, kills, compares, reports; trusted;
  program  drops every right, closes every door behind it and runs the code; nothing it says is believed.

What the program must not know it is never given: expected outputs and asserts reach the warden after the program
has been forked. Asserts run in a fourth process, the examiner, under another user and out of the program's reach;
it calls the program's functions over a socket (examiner.py) and compares what comes back itself. So no verdict is
made in a process that runs the program's code: printing, exiting or rewriting the interpreter prove nothing.

Where the kernel allows it (as root, or with unprivileged user namespaces) the program sees a read-only tree
with the standard library in it, an empty /tmp of its own, no network and no process but its own. Elsewhere
only the resource limits and, for root, the change to an unprivileged user remain: `isolation_level()` tells,
the pool's greeting carries it, and the grader says it aloud.

A job is a head frame {'kind': 'stdin' | 'function', 'code', 'tests', 'limit_s', 'memory'}; for 'stdin',
`tests` is a count and two frames follow for each test, input and expected output; for 'function' it is 1 and the
`tests` dict follows. The answer is {'passed': bool, 'reason': text} or, when the sandbox itself failed,
{'broken': text}.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
import time
import types

from vibethinker_jax.verify import examiner

_NOBODY, _EXAMINER = 65534, 65533  # users of the program and of its examiner
_OUTPUT = 16 << 20  # bytes a program may print or write to one file
_SCRATCH = 64 << 20  # bytes of its /tmp
_LINE = 61  # number of the one file a program has besides stdin, stdout and stderr
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38
# What solutions import most, imported once here. Only modules that leave a fork cheap: threading, random and
# what imports them do work of their own after every fork and double its price.
_COMMON = (
  'bisect', 'collections', 'copy', 'datetime', 'functools', 'heapq', 'io', 'itertools', 'math', 'operator',
  're', 'string', 'typing',
)  # fmt: skip


def command() -> list[str]:
  """The argument list that starts a zygote: but for two files of ours, only the standard library is on its path."""
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  start = 'import sys; path = sys.path[:]; sys.path.insert(0, sys.argv.pop(1)); '
  start += 'from vibethinker_jax.verify import sandbox; sys.path[:] = path; sandbox.main()'
  return [sys.executable, '-P', '-s', '-S', '-c', start, root]


def environment() -> dict[str, str]:
  """Its environment: empty but for the hash seed, so that a program that walks a set gets one verdict."""
  return {'PYTHONHASHSEED': '0'}


def isolation_level() -> str:
  """One line: how far this machine lets programs be shut in. Raises RuntimeError if nothing starts."""
  import subprocess  # here, like shutil and tempfile below, because the zygote must stay small

  run = subprocess.run(
    [*command(), '--level'],
    env=environment(),
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    timeout=60,
  )
  if run.returncode:
    raise RuntimeError(f'the sandbox does not start: {run.stderr.strip()}')
  return run.stdout.strip()


# ---- frames, unbuffered: zygote and warden read the same pipe, so nobody may read ahead


def _exactly(fd: int, n: int) -> bytes:
  parts = []
  while n:
    part = os.read(fd, min(n, 1 << 20))
    if not part:
      raise EOFError
    parts.append(part)
    n -= len(part)
  return b''.join(parts)


def _receive(fd: int) -> object:
  return json.loads(_exactly(fd, int.from_bytes(_exactly(fd, 4), 'big')))


def _send(fd: int, value: object) -> None:
  data = json.dumps(value).encode()
  data = memoryview(len(data).to_bytes(4, 'big') + data)
  while data:
    data = data[os.write(fd, data) :]


# ---- the kernel


class _Kernel:
  """The system calls Python 3.11 has no names for. Every method raises OSError."""

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

  def prctl(self, option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    self._check(self.libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), 'prctl')

  def drop_capabilities(self) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    self._check(self.libc.capset(header, (ctypes.c_uint32 * 6)()), 'capset')


def _enter_namespaces(kernel: _Kernel) -> None:
  """Moves this process into fresh namespaces with a small read-only tree as its root. Raises OSError."""
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

  trees = ['/usr', '/lib', '/lib64', '/lib32', '/etc/ld.so.cache', '/etc/localtime']
  trees += [os.path.join(sys.base_prefix, lib) for lib in ('lib', 'lib64')]
  trees += ['/dev/null', '/dev/zero', '/dev/urandom']
  trees = [tree for i, tree in enumerate(trees) if os.path.exists(tree) and tree not in trees[:i]]
  # The new tree needs a place to stand that hides none of its sources; one that exists leaves nothing behind.
  root = next(
    place
    for place in ('/mnt', '/media', '/srv', '/tmp', '/opt')
    if os.path.isdir(place) and not any(os.path.realpath(tree).startswith(place + '/') for tree in trees)
  )
  kernel.mount('tmpfs', root, 'tmpfs', _NOSUID | _NODEV, 'size=1m,mode=755')
  for tree in trees:
    if tree.startswith('/usr/') and not os.path.islink('/usr'):
      continue
    inside = root + tree
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
      # A noexec may not be taken away from inside a user namespace, so it is repeated (the flags are the
      # same).
      kept = os.statvfs(inside).f_flag & os.ST_NOEXEC
      kernel.mount(tree, inside, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | kept)
  os.makedirs(root + '/tmp', exist_ok=True)
  os.chdir(root)
  kernel.pivot_root_here()
  os.chdir('/')
  kernel.mount('none', '/', None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _enter_run(kernel: _Kernel) -> None:
  """The warden's part: a pid namespace for its child and a /tmp that vanishes with it. Raises OSError."""
  kernel.unshare(_NEWPID | _NEWNS | _NEWIPC)
  kernel.mount('tmpfs', '/tmp', 'tmpfs', _NOSUID | _NODEV, f'size={_SCRATCH},mode=777,nr_inodes=4096')


def _works(attempt) -> str:
  """Tries something irrevocable in a child first. Returns '' if it works, else why not."""
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


# ---- zygote


class Zygote:
  """Forks one warden after the other. jobs, answers: file descriptors."""

  def __init__(self, jobs: int, answers: int):
    self.jobs, self.answers = jobs, answers
    self.kernel = _Kernel()
    self.root = os.geteuid() == 0
    for name in _COMMON:
      __import__(name)

    def everything():
      _enter_namespaces(self.kernel)
      _enter_run(self.kernel)

    why_not = _works(everything)
    self.shut_in = not why_not
    user = f'uid {_NOBODY}' if self.root else 'no capabilities'
    limits = 'limits on cpu, memory, files and processes'
    if self.shut_in:
      _enter_namespaces(self.kernel)
      spaces = 'mount, pid, network, ipc and uts' if self.root else 'user, mount, pid, network, ipc and uts'
      self.level = f'{spaces} namespaces, private read-only root, {user}, {limits}'
    else:
      if self.root and _works(self._as_nobody):
        # The interpreter lies where only root may read: better a program that runs than none that can import.
        self.root, user = False, 'still root'
      self.level = f'no namespaces ({why_not}), {user}, {limits}'
    self.kernel.prctl(_SET_DUMPABLE, 0)  # or, where they share its user, programs could trace this and its children

  def _as_nobody(self) -> None:
    self._drop_rights(_NOBODY)
    os.listdir(os.path.dirname(os.__file__))

  def serve(self) -> None:
    _send(self.answers, self.level)
    while True:
      try:
        head = _receive(self.jobs)
      except EOFError:
        return
      end = time.monotonic() + head['limit_s']
      answer = self._run(head, '', end) if head['kind'] == 'function' else self._run_tests(head, end)
      _send(self.answers, answer)

  def _skip(self, frames: int) -> None:
    """Reads past frames, in a child: what the zygote has once held, programs forked later could find in its memory."""
    pid = os.fork()
    if pid == 0:
      try:
        for _ in range(frames):
          _exactly(self.jobs, int.from_bytes(_exactly(self.jobs, 4), 'big'))
      finally:
        os._exit(0)
    os.waitpid(pid, 0)

  def _run_tests(self, head: dict, end: float) -> dict:
    answer = {'passed': True, 'reason': 'passed'}
    for test in range(1, head['tests'] + 1):
      stdin = _receive(self.jobs)
      answer = self._run(head, stdin, end)
      if 'broken' in answer:
        return answer
      if answer['reason'] == 'wrong output':
        answer['reason'] = f'test {test} failed'
      if not answer['passed']:
        self._skip(2 * (head['tests'] - test))
        break
    return answer

  def _run(self, head: dict, stdin: str, end: float) -> dict:
    """One run under a warden of its own. Raises SystemExit where the warden was killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
      try:
        self.kernel.prctl(_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # or it could be missed before sigtimedwait
        watch = self._watch_function if head['kind'] == 'function' else self._watch_program
        answer = watch(head, stdin, end)
      except BaseException as error:
        answer = {'broken': f'{type(error).__name__}: {error}'}
      _send(write, answer)
      os._exit(0)
    os.close(write)
    try:
      return _receive(read)
    except EOFError:
      # Without namespaces a program can kill its warden. Nobody knows how far that one had read: start afresh.
      raise SystemExit('the warden died') from None
    finally:
      os.close(read)
      # Its end takes its namespaces down, which is slow; it is reaped once it gets there, no one waits for
      # it.
      with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
          pass

  # ---- warden

  @contextlib.contextmanager
  def _scratch(self):
    """An empty directory that vanishes: with the warden's own mounts, or at the end of the block."""
    if self.shut_in:
      _enter_run(self.kernel)
      yield '/tmp'
      return
    import shutil
    import tempfile

    self.kernel.prctl(_SET_CHILD_SUBREAPER, 1)  # no pid namespace: daemons of the program become our children
    scratch = tempfile.mkdtemp()
    os.chmod(scratch, 0o777)
    try:
      yield scratch
    finally:
      with contextlib.suppress(FileNotFoundError):  # a kernel may be built without this list
        while children := _children():
          for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
      shutil.rmtree(scratch, ignore_errors=True)

  def _watch_program(self, head: dict, stdin: str, end: float) -> dict:
    with self._scratch() as scratch:
      said, say = os.pipe()
      os.set_blocking(said, False)
      os.set_blocking(say, False)
      given, printed = os.memfd_create('in'), os.memfd_create('out')
      with os.fdopen(os.dup(given), 'wb') as file:
        file.write(stdin.encode('utf-8', 'surrogatepass'))
      os.lseek(given, 0, os.SEEK_SET)
      pid = os.fork()
      if pid == 0:
        self._be_program(head, scratch, given, printed, say, end)
      expected = _receive(self.jobs)
      status = self._await(pid, end)
      self._kill(pid, status)
    try:
      message = os.read(said, 1 << 16)
    except BlockingIOError:
      message = b''
    if status is not None and message.startswith(b'!'):
      return {'passed': False, 'reason': message[1:400].decode('utf-8', 'replace')}
    if status is None or status:
      return {'passed': False, 'reason': _fate(status)}
    size = os.fstat(printed).st_size
    passed = size <= _OUTPUT and same_output(os.pread(printed, size, 0).decode('utf-8', 'replace'), expected)
    return {'passed': passed, 'reason': 'passed' if passed else 'wrong output'}

  def _watch_function(self, head: dict, stdin: str, end: float) -> dict:
    ours, theirs = socket.socketpair()
    brief, brief_it = os.pipe()
    verdict, decide = os.pipe()
    null, printed = os.open('/dev/null', os.O_RDWR), os.memfd_create('out')
    clerk = os.fork()  # before the pid namespace is made, which the program cannot look out of
    if clerk == 0:
      self._be_examiner(head, null, ours.detach(), brief, decide, end)
    ours.close()
    os.close(brief)
    os.close(decide)
    with self._scratch() as scratch:
      pid = os.fork()
      if pid == 0:
        self._be_program(head, scratch, null, printed, theirs.detach(), end)
      theirs.close()
      _send(brief_it, _receive(self.jobs))
      over = self._await(clerk, end)
      self._kill(clerk, over)
      answer = b''
      while over == 0 and (part := os.read(verdict, 1 << 16)):
        answer += part
      answer = json.loads(answer or '{"passed": false, "reason": "error: the tests ended early"}')
      # Where the program broke the line, how it ended says why.
      gone = over == 0 and answer['reason'] == 'gone'
      status = self._await(pid, min(end, time.monotonic() + 1.0)) if gone else None
      self._kill(pid, status)
    if gone:
      return {'passed': False, 'reason': _fate(status) if status else 'error: exited before the tests were over'}
    if over is None or over:
      return {'passed': False, 'reason': _fate(over)}
    return answer

  def _await(self, pid: int, end: float) -> int | None:
    """The wait status of a child, None if it still runs at `end`."""
    while True:
      done, status = os.waitpid(pid, os.WNOHANG)
      if done:
        return status
      if (left := end - time.monotonic()) <= 0:
        return None
      signal.sigtimedwait([signal.SIGCHLD], left)

  def _kill(self, pid: int, status: int | None) -> None:
    """Ends a child's group, and the child itself where it has no status yet."""
    # The first process of a pid namespace takes the rest with it; without one the group is all we can reach.
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(pid, signal.SIGKILL)
    if status is None:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)

  # ---- program

  def _drop_rights(self, user: int) -> None:
    if self.root:
      os.setgroups([])
      os.setresgid(user, user, user)
      os.setresuid(user, user, user)
    self.kernel.drop_capabilities()
    self.kernel.prctl(_SET_NO_NEW_PRIVS, 1)

  def _limit(self, head: dict, end: float) -> None:
    cpu = math.ceil(max(0.0, end - time.monotonic())) + 1
    for what, limit in (
      (resource.RLIMIT_CPU, cpu),
      (resource.RLIMIT_AS, head['memory']),
      (resource.RLIMIT_FSIZE, _OUTPUT),
      (resource.RLIMIT_NOFILE, 64),
      (resource.RLIMIT_CORE, 0),
      (resource.RLIMIT_NPROC, 64),
    ):
      ceiling = resource.getrlimit(what)[1]  # one that is lower already cannot be raised
      if ceiling != resource.RLIM_INFINITY:
        limit = min(limit, ceiling)
      resource.setrlimit(what, (limit, limit))

  def _shut(self, head: dict, folder: str, given: int, printed: int, kept: list[int], end: float, user: int) -> None:
    """Closes every door but stdin, stdout and the files `kept`, which move to _LINE, _LINE + 1, ..."""
    os.setsid()
    os.chdir(folder)
    os.dup2(given, 0)
    os.dup2(printed, 1)
    os.dup2(os.open('/dev/null', os.O_WRONLY), 2)
    for to, fd in enumerate(kept, _LINE):
      os.dup2(fd, to)
    os.closerange(3, _LINE)
    os.closerange(_LINE + len(kept), 4096)
    self._limit(head, end)
    self._drop_rights(user)
    self.kernel.prctl(_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which resets it
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name, fd, mode in (('stdin', 0, 'r'), ('stdout', 1, 'w'), ('stderr', 2, 'w')):
      setattr(sys, name, open(fd, mode, encoding='utf-8', errors='surrogateescape', closefd=False))  # noqa: SIM115

  def _be_program(self, head: dict, scratch: str, given: int, printed: int, line: int, end: float) -> None:
    """Never returns. Everything up to the call of a harness is trusted code; nothing after it is."""
    try:
      self._shut(head, scratch, given, printed, [line], end, _NOBODY)
      sys.argv, sys.orig_argv = ['solution.py'], []
    except BaseException as error:
      os.write(2, f'sandbox: {error}\n'.encode())
      os._exit(125)
    if head['kind'] == 'stdin':
      _run_program(head['code'], _LINE)
    else:
      _offer(head['code'], _LINE)

  def _be_examiner(self, head: dict, null: int, line: int, brief: int, decide: int, end: float) -> None:
    """Never returns. Trusted code that runs the tests, out of the program's reach."""
    try:
      self._shut(head, '/', null, null, [line, brief, decide], end, _EXAMINER)
      tests = _receive(_LINE + 1)
      answer = examiner.examine(socket.socket(fileno=_LINE), tests)
      os.write(_LINE + 2, json.dumps(answer).encode())
      os._exit(0)
    finally:
      os._exit(1)


def _children() -> list[int]:
  """This process's children. Raises FileNotFoundError where the kernel keeps no list of them."""
  with open('/proc/thread-self/children') as file:
    return [int(child) for child in file.read().split()]


def _namespace(name: str) -> dict:
  module = types.ModuleType(name)
  sys.modules[name] = module  # dataclasses and pickle look their module up
  return module.__dict__


def _fate(status: int | None) -> str:
  """What a wait status says of a program that did not end well."""
  if status is None:
    return 'timeout'
  if os.WIFSIGNALED(status):
    return 'timeout' if os.WTERMSIG(status) == signal.SIGXCPU else f'error: signal {os.WTERMSIG(status)}'
  return f'error: exit status {os.WEXITSTATUS(status)}'


def _run_program(code: str, say: int) -> None:
  leave, write, flush = os._exit, os.write, sys.stdout.flush
  try:
    try:
      examiner.run(code, 'solution.py', _namespace('__main__'))
    except SystemExit as error:
      if error.code not in (None, 0):
        raise
    flush()
  except BaseException as error:
    write(say, b'!' + examiner.what(error).encode('utf-8', 'replace'))
    leave(1)
  leave(0)


def _offer(code: str, line: int) -> None:
  """Runs the code, then answers the examiner's calls. What goes wrong here only ever hurts the program."""
  names = _namespace('solution')
  program = examiner.Program(socket.socket(fileno=line), names)
  try:
    examiner.run(code, 'solution.py', names)
  except BaseException as error:
    program.send(['failed', examiner.what(error)])
    os._exit(1)
  try:
    program.serve()
  finally:
    os._exit(0)


def same_output(printed: str, expected: str) -> bool:
  """Line by line the same words; spaces within a line and empty lines at the end do not matter."""
  got, want = ([line.split() for line in text.rstrip().split('\n')] for text in (printed, expected))
  return got == want


def main() -> None:
  """Serve jobs from stdin to stdout, of which the program under test gets neither; or say the level, with --level."""
  if not sys.platform.startswith('linux'):
    raise SystemExit('the sandbox needs Linux')
  jobs, answers = os.dup(0), os.dup(1)
  os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
  os.dup2(2, 1)
  zygote = Zygote(jobs, answers)
  if sys.argv[1:] == ['--level']:
    os.write(answers, zygote.level.encode() + b'\n')
  else:
    zygote.serve()


if __name__ == '__main__':
  main()
