"""The supervisor of one run: it forks the processes of the run, watches the clock, kills them, and reports.

It is a fork of the fork server (sandbox.py) and trusted. The processes that it forks are the test process, which
executes the code under test, and for functions the test runner, which holds the asserts.

Standard library only.
"""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

from vibethinker_jax.verify import asserts, frames, isolation, program
from vibethinker_jax.verify.isolation import Isolation
from vibethinker_jax.verify.output import same_output


class Run:
  """One run of the code of a job.

  Args:
    sandbox: what the fork server has entered.
    jobs: the file descriptor that the rest of the job is read from, once the test process has been forked.
    head: the first frame of the job (sandbox.py has its form).
  """

  def __init__(self, sandbox: Isolation, jobs: int, head: dict):
    self._sandbox, self._jobs, self._head = sandbox, jobs, head

  def program(self, stdin: str) -> dict:
    """The answer for a program that reads `stdin`. The expected output is the next frame of the job."""
    end = time.monotonic() + self._head['limit_s']
    with self._home() as home:
      errors, errors_in = os.pipe()
      os.set_blocking(errors, False)
      os.set_blocking(errors_in, False)
      given, printed = os.memfd_create('in'), os.memfd_create('out')
      with os.fdopen(os.dup(given), 'wb') as file:
        file.write(stdin.encode('utf-8', 'surrogatepass'))
      os.lseek(given, 0, os.SEEK_SET)
      pid = os.fork()
      if pid == 0:
        self._be_test_process(home, [given, printed, errors_in])
      expected = frames.receive(frames.from_file(self._jobs))
      status = _await(pid, end)
      _kill(pid, status)
    try:
      message = os.read(errors, 1 << 16)
    except BlockingIOError:
      message = b''
    if status is None or status:
      reason = message[:400].decode('utf-8', 'replace') if status is not None and message.startswith(b'error: ') else ''
      return {'passed': False, 'reason': reason or _fate(status)}
    size = os.fstat(printed).st_size
    text = os.pread(printed, size, 0).decode('utf-8', 'replace') if size <= isolation.OUTPUT else None
    passed = text is not None and same_output(text, expected)
    return {'passed': passed, 'reason': 'passed' if passed else 'wrong output'}

  def function(self) -> dict:
    """The answer for code whose functions are tested. The `tests` dict is the next frame of the job."""
    ours, theirs = socket.socketpair()
    tests, tests_in = os.pipe()
    reports, reports_in = os.pipe()
    null, printed = os.open('/dev/null', os.O_RDWR), os.memfd_create('out')
    runner = os.fork()  # before the pid namespace is made: the test process cannot see out of that
    if runner == 0:
      self._be_test_runner([null, null, ours.detach(), tests, reports_in])
    ours.close()
    os.close(tests)
    os.close(reports_in)
    with self._home() as home:
      pid = os.fork()
      if pid == 0:
        self._be_test_process(home, [null, printed, theirs.detach()])
      theirs.close()
      frames.write(tests_in, frames.frame(frames.receive(frames.from_file(self._jobs))))
      said = _reports(reports, self._head['limit_s'], self._head['tests'])
      over = None if said is None else _await(runner, time.monotonic() + 1.0)
      _kill(runner, over)
      said = json.loads(said or b'{"passed": false, "reason": "error: the tests ended early"}')
      # Where the test process broke the channel, the way in which it ended says why.
      gone = over == 0 and said['reason'] == 'gone'
      status = _await(pid, time.monotonic() + min(self._head['limit_s'], 1.0)) if gone else None
      _kill(pid, status)
    if gone:
      return {'passed': False, 'reason': _fate(status) if status else 'error: exited before the tests were over'}
    if over is None or over:
      return {'passed': False, 'reason': _fate(over)}
    return said

  @contextlib.contextmanager
  def _home(self) -> Iterator[str]:
    """A folder with the code's file and a tmp. It vanishes with the supervisor's mounts, or else after the block."""
    code = self._head['code']
    if self._sandbox.namespaces:
      isolation.enter_run(self._sandbox.kernel)
      _furnish(isolation.HOME, code)
      yield isolation.HOME
      return
    import shutil
    import tempfile

    self._sandbox.kernel.adopt_orphans()  # no pid namespace: daemons of the program become our children
    home = tempfile.mkdtemp()
    os.chmod(home, 0o755)
    _furnish(home, code)
    try:
      yield home
    finally:
      with contextlib.suppress(FileNotFoundError):  # a kernel may be built without this list
        while children := _children():
          for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
      shutil.rmtree(home, ignore_errors=True)

  # ---- in the forked processes

  def _be_test_process(self, home: str, files: list[int]) -> None:
    """Never returns. Everything up to the call into program.py is trusted code; nothing after it is."""
    try:
      self._isolate(self._sandbox.users[0], os.path.join(home, 'tmp'), files)
    except BaseException as error:
      os.write(2, f'sandbox: {error}\n'.encode())
      os._exit(125)
    head, file = self._head, os.path.join(home, 'solution.py')
    if head['kind'] == 'stdin':
      program.run(head['code'], file, isolation.CHANNEL)
    else:
      program.offer(head['code'], file, isolation.CHANNEL, head['contest'])

  def _be_test_runner(self, files: list[int]) -> None:
    """Never returns. Trusted code that runs the tests, out of the test process's reach."""
    channel, tests, report = range(isolation.CHANNEL, isolation.CHANNEL + 3)
    try:
      self._isolate(self._sandbox.users[1], '/', files)
      tests = frames.receive(frames.from_file(tests))
      answer = asserts.run_tests(socket.socket(fileno=channel), tests, tick=lambda: os.write(report, b'.'))
      os.write(report, json.dumps(answer).encode())
      os._exit(0)
    finally:
      os._exit(1)

  def _isolate(self, user: int | None, folder: str, files: list[int]) -> None:
    runs = 1 if self._head['kind'] == 'stdin' else self._head['tests']
    seconds = runs * self._head['limit_s']
    isolation.isolate(self._sandbox.kernel, user, folder, files, seconds, self._head['memory'])
    program.open_streams()


