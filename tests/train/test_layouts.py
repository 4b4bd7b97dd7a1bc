"""One computation, laid out in different ways: over devices, over processes, and taken up again by others."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from process import packed_batch

from vibethinker_jax.model import hf
from vibethinker_jax.model.mesh import MeshShape, make_mesh, place, spread_rows
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.train import sft
from vibethinker_jax.train.optim import Optim, optimizer
from vibethinker_jax.train.state import Checkpoints, gradient_adder, start, updater

ROOT = pathlib.Path(__file__).parents[2]
T = 4096
add = gradient_adder(sft.loss)


def value(model, batch) -> list[np.ndarray]:
  """Mean loss and gradient sums."""
  (gradient, count), metrics = add(None, model, spread_rows(batch))
  return [np.asarray(x) for x in (metrics['loss_sum'] / count, *jax.tree.leaves(gradient))]


def close(got, wanted) -> None:
  for a, b in zip(got, wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.fixture(scope='module')
def model(tokenizer):
  c = Config(V=len(tokenizer.hf), D=16, L=1, K=2, G=1, H=4, F=16)
  return jax.jit(lambda key: Qwen2(c, key))(jax.random.key(0))


@pytest.fixture(scope='module')
def alone(model):
  return value(model, packed_batch(8, T, model.config.V))


@pytest.mark.slow
def test_meshes(model, alone):
  """4,096 tokens of two documents a row: the loss and every gradient of one device, on every mesh."""
  batch = packed_batch(8, T, model.config.V)
  for sizes in (MeshShape(fsdp=8), MeshShape(fsdp=2, seq=4), MeshShape(fsdp=4, tensor=2)):
    mesh = make_mesh(sizes)
    with jax.set_mesh(mesh):
      close(value(place(model, mesh), batch), alone)


@pytest.mark.slow
def test_a_checkpoint_goes_on_on_another_mesh(model, tmp_path):
  batch = packed_batch(8, 64, model.config.V)
  transform = optimizer(Optim(1e-2, end=1.0), 10)
  losses = []
  for sizes in (None, MeshShape(fsdp=8), MeshShape(fsdp=2, seq=2, tensor=2)):
    mesh = make_mesh(sizes or MeshShape(), None if sizes else jax.devices()[:1])
    with jax.set_mesh(mesh):
      state, checkpoints = start(place(model, mesh), transform), Checkpoints(tmp_path)
      if sizes is None:
        sums, _ = add(None, state.model, spread_rows(batch))
        state, _ = updater(transform)(state, sums)
        checkpoints.begin_save(state, {})
      state, _ = checkpoints.restore(state)
      checkpoints.close()
      assert state.model.embed[...].sharding.mesh.shape == mesh.shape and int(state.step) == 1
      losses.append(value(state.model, batch)[0])
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def run(processes: int, directory, workdir, steps: int) -> None:
  workdir.mkdir()
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  command = [sys.executable, ROOT / 'tests/train/process.py', address, str(processes)]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  arguments = lambda i: [*command, str(i), directory, workdir, str(steps)]
  running = [subprocess.Popen(arguments(i), env=environment) for i in range(processes)]
  try:
    assert [p.wait(timeout=1200) for p in running] == [0] * processes
  finally:
    for p in running:
      p.kill()


def losses(workdir) -> list[float]:
  return [json.loads(line)['loss'] for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
def test_processes(model, alone, tmp_path, processes):
  """The same loss and gradients, metrics and model written once; one process takes up what several have saved."""
  hf.save(model, tmp_path / 'model', None)
  run(processes, tmp_path / 'model', tmp_path / 'run', 3)
  with np.load(tmp_path / 'run' / 'gradients.npz') as found:
    close([found[name] for name in found.files], alone)
  assert len(losses(tmp_path / 'run')) == 3
  transform = optimizer(Optim(1e-2, end=1.0), 3)
  checkpoints = Checkpoints(tmp_path / 'run' / 'sft')
  state, _ = checkpoints.restore(start(model, transform))
  checkpoints.close()
  final = hf.load(tmp_path / 'run' / 'final')
  for a, b in zip(jax.tree.leaves(state.model), jax.tree.leaves(final), strict=True):
    np.testing.assert_array_equal(a, b)
