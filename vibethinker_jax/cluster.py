"""Several processes as one program: joining them, waiting for each other, and stopping together.

Every process runs the same program on the same data and holds its own part of every array; a process computes with the
rows that lie on its devices. What is written once (metrics, results, exported models) is written by the first process,
in a workdir that all of them see. The machine's scheduler (SLURM, GKE, the TPU runtime) starts them: jax finds the
others by what it has put into the environment.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
  """The run was asked to end (SIGTERM), has saved where it stood, and can be continued."""


def join(coordinator: str = '', processes: int = 1, process: int = 0) -> None:
  """Become process `process` of `processes`, which meet at the address `coordinator`.

  Without an address all three are left to jax, which knows TPU slices, SLURM, MPI and Kubernetes. Before anything else
  that uses jax. Raises RuntimeError or ValueError where the others cannot be found.
  """
  if coordinator:
    jax.distributed.initialize(coordinator, processes, process)
  else:
    jax.distributed.initialize()


def cpu_devices(n: int) -> None:
  """Where the CPU computes, it counts as n devices (accelerators are what they are).

  One device a core is how decoding uses all of them: a device goes through its program one operation after the other,
  and few of decoding's operations are large enough to be shared among cores. Before anything else that uses jax's
  devices; raises RuntimeError after it.
  """
  jax.config.update('jax_num_cpu_devices', n)


def together(what: str) -> None:
  """Wait until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


class Stop:
  """Whether it is time to save and end: `stop()` after every step, on all processes, says the same on all of them.

  SIGTERM to one process is enough (what schedulers send before they take a machine away). Several processes agree on
  a step that none has gone past; jax's preemption service counts the calls. A context: outside, SIGTERM kills.
  """

  def __init__(self):
    self._asked, self._calls, self._before = False, 0, None

  def __enter__(self) -> 'Stop':
    # with several processes jax itself listens; and only a main thread may set a handler
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *_) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def __call__(self) -> bool:
    self._calls += 1
    if jax.process_count() > 1:
      self._asked = self._asked or multihost_utils.reached_preemption_sync_point(self._calls)
    return self._asked

  def _ask(self, *_) -> None:
    self._asked = True
