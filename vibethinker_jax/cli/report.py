"""The page of a run or a sweep, DIR/report.html; of several runs, one page that compares them. Prints its path."""

import argparse
import pathlib

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
      print(write_compared(args.directories, args.output))
    elif (first / 'sweep.json').exists():
      from vibethinker_jax.study import pages

      print(pages.write_report(first))
    else:
      print(write_report(first))
  except OSError as error:
    raise BadInput(f'{first}: {error.strerror or error}') from None
  except ValueError as error:
    raise BadInput(str(error)) from None
