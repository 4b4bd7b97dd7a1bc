"""Fusion weights over the simplex of four domain experts, on the shipped tiny base: 35 points and 12 controls.

python experiments/sweep_fusion.py --config=configs/sweep_fusion.py --workdir=runs/fusion

Each domain has an SFT run of its own here: from one run all domains chose nearly the same checkpoint, and a mixture of
equal experts has no map. docs/findings.md has what came out. Every value here is ours.
"""

from ml_collections import ConfigDict

MATH = ('algebra', 'geometry', 'calculus', 'statistics')


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.name = 'fusion weights'
  config.seed = 0
  config.simplex = dict(search='grid', parts=4)
  config.model = dict(path='', unroll=4)
  config.mesh = dict(data=2, fsdp=1, seq=1, tensor=1)  # CPU devices: one a core
  config.data = dict(source='synthetic', domains=MATH, extra_domains=(), train=1000, probe=32, test=64)
  config.experts = 'per_domain'
  config.sft = dict(
    steps=60,
    rows=28,
    length=112,
    accumulation=1,
    save_every=20,
    optim=dict(learning_rate=1e-3, warmup=6, end=0.1),
  )
  config.probe = dict(samples=8, k=8, max_tokens=64)
  config.fusion = dict(weights=())
  # what follows is for the run that goes on with the winner: experiments/ssp.py with --config.fusion.weights
  config.mgpo = dict(lam=1.0, clip_low=0.2, clip_high=0.28)
  config.rl = dict(
    prompts=32,
    num_generations=8,
    temperature=1.0,
    micro_rows=64,
    share=8,
    save_every=10,
    optim=dict(learning_rate=1.8e-4, warmup=3, end=1.0, b2=0.95),
    stages=(dict(name='math', domains=MATH, steps=30, max_tokens=64),),
  )
  config.engine = dict(rows=256, block=32)
  config.evaluate = dict(samples=8, k=8, max_tokens=80)
  config.cost = dict(price_per_hour=0.1)
  return config
