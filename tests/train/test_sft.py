"""SFT: what is learned from, that everything learns, that accumulation and interruption change nothing."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from vibethinker_jax.data.augment import solved
from vibethinker_jax.data.batches import Batch, PackedDataset
from vibethinker_jax.data.problem import Problem, Solution
from vibethinker_jax.data.tokenizer import render
from vibethinker_jax.distributed import Stopped
from vibethinker_jax.train import sft
from vibethinker_jax.train.alarm import Alarm
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.optim import Optim, optimizer
from vibethinker_jax.train.state import Checkpoints, Diverged, gradient_adder, start, updater

SETTINGS = sft.SFT(steps=6, rows=2, length=128, accumulation=2, save_every=3, optim=Optim(1e-2, warmup=2, end=0.1))


def train(settings, model, algebra, tokenizer, folder, **stop):
  return sft.run(
    settings, 'sft', model, solved(algebra), tokenizer, folder / 'sft', MetricWriter(folder / 'm.jsonl'), 0, **stop
  )


def same(a, b) -> bool:
  return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_render_weighs_the_response_only(tokenizer):
  problem = Problem('1', 'algebra', 'Find x.', answer='12')
  solution = Solution('x = 4 + 8 = \\boxed{12}', key_spans=((12, 23, 3.0),))
  row = render(tokenizer, problem, solution)
  prompt = len(tokenizer.prompt(problem))
  assert row['tokens'][1:].tolist() == row['targets'][:-1].tolist()
  assert (row['weights'][: prompt - 1] == 0).all() and (row['weights'][prompt - 1 :] > 0).all()
  assert tokenizer.hf.decode(row['targets'][row['weights'] > 0]) == solution.text + '<|im_end|>'
  assert tokenizer.hf.decode(row['targets'][row['weights'] == 3]).strip() == '\\boxed{12}'
  assert row['tokens'][:prompt].tolist() == tokenizer.prompt(problem)


def test_packing_keeps_sequences_apart_and_whole(tokenizer, algebra):
  rows = solved(algebra)
  wanted = sorted(tuple(render(tokenizer, *row)['targets'].tolist()) for row in rows)
  data, seen = PackedDataset(rows, lambda row: render(tokenizer, *row), 4, 160, seed=1), []
  for _ in range(12):
    batch = next(data)
    for b in range(4):
      for segment in range(1, batch.segments[b].max() + 1):
        at = np.flatnonzero(batch.segments[b] == segment)
        assert (batch.positions[b, at] == np.arange(len(at))).all()
        seen.append(tuple(batch.targets[b, at].tolist()))
    assert (batch.weights[batch.segments == 0] == 0).all()
  assert set(seen) <= set(wanted) and len(set(seen)) > len(wanted) // 3


def test_packed_equals_unpacked(tokenizer, small, algebra):
  """The loss and gradient of a packed batch are those of its sequences one by one."""
  packed = next(PackedDataset(solved(algebra), lambda row: render(tokenizer, *row), 2, 160, seed=0))
  add = gradient_adder(sft.loss)
  (gradient, count), _ = add(None, small, packed)
  alone = None
  for b in range(2):
    for segment in range(1, packed.segments[b].max() + 1):
      at = packed.segments[b] == segment
      pad = lambda x, at=at, b=b: np.pad(x[b][at], (0, 160 - at.sum()))[None]
      one = Batch(*(pad(getattr(packed, f.name)) for f in dataclasses.fields(Batch)))
      alone, _ = add(alone, small, dataclasses.replace(one, segments=(one.segments > 0).astype(np.int32)))
  assert float(count) == pytest.approx(float(alone[1]), rel=1e-6)
  for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(alone[0]), strict=True):
    np.testing.assert_allclose(x, y, atol=2e-4 * float(abs(x).max()) + 1e-7)


def test_every_parameter_moves(tokenizer, small, algebra, tmp_path):
  state = train(SETTINGS, small, algebra, tokenizer, tmp_path)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), small, state.model)
  assert all(jax.tree.leaves(moved))


def test_resumed_equals_uninterrupted(tokenizer, small, algebra, tmp_path):
  whole = train(SETTINGS, small, algebra, tokenizer, tmp_path / 'whole')
  half = dataclasses.replace(SETTINGS, save_every=3)
  cut = tmp_path / 'cut'

  class Killed(Exception):
    pass

  class Dying(MetricWriter):
    def write(self, stage, step, values):
      if step == 5:
        raise Killed
      super().write(stage, step, values)

  with pytest.raises(Killed):
    sft.run(half, 'sft', small, solved(algebra), tokenizer, cut / 'sft', Dying(cut / 'm.jsonl'), 0)
  again = train(half, small, algebra, tokenizer, cut)
  assert same(whole, again)
  steps = [row['step'] for row in MetricWriter(cut / 'm.jsonl').rows('sft')]
  assert steps == list(range(1, 7))


def test_accumulation_equals_one_batch(tokenizer, small, algebra):
  data = PackedDataset(solved(algebra), lambda row: render(tokenizer, *row), 2, 128, seed=0)
  a, b = next(data), next(data)
  both = jax.tree.map(lambda x, y: np.concatenate([x, y]), a, b)
  add = gradient_adder(sft.loss)
  twice, _ = add(add(None, small, a)[0], small, b)
  once, _ = add(None, small, both)
  for x, y in zip(jax.tree.leaves(twice), jax.tree.leaves(once), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * float(abs(y).max()) + 1e-7)


def test_weight_decay_spares_norms_and_biases(small):
  small = jax.tree.map(lambda x: x + 0.1, small)  # a bias of 0 would not show it
  transform = optimizer(Optim(1.0, weight_decay=0.5, end=1.0, clip=1.0), 10)
  state = start(small, transform)
  nothing = jax.tree.map(np.zeros_like, small)
  after, _ = updater(transform)(state, (nothing, np.float32(1)))
  shrunk = jax.tree.map(lambda a, b: float(abs(b).sum()) < float(abs(a).sum()), small, after.model)
  yes = lambda param: jax.tree.leaves(param)[0]
  assert yes(shrunk.layers.wq) and yes(shrunk.layers.w_down) and yes(shrunk.embed)
  assert not yes(shrunk.layers.attention_norm) and not yes(shrunk.norm) and not yes(shrunk.layers.bq)


def test_divergence_stops_with_a_clear_line(tokenizer, small, algebra, tmp_path):
  broken = jax.tree.map(lambda x: x * float('nan'), small)
  with pytest.raises(Diverged, match='sft, step 1: loss is nan'):
    train(SETTINGS, broken, algebra, tokenizer, tmp_path)


def test_nothing_fits(tokenizer, algebra):
  with pytest.raises(ValueError, match='none of'):
    PackedDataset(solved(algebra), lambda row: render(tokenizer, *row), 2, 8, seed=0)


def test_a_damaged_checkpoint_is_skipped(tokenizer, small, algebra, tmp_path, capsys):
  """Cut in the middle of a file: said in a line, and the one before is used; the run ends with the same bits."""
  settings = dataclasses.replace(SETTINGS, steps=4, save_every=2)
  whole = train(settings, small, algebra, tokenizer, tmp_path)
  for file in (tmp_path / 'sft' / '4').rglob('*'):
    if file.is_file() and file.stat().st_size > 1000:
      file.write_bytes(file.read_bytes()[:500])
  again = train(settings, small, algebra, tokenizer, tmp_path)
  assert same(whole, again)
  assert 'sft/4: this checkpoint cannot be read' in capsys.readouterr().out
  checkpoints = Checkpoints(tmp_path / 'sft')
  assert checkpoints.steps() == [2, 4]
  checkpoints.close()


def test_told_to_stop_it_saves_and_goes_on_later(tokenizer, small, algebra, tmp_path):
  """Between two planned checkpoints; what was saved there is gone when the next is there."""
  whole = train(SETTINGS, small, algebra, tokenizer, tmp_path / 'whole')
  asked = iter([False, False, False, True])
  with pytest.raises(Stopped, match='sft: saved after step 4 of 6'):
    train(SETTINGS, small, algebra, tokenizer, tmp_path, stop=lambda: next(asked))
  assert sorted(p.name for p in (tmp_path / 'sft').iterdir() if p.name.isdigit()) == ['3', '4']
  again, checkpoints = train(SETTINGS, small, algebra, tokenizer, tmp_path), Checkpoints(tmp_path / 'sft')
  assert same(whole, again) and checkpoints.steps() == [3, 6]
  checkpoints.close()


MANY = """
import dataclasses, sys
import jax, numpy as np
from vibethinker_jax import distributed
distributed.cpu_devices(2)
from vibethinker_jax.data.batches import Batch
from vibethinker_jax.model.mesh import MeshShape, make_mesh, place, spread_rows
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.train import sft
from vibethinker_jax.train.state import gradient_adder

