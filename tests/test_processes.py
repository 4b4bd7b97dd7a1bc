"""The pipeline as several processes on one machine: the same numbers, and one SIGTERM stops them all."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from vibethinker_jax import distributed
from vibethinker_jax.config import TINY_BASE

ROOT = pathlib.Path(__file__).parents[1]
DEVICES = 4
CONFIG = f"""
import importlib.util

spec = importlib.util.spec_from_file_location('tiny', {str(ROOT / 'configs' / 'tiny.py')!r})
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


def get_config():
  c = tiny.get_config()
  c.model.unroll = 1
  c.mesh.update(data=1, fsdp={DEVICES})
  c.data.update(domains=('algebra', 'statistics'), extra_domains=(), train=40, probe=5, test=3)
  c.sft.update(steps=30, save_every=15, rows=4)
  c.probe.update(samples=2, k=2, max_tokens=32)
  c.evaluate.update(samples=2, k=2, max_tokens=32)
  c.rl.update(prompts=5, num_generations=4, micro_rows=8, share=2, save_every=3)
  c.rl.stages = (dict(name='math', domains=('algebra', 'statistics'), steps=6, max_tokens=48),)
  c.mgpo.update(kl_coef=0.01)
  c.engine.update(rows=16, block=16)
  return c
"""


class Run:
  """`processes` of a program over one workdir: experiments/ssp.py with CONFIG, or another with its flags."""

  def __init__(self, processes: int, folder: pathlib.Path, workdir: pathlib.Path, program: str = 'ssp', flags=()):
    (folder / 'config.py').write_text(CONFIG)
    flags = flags or [f'--config={folder / "config.py"}']
    command = [f'experiments/{program}.py', f'--workdir={workdir}', *flags]
    if processes > 1:
      with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        command += [f'--coordinator=127.0.0.1:{free.getsockname()[1]}', f'--processes={processes}']
    environment = os.environ | {
      'PYTHONPATH': str(ROOT),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_backend_optimization_level=0',
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
    }
    self.workdir = workdir
    self.running = []
    for i in range(processes):
      which = [f'--process={i}'] if processes > 1 else []
      self.running.append(
        subprocess.Popen(
          [sys.executable, *command, *which], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
      )

  def finish(self) -> list[str]:
    """What each said at its end, once all have ended well."""
    try:
      said = [p.communicate(timeout=1200)[1] for p in self.running]
      assert [p.returncode for p in self.running] == [0] * len(said), '\n'.join(said)
      return said
    finally:
      for p in self.running:
        p.kill()

  def reach(self, stage: str, step: int) -> None:
    """Wait for this row of metrics."""
    path, mark = self.workdir / 'metrics.jsonl', json.dumps({'stage': stage, 'step': step})[:-1] + ','
    while not (path.exists() and mark in path.read_text()):
      assert all(p.poll() is None for p in self.running), self.finish()
      time.sleep(0.01)


def rows(workdir: pathlib.Path) -> list[dict]:
  """metrics.jsonl without what a clock has said."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  clocks = ('seconds', 'tokens_per_s')
  return [{k: v for k, v in json.loads(line).items() if not k.startswith(clocks)} for line in lines]


def test_a_workdir_that_is_not_shared(monkeypatch, tmp_path):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed, 'barrier', lambda what: None)
  monkeypatch.setattr(distributed, '_PATIENCE_S', 0.2)
  (tmp_path / 'there').touch()
  distributed.wait_for_file(tmp_path / 'there')
  with pytest.raises(distributed.NotShared, match='missing: written by the first process and not seen by another'):
    distributed.wait_for_file(tmp_path / 'missing')


def test_an_interruption_that_was_dropped_is_raised_again():
  """As when Ctrl-C falls into a callback of the garbage collector."""
  signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background have none
  stop = distributed.Stop()
  with stop:
    assert not stop() and not stop.asked()
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    for ask in (stop, stop.asked):
      with pytest.raises(KeyboardInterrupt):
        ask()
  with stop:
    assert not stop() and not stop.asked()
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_much_is_gathered_in_pieces(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed, '_PIECE', 64)
  asked = []
  both = lambda x: asked.append(np.size(x)) or np.stack([x, x])
  monkeypatch.setattr(multihost_utils, 'process_allgather', both)
  value = {'text': 'x' * 500, 'n': 3}
  assert distributed.gather(value) == [value, value] and len(asked) > 10 and max(asked) == 64
  assert distributed.gather(None) == [None, None]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('processes')


