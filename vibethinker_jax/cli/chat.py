"""The chat page in a terminal; lines can be edited and are remembered, as in a shell."""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Iterator

from vibethinker_jax import runtime
from vibethinker_jax.cli import engines

_REMEMBERED = 1000  # lines


def arguments(parser: argparse.ArgumentParser) -> None:
  engines.arguments(parser)
  parser.add_argument(
    '--preset', choices=('math', 'code', 'explore', 'evaluate'), default='math', help='how it is asked and sampled'
  )


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.serve import terminal
  from vibethinker_jax.serve.service import Service
  from vibethinker_jax.serve.solve import GraderPool
  from vibethinker_jax.serve.worker import Worker

  engine, model, tokenizer = engines.load(args)
  graders = GraderPool(1)
  try:
    with edited_lines(runtime.user_cache('chat_history')):
      terminal.run(Service(args.name, tokenizer, Worker(engine, model, args.waiting), graders), args.preset)
  finally:
    graders.close()


@contextlib.contextmanager
def edited_lines(history: pathlib.Path) -> Iterator[None]:
  """A context in which `input` can edit its line and recall earlier ones. history: the file that keeps them.

  Only its user may read the file. If Python has no readline, or the file cannot be written, `input` works without it.
  """
  try:
    import readline  # `input` goes through it from now on
  except ImportError:
    yield
    return
  with contextlib.suppress(OSError):
    readline.read_history_file(history)
  try:
    yield
  finally:
    readline.set_history_length(_REMEMBERED)
    with contextlib.suppress(OSError):
      history.parent.mkdir(parents=True, exist_ok=True)
      history.touch(0o600)
      readline.write_history_file(history)
      os.chmod(history, 0o600)
