"""One process of several that train together: process.py COORDINATOR PROCESSES PROCESS MODEL WORKDIR STEPS.

Eight devices in all, fsdp 8. Writes gradients.npz (of the loss of `packed_batch`), then a run of SFT and final/.
"""

import os
import pathlib
import sys

import numpy as np


def packed_batch(B: int, T: int, V: int):
  """B rows of two documents each, the second of which begins somewhere else in every row."""
  from vibethinker_jax.data.batches import Batch

  rng = np.random.default_rng(0)
  ids = lambda: rng.integers(0, V, (B, T), np.int32)
  begins = rng.integers(T // 4, T // 2, (B, 1))
  at = np.arange(T)[None]
  segments = (1 + (at >= begins)).astype(np.int32)
  positions = np.where(at >= begins, at - begins, at).astype(np.int32)
  return Batch(ids(), ids(), positions, segments, rng.random((B, T), np.float32))


def main(coordinator: str, processes: int, process: int, directory: str, workdir: str, steps: int) -> None:
  import jax
  from jax.experimental import multihost_utils

  from vibethinker_jax import distributed
  from vibethinker_jax.config import TINY_BASE
  from vibethinker_jax.data import synthetic
  from vibethinker_jax.data.augment import solved
  from vibethinker_jax.data.tokenizer import load_chat_tokenizer
  from vibethinker_jax.model import hf
  from vibethinker_jax.model.mesh import MeshShape, make_mesh, spread_rows
  from vibethinker_jax.train import sft
  from vibethinker_jax.train.metric_writer import MetricWriter
  from vibethinker_jax.train.optim import Optim
  from vibethinker_jax.train.state import gradient_adder

  distributed.join(coordinator, processes, process)
  workdir = pathlib.Path(workdir)
  mesh = make_mesh(MeshShape(fsdp=8))
  with jax.set_mesh(mesh):
    model = hf.load(directory, mesh=mesh)
    batch = spread_rows(packed_batch(8, 4096, model.config.V))
    (gradient, count), metrics = gradient_adder(sft.loss)(None, model, batch)
    found = [metrics['loss_sum'] / count, *jax.tree.leaves(gradient)]
    found = [multihost_utils.process_allgather(x, tiled=True) for x in found]
    if process == 0:
      np.savez(workdir / 'gradients.npz', *found)
    settings = sft.SFT(steps, rows=8, length=128, accumulation=1, save_every=steps, optim=Optim(1e-2, end=1.0))
    rows, tokenizer = solved(synthetic.problems('algebra', 'train', 40, seed=0)), load_chat_tokenizer(TINY_BASE)
    writer = MetricWriter(workdir / 'metrics.jsonl')
    state = sft.run(settings, 'sft', model, rows, tokenizer, workdir / 'sft', writer, 0)
    hf.save(state.model, workdir / 'final', None)


if __name__ == '__main__':
  processes = int(sys.argv[2])
  devices = f'--xla_force_host_platform_device_count={8 // processes}'
  os.environ['XLA_FLAGS'] = f'{devices} --xla_backend_optimization_level=0'
  main(sys.argv[1], processes, int(sys.argv[3]), *sys.argv[4:6], int(sys.argv[6]))