@pytest.fixture(scope='module')
def two(folder):
  Run(2, folder, folder / 'two').finish()
  return folder / 'two'


@pytest.mark.slow
def test_one_process_or_two(folder, two):
  """Losses, drawn tokens, verdicts: nothing depends on who computes. Everything is written once."""
  Run(1, folder, folder / 'one').finish()
  one = folder / 'one'
  ours, theirs = rows(two), rows(one)
  assert [(r['stage'], r['step']) for r in ours] == [(r['stage'], r['step']) for r in theirs]
  assert [r['step'] for r in ours] == [*range(1, 31), *range(1, 7)]
  assert any(0 < r['pass_rate'] < 1 for r in ours[30:])
  for a, b in zip(ours, theirs):
    for name, tolerance in (('loss', 1e-3), ('grad_norm', 1e-3), ('entropy', 1e-3), ('tokens', 0), ('pass_rate', 0)):
      if name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance / 10, err_msg=f'{a} {name}')
  files = sorted(p.relative_to(one) for p in one.rglob('*.json') if p.parent.name in ('all', 'evaluate'))
  assert len(files) > 6
  for name in files:
    assert json.loads((one / name).read_text()) == json.loads((two / name).read_text()), name
  assert (two / 'report.html').exists() and not list(two.rglob('.*'))


@pytest.mark.slow
def test_sigterm_to_one_of_two(folder, two):
  """In the middle of SFT and of RL: both save and exit 0; started again, the run ends with the same bits."""
  cut = folder / 'cut'
  for stage, step in (('sft/all', 5), ('rl/math', 2)):
    run = Run(2, folder, cut)
    run.reach(stage, step)
    run.running[1].send_signal(signal.SIGTERM)
    said = run.finish()
    assert all(f'{stage}: saved after step' in text for text in said), said
    assert not (cut / 'final').exists()
  Run(2, folder, cut).finish()
  assert rows(cut) == rows(two)
  final = pathlib.Path('final') / 'model.safetensors'
  assert (cut / final).read_bytes() == (two / final).read_bytes()


@pytest.mark.slow
def test_evaluation_killed_and_taken_up_by_another_number(folder):
  """Two processes draw, and are killed; one goes on: every file as one process alone writes it."""
  problems = folder / 'problems.jsonl'
  rows = [{'id': i, 'problem': f'What is {i} + {i}?', 'answer': str(2 * i)} for i in range(12)]
  problems.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  flags = ['--config=configs/evaluate.py', f'--config.model={TINY_BASE}', '--config.benchmarks=("aime24",)']
  flags += ['--config.n=8', '--config.max_tokens=64', '--config.rows=4', '--config.dtype=float32']
  flags += [f'--config.files.aime24={problems}']
  run = lambda processes, name: Run(processes, folder, folder / name, 'evaluate', flags)
  names = ('samples.jsonl', 'summary.json', 'table.md')
  read = lambda name: [(folder / name / 'aime24' / file).read_bytes() for file in names]
  run(1, 'one').finish()
  run(2, 'both').finish()
  assert read('both') == read('one')

  cut = run(2, 'cut')
  parts = [folder / 'cut' / 'aime24' / name for name in ('samples.jsonl', 'samples.1.jsonl')]
  while not all(part.exists() and part.read_bytes().count(b'\n') > 2 for part in parts):
    assert all(p.poll() is None for p in cut.running), cut.finish()
    time.sleep(0.005)
  for p in cut.running:
    p.kill()
  for p in cut.running:
    p.wait()
  drawn = sum(part.read_bytes().count(b'\n') for part in parts)
  assert drawn < 96
  run(1, 'cut').finish()
  assert read('cut') == read('one') and not parts[1].exists()
