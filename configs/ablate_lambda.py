"""What MGPO's lambda does, on the shipped tiny base: runs for each lambda and each seed from one fused start.

python experiments/ablate_lambda.py --config=configs/ablate_lambda.py --workdir=runs/lambda             # 10 minutes
python experiments/ablate_lambda.py --config=configs/ablate_lambda.py:controls --workdir=runs/controls   # 24 points

The config is configs/tiny.py with the changes below; docs/findings.md has the results. Every value here is ours.
"""

from ml_collections import ConfigDict
from tiny import MATH
from tiny import get_config as tiny

CONTROLS = (
  dict(name='lambda 2, rescaled', mgpo=dict(lam=2.0, rescale=True)),  # MGPO without its shorter step
  dict(name='Dr. GRPO', mgpo=dict(lam=0.0, std_normalize=False, aggregate='token')),
  dict(name='4p(1-p)', mgpo=dict(lam=0.0, weight='variance')),
  dict(name='hard band', mgpo=dict(lam=0.0, weight='band', band=(0.25, 0.75))),
  # half the questions in a step, and as many again where groups have no signal: about the same number of rollouts
  dict(name='dynamic sampling', mgpo=dict(lam=0.0, refills=1), rl=dict(prompts=16)),
)


def get_config(preset: str = 'lambda') -> ConfigDict:
  """`preset`: 'lambda' or 'controls', as above."""
  config = tiny()
  config.name = f'ablation: {preset}'
  config.ablation = dict(
    lambdas=(0.0, 1.0, 2.0, 4.0) if preset == 'lambda' else (0.0, 1.0, 2.0),
    seeds=(0, 1, 2),  # of RL
    controls=() if preset == 'lambda' else CONTROLS,
  )
  config.data.extra_domains = ()
  config.sft.steps = 80
  config.rl.update(save_every=11, stages=(dict(name='math', domains=MATH, steps=22, max_tokens=64),))
  return config
