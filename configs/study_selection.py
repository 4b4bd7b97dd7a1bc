"""Does RL end higher when its start has a higher Pass@K? Three rules choose the start, on the shipped tiny base.

python experiments/study_selection.py --config=configs/study_selection.py --workdir=runs/selection

The config is configs/tiny.py with the changes below. SFT is long for the number of its problems, so that Pass@1 still
rises when Pass@K no longer does. Every value is ours; docs/findings.md has the results.
"""

from ml_collections import ConfigDict
from tiny import MATH
from tiny import get_config as tiny


def get_config() -> ConfigDict:
  config = tiny()
  config.name = 'selection of the start'
  config.selection = dict(seeds=(0, 1, 2))  # of RL
  config.data.update(extra_domains=(), train=100, probe=64)
  config.sft.save_every = 20
  config.sft.optim.learning_rate = 2e-3
  config.rl.update(save_every=11, stages=(dict(name='math', domains=MATH, steps=22, max_tokens=64),))
  return config
