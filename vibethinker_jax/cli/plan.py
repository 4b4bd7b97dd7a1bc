"""Whether a config's stages fit a machine, and what the run costs; exit code 1 where they do not fit."""

import argparse
import contextlib
import json
import os
import pathlib

from vibethinker_jax import runtime
from vibethinker_jax.cli import files, flags
from vibethinker_jax.errors import BadInput

NO_TPU = {  # as if there were no accelerator, and libtpu did not look for one, loudly
  'JAX_PLATFORMS': 'cpu',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-16',
  'TPU_LOG_DIR': 'disabled',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
  'TF_CPP_MIN_LOG_LEVEL': '3',
}


_LOWERED = 256  # devices that a CPU may stand for: each has threads of its own


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--config',
    type=flags.filled,
    required=True,
    metavar='FILE[:PRESET]',
    help=f'of experiments/ssp.py; {flags.configs_are()}',
  )
  parser.add_argument(
    '--topology', required=True, metavar='T', help='v5e:4x4, v5p:4x4x4, v6e:8x8, a100:8, h200:1, cpu:1 ...'
  )
  parser.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='a field of the config, also --config.NAME=VALUE; repeatable',
  )
  parser.add_argument('--out', dest='output', type=pathlib.Path, metavar='F', help='the report as JSON (default: none)')
  parser.add_argument('--estimate', action='store_true', help='by the memory model alone: seconds, nothing compiled')
  parser.add_argument(
    '--cache', type=pathlib.Path, default=runtime.user_cache('plan'), metavar='DIR', help='stages as compiled for a TPU'
  )


def run(args: argparse.Namespace) -> int:
  os.environ |= NO_TPU  # before jax starts

  from vibethinker_jax import distributed
  from vibethinker_jax.config import RunConfig, check_fields
  from vibethinker_jax.config_io import freeze, load_config
  from vibethinker_jax.plan.machine import machine
  from vibethinker_jax.plan.plan import plan, table

  file = args.config.partition(':')[0]
  if not pathlib.Path(file).is_file():
    what = 'a directory, expected a file' if pathlib.Path(file).is_dir() else f'not found ({flags.configs_are()})'
    raise BadInput(f'--config {args.config}: {what}')
  files.apart([('--config', file)], [('--out', args.output)])
  cache = files.directory(args.cache)
  settings = freeze(RunConfig, load_config(args.config, texts=[*map(_pair, args.set)]))
  check_fields(settings)
  on = machine(args.topology)
  if on.chip.platform != 'tpu' and not args.estimate:
    if on.devices > _LOWERED:
      raise BadInput(f'--topology {args.topology}: beyond {_LOWERED} devices there is --estimate only')
    distributed.cpu_devices(on.devices)
  with contextlib.nullcontext() if args.output is None else files.output(args.output) as out:
    report = plan(settings, on, None if args.estimate else cache)
    if out is not None:
      json.dump(report, out, indent=2)
      out.write('\n')
  files.say(table(report), args.output)
  return 0 if report['fits'] else 1


def _pair(text: str) -> tuple[str, str]:
  """NAME=VALUE as (name, value). Raises BadInput."""
  name, given, value = text.partition('=')
  if not given:
    raise BadInput(f'--set {text}: expected NAME=VALUE')
  return name, value
