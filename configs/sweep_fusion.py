"""Fusion weights over the simplex of four domain experts, on the shipped tiny base: 35 points and 12 controls.

python experiments/sweep_fusion.py --config=configs/sweep_fusion.py --workdir=runs/fusion

The config is configs/tiny.py with the changes below. Each domain has its own SFT run: in one run, all domains chose
nearly the same checkpoint, and mixtures of equal experts are all one model. docs/findings.md has the results. Every
value here is ours.
"""

from ml_collections import ConfigDict
from tiny import MATH
from tiny import get_config as tiny


def get_config() -> ConfigDict:
  config = tiny()
  config.name = 'fusion weights'
  config.simplex = dict(search='grid', parts=4)
  config.data.extra_domains = ()
  config.experts = 'per_domain'
  config.sft.update(steps=60, save_every=20)
  config.sft.optim.warmup = 6
  # of the run that continues from the winner: experiments/ssp.py with --config.fusion.weights
  config.rl.stages = (dict(name='math', domains=MATH, steps=30, max_tokens=64),)
  return config
