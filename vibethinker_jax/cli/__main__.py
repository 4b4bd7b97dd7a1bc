"""The `vibethinker` command: files in, files out, JSON Lines.

Each verb is a module of this folder, with functions `arguments` and `run`; the first line of its docstring is shown by
`--help`. A verb reads and checks everything before it computes, and its output appears whole or not at all. A mistake
of the user ends with one line on stderr, which names the file, the row and what was expected, and with exit code 2. The
`run` of a verb imports the heavy libraries that it needs, so that `vibethinker --help` is fast.
"""

import os
import sys
import types
from collections.abc import Sequence

from vibethinker_jax import __version__, runtime
from vibethinker_jax.cli import (
  chat,
  decontaminate,
  evaluate,
  export_gguf,
  fuse,
  generate,
  grade,
  import_gguf,
  plan,
  prepare,
  report,
  reproduce,
  score,
  serve,
)
from vibethinker_jax.cli.flags import configs_are
from vibethinker_jax.cli.parser import Help, Parser, VerbParser, near
from vibethinker_jax.errors import BadInput, Failure

# in the order in which `--help` lists them
VERBS = (
  *(score, generate, fuse, grade, evaluate, prepare, decontaminate, plan, serve, chat, report, reproduce),
  *(import_gguf, export_gguf),
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one verb on `argv` (default: the command line).

  Returns 0 or the exit code of the verb, 2 for bad input, 1 for a full disk, 130 for Ctrl-C.
  """
  # otherwise transformers warns every user of a tokenizer that PyTorch is not installed
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
  argv = sys.argv[1:] if argv is None else [*argv]
  try:
    _check_verb(argv)
    args = _parser().parse_args(argv)
    runtime.most_of_the_gpu()
    return args.run(args) or 0
  except BadInput as error:
    return _say(error, 2)
  except Failure as error:
    return _say(error, 1)
  except OSError as error:
    if error.filename is None:
      raise
    return _say(f'{error.filename}: {error.strerror}', 2)  # a name too long, a folder that may not be searched
  except KeyboardInterrupt:
    print(
      '\nvibethinker: interrupted; no file is half-written, and `evaluate` continues when it is called again',
      file=sys.stderr,
    )
    return 130


def _say(why: object, code: int) -> int:
  print('vibethinker:', ' '.join(str(why).split()), file=sys.stderr)
  return code


def _check_verb(argv: Sequence[str]) -> None:
  """Raises BadInput where the first argument is neither a verb nor a flag of the command itself."""
  names, flags = [_name(verb) for verb in VERBS], ['-h', '--help', '--version']
  if not argv:
    raise BadInput(f'expected a verb, one of {", ".join(names)} (see vibethinker --help)')
  if argv[0] not in (*names, *flags):
    what = 'flag' if argv[0].startswith('-') else 'verb'
    raise BadInput(f'unknown {what} {argv[0]}{near(argv[0], [*names, *flags])} (see vibethinker --help)')


def _parser() -> Parser:
  parser = Parser('vibethinker', description=_first_line(__doc__), epilog=f'{configs_are()}.')
  parser.add_argument('--version', action='version', version=f'vibethinker {__version__}')
  verbs = parser.add_subparsers(required=True, metavar='VERB', parser_class=VerbParser)
  for verb in VERBS:
    says = _first_line(verb.__doc__)
    own = verbs.add_parser(_name(verb), help=says, description=says, formatter_class=Help, allow_abbrev=False)
    own.prepare()
    verb.arguments(own)
    own.set_defaults(run=verb.run)
  return parser


def _name(verb: types.ModuleType) -> str:
  return verb.__name__.split('.')[-1].replace('_', '-')


def _first_line(text: str) -> str:
  return text.split('\n')[0]


if __name__ == '__main__':
  sys.exit(main())
