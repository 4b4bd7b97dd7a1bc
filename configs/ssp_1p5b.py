"""The real run: Qwen2.5-Math-1.5B to VibeThinker-1.5B on 64 accelerators (a TPU v5p-128 slice, or A100-80G).

  python experiments/ssp.py --config=configs/ssp_1p5b.py --workdir=DIR --config.start.path=QWEN_DIR

Published (arXiv 2511.06221): the base, four mathematical sub-domains and their fusion by 1/N, MGPO's formulas with
p0 = 0.5, mathematics at 16K, then at 32K, then code. Everything marked `ours` was not published: a guess to start
from, and a field to ablate. Nothing of this config has been run to its end by us.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.name = 'ssp_1p5b'
  config.seed = 0
  config.start = dict(
    path=ml_collections.config_dict.placeholder(str),  # a Qwen2.5-Math-1.5B directory
    rope_theta=1e6,  # ours: the base's 1e4 with 4,096 positions does not reach 32K
    positions=40960,
    param_dtype='float32',
    dtype='bfloat16',
    attention='splash',
    remat='full',
    logit_chunk=1024,
  )
  config.mesh = dict(data=1, fsdp=16, seq=4, tensor=1)
  config.data = dict(
    source='files',
    form='problems',
    train_files=('data/train.jsonl',),
    test_files=('data/test.jsonl',),
    domains=('algebra', 'geometry', 'calculus', 'statistics'),
    others=('code',),
    train=1_000_000,
    probe=128,  # ours
    test=512,
  )
  config.experts = 'one_run'  # as the report reads
  config.sft = dict(
    steps=6000,  # ours
    rows=32,  # ours: 32 rows x 32,768 tokens = 1M tokens a step
    length=32768,
    accumulation=1,
    save_every=500,  # ours: the report's k
    optim=dict(learning_rate=5e-5, warmup=300, end=0.0016, weight_decay=0.0),  # the 3B report's
  )
  config.probe = dict(samples=16, k=8, max_tokens=16384)  # ours
  config.fusion = dict(weights=())  # published: 1/N
  config.mgpo = dict(
    lam=2.0,  # ours; every lambda on the web is a guess
    p0=0.5,  # published
    clip_low=0.2,  # ours
    clip_high=0.28,  # ours
    aggregate='sequence',  # published
    kl=0.0,  # none printed
    refills=0,
    updates=1,  # ours; strictly on-policy, as the 3B report says
  )
  config.rl = dict(
    prompts=64,  # ours
    group=16,  # ours
    temperature=1.0,
    micro_rows=64,
    save_every=10,
    optim=dict(learning_rate=1e-6, warmup=5, end=1.0),  # ours
    stages=(  # lengths published, steps ours
      dict(
        name='math_16k', domains=('algebra', 'geometry', 'calculus', 'statistics'), steps=400, max_tokens=16384 - 1024
      ),
      dict(
        name='math_32k', domains=('algebra', 'geometry', 'calculus', 'statistics'), steps=400, max_tokens=32768 - 1024
      ),
      dict(name='code', domains=('code',), steps=200, max_tokens=32768 - 1024),
    ),
  )
  config.engine = dict(rows=1024, block=128)
  config.evaluate = dict(samples=16, k=8, max_tokens=32768, temperature=1.0, top_p=0.95)
  config.cost = dict(
    price_per_hour=2.0,
    devices=64,
    prices=dict(v5e=1.2, v5p=4.2, v6e=2.7, a100=2.0, h100=3.0, h200=3.5),  # on demand, roughly, in 2025
    response=8192,  # ours: what the plan takes a response to have on average
    sizes=dict(V=151936, D=1536, L=28, K=2, G=6, H=128, F=8960, positions=4096),  # what the plan takes the base to be
  )
  return config
