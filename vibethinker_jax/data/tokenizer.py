"""Text to token ids and back: tokenizer, chat template, and a solution as ids with loss weights.

Prompt and response are tokenized separately and then joined. Sampling does the same, so training and sampling have the
same ids where the prompt ends and the response begins.

Control tokens (such as `<|im_end|>`) come from the chat template and from the end of a turn alone. Where the text of a
problem, a solution or a message contains the characters of a control token, it becomes the ids of these characters.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from vibethinker_jax.data.problem import Problem, Solution
from vibethinker_jax.errors import BadInput

TURN_END = '<|im_end|>'
THOUGHT = ('<think>', '</think>')


@dataclasses.dataclass(frozen=True)
class ChatTokenizer:
  """A tokenizer, and how a model is asked with it.

  hf: the tokenizer of transformers. system: the system prompt; None leaves it to the chat template. eos_ids: further
  ids that end a response, such as those in the files of a model (model.config.eos_ids).
  """

  hf: PreTrainedTokenizerBase
  system: str | None = None
  eos_ids: tuple[int, ...] = ()

  @property
  def stop_ids(self) -> tuple[int, ...]:
    """Ids that end a response: the end of a chat turn, the end of text, and `eos_ids`."""
    turn_end = () if self.turn_end is None else (self.turn_end,)
    end_of_text = () if self.hf.eos_token_id is None else (self.hf.eos_token_id,)
    return tuple(sorted({*turn_end, *end_of_text, *self.eos_ids}))

  @property
  def turn_end(self) -> int | None:
    """The id of `<|im_end|>`, which ends a chat turn; None where the tokenizer does not know this token."""
    found = self.hf.convert_tokens_to_ids(TURN_END)
    return None if found == self.hf.unk_token_id else found

  @property
  def size(self) -> int:
    """The rows that an embedding needs for every id of the tokenizer: the largest id plus one."""
    return max(self.hf.get_vocab().values()) + 1

  def check(self, rows: int, model: pathlib.Path | str) -> None:
    """Raises BadInput where the tokenizer has an id without a row in the embedding of a model.

    rows: of the embedding. model: how messages name the model.
    """
    if self.size > rows:
      raise BadInput(
        f'{self.hf.name_or_path}: the tokenizer has ids up to {self.size - 1}, {model} has an embedding of '
        f'{rows} rows: expected the tokenizer of this model'
      )

  @functools.cached_property
  def controls(self) -> dict[str, int]:
    """Control tokens and their ids: the tokens that the tokenizer calls special, and those that end a response.

    `<think>` is a control token only where the tokenizer calls it special.
    """
    added = self.hf.added_tokens_decoder
    return {token.content: i for i, token in added.items() if token.special or i in self.stop_ids}

  @functools.cached_property
  def _longest_first(self) -> list[str]:
    """Control tokens, the longest first: a tokenizer looks for a token before it looks for the beginning of it."""
    return sorted(self.controls, key=len, reverse=True)

  @functools.cached_property
  def literal(self) -> Tokenizer:
    """A copy of the tokenizer that takes control tokens for ordinary text."""
    raw = json.loads(self.hf.backend_tokenizer.to_str())
    for token in raw['added_tokens']:
      token['special'] |= token['content'] in self.controls
    literal = Tokenizer.from_str(json.dumps(raw | {'truncation': None, 'padding': None}))
    literal.encode_special_tokens = True
    return literal

  def encode(self, text: str) -> list[int]:
    """Ids of a text, nothing added; what looks like a control token is ordinary text."""
    return self.literal.encode(text, add_special_tokens=False).ids

  def chat(self, messages: list[dict]) -> list[int]:
    """Ids of a conversation [{'role': text, 'content': text}, ...], up to where the assistant begins to speak."""
    if self.system is not None and (not messages or messages[0]['role'] != 'system'):
      messages = [{'role': 'system', 'content': self.system}, *messages]
    written = ''.join(_strings(messages))
    found = [token for token in self._longest_first if token in written]
    # While the template writes its own control tokens, those that stand in the messages are replaced by stand-ins:
    # halves of surrogate pairs, which are no characters, so that no text contains them
    unused = (chr(i) for i in range(0xD800, 0xE000) if chr(i) not in written)
    stands_for = dict(zip(unused, found))
    for stand_in, token in stands_for.items():
      messages = _replaced(messages, token, stand_in)
    text = self.hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if not found:
      return self.hf.encode(text, add_special_tokens=False)
    ids = []
    for part in re.split(f'({"|".join(map(re.escape, self._longest_first))})', text):
      if part in self.controls:
        ids.append(self.controls[part])
      else:
        ids += self.encode(''.join(stands_for.get(character, character) for character in part))
    return ids

  def prompt(self, problem: Problem) -> list[int]:
    """Ids of a problem's prompt."""
    return self.chat([{'role': 'user', 'content': problem.prompt}])

  def decode(self, ids) -> str:
    """Text of response ids, without special tokens; `<think>` and `</think>` stay."""
    special = set(self.hf.all_special_ids)
    marks = {i for i in special if self.hf.convert_ids_to_tokens(i) in THOUGHT}  # not the unknown token's id
    if not marks:
      return self.hf.decode(ids, skip_special_tokens=True)
    return self.hf.decode([i for i in map(int, ids) if i not in special or i in marks])

  def response(self, prompt, ids) -> str:
    """Text of response ids as a grader has to see it: with `<think>` in front where the prompt ends with it."""
    opened = self.hf.decode(prompt[-8:]).rstrip().endswith(THOUGHT[0])
    return f'{THOUGHT[0] if opened else ""}{self.decode(ids)}'


