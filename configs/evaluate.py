"""The report's evaluation of a model, benchmark after benchmark.

  python experiments/evaluate.py --config=configs/evaluate.py --workdir=runs/eval --config.model=DIR

Sampling is each benchmark's own (vibethinker_jax/evaluate/benchmarks.py: 64 samples at temperature 1.0 and top_p 0.95,
40,960 tokens). Expect for the released VibeThinker-1.5B the report's AIME24 80.3, AIME25 74.4, HMMT25 50.4, MATH-500
95.0; that run has not been made by us.
"""

import os

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Values of `experiments/evaluate.py`'s RunConfig."""
  return ConfigDict(
    dict(
      model='',
      dtype='bfloat16',
      benchmarks=('aime24', 'aime25', 'hmmt25', 'math500'),
      data=os.environ.get('VIBETHINKER_DATA', '../shared/data'),
      files={},  # benchmark -> file of your own, for LiveCodeBench and GPQA
      n=0,  # samples of each problem, 0 for the protocol's
      max_tokens=0,  # 0 for the protocol's
      limit=0,  # problems of each benchmark, 0 for all
      seed=0,
      rows=64,
      workers=4,
      deadline_s=10.0,
      strict=False,
      regrade=False,  # judge the samples that are there again, by another grader too
      steps=False,  # check the equalities of the responses too: the share that holds, in summary and table
    )
  )
