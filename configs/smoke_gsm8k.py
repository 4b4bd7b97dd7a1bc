"""All stages on real text, with a real vocabulary: GSM8K and the Qwen2.5 tokenizer, in a few minutes.

  python experiments/ssp.py --config=configs/smoke_gsm8k.py --workdir=runs/smoke_gsm8k

The model is a small Qwen2 with random weights, which solves nothing. DATA is the folder of the data files; set
VIBETHINKER_DATA where it is not ../shared/data. Measured: 2 minutes 28 seconds on 2 cores.
"""

import os

import ml_collections

DATA = os.environ.get('VIBETHINKER_DATA', '../shared/data')


def get_config():
  config = ml_collections.ConfigDict()
  config.name = 'smoke_gsm8k'
  config.seed = 0
  config.model = dict(
    random=dict(V=151936, D=64, L=2, K=2, G=2, H=16, F=128, rope_theta=1e6, positions=1024),
    tokenizer=f'{DATA}/qwen2.5-tokenizer',
    logit_chunk=64,
    unroll=2,
  )
  config.mesh = dict(data=1, fsdp=1, seq=1, tensor=1)
  config.data = dict(
    source='files',
    train_files=(dict(path=f'{DATA}/gsm8k/train.jsonl', reader='gsm8k'),),
    test_files=(dict(path=f'{DATA}/gsm8k/test.jsonl', reader='gsm8k'),),
    domains=('algebra',),
    extra_domains=(),
    train=64,
    probe=4,
    test=4,
  )
  config.experts = 'one_run'
  config.sft = dict(
    steps=6,
    rows=1,
    length=384,
    accumulation=2,
    save_every=3,
    optim=dict(learning_rate=1e-3, warmup=2, end=0.1),
  )
  config.probe = dict(samples=4, k=4, max_tokens=32)
  config.fusion = dict(weights=())
  config.mgpo = dict(lam=1.0)
  config.rl = dict(
    prompts=2,
    num_generations=4,
    temperature=1.0,
    micro_rows=4,
    share=2,
    save_every=1,
    optim=dict(learning_rate=1e-4, warmup=1, end=1.0),
    stages=(
      dict(name='math_16k', domains=('algebra',), steps=2, max_tokens=32),
      dict(name='math_32k', domains=('algebra',), steps=2, max_tokens=64),
    ),
  )
  config.engine = dict(rows=16, block=32)
  config.evaluate = dict(samples=4, k=4, max_tokens=64)
  config.cost = dict(price_per_hour=0.1)
  return config
