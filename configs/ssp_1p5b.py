"""The real run: Qwen2.5-Math-1.5B to VibeThinker-1.5B, on a TPU slice or on GPUs; PRESETS names the machines.

  python experiments/ssp.py --config=configs/ssp_1p5b.py:v5p-64 --workdir=DIR --config.model.path=QWEN_DIR
  vibethinker plan --config=configs/ssp_1p5b.py:v5p-64 --topology v5p:4x4x4
  python experiments/ssp.py --config=configs/ssp_1p5b.py:smoke --workdir=runs/smoke_1p5b   # all stages in 1 min 18 s

The plan tells in advance whether the run fits the machine and what it costs; docs/clusters.md tells how to start it on
several hosts. This file shows every field of a run; docs/config.md has their ranges.

DATA is the folder of the MATH, GSM8K, AIME, MBPP and HumanEval files; set VIBETHINKER_DATA where it is not
../shared/data. `:smoke` keeps data, stages and tokenizer, with a small Qwen2 of random weights and few steps.
Published (arXiv 2511.06221): the base, four mathematical sub-domains and their fusion by 1/N, MGPO's formulas with
p0 = 0.5, the mean over a response's tokens, mathematics at 16K, then at 32K, then code. Everything else is ours, marked
or not: a guess to start from, and a field to ablate. We have never run this config to its end.

The SFT files are what is free to use, in place of what the report does not name: 17 thousand short solutions by people,
some 5M tokens. 6,000 steps pass over them more than a thousand times. For a model that reasons at length, put traces of
a strong model there (docs/data.md), and set sft.steps to a few passes over them; the run prints their number.
"""

import dataclasses
import os

import ml_collections

from vibethinker_jax.data.decontaminate import STOCK

DATA = os.environ.get('VIBETHINKER_DATA', '../shared/data')


@dataclasses.dataclass(frozen=True)
class Preset:
  """What differs between machines: the mesh, the attention kernel, and the sizes of batches."""

  topology: str  # as `vibethinker plan` names the machine
  attention: str
  data: int
  fsdp: int
  seq: int
  rows: int  # of SFT, 32,768 tokens each, in a micro-batch
  accumulation: int
  micro_rows: int  # of an RL update
  engine_rows: int


# named by the chips; a step of SFT is 1M tokens, on 64 GPUs 2M; data parallel across nodes, the model sharded in one
PRESETS = {
  'v5e-16': Preset('v5e:4x4', 'splash', 2, 8, 1, 16, 2, 16, 64),
  'v5e-256': Preset('v5e:16x16', 'splash', 4, 8, 8, 32, 1, 64, 1024),
  'v5p-64': Preset('v5p:4x4x4', 'splash', 4, 8, 2, 32, 1, 64, 1024),
  'v6e-64': Preset('v6e:8x8', 'splash', 4, 8, 2, 32, 1, 64, 1024),
  'a100-1': Preset('a100:1', 'triton', 1, 1, 1, 4, 8, 4, 32),
  'a100-8': Preset('a100:8', 'triton', 1, 8, 1, 16, 2, 16, 256),
  'a100-64': Preset('a100:64', 'triton', 8, 8, 1, 64, 1, 64, 1024),
  'h100-1': Preset('h100:1', 'triton', 1, 1, 1, 4, 8, 4, 32),
  'h100-8': Preset('h100:8', 'triton', 1, 8, 1, 16, 2, 16, 256),
  'h200-1': Preset('h200:1', 'triton', 1, 1, 1, 8, 4, 8, 64),
  'h200-8': Preset('h200:8', 'triton', 1, 8, 1, 32, 1, 32, 512),
}
MATH = ('algebra', 'geometry', 'calculus', 'statistics')
# dollars for one chip and one hour on demand, roughly, in 2025
PRICES = dict(v5e=1.2, v5p=4.2, v6e=2.7, a100=2.0, h100=3.0, h200=3.5)


