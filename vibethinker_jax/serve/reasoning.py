"""What a model thinks, told apart from what it says: `<think>...</think>` at the beginning of an answer, also where the
chat template has opened it already. Fed piece by piece, whatever the pieces are, the parts are those of the whole text.
"""

_OPEN, _CLOSE = '<think>', '</think>'


class ReasoningParser:
  """`feed` a sample's text as it comes, then `end`: each gives what is new of (reasoning, content).

  White space around either is left out where thinking was met. Thinking that is not closed has no content behind it.
  opened: the prompt ended inside of it.
  """

  def __init__(self, opened: bool = False):
    self._held = ''  # undecided: perhaps a part of a tag, or white space before one
    self._state = 'reasoning' if opened else 'before'  # then 'reasoning', 'after' and 'content'
    self._begun = False  # whether there was reasoning to tell

  def feed(self, text: str) -> tuple[str, str]:
    """What is certain now."""
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
    """What was undecided, when nothing more comes."""
    held, self._held = self._held, ''
    if self._state == 'reasoning':
      return self._told(held.rstrip()), ''
    return ('', held) if self._state == 'before' else ('', '')

  def _told(self, thought: str) -> str:
    thought = thought if self._begun else thought.lstrip()
    self._begun = self._begun or bool(thought)
    return thought


def _without_beginning(text: str, tag: str) -> str:
  """The text without what may be the beginning of a tag at its end."""
  longest = min(len(tag) - 1, len(text))
  return text[: len(text) - next((n for n in range(longest, 0, -1) if tag.startswith(text[-n:])), 0)]
