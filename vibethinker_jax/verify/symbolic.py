"""The worker of `pool.Pool` that does computer algebra (algebra.py), and the jobs that it takes.

Computer algebra on a text that a model wrote may take forever or use all memory (`10^{10^{10}}` has a dozen
characters). So this file is also a program of its own, which shares nothing with the trainer. It imports the libraries
once and forks a child that does the work. A child that is past its deadline, out of memory or too large is replaced by
a new fork in milliseconds, so that the next job finds a worker with empty caches. The timeouts of math-verify are
switched off: they are signals, which cannot interrupt a long C call.
"""

import contextlib
import gc
import json
import logging
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence

from vibethinker_jax.verify import frames
from vibethinker_jax.verify.pool import Failure, Pool

MEMORY = 2 << 30  # address space of a child
RESIDENT = 512 << 20  # bytes that it may keep after a job
_GRACE_S = 5.0  # the worker watches the deadline; the pool kills the worker only if that itself hangs


def command() -> list[str]:
  """The argument list that starts a worker."""
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  start = (
    'import sys; sys.path.insert(0, sys.argv.pop(1)); from vibethinker_jax.verify import symbolic; symbolic.main()'
  )
  return [sys.executable, '-I', '-c', start, root]


def engine_job(
  golds: list[str],
  pred: str,
  targets: tuple[str, ...] = ('latex', 'expr'),
  precision: int = 6,
  strict: bool = True,
  set_relations: bool = False,
) -> dict:
  """A job for `ask`: does math-verify alone call `pred` equal to one of `golds`? A bool; it is no verdict of ours.

  Args:
    golds, pred: texts that contain an expression as a response does (`\\boxed{..}`, `$..$`, a bare number).
    targets: what to search for in them, 'latex' and 'expr', in order.
    precision: decimal places of numbers.
    strict: variables matter, and sets differ from tuples.
    set_relations: an inequality may equal the set of its solutions.
  """
  return {'op': 'engine', 'args': [golds, pred, list(targets), precision, strict, set_relations]}


def right_job(golds: list[str], pred: str) -> dict:
  """A job for `ask`: is `pred` equal to one of `golds` by the rules of the default grader? Its answer is a bool.

  golds, pred: contents of boxes, LaTeX.
  """
  return {'op': 'right', 'args': [golds, pred]}


def key_job(answer: str) -> dict:
  """A job for `ask`: the text that equal answers share (algebra.key), or None."""
  return {'op': 'key', 'args': [answer]}


def official_job(golds: list[str], pred: str) -> dict:
  """A job for `ask`: does the published grader accept `pred` for one of `golds` (official.py)? Its answer is a bool."""
  return {'op': 'official', 'args': [golds, pred]}


def holds_job(left: str, right: str, slack: float = 0.0) -> dict:
  """A job for `ask`: are the two sides of an equality in LaTeX equal up to `slack`? A bool, or None for unknown."""
  return {'op': 'holds', 'args': [left, right, slack]}


def ask(pool: Pool, jobs: Sequence[dict], deadline_s: float) -> list[object]:
  """The answers to jobs, in order; a `pool.Failure` for a job without an answer.

  Args:
    pool: its workers run `command()`.
    jobs: made by the functions above.
    deadline_s: seconds that each job may take.
  """
  answers = pool.map([[job | {'limit_s': deadline_s}] for job in jobs], deadline_s + _GRACE_S)
  return [
    answer if isinstance(answer, Failure) else Failure(answer['failed']) if 'failed' in answer else answer['value']
    for answer in answers
  ]


# ---- the worker


def _until(fd: int, end: float) -> frames.Reader:
  """The reader of a file descriptor that raises TimeoutError at the time `end` (of time.monotonic)."""

  def read(n: int) -> bytes:
    left = end - time.monotonic()
    if left <= 0 or not select.select([fd], [], [], left)[0]:
      raise TimeoutError
    return os.read(fd, n)

  return read


class _Child:
  """A fork that does one job after the other until it hangs, dies or has grown too large."""

  def __init__(self):
    read, self.to = os.pipe()
    self.out, write = os.pipe()
    self.pid = os.fork()
    if self.pid == 0:
      try:
        os.close(self.to)
        os.close(self.out)
        _work(read, write)
      finally:
        os._exit(1)
    os.close(read)
    os.close(write)

  def do(self, job: bytes, limit_s: float) -> bytes:
    """The payload of the frame that answers a job's payload. Raises TimeoutError or EOFError."""
    end = time.monotonic() + limit_s
    with contextlib.suppress(BrokenPipeError):  # a dead child shows as the end of its output
      frames.write(self.to, frames.framed(job))
    return frames.payload(_until(self.out, end))

  def grown(self) -> bool:
    """Whether it holds more memory than it may keep."""
    try:
      with open(f'/proc/{self.pid}/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize() > RESIDENT
    except OSError:
      return True

  def kill(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.kill(self.pid, signal.SIGKILL)
    os.waitpid(self.pid, 0)
    os.close(self.to)
    os.close(self.out)


def _ops() -> dict:
  from vibethinker_jax.verify import algebra  # here, so that a process that only asks loads no algebra system

  return {
    'engine': algebra.engine,
    'right': algebra.right,
    'key': algebra.key,
    'official': algebra.published,
    'holds': algebra.holds,
  }


def _work(jobs: int, answers: int) -> None:
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  ops = _ops()
  while True:
    job = frames.receive(frames.from_file(jobs))
    signal.alarm(math.ceil(job['limit_s']) + 5)  # in case the process that would kill it is gone
    try:
      value = ops[job['op']](*job['args'])
    except Exception:  # a parser and an algebra system may raise anything for a text that a model wrote
      value = None
    signal.alarm(0)
    frames.write(answers, frames.frame({'value': value}))


def main() -> None:
  """Serves jobs from stdin until it ends."""
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  answers = os.dup(1)
  os.dup2(2, 1)  # what a library prints must not get among the answers
  logging.disable(logging.CRITICAL)
  ops = _ops()  # import and compile everything now, while no deadline runs
  ops['right'](['x^2'], 'x^3')
  ops['holds']('x+1', 'x+1', 0.0)
  ops['official'](['\\frac{1}{3}'], '\\sqrt{3}')
  gc.freeze()
  frames.write(answers, frames.frame('algebra'))
  child = None
  with contextlib.suppress(EOFError):
    while True:
      job = frames.payload(frames.from_file(0))
      child = child or _Child()
      try:
        answer = frames.framed(child.do(job, json.loads(job)['limit_s']))
      except (TimeoutError, EOFError) as error:
        answer = frames.frame({'failed': 'timeout' if isinstance(error, TimeoutError) else 'worker died'})
        child.kill()
        child = None
      frames.write(answers, answer)
      if child and child.grown():
        child.kill()
        child = None
  if child:
    child.kill()
