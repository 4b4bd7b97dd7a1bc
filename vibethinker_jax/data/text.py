"""Text to token ids and back: tokenizer, chat template, and a solution as ids with loss weights.

A prompt is what generation will see, a response is what it will be asked for: they are tokenised apart and joined, so
that training and sampling agree on every id at the border.
"""

import dataclasses
import pathlib

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from vibethinker_jax.data.problem import Problem, Solution
from vibethinker_jax.errors import BadInput

TURN_END = '<|im_end|>'
THOUGHT = ('<think>', '</think>')


@dataclasses.dataclass(frozen=True)
class Text:
  """A tokenizer and the system prompt to use with it (None: whatever its chat template says)."""

  tokenizer: PreTrainedTokenizerBase
  system: str | None = None

  @property
  def stop_ids(self) -> tuple[int, ...]:
    """Ids that end a response: the end of a chat turn, and the end of text."""
    ids = (self.tokenizer.convert_tokens_to_ids(TURN_END), self.tokenizer.eos_token_id)
    return tuple(sorted({i for i in ids if i is not None}))

  def chat(self, messages: list[dict]) -> list[int]:
    """Ids of a conversation, ending where the assistant begins to speak."""
    if self.system is not None and (not messages or messages[0]['role'] != 'system'):
      messages = [{'role': 'system', 'content': self.system}, *messages]
    text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return self.tokenizer.encode(text, add_special_tokens=False)

  def prompt(self, problem: Problem) -> list[int]:
    """Ids of a problem's prompt."""
    return self.chat([{'role': 'user', 'content': problem.prompt}])

  def decode(self, ids) -> str:
    """Text of response ids, without special tokens; the marks of a thought stay."""
    special = set(self.tokenizer.all_special_ids)
    marks = {i for i in self.tokenizer.convert_tokens_to_ids(list(THOUGHT)) if i in special}
    if not marks:
      return self.tokenizer.decode(ids, skip_special_tokens=True)
    return self.tokenizer.decode([i for i in map(int, ids) if i not in special or i in marks])

  def response(self, prompt, ids) -> str:
    """Text of response ids as a judge has to see it: `<think>` stands in front where the prompt opened the thought."""
    opened = self.tokenizer.decode(prompt[-8:]).rstrip().endswith(THOUGHT[0])
    return f'{THOUGHT[0] if opened else ""}{self.decode(ids)}'


def load_text(directory: pathlib.Path, system: str | None = None) -> Text:
  """The tokenizer of a Hugging Face directory. Raises BadInput where there is none or it lacks ChatML's turn end."""
  if not (pathlib.Path(directory) / 'tokenizer.json').exists():
    raise BadInput(f'{directory}: no tokenizer.json in it (expected a Hugging Face tokenizer directory)')
  # not AutoTokenizer: beside a config.json of qwen2 it puts Qwen2's own pre-tokenizer in place of the one of the file
  tokenizer = PreTrainedTokenizerFast.from_pretrained(str(directory))
  if tokenizer.convert_tokens_to_ids(TURN_END) in (None, tokenizer.unk_token_id):
    raise BadInput(f'{directory}: the tokenizer has no {TURN_END} token, which ends a chat turn')
  return Text(tokenizer, system)


def render(text: Text, problem: Problem, solution: Solution) -> dict[str, np.ndarray]:
  """One training sequence: what is read, what is to be predicted, and how much each prediction counts.

  Returns `tokens` and `targets` int32 [T] (targets are tokens moved by one) and `weights` float32 [T]: 0 where the
  target belongs to the prompt, the key span's weight inside one, 1 elsewhere, the end of the turn included.
  """
  prompt = text.prompt(problem)
  coded = text.tokenizer(solution.text, add_special_tokens=False, return_offsets_mapping=True)
  response, offsets = coded['input_ids'], coded['offset_mapping']
  weights = np.ones(len(response) + 1, np.float32)
  for begin, end, weight in solution.key_spans:
    for i, (a, b) in enumerate(offsets):
      if a < end and b > begin:
        weights[i] = weight
  ids = np.array([*prompt, *response, text.tokenizer.convert_tokens_to_ids(TURN_END)], np.int32)
  weights = np.concatenate([np.zeros(len(prompt), np.float32), weights])
  return {'tokens': ids[:-1], 'targets': ids[1:], 'weights': weights[1:]}
