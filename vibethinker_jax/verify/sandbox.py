"""Where untrusted programs run: a program of its own (`command()` starts it) and a worker of `pool.Pool`.

Starting an interpreter costs 20 ms and forking the trainer is out of the question, so a small Python process,
the fork server, does nothing but fork. Three processes take part in a run:

  fork server  enters namespaces once, reads jobs, forks a supervisor for each run;
  supervisor   gives the run its pid and mount namespace, watches the clock, kills, compares, reports; trusted;
  program      drops every right, closes every door behind it (isolation.py) and runs the code (program.py); nothing it
               says is believed.

What the program must not know it is never given: expected outputs and asserts reach the supervisor after the program
has been forked. Asserts run in a fourth process under another user and out of the program's reach; it calls
the program's functions over a socket and compares what comes back itself (asserts.py). So no verdict is made in a
process that runs the program's code: printing, exiting or rewriting the interpreter prove nothing.

Where the kernel allows it (as root, or with unprivileged user namespaces) the program sees a read-only tree
with the standard library and numpy in it, an empty /tmp of its own, no network and no process but its own. Elsewhere
only the resource limits and, for root, the change to an unprivileged user remain: `isolation_level()` tells,
the pool's greeting carries it, and the grader says it aloud.

A job is a head frame {'kind': 'stdin' | 'function', 'code', 'contest', 'tests', 'limit_s', 'memory'}. `contest` is the
name of the class that a contest calls, or None; `tests` how many runs there are to be, each of `limit_s` seconds: for
'stdin', and for the calls of a contest, as many as tests, for other functions one. For 'stdin' two frames follow for
each test, input and expected output; for 'function' the `tests` dict follows. The answer is {'passed': bool, 'reason':
text} or, when the sandbox itself failed, {'broken': text}.
"""

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import time

from vibethinker_jax.verify import asserts, isolation, program
from vibethinker_jax.verify.output import same_output


def command() -> list[str]:
  """The argument list that starts a fork server. But for a few files of ours it sees the standard library alone."""
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  numpy = importlib.util.find_spec('numpy')
  packages = os.path.dirname(os.path.dirname(numpy.origin)) if numpy is not None and numpy.origin else ''
  start = 'import sys; path = sys.path[:]; sys.path.insert(0, sys.argv.pop(1)); '
  start += 'from vibethinker_jax.verify import sandbox; sys.path[:] = path; sandbox.main(sys.argv.pop(1))'
  return [sys.executable, '-P', '-s', '-S', '-c', start, root, packages]


def environment() -> dict[str, str]:
  """Its environment: empty but for the hash seed, so that a program that walks a set gets one verdict."""
  return {'PYTHONHASHSEED': '0'}


def isolation_level() -> str:
  """One line: how far this machine lets programs be shut in. Raises RuntimeError if nothing starts."""
  import subprocess  # here, like shutil and tempfile below, because the fork server must stay small

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


# ---- frames, unbuffered: fork server and supervisor read the same pipe, so nobody may read ahead


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


