"""A GGUF file of llama.cpp as a Hugging Face directory: weights widened, sizes, tokenizer, chat template."""

import argparse
import pathlib
import tempfile

from vibethinker_jax.cli import files, flags
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('file', type=pathlib.Path, metavar='FILE', help='a GGUF file, with the whole model in it')
  parser.add_argument('--out', type=pathlib.Path, required=True, metavar='DIR', help='new, or a model to replace')
  parser.add_argument('--dtype', choices=flags.DTYPES, default='float32', help='of the weights')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.data import gguf_tokenizer
  from vibethinker_jax.disk import beginning
  from vibethinker_jax.model import gguf_file, hf

  files.apart_from_directory([('FILE', args.file)], args.out)
  out = files.directory(args.out)
  if out.is_dir() and any(out.iterdir()) and not (out / 'config.json').exists():
    raise BadInput(f'{args.out}: not empty and no model directory, so it is not replaced')
  file = gguf_file.read(args.file)
  config = gguf_file.config_of(file)
  rows = gguf_file.rows(file, config, args.dtype)
  with beginning(out), tempfile.TemporaryDirectory() as scratch:
    eos_ids = gguf_tokenizer.write(file.fields, config.V, str(args.file), pathlib.Path(scratch))
    hf.write(rows, config, args.dtype, out, pathlib.Path(scratch), eos_ids)
