"""The report's evaluation of a model, benchmark after benchmark.

  python experiments/evaluate.py --config=configs/evaluate.py --workdir=runs/eval --config.model=DIR

Each benchmark has its own sampling (vibethinker_jax/evaluate/benchmarks.py: 64 samples at temperature 1.0 and top_p
0.95, 40,960 tokens). For the released VibeThinker-1.5B the report has AIME24 80.3, AIME25 74.4, HMMT25 50.4, MATH-500
95.0; we have not made that run.
"""

import os

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The config of experiments/evaluate.py, with every field."""
  return ConfigDict(
    dict(
      model='',
      dtype='bfloat16',
      benchmarks=('aime24', 'aime25', 'hmmt25', 'math500'),
      data=os.environ.get('VIBETHINKER_DATA', '../shared/data'),
      files={},  # your own files by benchmark, for LiveCodeBench and GPQA
      n=0,  # samples of each problem; 0: as the protocol
      max_tokens=0,  # of a response; 0: as the protocol
      limit=0,  # problems of each benchmark; 0: all
      seed=0,
      rows=64,
      workers=4,
      deadline_s=10.0,
      strict=False,
      regrade=False,  # judge existing samples again, also where another grader has judged them
      steps=False,  # also check the equalities in the responses, and report the share of true ones
    )
  )