class ForkServer:
  """Forks one supervisor after the other.

  jobs, answers: file descriptors. packages: the folder that numpy lies in, '' for none.
  """

  def __init__(self, jobs: int, answers: int, packages: str):
    self.jobs, self.answers = jobs, answers
    self.kernel = isolation.Kernel()
    sys.executable = os.path.realpath(sys.executable)  # a virtual environment's link would lead nowhere from inside
    program.prepare()

    def everything():
      isolation.enter_namespaces(self.kernel, packages)
      isolation.enter_run(self.kernel)

    def as_nobody():
      self.kernel.drop_rights(isolation.PROGRAM)
      os.listdir(os.path.dirname(os.__file__))

    why_not = isolation.works(everything)
    self.shut_in = not why_not
    root = os.geteuid() == 0
    user = f'uid {isolation.PROGRAM}' if root else 'no capabilities'
    limits = 'limits on cpu, memory, files and processes'
    if self.shut_in:
      isolation.enter_namespaces(self.kernel, packages)
      spaces = 'mount, pid, network, ipc and uts' if root else 'user, mount, pid, network, ipc and uts'
      self.level = f'{spaces} namespaces, private read-only root, {user}, {limits}'
    else:
      if root and isolation.works(as_nobody):
        # The interpreter lies where only root may read: better a program that runs than none that can import.
        root, user = False, 'still root'
      self.level = f'no namespaces ({why_not}), {user}, {limits}'
    self.users = (isolation.PROGRAM, isolation.TESTS) if root else (None, None)
    if packages:
      sys.path.append(isolation.PACKAGES if self.shut_in else packages)
    for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'):
      os.putenv(name, '1')  # as many threads as a large machine has cores would not fit into a program's memory
    self.kernel.be_untraceable()

  def serve(self) -> None:
    _send(self.answers, self.level)
    while True:
      try:
        head = _receive(self.jobs)
      except EOFError:
        return
      _send(self.answers, self._run(head, '') if head['kind'] == 'function' else self._run_tests(head))

  def _skip(self, frames: int) -> None:
    """Reads past frames, in a child: programs forked later could find in their memory what this process has held."""
    pid = os.fork()
    if pid == 0:
      try:
        for _ in range(frames):
          _exactly(self.jobs, int.from_bytes(_exactly(self.jobs, 4), 'big'))
      finally:
        os._exit(0)
    os.waitpid(pid, 0)

  def _run_tests(self, head: dict) -> dict:
    answer = {'passed': True, 'reason': 'passed'}
    for test in range(1, head['tests'] + 1):
      stdin = _receive(self.jobs)
      answer = self._run(head, stdin)
      if 'broken' in answer:
        return answer
      if answer['reason'] == 'wrong output':
        answer['reason'] = f'test {test} failed'
      if not answer['passed']:
        self._skip(2 * (head['tests'] - test))
        break
    return answer

  def _run(self, head: dict, stdin: str) -> dict:
    """One run under a supervisor of its own. Raises SystemExit where the supervisor was killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
      try:
        self.kernel.die_with_parent()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # or it could be missed before sigtimedwait
        answer = self._watch_function(head) if head['kind'] == 'function' else self._watch_program(head, stdin)
      except BaseException as error:
        answer = {'broken': f'{type(error).__name__}: {error}'}
      _send(write, answer)
      os._exit(0)
    os.close(write)
    try:
      return _receive(read)
    except EOFError:
      # Without namespaces a program can kill its supervisor. Nobody knows how far that one had read: start afresh.
      raise SystemExit('the supervisor died') from None
    finally:
      os.close(read)
      # Its end takes its namespaces down, which is slow; it is reaped once it gets there, no one waits for
      # it.
      with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
          pass

  # ---- supervisor

  @contextlib.contextmanager
  def _home(self, code: str):
    """A folder with the program's file and a tmp, which vanishes: with the supervisor's mounts, or after the block."""
    if self.shut_in:
      isolation.enter_run(self.kernel)
      _furnish(isolation.HOME, code)
      yield isolation.HOME
      return
    import shutil
    import tempfile

    self.kernel.adopt_orphans()  # no pid namespace: daemons of the program become our children
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

  def _watch_program(self, head: dict, stdin: str) -> dict:
    end = time.monotonic() + head['limit_s']
    with self._home(head['code']) as home:
      said, say = os.pipe()
      os.set_blocking(said, False)
      os.set_blocking(say, False)
      given, printed = os.memfd_create('in'), os.memfd_create('out')
      with os.fdopen(os.dup(given), 'wb') as file:
        file.write(stdin.encode('utf-8', 'surrogatepass'))
      os.lseek(given, 0, os.SEEK_SET)
      pid = os.fork()
      if pid == 0:
        self._be_program(head, home, [given, printed, say])
      expected = _receive(self.jobs)
      status = self._await(pid, end)
      self._kill(pid, status)
    try:
      message = os.read(said, 1 << 16)
    except BlockingIOError:
      message = b''
    if status is None or status:
      reason = message[:400].decode('utf-8', 'replace') if status is not None and message.startswith(b'error: ') else ''
      return {'passed': False, 'reason': reason or _fate(status)}
    size = os.fstat(printed).st_size
    text = os.pread(printed, size, 0).decode('utf-8', 'replace') if size <= isolation.OUTPUT else None
    passed = text is not None and same_output(text, expected)
    return {'passed': passed, 'reason': 'passed' if passed else 'wrong output'}

  def _watch_function(self, head: dict) -> dict:
    ours, theirs = socket.socketpair()
    brief, brief_it = os.pipe()
    reports, report = os.pipe()
    null, printed = os.open('/dev/null', os.O_RDWR), os.memfd_create('out')
    tester = os.fork()  # before the pid namespace is made, which the program cannot look out of
    if tester == 0:
      self._be_tester(head, [null, null, ours.detach(), brief, report])
    ours.close()
    os.close(brief)
    os.close(report)
    with self._home(head['code']) as home:
      pid = os.fork()
      if pid == 0:
        self._be_program(head, home, [null, printed, theirs.detach()])
      theirs.close()
      _send(brief_it, _receive(self.jobs))
      said = _reports(reports, head['limit_s'], head['tests'])
      over = None if said is None else self._await(tester, time.monotonic() + 1.0)
      self._kill(tester, over)
      said = json.loads(said or b'{"passed": false, "reason": "error: the tests ended early"}')
      # Where the program broke the channel, how it ended says why.
      gone = over == 0 and said['reason'] == 'gone'
      status = self._await(pid, time.monotonic() + min(head['limit_s'], 1.0)) if gone else None
      self._kill(pid, status)
    if gone:
      return {'passed': False, 'reason': _fate(status) if status else 'error: exited before the tests were over'}
    if over is None or over:
      return {'passed': False, 'reason': _fate(over)}
    return said

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

  # ---- program and tester

  def _be_program(self, head: dict, home: str, files: list[int]) -> None:
    """Never returns. Everything up to the call into program.py is trusted code; nothing after it is."""
    try:
      self._shut_in(head, self.users[0], os.path.join(home, 'tmp'), files)
    except BaseException as error:
      os.write(2, f'sandbox: {error}\n'.encode())
      os._exit(125)
    file = os.path.join(home, 'solution.py')
    if head['kind'] == 'stdin':
      program.run(head['code'], file, isolation.CHANNEL)
    else:
      program.offer(head['code'], file, isolation.CHANNEL, head['contest'])

  def _be_tester(self, head: dict, files: list[int]) -> None:
    """Never returns. Trusted code that runs the tests, out of the program's reach."""
    channel, brief, report = range(isolation.CHANNEL, isolation.CHANNEL + 3)
    try:
      self._shut_in(head, self.users[1], '/', files)
      tests = _receive(brief)
      answer = asserts.examine(socket.socket(fileno=channel), tests, tick=lambda: os.write(report, b'.'))
      os.write(report, json.dumps(answer).encode())
      os._exit(0)
    finally:
      os._exit(1)

  def _shut_in(self, head: dict, user: int | None, folder: str, files: list[int]) -> None:
    runs = 1 if head['kind'] == 'stdin' else head['tests']
    isolation.shut_in(self.kernel, user, folder, files, runs * head['limit_s'], head['memory'])
    program.open_streams()


