"""Several processes that run one program: they join, wait for each other, and stop together.

Every process runs the same program on the same data. It holds its own part of every array and computes the rows on its
own devices. Metrics, results and exported models are written by the first process only, into a workdir that all
processes see. The cluster's scheduler (SLURM, GKE, the TPU runtime) starts the processes and describes them in
environment variables, by which jax finds them.
"""

import os
import pathlib
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_CPU_DEVICES = 256  # the most: each has its own threads, and hundreds of thousands of them would stop the machine
_PIECE = 1 << 26  # bytes of each process that are gathered at a time
_PATIENCE_S = 120.0  # NFS caches the contents of a folder for up to a minute


class NotShared(Exception):
  """The processes do not see the same workdir; the message names the file."""


class Stopped(Exception):
  """The run was asked to end (SIGTERM) and has saved its state; it can be continued."""


def join(coordinator: str = '', processes: int = 1, process: int = 0) -> None:
  """Connect this process with the others. Call it before anything else that uses jax.

  Args:
    coordinator: address of the first process; '' leaves all three to jax, which knows TPU slices, SLURM, MPI and
      Kubernetes.
    processes: how many there are.
    process: the number of this one, from 0.

  Raises:
    RuntimeError or ValueError: the others cannot be found.
  """
  jax.config.update('jax_enable_preemption_service', False)  # SIGTERM is handled by `Stop`
  if coordinator:
    jax.distributed.initialize(coordinator, processes, process)
  else:
    jax.distributed.initialize()


def cpu_devices(n: int | None) -> None:
  """Where jax computes on the CPU, make it count as n devices, 256 at most; None: one device for each core.

  Accelerators are not changed. A CPU device runs one operation of its program after the other, and few operations of
  decoding are large enough to be shared among cores: one device for each core is how decoding uses all of them. Call
  this before anything else that uses jax's devices; raises RuntimeError after it.
  """
  jax.config.update('jax_num_cpu_devices', min(_cores() if n is None else n, _CPU_DEVICES))


def _cores() -> int:
  """The cores that this process may use."""
  return len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count() or 1


def barrier(what: str) -> None:
  """Wait until all processes have called this. `what` names the place, for error messages."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def wait_for_file(path: pathlib.Path) -> None:
  """Wait until all processes have called this and see `path`, which the first process has just written.

  On a shared file system a file may appear late to a process that has looked for it before. Raises NotShared if it does
  not appear within two minutes.
  """
  if jax.process_count() == 1:
    return
  barrier(f'wrote {path}')
  until = time.monotonic() + _PATIENCE_S
  while not path.exists():
    if time.monotonic() > until:
      raise NotShared(f'{path}: written by the first process and not seen by another, expected a shared workdir')
    time.sleep(0.1)


def gather(value) -> list:
  """The `value` of every process, in their order, on all processes. A value is anything that can be pickled."""
  if jax.process_count() == 1:
    return [value]
  mine = pickle.dumps(value)
  pieces = multihost_utils.process_allgather(np.int32(-(-len(mine) // _PIECE)))
  found: list[list[bytes]] = [[] for _ in pieces]
  for begin in range(0, int(pieces.max()) * _PIECE, _PIECE):  # through the devices' memory
    piece = np.frombuffer(mine[begin : begin + _PIECE], np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(piece)))
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)  # a power of two: each size is compiled
    padded[: len(piece)] = piece
    for parts, row, size in zip(found, multihost_utils.process_allgather(padded), sizes):
      parts.append(row[:size].tobytes())
  return [pickle.loads(b''.join(parts)) for parts in found]


def share_work(items: Sequence, work: Callable[[Sequence], Sequence]) -> list:
  """The results of `work(items)`, one for each item, in order: each process does its share, and all get all results."""
  n = jax.process_count()
  done = gather(list(work(items[jax.process_index() :: n])))
  return [done[i % n][i // n] for i in range(len(items))]


class Stop:
  """Whether a run has to save and end, because SIGTERM was received (schedulers send it first).

  All processes call `stop()` after every step and get the same answer, even if only one of them has received the
  signal. With several processes the answer is about the signals received before the previous call, so that no device
  waits for it. It is a context manager: outside of the context SIGTERM ends the process.

  Ctrl-C raises KeyboardInterrupt at once. Python discards an exception that is raised in a callback of the garbage
  collector, so it is raised again at the next call of `stop()` or `stop.asked()`.
  """

  def __init__(self):
    self._asked, self._interrupted, self._everybody = False, False, None
    self._before: dict = {}

  def __enter__(self) -> 'Stop':
    self._interrupted = False
    if threading.current_thread() is threading.main_thread():  # Python lets no other thread set a handler
      self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._ask) or signal.SIG_DFL}
      if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def __call__(self) -> bool:
    self._raise_again()
    if jax.process_count() == 1:
      return self._asked
    late, self._everybody = self._everybody, self._start_asking()
    return late is not None and bool(late)

  def asked(self) -> bool:
    """Whether this process has received the signal, without asking the others: to end early what it does alone."""
    self._raise_again()
    return self._asked

  def _start_asking(self) -> jax.Array:
    """Start to compute whether any process has received the signal, without waiting for the result."""
    mesh = Mesh(np.array(jax.devices()), ('every',), axis_types=(AxisType.Auto,))
    where = NamedSharding(mesh, PartitionSpec('every'))
    with jax.set_mesh(mesh):
      flags = jax.make_array_from_callback((mesh.size,), where, lambda _: np.array([self._asked]))
      return _any(flags)

  def _ask(self, *_) -> None:
    self._asked = True

  def _interrupt(self, *_) -> None:
    self._interrupted = True
    raise KeyboardInterrupt

  def _raise_again(self) -> None:
    if self._interrupted:
      raise KeyboardInterrupt


@jax.jit
def _any(flags: jax.Array) -> jax.Array:
  return flags.any()
