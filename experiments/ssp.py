"""The Spectrum-to-Signal pipeline: SFT, probing, fusion, MGPO, evaluation, report.

  python experiments/ssp.py --config=configs/tiny.py --workdir=runs/tiny
  python experiments/ssp.py --config=configs/tiny.py --workdir=runs/lam2 --config.mgpo.lam=2

Run again with the same workdir it continues; --stages=sft,probe carries out only those.
"""

import os
import sys

os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')  # only its tokenizers are used: it need not miss torch

from absl import app, flags, logging
from ml_collections import config_flags

from vibethinker_jax.errors import BadInput
from vibethinker_jax.settings import freeze
from vibethinker_jax.ssp import STAGES, Pipeline, Settings
from vibethinker_jax.train.state import Diverged

CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; an existing one is continued.', required=True)
ONLY = flags.DEFINE_list('stages', list(STAGES), 'Which stages to carry out.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  for stage in ONLY.value:
    if stage not in STAGES:
      sys.exit(f'error: --stages: unknown stage {stage!r}, expected some of {",".join(STAGES)}')
  try:
    Pipeline(freeze(Settings, CONFIG.value), WORKDIR.value).run(tuple(ONLY.value))
  except BadInput as error:
    sys.exit(_say(error, 2))
  except Diverged as error:
    sys.exit(_say(error, 1))
  except KeyboardInterrupt:
    sys.exit(_say(f'interrupted; the same command continues {WORKDIR.value}', 130))


def _say(message, code: int) -> int:
  print(f'\nerror: {message}', file=sys.stderr)
  return code


if __name__ == '__main__':
  app.run(main)
