"""Lambda x seeds from one start, beside controls, and a page that says what can be concluded.

  python experiments/ablate_lambda.py --config=configs/ablate_lambda.py --workdir=runs/lambda

Run again it goes on, and runs no finished point twice. On a cluster, each point a job of its own:

  python experiments/ablate_lambda.py --config=... --workdir=... --points=       # what all points share; the page
  sbatch --array=0-11 --wrap '... --points=$SLURM_ARRAY_TASK_ID'                 # then each, in any order
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
from vibethinker_jax.study import ablation
from vibethinker_jax.study.sweep import numbers

CONFIG = config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; an existing one is continued.', required=True)
POINTS = flags.DEFINE_string('points', None, 'Numbers of the points to run, such as 0,3; all where it is left out.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  values = CONFIG.value
  distributed.cpu_devices(ablation.read(values)[0].mesh.size)
  page = ablation.run(values, pathlib.Path(WORKDIR.value), numbers(POINTS.value))
  print(f'report: {page}')


if __name__ == '__main__':
  run_app(main)
