"""Several processes as one program: joining them, waiting for each other, and stopping together.

Every process runs the same program on the same data and holds its own part of every array; a process computes with the
rows that lie on its devices. What is written once (metrics, results, exported models) is written by the first process,
in a workdir that all of them see. The machine's scheduler (SLURM, GKE, the TPU runtime) starts them: jax finds the
others by what it has put into the environment.
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

_CPU_DEVICES = 256  # at most: each has its threads, and hundreds of thousands would take the machine with them
_PIECE = 1 << 26  # bytes of each process that are gathered at a time
_PATIENCE_S = 120.0  # NFS keeps what it knows of a folder for up to a minute


class NotShared(Exception):
  """The processes do not see the same workdir. One line: which file."""


class Stopped(Exception):
  """The run was asked to end (SIGTERM), has saved where it stood, and can be continued."""


def join(coordinator: str = '', processes: int = 1, process: int = 0) -> None:
  """Become process `process` of `processes`, which meet at the address `coordinator`.

  Without an address all three are left to jax, which knows TPU slices, SLURM, MPI and Kubernetes. Before anything else
  that uses jax. Raises RuntimeError or ValueError where the others cannot be found.
  """
  jax.config.update('jax_enable_preemption_service', False)  # `Stop` listens to SIGTERM
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
  """Wait until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def wait_for_file(path: pathlib.Path) -> None:
  """Wait until all processes are here and see `path`, which the first one has just written.

  Shared file systems may show a file late to who has looked for it in vain. Raises NotShared where it never comes.
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
  """Everybody's `value`, in the order of the processes, on all of them: whatever can be pickled."""
  if jax.process_count() == 1:
    return [value]
  mine = pickle.dumps(value)
  pieces = multihost_utils.process_allgather(np.int32(-(-len(mine) // _PIECE)))
  found: list[list[bytes]] = [[] for _ in pieces]
  for begin in range(0, int(pieces.max()) * _PIECE, _PIECE):  # it goes through the devices' memory
    piece = np.frombuffer(mine[begin : begin + _PIECE], np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(piece)))
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)  # few sizes: each is compiled
    padded[: len(piece)] = piece
    for parts, row, size in zip(found, multihost_utils.process_allgather(padded), sizes):
      parts.append(row[:size].tobytes())
  return [pickle.loads(b''.join(parts)) for parts in found]


def share_work(items: Sequence, work: Callable[[Sequence], Sequence]) -> list:
  """`work(items)`, a result for each item: each process does its share, and all have all results, in order."""
  n = jax.process_count()
  done = gather(list(work(items[jax.process_index() :: n])))
  return [done[i % n][i // n] for i in range(len(items))]


class Stop:
  """Whether it is time to save and end, because SIGTERM has come: what schedulers send before they take a machine away.

  `stop()` after every step, on all processes, says the same on all of them; SIGTERM to one is enough. With several it
  answers for what had come by the call before, so that no device waits for the answer. A context: outside, SIGTERM
  kills.

  Ctrl-C raises KeyboardInterrupt where it comes, and where that falls into a callback of the garbage collector, which
  drops it, once more when the next question is asked.
  """

  def __init__(self):
    self._asked, self._interrupted, self._everybody = False, False, None
    self._before: dict = {}

  def __enter__(self) -> 'Stop':
    self._interrupted = False
    if threading.current_thread() is threading.main_thread():  # no other may set a handler
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
    """Whether this process has got the signal: to cut short what others will hear of anyway."""
    self._raise_again()
    return self._asked

  def _start_asking(self) -> jax.Array:
    """Whether any process has been asked; on its way, not waited for."""
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
