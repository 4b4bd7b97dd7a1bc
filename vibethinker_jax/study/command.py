"""The command line that the studies share (experiments/ablate_lambda.py, study_selection.py, sweep_fusion.py)."""

import pathlib
from collections.abc import Callable

from absl import flags, logging

from vibethinker_jax import distributed
from vibethinker_jax.config_io import config_flag, run_app
from vibethinker_jax.study.sweep import numbers


def main(read: Callable, run: Callable) -> None:
  """Run a study by the flags --config, --workdir and --points; `read` and `run` are those of its module."""
  config = config_flag()
  workdir = flags.DEFINE_string('workdir', None, 'The directory of the sweep, new or to be continued.', required=True)
  points = flags.DEFINE_string('points', None, 'Numbers of the points to run, as 0,3; without this flag all points.')

  def body(argv) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
    distributed.cpu_devices(read(config.value)[0].mesh.size)
    print(f'report: {run(config.value, pathlib.Path(workdir.value), numbers(points.value))}')

  run_app(body)
