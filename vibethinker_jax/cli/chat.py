"""The chat page in a terminal."""

import argparse

from vibethinker_jax.cli import engines


def arguments(parser: argparse.ArgumentParser) -> None:
  engines.arguments(parser)
  parser.add_argument('--preset', choices=('math', 'code', 'explore', 'evaluate'), default='math')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.serve import terminal
  from vibethinker_jax.serve.service import Service
  from vibethinker_jax.serve.solve import Judges
  from vibethinker_jax.serve.worker import Worker

  engine, model, text = engines.load(args)
  judges = Judges(1)
  try:
    terminal.run(Service(args.name, text, Worker(engine, model, args.waiting), judges), args.preset)
  finally:
    judges.close()
