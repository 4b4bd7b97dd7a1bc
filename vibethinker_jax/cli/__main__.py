"""The `vibethinker` command: files in, files out, JSON Lines.

A verb is a module of this folder: its name, its docstring's first line (what `--help` says of it), its `arguments`, and
`run`. It reads and checks everything before it computes, and its output appears whole or not at all. What a user got
wrong ends with one line on stderr that names the file, the row and what was expected, and with exit code 2.
Heavy libraries are imported by the `run` that needs them, so that `vibethinker --help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from vibethinker_jax import host
from vibethinker_jax.cli import (
  chat,
  decontaminate,
  evaluate,
  fuse,
  generate,
  grade,
  plan,
  prepare,
  report,
  reproduce,
  score,
  serve,
)
from vibethinker_jax.errors import BadInput

# in the order in which `--help` lists them
VERBS = (score, generate, fuse, grade, evaluate, prepare, decontaminate, plan, serve, chat, report, reproduce)


def main(argv: Sequence[str] | None = None) -> int:
  """Run one verb on `argv` (default: the command line): 0 or its own exit code, 2 for bad input, 130 for Ctrl-C."""
  # transformers would tell every user of a tokenizer that PyTorch is not installed
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
  try:
    args = _parser().parse_args(argv)
    host.most_of_the_gpu()
    return args.run(args) or 0
  except BadInput as error:
    print('vibethinker:', ' '.join(str(error).split()), file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('\nvibethinker: interrupted; nothing is half-written, and `evaluate` goes on where it was', file=sys.stderr)
    return 130


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(prog='vibethinker', description=_first_line(__doc__))
  verbs = parser.add_subparsers(required=True, metavar='VERB')
  for verb in VERBS:
    says = _first_line(verb.__doc__)
    own = verbs.add_parser(verb.__name__.split('.')[-1], help=says, description=says)
    verb.arguments(own)
    own.set_defaults(run=verb.run)
  return parser


class _Parser(argparse.ArgumentParser):
  """argparse, whose errors are one line too."""

  def error(self, message: str):
    raise BadInput(f'{message} (see {self.prog} --help)')


def _first_line(text: str) -> str:
  return text.split('\n')[0]


if __name__ == '__main__':
  sys.exit(main())
