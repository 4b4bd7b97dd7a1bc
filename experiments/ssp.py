"""The Spectrum-to-Signal pipeline: SFT, probing, fusion, MGPO, evaluation, report.

  python experiments/ssp.py --config=configs/tiny.py --workdir=runs/tiny
  python experiments/ssp.py --config=configs/tiny.py --workdir=runs/lam2 --config.mgpo.lam=2

The same command continues a run; --stages=sft,probe carries out only these. SIGTERM saves the run and ends it. With
--distributed this is one of several processes that a scheduler has started (docs/clusters.md).
"""

from vibethinker_jax import runtime

if __name__ == '__main__':
  runtime.begin()

from absl import flags, logging

from vibethinker_jax.config import RunConfig, check
from vibethinker_jax.config_io import config_flag, freeze, process_flags, run_app
from vibethinker_jax.errors import BadInput
from vibethinker_jax.ssp import STAGES, Pipeline

CONFIG, JOIN = config_flag(), process_flags()
WORKDIR = flags.DEFINE_string('workdir', None, 'The directory of the run, new or to be continued.', required=True)
ONLY = flags.DEFINE_list('stages', list(STAGES), 'The stages to carry out.')
PROFILE = flags.DEFINE_string('profile', '', 'STAGE:STEP, such as rl/math_short:3: trace this step into the workdir.')
WANDB = flags.DEFINE_string('wandb', '', 'A project of Weights & Biases that gets the metrics too.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  if not ONLY.value:
    raise BadInput(f'--stages: expected some of {",".join(STAGES)}, found none')
  for stage in ONLY.value:
    if stage not in STAGES:
      raise BadInput(f'--stages: unknown stage {stage!r}, expected some of {",".join(STAGES)}')
  settings = freeze(RunConfig, CONFIG.value)
  check(settings)
  JOIN(settings.mesh.size)
  Pipeline(settings, WORKDIR.value, profile=PROFILE.value, wandb=WANDB.value).run(tuple(ONLY.value))


if __name__ == '__main__':
  run_app(main)