def get_config(preset='v5p-64'):
  if preset == 'smoke':
    return smoke(get_config())
  if preset not in PRESETS:
    raise ValueError(f'unknown preset {preset!r}, expected smoke or one of {", ".join(PRESETS)}')
  p = PRESETS[preset]
  config = ml_collections.ConfigDict()
  config.name = 'ssp_1p5b'  # the heading of the report
  config.seed = 0  # of all random numbers, 0 to 2^31 - 1
  config.model = dict(
    path=ml_collections.config_dict.placeholder(str),  # a Qwen2.5-Math-1.5B directory (published)
    random=None,  # the sizes of a model with random weights, instead of path
    tokenizer='',  # the model's
    system=None,  # the default of the chat template
    rope_theta=1e6,  # the base's 1e4 with 4,096 positions does not reach 32K; the evaluation's `base` keeps its own
    positions=40960,
    param_dtype='float32',  # of the weights that are trained
    dtype='bfloat16',  # in which layers compute
    attention=p.attention,
    remat='full',  # the backward pass computes layers again
    unroll=1,
    logit_chunk=1024,  # positions whose logits are in memory at the same time
  )
  config.mesh = dict(data=p.data, fsdp=p.fsdp, seq=p.seq, tensor=1)  # -1 at one axis: all devices that are left
  config.data = dict(
    source='files',
    domains=MATH,  # published
    extra_domains=('number_theory', 'code'),  # without an expert: trained on by SFT, and tested
    train=1_000_000,  # of each domain at most: all
    probe=128,  # ours
    test=512,
    instruction="Let's think step by step and output the final answer within \\boxed{}.",  # as the evaluation asks
    paths=(),  # of the embedded world only
    train_files=(  # GSM8K counts as algebra; two rows of MATH have no answer
      dict(path=f'{DATA}/math/math_train_7500.parquet', reader='verl', skip_bad=True),
      dict(path=f'{DATA}/gsm8k/train.jsonl', reader='gsm8k'),
      dict(path=f'{DATA}/competition/aime_1983_2023_with_solutions.json', reader='math'),
      dict(path=f'{DATA}/code/mbpp.jsonl', reader='mbpp'),
    ),
    test_files=(
      dict(path=f'{DATA}/math/math500.jsonl', reader='math'),
      dict(path=f'{DATA}/gsm8k/test.jsonl', reader='gsm8k'),
      dict(path=f'{DATA}/code/HumanEval.jsonl.gz', reader='humaneval'),
    ),
    probe_files=(),  # () takes probing problems from the training problems; published: written by a language model
    labelled=(dict(path=f'{DATA}/math/math_train_7500.parquet', reader='verl', skip_bad=True),),  # AIME has no labels
    decontaminate=dict(
      n=10,  # published: 10-grams
      threshold=0.7,  # ours: the similarity of near-duplicates
      least=8,  # and the words that a text needs to be compared
      common=5,  # n-grams of so many test problems are stock phrases,
      stock=STOCK,  # as are these
    ),
    spectrum=dict(  # what SFT learns from: all solutions as they are
      copies=0,
      equation=1.0,
      result=1.0,
      answer=1.0,
      repetition=1.0,
      steps=0.0,
      judged=False,
      error_rates='',
      least_error=0.75,  # published for the 3B's second stage, which needs error_rates
      least_characters=0,
    ),
  )
  config.experts = 'one_run'  # as the report reads
  config.sft = dict(
    steps=6000,  # ours
    rows=p.rows,
    length=32768,
    accumulation=p.accumulation,
    save_every=500,  # ours: the report's k
    # the 3B report's; the others are the usual values
    optim=dict(
      learning_rate=5e-5, warmup=300, end=0.0016, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip=1.0, horizon=0
    ),
    window=0,  # ours: shuffle all
  )
  config.probe = dict(samples=16, k=8, max_tokens=16384, temperature=1.0, top_p=1.0, top_k=-1)  # ours
  config.fusion = dict(weights=())  # published: 1/N
  config.mgpo = dict(
    lam=2.0,  # ours; every lambda on the web is a guess
    p0=0.5,  # published
    weight='maxent',  # published
    band=(0.2, 0.8),  # for weight 'band'
    rescale=False,
    std_normalize=True,  # published
    clip_low=0.2,  # ours
    clip_high=0.28,  # ours
    aggregate='sequence',  # published
    kl_coef=0.0,  # none printed
    refills=0,
    overlong=0,
    step_penalty=0.0,
    minibatches=1,  # ours; strictly on-policy, as the 3B report says
  )
  config.rl = dict(
    prompts=64,  # ours
    num_generations=16,  # ours
    temperature=1.0,
    micro_rows=p.micro_rows,
    share=1,  # responses are long
    save_every=10,
    # ours
    optim=dict(learning_rate=1e-6, warmup=5, end=1.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip=1.0, horizon=0),
    stages=(  # lengths published, steps ours
      dict(name='math_16k', domains=MATH, steps=400, max_tokens=16384 - 1024),
      dict(name='math_32k', domains=MATH, steps=400, max_tokens=32768 - 1024),
      dict(name='code', domains=('code',), steps=200, max_tokens=32768 - 1024),
    ),
    seed=0,
  )
  config.engine = dict(
    rows=p.engine_rows,
    block=128,
    pages=0,  # a cache without pages
    page=128,
  )
  # of all models of the run; the published protocol, 64 samples under 40,960 tokens, is experiments/evaluate.py's
  config.evaluate = dict(samples=16, k=8, max_tokens=32768, temperature=1.0, top_p=0.95, top_k=-1)
  config.grader = dict(workers=16, deadline_s=10.0)  # workers: of a host's cores
  config.cost = dict(price_per_hour=PRICES[p.topology.split(':')[0]], devices=p.data * p.fsdp * p.seq)
  config.plan = dict(
    prices=PRICES,
    utilization=0.45,  # ours: the share of the roofline's speed
    response=8192,  # ours: the mean tokens of a response
    sizes=dict(V=151936, D=1536, L=28, K=2, G=6, H=128, F=8960, positions=4096),  # while model.path is not given
  )
  config.prune = True  # a checkpoint with the optimizer's state is 18 GB
  return config


def smoke(config):
  """The same data, stages and tokenizer, with everything else as small as possible."""
  config.name = 'ssp_1p5b_smoke'
  config.model = dict(
    random=dict(V=151936, D=64, L=2, K=2, G=2, H=16, F=128, rope_theta=1e6, positions=4096),
    tokenizer=f'{DATA}/qwen2.5-tokenizer',
    logit_chunk=64,
    unroll=2,
  )
  config.mesh = dict(data=1, fsdp=1, seq=1, tensor=1)
  config.data.update(train=64, probe=2, test=2)
  config.sft.update(steps=6, rows=1, length=384, accumulation=2, save_every=3)
  config.sft.optim.warmup = 2
  config.probe = dict(samples=2, k=2, max_tokens=32)
  config.rl.update(prompts=2, num_generations=4, micro_rows=4, save_every=1)
  config.rl.optim.warmup = 1
  config.rl.stages = tuple(dict(stage, steps=1, max_tokens=32) for stage in config.rl.stages)
  config.engine = dict(rows=16, block=32)
  config.evaluate = dict(samples=2, k=2, max_tokens=32)
  config.cost = dict(price_per_hour=0.1)
  config.plan = dict()
  config.prune = True
  return config
