"""The embedded default: the whole method on a 0.85M Qwen2 and the embedded world, on a laptop's CPU.

python experiments/ssp.py --config=configs/tiny.py --workdir=runs/tiny

Measured with seed 0, mathematics pooled: Pass@8 .418 (base) -> .770 (fused), Pass@1 .249 (fused) -> .459 (RL); code
Pass@1 .613 -> .871. 3 minutes 48 seconds on 2 idle cores of 190-210 GFLOP/s. Every value here is ours.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.name = 'tiny'
  config.seed = 0
  config.model = dict(path='', unroll=4)
  config.mesh = dict(data=2, fsdp=1, seq=1, tensor=1)  # CPU devices: one a core
  config.data = dict(
    source='synthetic',
    domains=('algebra', 'geometry', 'calculus', 'statistics'),
    extra_domains=('code',),
    train=1000,
    probe=32,
    test=64,
  )
  config.experts = 'one_run'
  config.sft = dict(
    steps=160,
    rows=28,
    length=112,
    accumulation=1,
    save_every=40,
    optim=dict(learning_rate=1e-3, warmup=10, end=0.1),
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
    save_every=10,
    optim=dict(learning_rate=1.8e-4, warmup=3, end=1.0, b2=0.95),
    stages=(
      dict(name='math_short', domains=('algebra', 'geometry', 'calculus', 'statistics'), steps=22, max_tokens=48),
      dict(name='math_long', domains=('algebra', 'geometry', 'calculus', 'statistics'), steps=26, max_tokens=96),
      dict(name='code', domains=('code',), steps=6, max_tokens=96),
    ),
  )
  config.engine = dict(rows=256, block=32)
  config.evaluate = dict(samples=8, k=8, max_tokens=80)
  config.cost = dict(price_per_hour=0.1)
  return config
