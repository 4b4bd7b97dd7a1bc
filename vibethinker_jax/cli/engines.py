"""The model and the engine of `serve` and `chat`."""

import argparse
import dataclasses
import pathlib
import sys

from vibethinker_jax import runtime
from vibethinker_jax.cli import files, flags
from vibethinker_jax.errors import BadInput

_TINY_RUN = pathlib.Path('runs/tiny/final')  # the default model, if it exists


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--model',
    type=pathlib.Path,
    metavar='DIR',
    help='Hugging Face directory or workdir (default: the tiny run, or base)',
  )
  parser.add_argument('--name', type=flags.filled, default='vibethinker', help='of the model, for clients')
  parser.add_argument('--dtype', choices=flags.DTYPES, default='float32', help='of weights and layers')
  parser.add_argument('--int8-weights', action='store_true', help='a quarter of the bytes of float32')
  parser.add_argument('--int8-cache', action='store_true', help='keys and values too')
  parser.add_argument('--rows', type=int, default=64, help='samples decoded at a time')
  parser.add_argument('--waiting', type=int, default=256, help='samples that may wait for a row; then 429')
  parser.add_argument('--block', type=int, default=16, help='tokens between two checks for new and finished requests')
  parser.add_argument('--max-length', type=int, metavar='N', help="prompt and answer together (default: the model's)")
  parser.add_argument(
    '--cache',
    type=pathlib.Path,
    default=runtime.user_cache('xla'),
    metavar='DIR',
    help='compiled programs, 4 GiB at most',
  )


def load(args: argparse.Namespace):
  """The engine (an Engine), the model (a Qwen2, or its int8 form) and the tokenizer (a ChatTokenizer) of a command
  line.

  Raises BadInput.
  """
  import jax

  from vibethinker_jax import compiled
  from vibethinker_jax.config import TINY_BASE
  from vibethinker_jax.engine.cache import Int8KVCache, KVCache
  from vibethinker_jax.engine.engine import Engine
  from vibethinker_jax.model.config import read_config
  from vibethinker_jax.model.int8 import quantize
  from vibethinker_jax.model.mesh import own_mesh
  from vibethinker_jax.model_directory import load_model, load_tokenizer, stop_ids

  flags.check_range('--rows', args.rows, 1, 2**20)
  flags.check_range('--block', args.block, 1, 2**20)
  flags.check_range('--waiting', args.waiting, 0, 2**20)
  directory = args.model or (_TINY_RUN if (_TINY_RUN / 'config.json').exists() else TINY_BASE)
  if (directory / 'final' / 'config.json').exists():
    directory = directory / 'final'  # a workdir
  config = dataclasses.replace(read_config(directory), dtype=args.dtype)
  if args.max_length is not None and not 1 <= args.max_length <= config.positions:
    raise BadInput(f'--max-length {args.max_length}: expected 1 to {config.positions}, which the model was made for')
  tokenizer = load_tokenizer(directory)
  if tokenizer is None or tokenizer.hf.chat_template is None:
    raise BadInput(f'{directory}: serving needs a tokenizer with a chat template')
  # the next start finds the compiled functions again
  compiled.keep(files.directory(args.cache))
  model = load_model(directory, args.dtype)
  print(f'vibethinker: {directory}', file=sys.stderr)
  cache = Int8KVCache if args.int8_cache else KVCache
  mesh = own_mesh(jax.local_devices())  # the whole model on each device, the rows spread over all
  ends = stop_ids(directory, tokenizer)
  engine = Engine(
    config,
    ends,
    args.rows,
    args.block,
    max_length=args.max_length,
    cache=cache,
    mesh=mesh,
    vocabulary=tokenizer.size,
  )
  # few sizes, since each takes its own compilation; a step with fewer than 16 rows is hardly faster
  engine.row_sizes = [size for size in engine.row_sizes if size >= min(16, args.rows)]
  return engine, engine.place(quantize(model) if args.int8_weights else model), tokenizer