def _strings(value) -> Iterator[str]:
  """Every text within lists and objects."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict | list | tuple):
    for part in (*value, *value.values()) if isinstance(value, dict) else value:
      yield from _strings(part)


def _replaced(value, old: str, new: str):
  """The value with `old` replaced by `new` in every text within lists and objects."""
  if isinstance(value, str):
    return value.replace(old, new)
  if isinstance(value, dict):
    return {_replaced(name, old, new): _replaced(part, old, new) for name, part in value.items()}
  return [_replaced(part, old, new) for part in value] if isinstance(value, list | tuple) else value


def load_chat_tokenizer(directory: pathlib.Path, system: str | None = None) -> ChatTokenizer:
  """The tokenizer of a Hugging Face directory. Raises BadInput where there is none or it lacks ChatML's turn end."""
  tokenizer = read_chat_tokenizer(directory, system)
  if tokenizer.turn_end is None:
    raise BadInput(f'{directory}: the tokenizer has no {TURN_END} token, which ends a chat turn')
  return tokenizer


def read_chat_tokenizer(
  directory: pathlib.Path, system: str | None = None, eos_ids: tuple[int, ...] = ()
) -> ChatTokenizer:
  """The tokenizer of a Hugging Face directory, whether or not it has ChatML's tokens.

  Args:
    directory: has a tokenizer.json.
    system, eos_ids: see ChatTokenizer.

  Raises:
    BadInput: there is no tokenizer, or it cannot be read.
  """
  path = pathlib.Path(directory) / 'tokenizer.json'
  if not os.path.exists(path):  # False for a name that no file can have
    raise BadInput(f'{directory}: no tokenizer.json in it (expected a Hugging Face tokenizer directory)')
  try:
    # not AutoTokenizer: beside a config.json of qwen2 it replaces the pre-tokenizer of the file with Qwen2's own
    return ChatTokenizer(PreTrainedTokenizerFast.from_pretrained(str(directory)), system, eos_ids)
  except Exception as error:  # the tokenizers library raises bare Exception for a broken file
    raise BadInput(f'{path}: not a tokenizer ({error})') from None


def render(tokenizer: ChatTokenizer, problem: Problem, solution: Solution) -> dict[str, np.ndarray]:
  """One training sequence: the tokens, the tokens to be predicted, and how much each prediction counts.

  Returns:
    `tokens` and `targets`, int32 [T]: the targets are the tokens shifted by one. `weights`, float32 [T]: 0 where the
    target belongs to the prompt, the weight of the key span where it lies in one, 1 elsewhere and for the end of the
    turn.
  """
  prompt = tokenizer.prompt(problem)
  coded = tokenizer.literal.encode(solution.text, add_special_tokens=False)
  response, offsets = coded.ids, coded.offsets
  weights = np.ones(len(response) + 1, np.float32)
  for begin, end, weight in solution.key_spans:
    for i, (a, b) in enumerate(offsets):
      if a < end and b > begin:
        weights[i] = weight
  ids = np.array([*prompt, *response, tokenizer.hf.convert_tokens_to_ids(TURN_END)], np.int32)
  weights = np.concatenate([np.zeros(len(prompt), np.float32), weights])
  return {'tokens': ids[:-1], 'targets': ids[1:], 'weights': weights[1:]}
