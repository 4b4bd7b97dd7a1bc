"""A Hugging Face directory as a GGUF file, which llama.cpp and what is built on it run."""

import argparse
import pathlib

from vibethinker_jax.cli import files
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('directory', type=pathlib.Path, metavar='DIR', help='Hugging Face directory')
  parser.add_argument('--out', type=pathlib.Path, required=True, metavar='FILE', help='new, or a file to replace')
  parser.add_argument('--type', choices=('f16', 'q8_0'), default='f16', help='of matrices; norms and biases are F32')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.data import gguf_tokenizer
  from vibethinker_jax.disk import beginning
  from vibethinker_jax.model import gguf_file, hf
  from vibethinker_jax.model.config import eos_ids

  if args.out.is_dir():
    raise BadInput(f'{args.out}: a directory, expected a file')
  files.apart([('DIR', args.directory)], [('--out', args.out)])
  config = hf.read_config(args.directory)
  fields = {'general.name': args.directory.resolve().name}
  fields |= gguf_file.fields_of(config, args.directory / 'config.json')
  fields |= gguf_tokenizer.fields_of(args.directory, config.V, eos_ids(args.directory))
  model = hf.load(args.directory)
  with beginning(args.out):
    gguf_file.write(args.out, model, args.type, fields)
