"""Worker processes that can be killed: the only way to put a hard deadline on code one does not control.

A thread cannot be stopped, a signal waits for the running C call to return, and forking a trainer full of JAX
threads may deadlock. So a pool keeps a few child processes started from a command line of their own; the
parent talks to them over pipes from a single thread with a selector. A job past its deadline has its worker
killed and replaced while the others go on; a worker that dies takes only its own job with it.

The protocol is frames: four bytes of length (big endian), then JSON. A worker first sends one frame, its
greeting; then for every job it reads one or more frames and answers with exactly one.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence

_START_S = 120.0  # importing a large library from a cold disk takes long, and is nobody's job's fault
_MAX_ANSWER = 1 << 24


@dataclasses.dataclass(frozen=True)
class Failure:
  """What stands in for the answer of a job that got none. reason: 'timeout' or 'worker died'."""

  reason: str


def frame(value: object) -> bytes:
  """The bytes of one frame. value: anything JSON holds."""
  data = json.dumps(value).encode()
  return len(data).to_bytes(4, 'big') + data


class _Worker:
  """One child process, its two pipes and the job it is at."""

  def __init__(self, command: Sequence[str], env: dict[str, str] | None):
    self.process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env, start_new_session=True
    )
    self.to, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
    os.set_blocking(self.to, False)
    os.set_blocking(self.out, False)
    self.outgoing = memoryview(b'')
    self.incoming = bytearray()
    self.greeting: object = None
    self.job: int | None = None
    self.deadline = time.monotonic() + _START_S

  def send(self, job: int, data: bytes, deadline_s: float) -> None:
    self.job, self.outgoing, self.deadline = job, memoryview(data), time.monotonic() + deadline_s

  def write(self) -> None:
    """Writes what the pipe takes. Raises BrokenPipeError if the worker is gone."""
    with contextlib.suppress(BlockingIOError):
      self.outgoing = self.outgoing[os.write(self.to, self.outgoing) :]

  def read(self) -> tuple[bool, object]:
    """(True, value) when a frame is complete, (False, None) while it is not. Raises EOFError at the end."""
    try:
      data = os.read(self.out, 1 << 16)
    except BlockingIOError:
      return False, None
    self.incoming += data
    size = int.from_bytes(self.incoming[:4], 'big')
    if not data or size > _MAX_ANSWER:
      raise EOFError
    if len(self.incoming) < 4 + size or len(self.incoming) < 4:
      return False, None
    value = json.loads(self.incoming[4 : 4 + size])
    self.incoming.clear()
    return True, value

  def kill(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()
    self.process.stdin.close()
    self.process.stdout.close()


class Pool:
  """Up to `n` workers started from `command`, each when first needed. For use from one thread at a time.

  Args:
    n: how many workers at most.
    command: the argument list that starts one.
    env: its environment; None passes this process's on.
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
    """What the workers that are up said of themselves when they started."""
    return [worker.greeting for worker in self._workers if worker.greeting is not None]

  def map(self, jobs: Sequence[Sequence[object]], deadline_s: float) -> list[object]:
    """Runs every job. A job is a sequence of JSON values, one frame each.

    Returns, in the order of the jobs, each one's answer, or a Failure. `deadline_s` counts for each job from
    the moment it is handed to a worker that is up. Raises RuntimeError when a worker cannot be started.
    """
    try:
      return self._map(jobs, deadline_s)
    except BaseException:
      self.close()  # a worker still at an abandoned job would answer the next one with the wrong verdict
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
          # Replaced at once, job or no job: it is up again by the time the next batch comes.
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
    """Moves bytes until something happens to some worker; returns what happened to whom."""
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
          # A worker that died while we write shows as the end of its output, which is where it is dealt with.
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
