"""The tiny base, Qwen2.5-Math-1.5B's part in the embedded world: knows the formats, has read careless text.

python experiments/pretrain_tiny.py --config=configs/pretrain_tiny.py --workdir=runs/pretrain_tiny
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.model = dict(V=512, D=128, L=4, K=2, G=2, H=32, F=384, rope_theta=10000.0, positions=4096, unroll=4)
  config.corpus = dict(
    n=100_000,
    tokenizer_lines=4000,
    slip_rate=0.4,  # share of solutions with an error in them, as on the web
    path_weights=dict(  # mostly careless: the base has seen the reliable paths, and seldom takes them
      mental=6.0,
      steps=1.5,
      split=1.0,
      factor=0.5,
      sum=0.5,
      area=0.5,
      base=0.5,
      drop=0.5,
      literal=1.5,
      loop=0.5,
    ),
  )
  config.sft = dict(
    steps=1500,
    rows=28,
    length=112,
    accumulation=1,
    save_every=200,
    optim=dict(learning_rate=2e-3, warmup=60, end=0.02, weight_decay=0.01),
  )
  return config
