"""A prompt as token ids: given as raw text, as a conversation, or as ids."""

import operator
from collections.abc import Mapping, Sequence

import jinja2

from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.errors import BadInput

Prompt = str | Sequence[dict] | Sequence[int]


def prompt_ids(prompt: Prompt, tokenizer: ChatTokenizer | None, V: int, where: str) -> list[int]:
  """The token ids of a prompt, each below `V`.

  Args:
    prompt: a text, which is encoded as it stands; a conversation [{'role': text, 'content': text}, ...], which the chat
      template writes up to where the assistant begins to speak; or token ids.
    tokenizer: None will do for token ids.
    V: size of the vocabulary.
    where: what messages call the prompt.

  Raises:
    BadInput: the prompt is of no such form, or wants a tokenizer or a chat template that is not there.
  """
  if isinstance(prompt, str):
    _check_text(prompt, where)
    return _needed(tokenizer, where).hf.encode(prompt, add_special_tokens=False)
  wrong = BadInput(f'{where}: expected a text, a conversation, or token ids, found {type(prompt).__name__}')
  if isinstance(prompt, bytes | Mapping):
    raise wrong
  try:
    parts = [*prompt]
    if parts and isinstance(parts[0], Mapping):
      return _chat_ids(parts, _needed(tokenizer, where), where)
    ids = [operator.index(part) for part in parts]
  except TypeError:
    raise wrong from None
  if ids and not 0 <= min(ids) <= max(ids) < V:
    raise BadInput(f'{where}: token ids must lie in 0 to {V - 1}')
  return ids


def _chat_ids(messages: Sequence[dict], tokenizer: ChatTokenizer, where: str) -> list[int]:
  for number, message in enumerate(messages):
    at = f'{where}[{number}]'
    if not isinstance(message, Mapping) or {*message} != {'role', 'content'}:
      raise BadInput(f"{at}: expected {{'role': text, 'content': text}}")
    for name, value in message.items():
      if not isinstance(value, str):
        raise BadInput(f'{at}: {name!r} is {type(value).__name__}, expected a text')
      _check_text(value, at)
  if tokenizer.hf.chat_template is None:
    raise BadInput(f'{where}: a conversation needs a chat template, the tokenizer has none')
  try:
    return tokenizer.chat(messages)
  except jinja2.TemplateError as error:
    raise BadInput(f'{where}: the chat template refuses the messages ({error})') from None


def _needed(tokenizer: ChatTokenizer | None, where: str) -> ChatTokenizer:
  if tokenizer is None:
    raise BadInput(f'{where}: a text needs a tokenizer, expected one, or token ids')
  return tokenizer


def _check_text(text: str, where: str) -> None:
  try:
    text.encode()
  except UnicodeEncodeError:
    raise BadInput(f'{where}: no text (a lone surrogate), expected Unicode') from None
