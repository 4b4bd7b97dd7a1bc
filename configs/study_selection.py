"""Does the wider spectrum end higher after RL? Three rules choose its start, on the shipped tiny base.

python experiments/study_selection.py --config=configs/study_selection.py --workdir=runs/selection

SFT is long here for the number of its problems, so that Pass@1 still rises while Pass@K may no longer. Every value is
ours; docs/findings.md has what came out.
"""

from ml_collections import ConfigDict

MATH = ('algebra', 'geometry', 'calculus', 'statistics')


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.name = 'selection of the start'
  config.seed = 0
  config.selection = dict(seeds=(0, 1, 2))
  config.model = dict(path='', unroll=4)
  config.mesh = dict(data=2, fsdp=1, seq=1, tensor=1)  # CPU devices: one a core
  config.data = dict(source='synthetic', domains=MATH, extra_domains=(), train=100, probe=64, test=64)
  config.experts = 'one_run'
  config.sft = dict(
    steps=160,
    rows=28,
    length=112,
    accumulation=1,
    save_every=20,
    optim=dict(learning_rate=2e-3, warmup=10, end=0.1),
  )
  config.probe = dict(samples=8, k=8, max_tokens=64)
  config.fusion = dict(weights=())
  config.mgpo = dict(lam=1.0, clip_low=0.2, clip_high=0.28)
  config.rl = dict(
    prompts=32,
    num_generations=8,
    temperature=1.0,
    micro_rows=64,
    share=8,
    save_every=11,
    optim=dict(learning_rate=1.8e-4, warmup=3, end=1.0, b2=0.95),
    stages=(dict(name='math', domains=MATH, steps=22, max_tokens=64),),
  )
  config.engine = dict(rows=256, block=32)
  config.evaluate = dict(samples=8, k=8, max_tokens=80)
  config.cost = dict(price_per_hour=0.1)
  return config
