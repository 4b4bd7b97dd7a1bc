"""configs/tiny.py, with everything in it and little of it. Configs of other processes import it: jax does not start."""

import importlib.util
import pathlib

from vibethinker_jax.config import TINY_BASE

ROOT = pathlib.Path(__file__).parents[1]


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
