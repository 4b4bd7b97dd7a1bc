"""The sandbox for untrusted programs: a fork server, which is a program of its own and a worker of `pool.Pool`.

Starting an interpreter takes 20 ms, and a trainer full of threads must not be forked. So a small Python process, the
fork server, does nothing but fork. These processes take part in a run:

  fork server    enters namespaces once, reads jobs, and forks a supervisor for each run (this file);
  supervisor     gives the run its own pid and mount namespace, watches the clock, kills, and reports (supervisor.py);
  test process   gives up its rights and all files but its own (isolation.py) and executes the code (program.py);
  test runner    for functions only: runs the asserts, under another user and out of the test process's reach. It calls
                 the functions of the code over an RPC channel and compares the results itself (asserts.py).

The fork server, the supervisor and the test runner are trusted. Nothing that the test process says is believed: no
verdict is made in a process that executes the code under test, so printing, exiting or rewriting the interpreter prove
nothing. The test process is never given what the code must not know: expected outputs and asserts reach the supervisor
after the test process has been forked.

Where the kernel allows it (as root, or with unprivileged user namespaces), the test process sees a read-only tree with
the standard library and numpy in it, an empty /tmp of its own, no network, and no process but its own. Elsewhere only
the resource limits remain and, for root, the change to an unprivileged user: `isolation_level()` says which, the
greeting of the worker carries it, and the grader warns.

A job begins with the frame {'kind': 'stdin' | 'function', 'code', 'contest', 'tests', 'limit_s', 'memory'}. `contest`
is the name of the class that a contest calls, or None. `tests` is the number of runs, each of at most `limit_s`
seconds: one for each test where kind is 'stdin' and for each call of a contest, otherwise one. For 'stdin' two frames
follow for each test, input and expected output; for 'function' the `tests` dict follows. The answer is {'passed': bool,
'reason': text}, or {'broken': text} when the sandbox itself failed.
"""

import contextlib
import importlib.util
import os
import signal
import sys

from vibethinker_jax.verify import frames, program, supervisor
from vibethinker_jax.verify.isolation import Isolation


def command() -> list[str]:
  """The argument list that starts a fork server. Its imports see the standard library and a few files of ours."""
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  numpy = importlib.util.find_spec('numpy')
  packages = os.path.dirname(os.path.dirname(numpy.origin)) if numpy is not None and numpy.origin else ''
  start = 'import sys; path = sys.path[:]; sys.path.insert(0, sys.argv.pop(1)); '
  start += 'from vibethinker_jax.verify import sandbox; sys.path[:] = path; sandbox.main(sys.argv.pop(1))'
  return [sys.executable, '-P', '-s', '-S', '-c', start, root, packages]


def environment() -> dict[str, str]:
  """Its environment: the hash seed alone, so that a program that iterates over a set gets one verdict."""
  return {'PYTHONHASHSEED': '0'}


def isolation_level() -> str:
  """One line: how well this machine can isolate programs. Raises RuntimeError if no fork server starts."""
  import subprocess  # here, like shutil and tempfile in supervisor.py, because the fork server must stay small

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


class ForkServer:
  """Forks one supervisor after the other.

  Args:
    jobs, answers: file descriptors of the two pipes. The supervisors read `jobs` too, so nobody may read ahead.
    packages: the folder that numpy lies in, '' for none.
  """

  def __init__(self, jobs: int, answers: int, packages: str):
    self.jobs, self.answers = jobs, answers
    sys.executable = os.path.realpath(sys.executable)  # inside, the link of a virtual environment leads nowhere
    program.prepare()
    self.isolation = Isolation.enter(packages)
    for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'):
      os.putenv(name, '1')  # on a machine of many cores, as many threads would not fit into a program's memory
    self.isolation.kernel.be_untraceable()

  def serve(self) -> None:
    """Answers jobs until their pipe is closed."""
    self._answer(self.isolation.level)
    while True:
      try:
        head = self._receive()
      except EOFError:
        return
      self._answer(self._run(head, '') if head['kind'] == 'function' else self._run_tests(head))

  def _receive(self) -> object:
    return frames.receive(frames.from_file(self.jobs))

  def _answer(self, value: object) -> None:
    frames.write(self.answers, frames.frame(value))

  def _skip(self, count: int) -> None:
    """Reads past frames, in a child: what this process has held, programs forked later could find in their memory."""
    pid = os.fork()
    if pid == 0:
      try:
        for _ in range(count):
          frames.payload(frames.from_file(self.jobs))
      finally:
        os._exit(0)
    os.waitpid(pid, 0)

  def _run_tests(self, head: dict) -> dict:
    """The answer for a program that reads stdin: one run for each test, up to the first that fails."""
    answer = {'passed': True, 'reason': 'passed'}
    for test in range(1, head['tests'] + 1):
      stdin = self._receive()
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
        self.isolation.kernel.die_with_parent()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # or it could be missed before sigtimedwait
        run = supervisor.Run(self.isolation, self.jobs, head)
        answer = run.function() if head['kind'] == 'function' else run.program(stdin)
      except BaseException as error:
        answer = {'broken': f'{type(error).__name__}: {error}'}
      frames.write(write, frames.frame(answer))
      os._exit(0)
    os.close(write)
    try:
      return frames.receive(frames.from_file(read))
    except EOFError:
      # Without namespaces a program can kill its supervisor. Nobody knows how far that one had read: start afresh.
      raise SystemExit('the supervisor died') from None
    finally:
      os.close(read)
      # The end of a supervisor takes its namespaces down, which is slow. Nobody waits for it: the next run reaps it.
      with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
          pass


def main(packages: str) -> None:
  """Serves jobs from stdin to stdout; the test process gets neither. With --level it prints the isolation level."""
  if not sys.platform.startswith('linux'):
    raise SystemExit('the sandbox needs Linux')
  jobs, answers = os.dup(0), os.dup(1)
  os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
  os.dup2(2, 1)
  server = ForkServer(jobs, answers, packages)
  if sys.argv[1:] == ['--level']:
    os.write(answers, server.isolation.level.encode() + b'\n')
  else:
    server.serve()
