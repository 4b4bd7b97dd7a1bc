"""Separates the thinking of a model from its answer: `<think>...</think>` at the beginning of a response.

The chat template may have opened the thinking already. The text comes in pieces; however it is cut into pieces, the
result is that of the whole text.
"""

_OPEN, _CLOSE = '<think>', '</think>'


class ReasoningParser:
  """`feed` takes the text of a sample as it comes, `end` ends it; each returns what is new of (reasoning, content).

  White space around the two is left out if there is thinking. Thinking that is not closed has no content after it.
  opened: whether the prompt ended within the thinking.
  """

  def __init__(self, opened: bool = False):
    self._held = ''  # text that may be part of a tag, or white space before one
    self._state = 'reasoning' if opened else 'before'  # then 'reasoning', 'after' and 'content'
    self._begun = False  # whether some reasoning was returned

  def feed(self, text: str) -> tuple[str, str]:
    """The parts that are certain after this piece."""
    self._held += text
    reasoning = ''
    if self._state == 'before':
      bare = self._held.lstrip()
      if _OPEN.startswith(bare):
        return '', ''
      self._state = 'reasoning' if bare.startswith(_OPEN) else 'content'
      self._held = bare.removeprefix(_OPEN) if self._state == 'reasoning' else self._held
    if self._state == 'reasoning':
      thought, closed, rest = self._held.partition(_CLOSE)
      sure = thought.rstrip() if closed else _without_beginning(thought, _CLOSE).rstrip()
      self._held = rest if closed else self._held[len(sure) :]
      reasoning = self._told(sure)
      self._state = 'after' if closed else self._state
    if self._state == 'after':
      self._held = self._held.lstrip()
      self._state = 'content' if self._held else self._state
    if self._state != 'content':
      return reasoning, ''
    content, self._held = self._held, ''
    return reasoning, content

  def end(self) -> tuple[str, str]:
    """The parts that were uncertain; called when no more text comes."""
    held, self._held = self._held, ''
    if self._state == 'reasoning':
      return self._told(held.rstrip()), ''
    return ('', held) if self._state == 'before' else ('', '')

  def _told(self, thought: str) -> str:
    thought = thought if self._begun else thought.lstrip()
    self._begun = self._begun or bool(thought)
    return thought


def _without_beginning(text: str, tag: str) -> str:
  """The text without characters at its end that may be the beginning of `tag`."""
  longest = min(len(tag) - 1, len(text))
  return text[: len(text) - next((n for n in range(longest, 0, -1) if tag.startswith(text[-n:])), 0)]
