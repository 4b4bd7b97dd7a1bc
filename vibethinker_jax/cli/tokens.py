"""The token ids that a row of `score` or `generate` stands for: given as such, as raw text, or as a conversation."""

import json
import pathlib

from vibethinker_jax.data.problem import field
from vibethinker_jax.errors import BadInput


def ids_of(row: dict, name: str, where: str, V: int, tokenizer, model: pathlib.Path) -> list[int]:
  """Ids below `V` of the row's field `name`: 'tokens', 'messages', or raw text by any other name.

  `tokenizer` is that of the directory `model`, None where it has none. Raises BadInput.
  """
  if name == 'tokens':
    return _given(row, where, V)
  if name == 'messages':
    return _chat(row, where, tokenizer, model)
  return _encode(row, name, where, tokenizer, model)


def _given(row: dict, where: str, V: int) -> list[int]:
  ids = field(row, 'tokens', list, where)
  for i in ids:
    if type(i) is not int or not 0 <= i < V:
      raise BadInput(f'{where}: "tokens" must be whole numbers from 0 to {V - 1}, found {json.dumps(i)[:40]}')
  return ids


def _encode(row: dict, name: str, where: str, tokenizer, model: pathlib.Path) -> list[int]:
  """Ids of raw tokenizer, nothing added."""
  content = field(row, name, str, where)
  _check_text(content, name, where)
  return _tokenizer_of(tokenizer, name, where, model).encode(content, add_special_tokens=False)


def _chat(row: dict, where: str, tokenizer, model: pathlib.Path) -> list[int]:
  """Ids of a conversation, up to where the assistant begins to speak."""
  import jinja2

  messages = field(row, 'messages', list, where)
  if not messages:
    raise BadInput(f'{where}: "messages" is empty, expected at least one')
  for number, message in enumerate(messages, 1):
    at = f'{where}, message {number}'
    if not isinstance(message, dict) or set(message) != {'role', 'content'}:
      raise BadInput(f'{at}: expected {{"role": tokenizer, "content": text}}')
    field(message, 'role', str, at)
    _check_text(field(message, 'content', str, at), 'content', at)
  if _tokenizer_of(tokenizer, 'messages', where, model).chat_template is None:
    raise BadInput(f'{where}: "messages" needs a chat template, the tokenizer of {model} has none')
  try:
    return tokenizer.chat(messages)
  except jinja2.TemplateError as error:
    raise BadInput(f'{where}: the chat template refuses the messages ({error})') from None


def _check_text(content: str, name: str, where: str) -> None:
  """JSON can hold half a character (a lone surrogate), which no tokenizer takes."""
  try:
    content.encode()
  except UnicodeEncodeError:
    raise BadInput(f'{where}: "{name}" is no text (a lone surrogate), expected Unicode') from None


def _tokenizer_of(tokenizer, name: str, where: str, model: pathlib.Path):
  if tokenizer is None:
    raise BadInput(f'{where}: "{name}" needs a tokenizer, {model / "tokenizer.json"} does not exist')
  return tokenizer.hf
