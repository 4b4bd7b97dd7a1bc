"""The page of a run or a sweep, DIR/report.html; of several runs, one page that compares them. Prints its path."""

import argparse
import pathlib
import tempfile

from vibethinker_jax.cli import files
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('directories', type=pathlib.Path, nargs='+', metavar='DIR', help='workdir of a run or a sweep')
  page = pathlib.Path('compared.html')
  parser.add_argument('--out', dest='output', type=pathlib.Path, default=page, metavar='F', help=f'of several ({page})')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.evaluate.compare import write_compared
  from vibethinker_jax.evaluate.report import write_report

  first, *others = args.directories
  try:
    if others:
      _refuse_data(args)
      with tempfile.TemporaryDirectory() as folder, files.output(args.output) as out:
        out.write(write_compared(args.directories, pathlib.Path(folder) / 'page.html').read_text(encoding='utf-8'))
      if str(args.output) != '-':
        print(args.output)
    elif (first / 'sweep.json').exists():
      from vibethinker_jax.study import pages

      print(pages.write_report(first))
    else:
      print(write_report(first))
  except OSError as error:
    raise BadInput(f'{first}: {error.strerror or error}') from None
  except ValueError as error:
    raise BadInput(str(error)) from None


def _refuse_data(args: argparse.Namespace) -> None:
  """An older page of a run may be replaced, what the run has written may not."""
  inputs = [('DIR', directory) for directory in args.directories]
  if args.output.suffix != '.html':
    files.apart(inputs, [('--out', args.output)])
