"""A pool of worker processes that can be killed: the only way to set a hard deadline for code that we do not control.

A thread cannot be stopped, a signal waits until the running C call returns, and forking a trainer full of JAX threads
may deadlock. So a pool keeps a few child processes that are started from a command line. The parent exchanges messages
with them over pipes, in a single thread with a selector. When a job is past its deadline, its worker is killed and
replaced while the others continue; when a worker dies, only its own job is lost.

Parent and worker exchange frames (frames.py). A worker first sends one frame, its greeting; then it reads one or more
frames for every job and answers each job with exactly one.
"""

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence

from vibethinker_jax.verify.frames import Inbox, frame

_START_S = 120.0  # for the start of a worker: importing a large library from a cold disk takes long
_MAX_ANSWER = 1 << 24


@dataclasses.dataclass(frozen=True)
class Failure:
  """Takes the place of an answer that a job did not get. reason: 'timeout' or 'worker died'."""

  reason: str


class _Worker:
  """One child process, its two pipes, and the job that it works on."""

  def __init__(self, command: Sequence[str], env: dict[str, str] | None):
    self.process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env, start_new_session=True
    )
    self.to, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
    os.set_blocking(self.to, False)
    os.set_blocking(self.out, False)
    self.outgoing = memoryview(b'')
    self.inbox = Inbox(_MAX_ANSWER)
    self.greeting: object = None
    self.job: int | None = None
    self.deadline = time.monotonic() + _START_S

  def send(self, job: int, data: bytes, deadline_s: float) -> None:
    self.job, self.outgoing, self.deadline = job, memoryview(data), time.monotonic() + deadline_s

  def write(self) -> None:
    """Writes as much as the pipe takes. Raises BrokenPipeError if the worker is gone."""
    with contextlib.suppress(BlockingIOError):
      self.outgoing = self.outgoing[os.write(self.to, self.outgoing) :]

  def read(self) -> tuple[bool, object]:
    """(True, value) once a frame is complete, (False, None) before. Raises EOFError if the worker is gone."""
    try:
      data = os.read(self.out, 1 << 16)
    except BlockingIOError:
      return False, None
    return self.inbox.take(data)

  def kill(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()
    self.process.stdin.close()
    self.process.stdout.close()


class Pool:
  """Up to `n` workers, each started when it is first needed. For use from one thread at a time.

  Args:
    n: workers at most.
    command: the argument list that starts a worker.
    env: its environment; None passes on that of this process.
  """

  def __init__(self, n: int, command: Sequence[str], env: dict[str, str] | None = None):
    if n < 1:
      raise ValueError(f'a pool needs at least one worker, not {n}')
    self._n, self._command, self._env = n, list(command), env
    self._workers: list[_Worker] = []

  def __enter__(self) -> 'Pool':
    return self

  def __exit__(self, *exc) -> None:
    self.close()

  def close(self) -> None:
    """Kills every worker. The pool may be used again: new workers start then."""
    for worker in self._workers:
      worker.kill()
    self._workers.clear()

  def pids(self) -> list[int]:
    """The process ids of the workers that are up."""
    return [worker.process.pid for worker in self._workers]

  def greetings(self) -> list[object]:
    """The first messages of the workers that are up."""
    return [worker.greeting for worker in self._workers if worker.greeting is not None]

  def map(self, jobs: Sequence[Sequence[object]], deadline_s: float) -> list[object]:
    """Runs every job.

    Args:
      jobs: each is a sequence of JSON values, one for each frame.
      deadline_s: seconds for each job, from the moment when a worker that is up gets it.

    Returns:
      For each job, in order, its answer or a Failure.

    Raises:
      RuntimeError: a worker cannot be started.
    """
    try:
      return self._map(jobs, deadline_s)
    except BaseException:
      self.close()  # a worker still busy with an abandoned job would give its answer to the next job
      raise

  def _map(self, jobs: Sequence[Sequence[object]], deadline_s: float) -> list[object]:
    results: list[object] = [None] * len(jobs)
    todo, open_jobs = deque(range(len(jobs))), len(jobs)
    while open_jobs:
      starting = sum(worker.greeting is None for worker in self._workers)
      while len(self._workers) < self._n and starting < len(todo):
        self._workers.append(_Worker(self._command, self._env))
        starting += 1
      for worker in self._workers:
        if worker.greeting is not None and worker.job is None and todo:
          job = todo.popleft()
          worker.send(job, b''.join(frame(part) for part in jobs[job]), deadline_s)
      for worker, outcome in self._wait():
        if isinstance(outcome, Failure):
          if worker.greeting is None:
            raise RuntimeError(f'{outcome.reason} while starting: {" ".join(self._command)}')
          self._workers.remove(worker)
          worker.kill()
          # Replaced at once, even without a job for it, so that it is up when the next batch comes.
          self._workers.append(_Worker(self._command, self._env))
        elif worker.greeting is None:
          worker.greeting, worker.deadline = outcome, float('inf')
          continue
        if worker.job is not None:
          results[worker.job] = outcome
          open_jobs -= 1
          worker.job, worker.deadline = None, float('inf')
    return results

  def _wait(self) -> list[tuple[_Worker, object]]:
    """Moves bytes until some worker has an answer, dies or is late; returns (worker, answer or Failure) for each."""
    events = []
    with selectors.DefaultSelector() as selector:
      for worker in self._workers:
        selector.register(worker.out, selectors.EVENT_READ, worker)
        if worker.outgoing:
          selector.register(worker.to, selectors.EVENT_WRITE, worker)
      next_deadline = min(worker.deadline for worker in self._workers)
      timeout = None if next_deadline == float('inf') else max(0.0, next_deadline - time.monotonic())
      for key, mask in selector.select(timeout):
        worker = key.data
        if mask & selectors.EVENT_WRITE:
          # If the worker died while we write, its output ends, and that is handled below.
          try:
            worker.write()
          except BrokenPipeError:
            worker.outgoing = memoryview(b'')
          continue
        try:
          complete, value = worker.read()
        except EOFError:
          events.append((worker, Failure('worker died')))
        else:
          if complete:
            events.append((worker, value))
    seen = [worker for worker, _ in events]
    now = time.monotonic()
    events += [(w, Failure('timeout')) for w in self._workers if w.deadline <= now and w not in seen]
    return events