def _furnish(home: str, code: str) -> None:
  """Makes the folders that a program may write to, and the file that it stands in."""
  # Shared memory only for programs that can want it: it is one more place to write to.
  shared = 'multiprocessing' in code or 'concurrent' in code
  for name in ('tmp', 'shm') if shared else ('tmp',):
    os.mkdir(os.path.join(home, name))
    os.chmod(os.path.join(home, name), 0o777)
  with open(os.path.join(home, 'solution.py'), 'wb') as file:
    file.write(code.encode('utf-8', 'surrogatepass'))


def _await(pid: int, end: float) -> int | None:
  """The wait status of a child; None if it still runs at the time `end` (of time.monotonic)."""
  while True:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
      return status
    if (left := end - time.monotonic()) <= 0:
      return None
    signal.sigtimedwait([signal.SIGCHLD], left)


def _kill(pid: int, status: int | None) -> None:
  """Ends a child's process group, and the child itself where it has no wait status yet."""
  # The first process of a pid namespace takes the others with it; without one, the group is all we can reach.
  with contextlib.suppress(ProcessLookupError, PermissionError):
    os.killpg(pid, signal.SIGKILL)
  if status is None:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _children() -> list[int]:
  """The process ids of this process's children. Raises FileNotFoundError where the kernel keeps no list of them."""
  with open('/proc/thread-self/children') as file:
    return [int(child) for child in file.read().split()]


def _reports(fd: int, limit_s: float, runs: int) -> bytes | None:
  """What the test runner says before it ends; None if it does not end in time.

  It has `limit_s` seconds. Where these are for one of several `runs`, it has as many again after each dot, by which it
  says that the next run begins.
  """
  said, end = b'', time.monotonic() + limit_s
  while select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
    part = os.read(fd, 1 << 16)
    if not part:
      return said
    if runs > 1 and part.startswith(b'.'):
      end = time.monotonic() + limit_s
    said += part.lstrip(b'.')
  return None


def _fate(status: int | None) -> str:
  """The reason of a verdict, from the wait status of a process that did not end well; None is a timeout."""
  if status is None:
    return 'timeout'
  if os.WIFSIGNALED(status):
    return 'timeout' if os.WTERMSIG(status) == signal.SIGXCPU else f'error: signal {os.WTERMSIG(status)}'
  return f'error: exit status {os.WEXITSTATUS(status)}'
