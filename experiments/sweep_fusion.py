"""Fusion weights over the simplex, beside controls and other merges, and a map of what came out.

  python experiments/sweep_fusion.py --config=configs/sweep_fusion.py --workdir=runs/fusion

The weights are compared on the first probing half; the winner and the controls are confirmed on the other half and on
the test problems. Run again it goes on, and evaluates no finished point twice. --points= and --points=N as in
experiments/ablate_lambda.py, and --points= once more when all are done: it confirms the winner. A coordinate search
goes from point to point and runs in one process.
"""

import os
import pathlib

from vibethinker_jax import runtime

if __name__ == '__main__':
  runtime.huge_pages()
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')  # only its tokenizers are used: it need not miss torch

from absl import flags, logging

from vibethinker_jax import distributed
from vibethinker_jax.config_io import config_flag, run_app
from vibethinker_jax.study import simplex
from vibethinker_jax.study.sweep import numbers

CONFIG = config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; an existing one is continued.', required=True)
POINTS = flags.DEFINE_string('points', None, 'Numbers of the points to run, such as 0,3; all where it is left out.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  values = CONFIG.value
  distributed.cpu_devices(simplex.read(values)[0].mesh.size)
  page = simplex.run(values, pathlib.Path(WORKDIR.value), numbers(POINTS.value))
  print(f'report: {page}')


if __name__ == '__main__':
  run_app(main)
