"""What a Hugging Face directory holds: a model, its tokenizer, and the ids that end a response."""

import dataclasses
import pathlib

from vibethinker_jax.data.tokenizer import ChatTokenizer, read_chat_tokenizer
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import eos_ids, read_config
from vibethinker_jax.model.qwen2 import Config, Qwen2

# fields of a config that say how a model computes; all others decide what it computes
_HOW = ('positions', 'dtype', 'attention', 'remat', 'logit_chunk', 'unroll')


def load_model(directory: pathlib.Path, dtype: str) -> Qwen2:
  """The model of a directory, with weights and layers in `dtype`. Raises BadInput."""
  model = hf.load(directory, dtype)
  model.config = dataclasses.replace(model.config, dtype=dtype)
  return model


def load_tokenizer(directory: pathlib.Path) -> ChatTokenizer | None:
  """The tokenizer of a directory; None where there is no tokenizer.json. It need not know ChatML's tokens.

  Raises BadInput where it cannot be read, or has ids for which the directory's model has no row.
  """
  path = directory / 'tokenizer.json'
  if not path.exists():
    return None
  if not path.is_file():
    raise BadInput(f'{path}: not a tokenizer (a directory, expected a file)')
  tokenizer = read_chat_tokenizer(directory, eos_ids=eos_ids(directory))
  tokenizer.check(read_config(directory).V, directory)
  return tokenizer


def stop_ids(directory: pathlib.Path, tokenizer: ChatTokenizer | None) -> tuple[int, ...]:
  """The ids that end a response: those of the tokenizer, which knows the model's; without one, the model's alone."""
  return eos_ids(directory) if tokenizer is None else tokenizer.stop_ids


def difference(config: Config, first: Config) -> str | None:
  """The first field that makes two models different functions of their weights; None if their weights may be merged."""
  names = [field.name for field in dataclasses.fields(Config) if field.name not in _HOW]
  return next((name for name in names if getattr(config, name) != getattr(first, name)), None)
