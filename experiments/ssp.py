"""The Spectrum-to-Signal pipeline: SFT, probing, fusion, MGPO, evaluation, report.

  python experiments/ssp.py --config=configs/tiny.py --workdir=runs/tiny
  python experiments/ssp.py --config=configs/tiny.py --workdir=runs/lam2 --config.mgpo.lam=2

Run again with the same workdir it continues; --stages=sft,probe carries out only those. SIGTERM saves and ends it.
With --distributed it is one of several processes that a scheduler has started (docs/clusters.md).
"""

import os
import sys

from vibethinker_jax import host

if __name__ == '__main__':
  host.huge_pages()
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')  # only its tokenizers are used: it need not miss torch

from absl import app, flags, logging
from ml_collections import config_flags

from vibethinker_jax import cluster
from vibethinker_jax.errors import BadInput
from vibethinker_jax.settings import freeze
from vibethinker_jax.ssp import STAGES, Pipeline, Settings
from vibethinker_jax.train.state import Diverged

CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; an existing one is continued.', required=True)
DISTRIBUTED = flags.DEFINE_bool('distributed', False, 'One of several processes; jax finds the others.')
COORDINATOR = flags.DEFINE_string('coordinator', '', 'Where jax cannot find them: the address of the first process,')
PROCESSES = flags.DEFINE_integer('processes', 1, 'how many there are,')
PROCESS = flags.DEFINE_integer('process', 0, 'and which of them this is.')
ONLY = flags.DEFINE_list('stages', list(STAGES), 'Which stages to carry out.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  for stage in ONLY.value:
    if stage not in STAGES:
      sys.exit(f'error: --stages: unknown stage {stage!r}, expected some of {",".join(STAGES)}')
  try:
    settings = freeze(Settings, CONFIG.value)
    cluster.cpu_devices(max(1, settings.mesh.size // PROCESSES.value))
    if DISTRIBUTED.value or COORDINATOR.value:
      cluster.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    Pipeline(settings, WORKDIR.value).run(tuple(ONLY.value))
  except BadInput as error:
    sys.exit(_say(error, 2))
  except cluster.Stopped as saved:
    print(f'\n{saved}; the same command continues {WORKDIR.value}', file=sys.stderr)
  except Diverged as error:
    sys.exit(_say(error, 1))
  except KeyboardInterrupt:
    sys.exit(_say(f'interrupted; the same command continues {WORKDIR.value}', 130))


def _say(message, code: int) -> int:
  print(f'\nerror: {message}', file=sys.stderr)
  return code


if __name__ == '__main__':
  app.run(main)
