"""Weighted mean of Hugging Face directories, in the dtype and with the tokenizer of the first one."""

import argparse
import pathlib

from vibethinker_jax.cli import files
from vibethinker_jax.errors import BadInput

_NAMES = {  # of the fields in config.json
  'family': 'model_type',
  'attention_bias': 'attention_bias',
  'V': 'vocab_size',
  'D': 'hidden_size',
  'L': 'num_hidden_layers',
  'K': 'num_key_value_heads',
  'G': 'query heads per key-value head',
  'H': 'head_dim',
  'F': 'intermediate_size',
  'tied': 'tie_word_embeddings',
  'rope_theta': 'rope_theta',
  'rope_scaling': 'rope_scaling',
  'norm_eps': 'rms_norm_eps',
}


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--out', type=pathlib.Path, required=True, metavar='DIR', help='new, or a model to replace')
  parser.add_argument('--weights', metavar='W,W,...', help='one each, summing to 1 (default: equal ones)')
  parser.add_argument('models', type=pathlib.Path, nargs='+', metavar='DIR', help='Hugging Face directories')


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.model import hf
  from vibethinker_jax.model.config import eos_ids
  from vibethinker_jax.model_directory import difference
  from vibethinker_jax.spectrum import fusion

  models: list[pathlib.Path] = args.models
  try:
    weights = [1 / len(models)] * len(models) if args.weights is None else _numbers(args.weights)
    fusion.check_weights(weights, len(models))
  except ValueError as error:
    raise BadInput(f'--weights: {error}') from None
  files.apart_from_directory([('a model', m) for m in models], args.out)
  out = files.directory(args.out)
  if out.is_dir() and any(out.iterdir()) and not (out / 'config.json').exists():
    raise BadInput(f'{args.out}: not empty and no model directory, so it is not replaced')
  configs = [hf.read_config(m) for m in models]
  for path, config in zip(models[1:], configs[1:]):
    if (name := difference(config, configs[0])) is not None:
      ours, first = getattr(config, name), getattr(configs[0], name)
      raise BadInput(f'{path / "config.json"}: {_NAMES[name]} is {ours}, in {models[0]} it is {first}')
  vocabularies = [_vocabulary(m) for m in models]
  for path, vocabulary in zip(models[1:], vocabularies[1:]):
    if vocabulary is not None and vocabularies[0] is not None and vocabulary != vocabularies[0]:
      raise BadInput(f'{path / "tokenizer.json"}: another vocabulary than that of {models[0]}')
  loaded = [hf.load(m) for m in models]
  for model in loaded:
    model.config = configs[0]  # the number of positions may still differ: that of the first model counts
  try:
    hf.save(fusion.fuse(loaded, weights), out, models[0], eos_ids(models[0]))
  except OSError as error:
    raise BadInput(f'{args.out}: cannot be written ({error.strerror})') from None


def _numbers(text: str) -> list[float]:
  try:
    return [float(part) for part in text.split(',')]
  except ValueError:
    raise ValueError(f'{text!r} is no list of numbers, expected for example 0.5,0.5') from None


def _vocabulary(directory: pathlib.Path) -> dict | None:
  """Every token of tokenizer.json with its id; None where there is no such file."""
  path = directory / 'tokenizer.json'
  raw = files.json_of(path)
  if raw is None:
    return None
  try:
    vocabulary = raw['model']['vocab']
    if isinstance(vocabulary, list):
      vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token['content']: token['id'] for token in raw['added_tokens'] or ()}}
  except (KeyError, TypeError, ValueError):
    raise BadInput(f'{path}: not a tokenizer (expected "model" with "vocab", and "added_tokens")') from None
