"""Writes problems of any source, equal ones merged, as a data set of ArrayRecord files, for the `path` of a config."""

import argparse
import pathlib
import re

from vibethinker_jax.cli import files, flags
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--in',
    dest='input',
    type=flags.filled,
    required=True,
    action='append',
    metavar='F',
    help='a source (data/sources.py); repeatable',
  )
  parser.add_argument(
    '--reader', action='append', default=[], metavar='NAME', help='one for all, or one for each (default: problems)'
  )
  parser.add_argument(
    '--out', dest='output', type=pathlib.Path, required=True, metavar='DIR', help='new, or one to replace'
  )
  parser.add_argument('--split', default='train', metavar='NAME', help='of the data set, for these problems')
  parser.add_argument('--shards', type=int, metavar='N', help='files (default: by size)')
  parser.add_argument('--skip-bad', action='store_true', help='leave malformed rows out and count them')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.data import records
  from vibethinker_jax.data.problem import merge
  from vibethinker_jax.data.sources import Source, load_all

  readers = args.reader if len(args.reader) > 1 else (args.reader or ['problems']) * len(args.input)
  if len(readers) != len(args.input):
    raise BadInput(f'prepare: {len(readers)} times --reader for {len(args.input)} times --in, expected one or as many')
  if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', args.split) or args.split == 'all':
    raise BadInput(
      f'--split {args.split}: expected letters, digits and _, such as train, and not "all", which is every'
    )
  if args.shards is not None and args.shards < 1:
    raise BadInput(f'--shards {args.shards}: expected 1 or more')
  inputs = [('--in', path) for path in args.input]
  files.apart(inputs, [])
  files.apart_from_directory(inputs, args.output)
  output = files.directory(args.output)
  if output.exists() and not (output / 'features.json').exists():
    raise BadInput(f'{args.output}: expected a new directory, or a data set of this command to replace')
  rows = load_all(Source(path, reader, skip_bad=args.skip_bad) for path, reader in zip(args.input, readers))
  problems = merge(rows)
  try:
    records.write({args.split: problems}, output, args.shards)
  except OSError as error:
    raise BadInput(f'{args.output}: cannot be written ({error.strerror or error})') from None
  solutions = sum(len(p.solutions) for p in problems)
  print(f'{args.output}: {len(problems)} problems with {solutions} solutions, of {len(rows)} rows')
