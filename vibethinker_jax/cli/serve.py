"""Serves an OpenAI-compatible API and a chat page on one model, until SIGTERM or Ctrl-C."""

import argparse
import pathlib
import re

from vibethinker_jax.cli import engines, files, flags
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  engines.arguments(parser)
  parser.add_argument('--host', type=flags.filled, default='127.0.0.1', help='0.0.0.0 opens it to the network')
  parser.add_argument('--port', type=int, default=8000, help="of OpenAI's API; 0 takes a free one")
  parser.add_argument('--page-port', type=int, default=7860, help='of the chat page; 0 takes a free one')
  parser.add_argument('--no-page', action='store_true', help='the API alone')
  parser.add_argument(
    '--cors', action='append', default=[], metavar='ORIGIN', help='whose pages may send requests; repeatable, * for all'
  )
  parser.add_argument(
    '--keys', type=pathlib.Path, metavar='F', help='API keys, one on each line (default: no key needed)'
  )
  parser.add_argument(
    '--separate-reasoning',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='<think>...</think> in reasoning_content, not in content, where a request does not say',
  )
  parser.add_argument(
    '--warm', type=int, default=256, metavar='N', help='compile lengths up to N in advance, while serving'
  )
  parser.add_argument(
    '--grace', type=float, default=30.0, metavar='S', help='seconds in which requests may finish after SIGTERM'
  )


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.serve import server

  flags.check_range('--port', args.port, 0, 65536)
  flags.check_range('--page-port', args.page_port, 0, 65536)
  flags.check_range('--warm', args.warm, 0, 2**31)
  if args.port == args.page_port != 0 and not args.no_page:
    raise BadInput(f'--port and --page-port are both {args.port}, expected different ones')
  if not 0 <= args.grace < float('inf'):
    raise BadInput(f'--grace {args.grace}: expected 0 or more seconds')
  for origin in args.cors:
    _check_origin(origin)
  keys = () if args.keys is None else _keys(args.keys)
  engine, model, tokenizer = engines.load(args)
  addresses = server.ListenAddresses(args.host, args.port, None if args.no_page else args.page_port, tuple(args.cors))
  grace_s, separate = args.grace, args.separate_reasoning
  server.run(engine, model, tokenizer, args.name, addresses, args.waiting, args.warm, keys, grace_s, separate)


def _keys(path: pathlib.Path) -> tuple[str, ...]:
  """The keys of a file; messages never show one. Raises BadInput for a key that cannot be sent in a header."""
  keys = []
  for number, line in enumerate(files.lines(path), 1):
    key = line.strip(' \t\r')  # lines of Windows files end with \r\n
    if re.search('[^!-~]', key):
      raise BadInput(f'{path}, line {number}: a key may have ASCII letters, digits and signs only, and no blanks in it')
    keys += [key] if key else []
  if not keys:
    raise BadInput(f'{path}: no keys in it, expected one a line')
  return tuple(keys)


def _check_origin(origin: str) -> None:
  """Raises BadInput for a text that browsers never send as an origin."""
  if origin != '*' and not re.fullmatch(r'[a-z][a-z0-9+.-]*://[^/\s?#@]+', origin):
    raise BadInput(f'--cors {origin}: expected * or an origin such as http://localhost:3000, without a path')
