"""The default config: the whole method on a 0.85M Qwen2 and the embedded world, on the CPU of a laptop.

python experiments/ssp.py --config=configs/tiny.py --workdir=runs/tiny

This file shows every field of a run; docs/config.md has their ranges. Every value here is ours.
Measured with seed 0, mathematics pooled: Pass@8 .418 (base) -> .770 (fused), Pass@1 .249 (fused) -> .459 (RL); code
Pass@1 .613 -> .871. 3 minutes 48 seconds on 2 idle cores of 190-210 GFLOP/s.
"""

import ml_collections

MATH = ('algebra', 'geometry', 'calculus', 'statistics')


def get_config():
  config = ml_collections.ConfigDict()
  config.name = 'tiny'  # the heading of the report
  config.seed = 0  # of all random numbers, 0 to 2^31 - 1
  config.model = dict(
    path='',  # a Hugging Face directory; '' is the shipped tiny base
    random=None,  # the sizes of a model with random weights, instead of path
    tokenizer='',  # a directory; '' is the model's
    system=None,  # the system prompt; None is the default of the chat template
    rope_theta=None,  # the base of the rotary frequencies; None is the base model's
    positions=None,  # the longest sequence; None is the base model's
    param_dtype='float32',  # of the weights that are trained
    dtype='float32',  # in which layers compute
    attention='xla',  # the kernel of training: 'xla', 'splash' (TPU) or 'triton' (GPU)
    remat='none',  # what the backward pass computes again: 'none', 'dots', 'full' or 'offload'
    unroll=4,  # layers in one step of the scan: all four, which saves copies
    logit_chunk=1024,  # positions whose logits are in memory at the same time
  )
  # Devices along each axis; a CPU counts as so many devices. -1 takes all that are left: on a CPU one for each core,
  # and of these only 1, 2 and 4 divide the rows below. 2 runs on every machine, and to the same bits.
  config.mesh = dict(
    data=2,  # replicas of the model
    fsdp=1,  # shards of the weights
    seq=1,  # parts of long sequences
    tensor=1,  # parts of heads, feed-forward and vocabulary
  )
  config.data = dict(
    source='synthetic',  # the embedded world; 'files' reads the sources below
    domains=MATH,  # each has an expert
    extra_domains=('code',),  # trained on and tested, without an expert
    train=1000,  # problems of each domain
    probe=32,  # in each of the two probing halves
    test=64,
    instruction='',  # follows every question that has an answer
    paths=(),  # of the embedded world: the solution paths that SFT sees; () is all
    train_files=(),  # sources: dict(path=..., reader=...), as in configs/smoke_gsm8k.py
    test_files=(),
    probe_files=(),  # () takes probing problems from the training problems
    labelled=(),  # sources of problems with domains, which teach a classifier the domains of the others
    decontaminate=None,  # None leaves out equal questions only; dict(n=10) also shared 10-grams and near-duplicates
    spectrum=dict(  # what SFT learns from
      copies=0,  # perturbed copies of a problem
      equation=1.0,  # the loss weight of equations,
      result=1.0,  # of their right-hand sides,
      answer=1.0,  # and of final answers
      repetition=1.0,  # leave out solutions with a larger share of repeated eight-word runs
      steps=0.0,  # leave out solutions with a smaller share of true equalities; 0 checks none
      judged=False,  # leave out solutions that the grader finds wrong
      error_rates='',  # a file of a reference model's error rates; with it only hard and long solutions stay
      least_error=0.75,  # the error rate of a hard one
      least_characters=0,  # the length of a long one
    ),
  )
  config.experts = 'one_run'  # one SFT run, and a checkpoint of it for each domain; 'per_domain': a run for each
  config.sft = dict(
    steps=160,
    rows=28,  # of a micro-batch
    length=112,  # tokens of a row
    accumulation=1,  # micro-batches of a step
    save_every=40,  # steps between two checkpoints, each of which is probed
    optim=dict(
      learning_rate=1e-3,  # the peak
      warmup=10,  # steps until the peak
      end=0.1,  # the last rate, as a share of the peak
      b1=0.9,
      b2=0.95,
      eps=1e-8,
      weight_decay=0.0,  # of matrices only
      clip=1.0,  # the largest norm of a gradient
      horizon=0,  # the step at which the decay ends; 0 is the last one
    ),
    window=0,  # easy problems first, shuffled within so many; 0 shuffles all
  )
  config.probe = dict(
    samples=8,  # of each problem
    k=8,  # the checkpoint with the highest Pass@k is the expert
    max_tokens=64,  # of a response
    temperature=1.0,
    top_p=1.0,  # 1 is off
    top_k=-1,  # -1 is off
  )
  config.fusion = dict(weights=())  # of the experts, in the order of data.domains; () is 1/N each
  config.mgpo = dict(
    lam=1.0,  # the strength of the max-entropy weight; 0 is GRPO
    p0=0.5,  # the pass rate of the questions that count most
    weight='maxent',  # or 'variance', 4p(1-p), or 'band'
    band=(0.2, 0.8),  # the pass rates of 'band'
    rescale=False,  # divide the weights by their mean
    std_normalize=True,  # divide advantages by the deviation of their group
    clip_low=0.2,  # ratios are clipped at 1 - clip_low
    clip_high=0.28,  # and at 1 + clip_high
    aggregate='sequence',  # the mean over the tokens of each response, or 'token' over all
    kl_coef=0.0,  # of the divergence from the stage's first model
    refills=0,  # further batches of a step, which replace groups without a signal
    overlong=0,  # the reward falls over so many tokens before max_tokens
    step_penalty=0.0,  # the reward lost where all equalities of a response are false
    minibatches=1,  # updates for each rollout batch
  )
  config.rl = dict(
    prompts=32,  # problems of a step
    num_generations=8,  # responses to each
    temperature=1.0,
    micro_rows=64,  # responses whose gradient is computed at the same time
    share=8,  # responses in one row, with their prompt once
    save_every=10,  # steps between two checkpoints
    optim=dict(
      learning_rate=1.8e-4,
      warmup=3,
      end=1.0,  # constant after the warm-up
      b1=0.9,
      b2=0.95,
      eps=1e-8,
      weight_decay=0.0,
      clip=1.0,
      horizon=0,
    ),
    stages=(
      dict(name='math_short', domains=MATH, steps=22, max_tokens=48),
      dict(name='math_long', domains=MATH, steps=26, max_tokens=96),
      dict(name='code', domains=('code',), steps=6, max_tokens=96),
    ),
    seed=0,  # 0 to 99: other samples, and another order of the problems
  )
  config.engine = dict(
    rows=256,  # samples that are decoded at the same time
    block=32,  # tokens between two looks by the host
    pages=0,  # pages of keys and values; 0: no pages
    page=128,  # positions of a page
  )
  config.evaluate = dict(samples=8, k=8, max_tokens=80, temperature=1.0, top_p=1.0, top_k=-1)  # as probe
  config.grader = dict(
    workers=2,  # processes of each kind, at most
    deadline_s=10.0,  # for each response
  )
  config.cost = dict(
    price_per_hour=0.1,  # dollars for one device
    devices=1,  # that are paid for
  )
  config.plan = dict(  # for `vibethinker plan` only
    prices=dict(),  # dollars for one chip and one hour, by its name
    utilization=0.45,  # the share of the roofline's speed
    response=8192,  # the mean tokens of a response, at most max_tokens
    sizes=None,  # of the base, as in model.random, where model.path is not given
  )
  config.prune = False  # delete the SFT checkpoints that no later stage reads
  return config
