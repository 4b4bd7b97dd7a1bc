"""The tiny base, which takes the place of Qwen2.5-Math-1.5B in the embedded world.

python experiments/pretrain_tiny.py --config=configs/pretrain_tiny.py --workdir=runs/pretrain_tiny
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.model = dict(V=512, D=128, L=4, K=2, G=2, H=32, F=384, rope_theta=10000.0, positions=4096, unroll=4)
  config.corpus = dict(
    n=150_000,
    tokenizer_lines=4000,
    slip_rate=0.25,  # the share of solutions with an error, as on the web
    practice=0.25,  # the share of lines of arithmetic
    # careless paths are the most frequent: the base knows the reliable paths, and does not prefer them
    path_weights=dict(
      mental=3.0,
      steps=2.0,
      split=2.0,
      factor=0.7,
      sum=0.7,
      area=0.7,
      base=0.7,
      drop=0.7,
      literal=1.5,
      loop=0.7,
    ),
  )
  config.sft = dict(
    steps=1200,  # half of the decay; after all of it, the base would solve a third of the problems at the first attempt
    rows=28,
    length=112,
    accumulation=1,
    save_every=300,
    optim=dict(learning_rate=2.5e-3, warmup=80, end=0.02, weight_decay=0.01, horizon=2400),
  )
  return config
