"""Writes the page of a run or a sweep, DIR/report.html; for several runs, one that compares them. Prints its path."""

import argparse
import pathlib
import tempfile
from collections.abc import Sequence

from vibethinker_jax.cli import files
from vibethinker_jax.errors import BadInput

_COMPARED = pathlib.Path('compared.html')


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('directories', type=pathlib.Path, nargs='+', metavar='DIR', help='workdir of a run or a sweep')
  parser.add_argument(
    '--out', dest='output', type=pathlib.Path, metavar='F', help=f'the page of several (default: {_COMPARED})'
  )


def run(args: argparse.Namespace) -> None:
  for directory in args.directories:
    _check_run(directory)
  try:
    if len(args.directories) > 1:
      _compare(args.directories, args.output or _COMPARED)
      return
    if args.output is not None:
      raise BadInput(f'--out {args.output}: expected several runs, the page of one is its report.html')
    (directory,) = args.directories
    if _is_sweep(directory):
      from vibethinker_jax.study import pages

      print(pages.write_report(directory))
    else:
      from vibethinker_jax.evaluate.report import write_report

      print(write_report(directory))
  except ValueError as error:
    raise BadInput(str(error)) from None


def _compare(directories: Sequence[pathlib.Path], output: pathlib.Path) -> None:
  from vibethinker_jax.evaluate.compare import write_compared

  for directory in directories:
    if _is_sweep(directory):
      raise BadInput(f'{directory}: holds a sweep, expected runs, or one sweep alone')
  if output.suffix != '.html':  # an older page in the directory of a run may be replaced, other files may not
    files.apart([('DIR', directory) for directory in directories], [('--out', output)])
  with tempfile.TemporaryDirectory() as folder, files.output(output) as out:
    out.write(write_compared(directories, pathlib.Path(folder) / 'page.html').read_text(encoding='utf-8'))
  if str(output) != '-':
    print(output)


def _check_run(directory: pathlib.Path) -> None:
  """Raises BadInput for a path that is not the directory of a run or a sweep.

  A run has metrics.jsonl from its first step on, but its config.json or summary.json may have been copied alone. A
  model and an evaluation also have files of these names, with other fields in them.
  """
  if not directory.is_dir():
    what = 'not a directory' if directory.exists() else 'not found'
    raise BadInput(f'{directory}: {what}, expected the workdir of a run or a sweep')
  if _is_sweep(directory) or (directory / 'metrics.jsonl').is_file():
    return
  config, summary = (files.json_of(directory / name) or {} for name in ('config.json', 'summary.json'))
  if not {'sft', 'rl'} <= {*config} and not isinstance(summary.get('models'), dict):
    raise BadInput(f'{directory}: no run is in it (no metrics.jsonl, no config.json or summary.json of a run)')


def _is_sweep(directory: pathlib.Path) -> bool:
  """Whether there is a sweep.json. Raises BadInput where it is not that of a sweep."""
  path = directory / 'sweep.json'
  sweep = files.json_of(path)
  if sweep is not None and not ('study' in sweep and isinstance(sweep.get('config'), dict)):
    raise BadInput(f'{path}: expected "study" and "config", as a study of experiments/ writes them')
  return sweep is not None
