"""The SFT runs of a workdir: their checkpoints, the expert of each domain among them, and means of checkpoints.

A checkpoint is named by its run and its step. experts.json holds the expert of each domain once `probe` has chosen it.
"""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from vibethinker_jax.config import RunConfig, computing, own_config, sft_runs
from vibethinker_jax.model.mesh import shardings
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.shared_files import read_json
from vibethinker_jax.spectrum.fusion import fuse
from vibethinker_jax.spectrum.passk import mean_pass_at_k
from vibethinker_jax.spectrum.select import select
from vibethinker_jax.train.optim import optimizer
from vibethinker_jax.train.state import Checkpoints

Checkpoint = tuple[str, int]  # run, step
Curves = Mapping[int, Mapping[str, np.ndarray]]  # by step and domain: verdicts, bool [P,N]


class Experts:
  """The checkpoints of the SFT runs of one workdir."""

  def __init__(self, s: RunConfig, workdir: pathlib.Path, mesh: Mesh):
    """`mesh`: where the models go that are read. Nothing is read yet."""
    self.s, self.workdir = s, workdir
    self._layout = layout(s, mesh)

  def runs(self) -> dict[str, tuple[str, ...]]:
    """The SFT runs, and the domains that each of them trains on."""
    return sft_runs(self.s)

  def probed(self) -> dict[str, list[str]]:
    """The SFT runs, and the domains that each of them has an expert for."""
    return {run: [d for d in domains if d in self.s.data.domains] for run, domains in self.runs().items()}

  def steps(self, run: str) -> list[int]:
    """The steps at which a complete run has checkpoints, ascending."""
    steps, every = self.s.sft.steps, self.s.sft.save_every
    return sorted({*range(every, steps + 1, every), steps})

  def every(self) -> list[Checkpoint]:
    """All checkpoints of all runs."""
    return [(run, step) for run in self.runs() for step in self.steps(run)]

  def last(self) -> list[Checkpoint]:
    """The last checkpoint of each run."""
    return [(run, self.steps(run)[-1]) for run in self.runs()]

  def spaced(self) -> list[Checkpoint]:
    """As many equally spaced checkpoints of each run as there are experts."""
    n = len(self.s.data.domains)
    out = []
    for run in self.runs():
      steps = self.steps(run)
      out += [(run, steps[-(-(i + 1) * len(steps) // n) - 1]) for i in range(n)]
    return out

  def best(self, curves: Mapping[str, Curves], k: int) -> dict[str, Checkpoint]:
    """For each domain the checkpoint with the highest mean Pass@k. `curves`: the verdicts of each run."""
    chosen = {}
    for run, rows in curves.items():
      scores = {step: {d: mean_pass_at_k(v, k) for d, v in row.items()} for step, row in rows.items()}
      chosen |= {domain: (run, step) for domain, step in select(scores).items()}
    return {domain: chosen[domain] for domain in self.s.data.domains}

  def chosen(self) -> dict[str, Checkpoint]:
    """The expert of each domain, from experts.json. Raises BadInput where it is not there."""
    rows = read_json(self.workdir / 'experts.json')
    return {domain: (row['run'], row['selected_step']) for domain, row in rows.items()}

  def checkpoint(self, run: str, step: int) -> Qwen2:
    """The model of an SFT run after `step` updates. Raises BadInput where it cannot be read."""
    with contextlib.closing(Checkpoints(self.workdir / 'sft' / run)) as checkpoints:
      return checkpoints.model(self._layout, optimizer(self.s.sft.optim, self.s.sft.steps), step)

  def mean_of(self, chosen: Sequence[Checkpoint]) -> Qwen2:
    """The mean of checkpoints."""
    return self.weighted_mean(chosen, [1 / len(chosen)] * len(chosen))

  def weighted_mean(self, chosen: Sequence[Checkpoint], weights: Sequence[float]) -> Qwen2:
    """The weighted mean of checkpoints; the weights sum to 1."""
    return fuse([self.checkpoint(run, step) for run, step in chosen], weights)

  def fused(self) -> Qwen2:
    """The mean of the experts, weighted by config.fusion.weights."""
    chosen = [*self.chosen().values()]
    return self.weighted_mean(chosen, self.s.fusion.weights or [1 / len(chosen)] * len(chosen))

  def prune(self) -> None:
    """Delete the checkpoints that neither fusion nor evaluation reads: those that are not experts, not equally spaced
    and not the last.
    """
    read = {*self.last(), *self.spaced(), *self.chosen().values()}
    for run in self.runs():
      with contextlib.closing(Checkpoints(self.workdir / 'sft' / run)) as checkpoints:
        checkpoints.delete([step for step in checkpoints.steps() if (run, step) not in read])


def layout(s: RunConfig, mesh: Mesh) -> Qwen2:
  """A model of the run with shapes, dtypes and shardings in place of arrays. Raises BadInput where the base's
  config.json cannot be used.
  """
  c = computing(own_config(s), s.model)
  shapes = jax.eval_shape(lambda: jax.tree.map(lambda x: x.astype(s.model.param_dtype), Qwen2(c, jax.random.key(0))))
  if mesh.size > 1:
    where = shardings(shapes, mesh)
  else:
    where = jax.tree.map(lambda _: SingleDeviceSharding(jax.local_devices()[0]), shapes)
  return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, where)
