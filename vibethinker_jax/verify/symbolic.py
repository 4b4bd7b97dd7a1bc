"""The worker of `pool.Pool` that does computer algebra (algebra.py), and the jobs that it takes.

Computer algebra on text a model wrote may take forever or eat all memory (`10^{10^{10}}` is a dozen
characters), so this file is a program of its own: it is started by path and shares nothing with the trainer.
It imports the libraries once and forks a child that does the work; a child past the deadline, out of memory, or grown
too large is replaced by a fresh fork in milliseconds, so the next answer finds a worker with nothing left in its
caches. math-verify's own timeouts are signals that cannot interrupt a long C call; they are switched off.
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

from vibethinker_jax.verify.pool import Failure, Pool, frame

MEMORY = 2 << 30  # address space of a child
RESIDENT = 512 << 20  # bytes it may keep after a job
_GRACE_S = 5.0  # the worker keeps the deadline; the pool only steps in when the worker itself hangs


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
  """A job for `ask`: does math-verify alone hold `pred` equal to one of `golds`? A bool; no verdict of ours.

  Args:
    golds, pred: texts that hold an expression the way a response does (`\\boxed{..}`, `$..$`, a bare number).
    targets: what to look for in them, 'latex' and 'expr' in order.
    precision: decimal places for numbers.
    strict: variables matter and sets differ from tuples.
    set_relations: an inequality may equal the set of its solutions.
  """
  return {'op': 'engine', 'args': [golds, pred, list(targets), precision, strict, set_relations]}


def right_job(golds: list[str], pred: str) -> dict:
  """A job for `ask`: is `pred` the same as one of `golds`, by the default judge's rules? Its answer is a bool.

  golds, pred: LaTeX as it stood in a box.
  """
  return {'op': 'right', 'args': [golds, pred]}


def key_job(answer: str) -> dict:
  """A job for `ask`: a text that equal answers share (algebra.key), or None."""
  return {'op': 'key', 'args': [answer]}


def official_job(golds: list[str], pred: str) -> dict:
  """A job for `ask`: does the published grader take `pred` for one of `golds` (official.py)? Its answer is a bool."""
  return {'op': 'official', 'args': [golds, pred]}


def holds_job(left: str, right: str, slack: float = 0.0) -> dict:
  """A job for `ask`: are two sides of an equality in LaTeX equal up to `slack`? A bool, or None for unknown."""
  return {'op': 'holds', 'args': [left, right, slack]}


def ask(pool: Pool, jobs: Sequence[dict], deadline_s: float) -> list[object]:
  """The answers of a pool of such workers, in the order of the jobs; a `pool.Failure` for a job that got none.

  deadline_s: seconds each job may take.
  """
  answers = pool.map([[job | {'limit_s': deadline_s}] for job in jobs], deadline_s + _GRACE_S)
  return [
    answer if isinstance(answer, Failure) else Failure(answer['failed']) if 'failed' in answer else answer['value']
    for answer in answers
  ]


# ---- the worker


def _read(fd: int, end: float) -> bytes:
  """One frame's bytes. Raises TimeoutError at `end` (time.monotonic) and EOFError where the writer is gone."""
  data = b''
  while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], 'big'):
    left = end - time.monotonic()
    if left <= 0 or not select.select([fd], [], [], None if left == float('inf') else left)[0]:
      raise TimeoutError
    part = os.read(fd, 1 << 20)
    if not part:
      raise EOFError
    data += part
  return data


class _Child:
  """A fork that does one job after the other until it hangs, dies or has grown."""

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

  def do(self, data: bytes, limit_s: float) -> bytes:
    """The frame that answers a frame. Raises TimeoutError or EOFError."""
    end = time.monotonic() + limit_s
    with contextlib.suppress(BrokenPipeError):  # a dead child shows as the end of its output
      rest = memoryview(data)
      while rest:
        rest = rest[os.write(self.to, rest) :]
    return _read(self.out, end)

  def grown(self) -> bool:
    """Whether it holds more memory than it should keep."""
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
  from vibethinker_jax.verify import algebra  # here, for whoever only asks shall not load an algebra system

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
    job = json.loads(_read(jobs, float('inf'))[4:])
    signal.alarm(math.ceil(job['limit_s']) + 5)  # should nobody be left to kill it
    try:
      value = ops[job['op']](*job['args'])
    except Exception:  # whatever a parser and an algebra system may raise for text that a model wrote
      value = None
    signal.alarm(0)
    os.write(answers, frame({'value': value}))


def main() -> None:
  """Serves jobs from stdin until it ends."""
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  answers = os.dup(1)
  os.dup2(2, 1)  # what a library prints must not land among the answers
  logging.disable(logging.CRITICAL)
  ops = _ops()  # imports and regexes, before the clock runs
  ops['right'](['x^2'], 'x^3')
  ops['holds']('x+1', 'x+1', 0.0)
  ops['official'](['\\frac{1}{3}'], '\\sqrt{3}')
  gc.freeze()
  os.write(answers, frame('algebra'))
  child = None
  with contextlib.suppress(EOFError):
    while True:
      data = _read(0, float('inf'))
      child = child or _Child()
      try:
        answer = child.do(data, json.loads(data[4:])['limit_s'])
      except (TimeoutError, EOFError) as error:
        answer = frame({'failed': 'timeout' if isinstance(error, TimeoutError) else 'worker died'})
        child.kill()
        child = None
      os.write(answers, answer)
      if child and child.grown():
        child.kill()
        child = None
  if child:
    child.kill()
