"""An OpenAI-compatible API and a chat page on one model, until SIGTERM or Ctrl-C."""

import argparse
import pathlib

from vibethinker_jax.cli import engines, files, flags
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  engines.arguments(parser)
  parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 for everybody')
  parser.add_argument('--port', type=int, default=8000)
  parser.add_argument('--page-port', type=int, default=7860)
  parser.add_argument('--no-page', action='store_true', help='the API alone')
  parser.add_argument('--keys', type=pathlib.Path, metavar='F', help='API keys, one a line (default: none asked for)')
  parser.add_argument('--warm', type=int, default=256, metavar='N', help='lengths compiled beforehand, beside serving')
  parser.add_argument('--grace', type=float, default=30.0, metavar='S', help='seconds to finish in after SIGTERM')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.serve import server

  flags.check_range('--port', args.port, 0, 65536)
  flags.check_range('--page-port', args.page_port, 0, 65536)
  flags.check_range('--warm', args.warm, 0, 2**31)
  if not 0 <= args.grace < float('inf'):
    raise BadInput(f'--grace {args.grace}: expected 0 or more seconds')
  keys = () if args.keys is None else tuple(line.strip() for line in files.lines(args.keys) if line.strip())
  if args.keys is not None and not keys:
    raise BadInput(f'{args.keys}: no keys in it, expected one a line')
  engine, model, text = engines.load(args)
  doors = server.Doors(args.host, args.port, None if args.no_page else args.page_port)
  server.run(engine, model, text, args.name, doors, args.waiting, args.warm, keys, args.grace)
