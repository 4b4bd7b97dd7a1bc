import os
import signal
import sys
import time

import pytest

from vibethinker_jax.verify.pool import Failure, Pool

# A worker that does what it is told: it answers with its process id, sleeps, dies, or sends a frame without end.
WORKER = """
import json, os, sys, time
def answer(value):
  data = json.dumps(value).encode()
  sys.stdout.buffer.write(len(data).to_bytes(4, 'big') + data)
  sys.stdout.buffer.flush()
answer('up')
while size := sys.stdin.buffer.read(4):
  word = json.loads(sys.stdin.buffer.read(int.from_bytes(size, 'big')))
  if word == 'sleep':
    time.sleep(60)
  if word == 'die':
    os._exit(1)
  if word == 'flood':
    os.write(1, b'\\xff' * 1000)
    time.sleep(60)
  answer([os.getpid(), len(word)])
"""
COMMAND = [sys.executable, '-I', '-c', WORKER]


def alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def test_order_and_lazy_start():
  with Pool(2, COMMAND) as pool:
    assert pool.pids() == []
    assert pool.map([], 5.0) == [] and pool.pids() == []
    assert [n for _, n in pool.map([['x' * i] for i in range(20)], 20.0)] == list(range(20))
    assert len(pool.pids()) == 2


def test_jobs_larger_than_a_pipe():
  with Pool(1, COMMAND) as pool:
    assert [n for _, n in pool.map([['x' * 3_000_000], ['y']], 20.0)] == [3_000_000, 1]


def test_a_hung_job_delays_nobody_and_its_worker_is_replaced():
  with Pool(2, COMMAND) as pool:
    before = pool.map([['a'], ['b']], 20.0) and pool.pids()
    start = time.monotonic()
    results = pool.map([['sleep']] + [['a']] * 10, 2.0)
    assert time.monotonic() - start < 20
    assert results[0] == Failure('timeout') and all(isinstance(r, list) for r in results[1:])
    after = pool.pids()
    assert len(after) == 2 and len(set(before) & set(after)) == 1
    assert sum(alive(pid) for pid in before) == 1
    assert isinstance(pool.map([['a']], 20.0)[0], list)


@pytest.mark.parametrize('word', ['die', 'flood'])
def test_a_death_loses_one_job(word):
  with Pool(1, COMMAND) as pool:
    first, second, third = pool.map([['a'], [word], ['b']], 20.0)
    assert second == Failure('worker died')
    assert first[0] != third[0]


def test_a_worker_killed_between_batches_costs_at_most_a_job():
  with Pool(1, COMMAND) as pool:
    pool.map([['a']], 20.0)
    os.kill(pool.pids()[0], signal.SIGKILL)
    assert isinstance(pool.map([['a'], ['b']], 20.0)[1], list)


def test_close_leaves_nobody_behind():
  with Pool(2, COMMAND) as pool:
    pool.map([['a']] * 4, 20.0)
    pids = pool.pids()
  assert pids and not any(alive(pid) for pid in pids)


def test_a_worker_that_cannot_start_is_an_error():
  command = [sys.executable, '-I', '-c', 'raise SystemExit(3)']
  with Pool(1, command) as pool, pytest.raises(RuntimeError, match='starting'):
    pool.map([['a']], 5.0)
  with pytest.raises(ValueError):
    Pool(0, COMMAND)
