"""Removes the training rows that share 10-grams with evaluation problems or nearly repeat them, and says why."""

import argparse
import collections
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterator

from vibethinker_jax.cli import files
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--train', type=pathlib.Path, required=True, metavar='F', help='rows to be cleaned')
  parser.add_argument('--eval', type=pathlib.Path, required=True, action='append', metavar='F', help='may be repeated')
  parser.add_argument(
    '--out', dest='output', type=pathlib.Path, required=True, metavar='F', help='rows kept, JSON Lines'
  )
  parser.add_argument(
    '--report', type=pathlib.Path, required=True, metavar='F', help='why each row was removed, JSON Lines'
  )
  parser.add_argument('--n', type=int, default=10, help='words in a row that give a problem away')
  parser.add_argument('--threshold', type=float, default=0.7, help='Jaccard similarity of near-duplicates')
  parser.add_argument(
    '--least', type=int, default=8, help='three-word shingles that a text needs to be compared for --threshold'
  )
  parser.add_argument('--common', type=int, default=5, help='evaluation problems that make a 10-gram a stock phrase')
  parser.add_argument(
    '--stock', type=pathlib.Path, metavar='F', help='stock phrases, one a line (default: those of AIME)'
  )
  parser.add_argument('--skip-bad', action='store_true', help='count malformed rows and go on')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax import runtime
  from vibethinker_jax.data.decontaminate import STOCK, Decontaminate, Index, find_leaks

  read = [('--train', args.train), *(('--eval', path) for path in args.eval), ('--stock', args.stock)]
  files.apart(read, [('--out', args.output), ('--report', args.report)])
  stock = STOCK if args.stock is None else tuple(line for line in files.lines(args.stock) if line.strip())
  skipped: list[BadInput] = []
  problems = [named for path in args.eval for _, named in _statements(path, args.skip_bad, skipped)]
  try:
    index = Index(problems, Decontaminate(args.n, args.threshold, args.least, args.common, stock))
  except ValueError as error:
    raise BadInput(f'decontaminate: {error}') from None
  kinds = {'ngram': 0, 'near_duplicate': 0}
  rows = _statements(args.train, args.skip_bad, skipped)
  first = [*itertools.islice(rows, 1)]  # a file that cannot be read is refused before a progress bar is shown
  with (
    files.output(args.output) as out,
    files.output(args.report) as report,
    runtime.bar(None, 'decontaminate', 'row') as bar,
  ):
    waiting: collections.deque[dict] = collections.deque()

    def read():
      for row, named in itertools.chain(first, rows):
        waiting.append(row)
        yield named

    total = 0
    for leak in find_leaks(read(), index):
      bar.update(1)
      row, total = waiting.popleft(), total + 1
      if leak is None:
        files.write_as_read(out, row)
      else:
        kinds[leak.kind] += 1
        files.write(report, dataclasses.asdict(leak))
  if skipped:
    print(f'{len(skipped)} malformed rows left out, the first: {skipped[0]}', file=sys.stderr)
  removed = ', '.join(f'{count} by {kind}' for kind, count in kinds.items())
  said = f'{sum(kinds.values())} of {total} rows removed ({removed}); {len(index.ids)} evaluation problems'
  files.say(said, args.output, args.report)


def _statements(path: pathlib.Path, skip_bad: bool, skipped: list) -> Iterator[tuple[dict, tuple[str, str]]]:
  """(row, (id, statement)) for every row of a source. A malformed row raises BadInput, or is put into `skipped`."""
  from vibethinker_jax.data.decontaminate import named_text
  from vibethinker_jax.data.problem import named
  from vibethinker_jax.data.sources import rows

  empty = True
  for where, row in rows(path):
    empty = False
    try:
      if isinstance(row, BadInput):
        raise row
      yield row, named_text(row, where)
    except BadInput as error:
      if not skip_bad:
        raise
      skipped.append(error)
  if empty:
    raise BadInput(f'{named(path)}: no rows')