with jax.set_mesh(make_mesh(MeshShape(data=2))) as mesh:
  c = Config(V=64, D=16, L=2, K=2, G=2, H=8, F=32, positions=64)
  model = place(jax.jit(lambda key: Qwen2(c, key))(jax.random.key(0)), jax.sharding.get_mesh())
  ids = np.random.default_rng(0).integers(0, 64, (8, 32), np.int32)
  at, ones = np.tile(np.arange(32, dtype=np.int32), (8, 1)), np.ones((8, 32))
  batch, add = Batch(ids, ids, at, ones.astype(np.int32), ones.astype(np.float32)), gradient_adder(sft.loss)
  for _ in range(int(sys.argv[2])):
    sums = None
    for _ in range(int(sys.argv[1])):
      sums, metrics = add(sums, model, spread_rows(batch))
    print(float(sums[1]))
"""


@pytest.mark.slow
def test_many_micro_batches_do_not_starve_the_devices():
  """2,000 in an update, ten times, on two CPU devices; at 600, dispatched without waiting, all attempts hung."""
  root = pathlib.Path(__file__).parents[2]
  environment = {**os.environ, 'PYTHONPATH': str(root), 'XLA_FLAGS': ''}
  done = subprocess.run(
    [sys.executable, '-c', MANY, '2000', '10'], env=environment, capture_output=True, text=True, timeout=1200
  )
  assert done.stdout.split() == [str(2000.0 * 8 * 32)] * 10, done.stderr[-2000:]


def test_few_programs_are_in_flight(small, algebra, tokenizer, monkeypatch):
  """Of a long accumulation each waits for the one two before it."""
  batch, waited = next(PackedDataset(solved(algebra), lambda row: render(tokenizer, *row), 2, 128, seed=0)), []
  wait = jax.block_until_ready
  monkeypatch.setattr(jax, 'block_until_ready', lambda x: waited.append(x) or wait(x))
  add, sums, losses = gradient_adder(sft.loss), None, []
  for n in range(1, 7):
    sums, metrics = add(sums, small, batch)
    losses.append(metrics['loss_sum'])
    assert len(waited) == max(0, n - 2)
  assert all(a is b for a, b in zip(waited, losses))


@pytest.mark.parametrize('dtype, rate, least, most', [('float32', 1e-6, 0.99, 1), ('bfloat16', 1e-6, 0, 0.05)])
def test_an_update_that_the_weights_are_too_coarse_for_is_told(small, capsys, dtype, rate, least, most):
  """Its norm is healthy either way; the share of the weights that moved is not."""
  model = jax.tree.map(lambda x: x.astype(dtype), small)
  state = start(model, optimizer(Optim(rate), 10))
  gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), model)
  before = jax.tree.map(np.asarray, model)
  state, norms = updater(optimizer(Optim(rate), 10))(state, (gradient, jax.numpy.float32(1)))
  pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(state.model), strict=True))
  share = sum(int((a != b).sum()) for a, b in pairs) / sum(a.size for a, _ in pairs)
  assert norms['moved'] == pytest.approx(share, rel=1e-4) and least <= share <= most
  assert norms['update_norm'] > 0.5 * rate * sum(a.size for a, _ in pairs) ** 0.5
  alarm = Alarm('sft/x')
  for _ in range(2):  # said once
    alarm.look_at_update({'moved': float(norms['moved'])})
  assert capsys.readouterr().out.count('WARNING sft/x: an update changed') == (dtype == 'bfloat16')
