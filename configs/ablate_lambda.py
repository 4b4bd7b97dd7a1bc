"""What MGPO's lambda does, on the shipped tiny base: lambda x seeds from one fused start.

python experiments/ablate_lambda.py --config=configs/ablate_lambda.py --workdir=runs/lambda             # 10 minutes
python experiments/ablate_lambda.py --config=configs/ablate_lambda.py:controls --workdir=runs/controls   # 24 points

docs/findings.md has what came out. Every value here is ours.
"""

from ml_collections import ConfigDict

MATH = ('algebra', 'geometry', 'calculus', 'statistics')
CONTROLS = (
  dict(name='lambda 2, rescaled', mgpo=dict(lam=2.0, rescale=True)),  # MGPO without its shorter step
  dict(name='Dr. GRPO', mgpo=dict(lam=0.0, std_normalize=False, aggregate='token')),
  dict(name='4p(1-p)', mgpo=dict(lam=0.0, weight='variance')),
  dict(name='hard band', mgpo=dict(lam=0.0, weight='band', band=(0.25, 0.75))),
  # half the questions a step and as many again where groups have no signal: about the same number of rollouts
  dict(name='dynamic sampling', mgpo=dict(lam=0.0, refills=1), rl=dict(prompts=16)),
)


def get_config(preset: str = 'lambda') -> ConfigDict:
  """`preset`: 'lambda' or 'controls', as above."""
  config = ConfigDict()
  config.name = f'ablation: {preset}'
  config.seed = 0
  config.ablation = dict(
    lambdas=(0.0, 1.0, 2.0, 4.0) if preset == 'lambda' else (0.0, 1.0, 2.0),
    seeds=(0, 1, 2),
    controls=() if preset == 'lambda' else CONTROLS,
  )
  config.model = dict(path='', unroll=4)
  config.mesh = dict(data=2, fsdp=1, seq=1, tensor=1)  # CPU devices: one a core
  config.data = dict(source='synthetic', domains=MATH, extra_domains=(), train=1000, probe=32, test=64)
  config.experts = 'one_run'
  config.sft = dict(
    steps=80,
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
    save_every=11,
    optim=dict(learning_rate=1.8e-4, warmup=3, end=1.0, b2=0.95),
    stages=(dict(name='math', domains=MATH, steps=22, max_tokens=64),),
  )
  config.engine = dict(rows=256, block=32)
  config.evaluate = dict(samples=8, k=8, max_tokens=80)
  config.cost = dict(price_per_hour=0.1)
  return config
