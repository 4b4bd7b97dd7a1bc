"""Runs a finished workdir again and compares bits; exit code 1 where something differs."""

import argparse
import os
import pathlib

from vibethinker_jax.cli import files


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('directory', type=pathlib.Path, metavar='DIR', help='workdir of a finished run')
  parser.add_argument(
    '--out', dest='output', type=pathlib.Path, metavar='DIR', help='where to run it (default: DIR-again)'
  )


def run(args: argparse.Namespace) -> int:
  from vibethinker_jax.reproduce import reproduce

  directory = pathlib.Path(os.path.realpath(args.directory))  # the path . has no name
  again = args.output or directory.parent / f'{directory.name}-again'
  files.apart_from_directory([('DIR', args.directory)], again)
  again = files.directory(again)
  compared = reproduce(args.directory, again)
  print(compared)
  return 1 if compared.differences else 0
