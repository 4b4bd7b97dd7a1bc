"""A prompt as token ids. It is given as raw text, as a conversation, or as ids."""

import json
import operator
from collections.abc import Iterable, Mapping, Sequence

import jinja2
import numpy as np

from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.errors import BadInput

Prompt = str | Sequence[dict] | Sequence[int]


def prompt_ids(prompt: Prompt, tokenizer: ChatTokenizer | None, V: int, where: str) -> list[int]:
  """The token ids of a prompt, each below `V`.

  Args:
    prompt: a text, which is encoded as it is; a conversation [{'role': text, 'content': text}, ...], which the chat
      template writes up to the place where the assistant begins to speak; or token ids.
    tokenizer: may be None for token ids.
    V: size of the vocabulary.
    where: how messages name the prompt.

  Raises:
    BadInput: the prompt has none of these forms, or needs a tokenizer or a chat template that is missing.
  """
  if isinstance(prompt, str):
    return text_ids(prompt, tokenizer, where)
  wrong = BadInput(f'{where}: expected a text, a conversation, or token ids, found {type(prompt).__name__}')
  if isinstance(prompt, bytes | Mapping):
    raise wrong
  try:
    parts = [*prompt]
  except TypeError:
    raise wrong from None
  if parts and isinstance(parts[0], Mapping):
    return chat_ids(parts, tokenizer, where)
  return token_ids(parts, V, where)


def token_ids(ids: Iterable[int], V: int, where: str) -> list[int]:
  """Token ids that were given as such. Raises BadInput for one that is no whole number below `V`."""
  out = []
  for i in ids:
    try:
      out.append(V if isinstance(i, bool | np.bool_) else operator.index(i))
    except TypeError:
      out.append(V)
    if not 0 <= out[-1] < V:
      found = json.dumps(i, default=str)[:40]
      raise BadInput(f'{where} must be whole numbers from 0 to {V - 1}, found {found}')
  return out


def text_ids(text: str, tokenizer: ChatTokenizer | None, where: str) -> list[int]:
  """The ids of a raw text, nothing added; control tokens that are written in it are control tokens. Raises BadInput."""
  _check_text(text, where)
  return _needed(tokenizer, where).hf.encode(text, add_special_tokens=False)


def chat_ids(messages: Sequence[Mapping], tokenizer: ChatTokenizer | None, where: str) -> list[int]:
  """The ids of a conversation, up to the place where the assistant begins to speak. Raises BadInput."""
  if not messages:
    raise BadInput(f'{where} is empty, expected at least one message')
  for number, message in enumerate(messages):
    at = f'{where}[{number}]'
    if not isinstance(message, Mapping) or {*message} != {'role', 'content'}:
      raise BadInput(f'{at}: expected {{"role": text, "content": text}}')
    for name, value in message.items():
      if not isinstance(value, str):
        raise BadInput(f'{at}: "{name}" must be a text, found {type(value).__name__}')
      _check_text(value, at)
  if _needed(tokenizer, where).hf.chat_template is None:
    raise BadInput(f'{where} needs a chat template, the tokenizer has none')
  try:
    return tokenizer.chat([*messages])
  except jinja2.TemplateError as error:
    raise BadInput(f'{where}: the chat template refuses the messages ({error})') from None


def _needed(tokenizer: ChatTokenizer | None, where: str) -> ChatTokenizer:
  if tokenizer is None:
    raise BadInput(f'{where} needs a tokenizer, the model has no tokenizer.json')
  return tokenizer


def _check_text(text: str, where: str) -> None:
  try:
    text.encode()
  except UnicodeEncodeError:  # JSON can hold half a character; no tokenizer takes it
    raise BadInput(f'{where} is no text (a lone surrogate), expected Unicode') from None
