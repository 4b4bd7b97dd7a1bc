"""A small run of the whole pipeline: what the tests of the pipeline share."""

import dataclasses
import importlib.util
import os
import pathlib

import jax

from vibethinker_jax.config import TINY_BASE, RunConfig
from vibethinker_jax.config_io import freeze

ROOT = pathlib.Path(__file__).parents[1]
TWO = jax.devices()[:2]  # the session has eight
DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', ROOT.parent / 'shared' / 'data'))


def config(name):
  spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def shrink(c):
  """configs/tiny.py, with everything in it and little of it."""
  c.model = dict(random=dict(V=512, D=16, L=2, K=2, G=2, H=4, F=32, positions=512), tokenizer=str(TINY_BASE))
  c.data.update(train=20, probe=4, test=4)
  c.sft.update(steps=6, save_every=2, rows=4)
  c.probe.update(samples=2, k=2, max_tokens=8)
  c.evaluate.update(samples=2, k=2, max_tokens=8)
  c.rl.update(prompts=2, num_generations=4, micro_rows=8, share=4, save_every=2)
  c.rl.stages = tuple(dict(stage, steps=3, max_tokens=8) for stage in c.rl.stages)
  c.engine.update(rows=16, block=8)
  return c


def small_settings() -> RunConfig:
  return freeze(RunConfig, shrink(config('tiny')))


def with_(settings, **parts):
  """RunConfig with fields of their parts replaced: with_(s, rl=dict(prompts=3))."""
  return dataclasses.replace(
    settings, **{part: dataclasses.replace(getattr(settings, part), **fields) for part, fields in parts.items()}
  )
