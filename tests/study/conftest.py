"""A sweep's config with a little of everything: a small random model over the shipped tokenizer."""

import pathlib

import pytest

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.config_io import load_config

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {
  'model': dict(random=dict(V=512, D=16, L=1, K=1, G=2, H=8, F=32, positions=512), tokenizer=str(TINY_BASE)),
  'mesh.data': 1,
  'data.domains': ('algebra', 'geometry', 'calculus'),
  'data.train': 20,
  'data.probe': 4,
  'data.test': 4,
  'experts': 'one_run',
  'sft.steps': 4,
  'sft.save_every': 2,
  'sft.rows': 4,
  'probe': dict(samples=2, k=2, max_tokens=8),
  'evaluate': dict(samples=2, k=2, max_tokens=8),
  'rl.prompts': 2,
  'rl.num_generations': 4,
  'rl.micro_rows': 8,
  'rl.share': 4,
  'rl.save_every': 1,
  'rl.stages': (dict(name='math', domains=('algebra', 'geometry', 'calculus'), steps=2, max_tokens=8),),
  'engine': dict(rows=16, block=8),
}


@pytest.fixture(scope='session')
def shrunk():
  """Changes that make any of the configs small."""
  return SMALL


@pytest.fixture(scope='session')
def small():
  """small(name, changes) -> the values of configs/<name>.py, shrunk."""
  return lambda name, **changes: load_config(ROOT / 'configs' / f'{name}.py', {**SMALL, **changes})