def _furnish(home: str, code: str) -> None:
  """The folders that a program writes to, and the file it stands in."""
  # Shared memory only for those that can want it: it is one more place to write to.
  shared = 'multiprocessing' in code or 'concurrent' in code
  for name in ('tmp', 'shm') if shared else ('tmp',):
    os.mkdir(os.path.join(home, name))
    os.chmod(os.path.join(home, name), 0o777)
  with open(os.path.join(home, 'solution.py'), 'wb') as file:
    file.write(code.encode('utf-8', 'surrogatepass'))


def _children() -> list[int]:
  """This process's children. Raises FileNotFoundError where the kernel keeps no list of them."""
  with open('/proc/thread-self/children') as file:
    return [int(child) for child in file.read().split()]


def _reports(fd: int, limit_s: float, runs: int) -> bytes | None:
  """What the tester says before it ends, None if it does not.

  It has `limit_s` seconds; where these are for one of several `runs`, as many again with each dot, by which it says
  that the next begins.
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
  """What a wait status says of a program that did not end well."""
  if status is None:
    return 'timeout'
  if os.WIFSIGNALED(status):
    return 'timeout' if os.WTERMSIG(status) == signal.SIGXCPU else f'error: signal {os.WTERMSIG(status)}'
  return f'error: exit status {os.WEXITSTATUS(status)}'


def main(packages: str) -> None:
  """Serve jobs from stdin to stdout, of which the program under test gets neither; or say the level, with --level."""
  if not sys.platform.startswith('linux'):
    raise SystemExit('the sandbox needs Linux')
  jobs, answers = os.dup(0), os.dup(1)
  os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
  os.dup2(2, 1)
  server = ForkServer(jobs, answers, packages)
  if sys.argv[1:] == ['--level']:
    os.write(answers, server.level.encode() + b'\n')
  else:
    server.serve()
