"""Does the wider spectrum end higher? Checkpoints chosen by Pass@1, by Pass@K, or last, each through the same RL.

  python experiments/study_selection.py --config=configs/study_selection.py --workdir=runs/selection

Run again it goes on; --points= and --points=N as in experiments/ablate_lambda.py.
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
from vibethinker_jax.study import selection
from vibethinker_jax.study.sweep import numbers

CONFIG = config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; an existing one is continued.', required=True)
POINTS = flags.DEFINE_string('points', None, 'Numbers of the points to run, such as 0,3; all where it is left out.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  values = CONFIG.value
  distributed.cpu_devices(selection.read(values)[0].mesh.size)
  page = selection.run(values, pathlib.Path(WORKDIR.value), numbers(POINTS.value))
  print(f'report: {page}')


if __name__ == '__main__':
  run_app(main)
