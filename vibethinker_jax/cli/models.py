"""What a verb wants of a Hugging Face directory: the model, its tokenizer, and what ends a response."""

import dataclasses
import json
import pathlib

from vibethinker_jax.errors import BadInput


def load(directory: pathlib.Path, dtype: str):
  """The model (a Qwen2), with weights and layers in `dtype`."""
  from vibethinker_jax.model import hf

  model = hf.load(directory, dtype)
  model.config = dataclasses.replace(model.config, dtype=dtype)
  return model


def tokenizer_of(directory: pathlib.Path):
  """The tokenizer (a ChatTokenizer), None where there is none. Not every one needs to know ChatML here.

  Raises BadInput where it has ids that the directory's model has no row for.
  """
  if not (directory / 'tokenizer.json').exists():
    return None
  if not (directory / 'tokenizer.json').is_file():
    raise BadInput(f'{directory / "tokenizer.json"}: not a tokenizer (a directory, expected a file)')
  from transformers import PreTrainedTokenizerFast

  from vibethinker_jax.data.tokenizer import ChatTokenizer
  from vibethinker_jax.model.config import read_config

  try:
    tokenizer = ChatTokenizer(
      PreTrainedTokenizerFast.from_pretrained(str(directory))
    )  # not AutoTokenizer: see data/tokenizer.py
  except Exception as error:  # the tokenizers library raises bare Exception for a broken file
    raise BadInput(f'{directory / "tokenizer.json"}: not a tokenizer ({error})') from None
  tokenizer.check(read_config(directory).V, directory)
  return tokenizer


def stop_ids(directory: pathlib.Path, tokenizer) -> set[int]:
  """What ends a response: what the model's files say, and what its tokenizer says."""
  ids = set(config_stop_ids(directory))
  if tokenizer is not None:
    ids |= set(tokenizer.stop_ids) - {tokenizer.hf.unk_token_id}  # which an unknown <|im_end|> would become
  return ids


def config_stop_ids(directory: pathlib.Path) -> tuple[int, ...]:
  """eos_token_id of generation_config.json, or else of config.json."""
  from vibethinker_jax.model.config import eos_ids

  return eos_ids(directory)


def json_of(path: pathlib.Path) -> dict | None:
  """The object of one of its JSON files, None where there is no such file. Raises BadInput."""
  if not path.exists():
    return None
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise BadInput(f'{path}: cannot be read as JSON ({error})') from None
  if not isinstance(value, dict):
    raise BadInput(f'{path}: expected a JSON object, found {type(value).__name__}')
  return value
