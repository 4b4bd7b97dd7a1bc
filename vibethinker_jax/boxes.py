r"""Finds the answer of a response: after its thinking, in the last `\boxed{...}`. The only parser of boxes."""

import re

# One or more backslashes: a text that passed through JSON twice has two.
_BOX = re.compile(r'\\+(?:boxed|fbox)(?![a-zA-Z])\s*')
_TOKEN = re.compile(r'\\+(?:boxed|fbox)(?![a-zA-Z])\s*|\\.|[{}]', re.DOTALL)
_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)  # an escaped brace is an ordinary character
# What `\boxed` takes without braces: a number, one letter, or a command with its arguments.
_BARE = re.compile(r'[-+]?\d+(?:,\d{3})*(?:\.\d+)?|[-+]?[a-zA-Z](?![a-zA-Z])|[-+]?\\(?:pi|infty|emptyset)(?![a-zA-Z])')
_COMMAND = re.compile(r'[-+]?\\(?:[dtc]?frac|sqrt|text|textbf|mathrm|mathbf|binom)(?![a-zA-Z])')
_ARGUMENT = re.compile(r'\d|\[\d+\]')
_LONGEST = 100  # characters of an argument; without a bound, the time for a hostile text is quadratic
_NESTED = 3  # boxes that contain nothing but a box


def answer_part(response: str) -> str | None:
  """The text of a response after its thinking; None if the thinking is not closed, which means that there is no answer.

  The thinking is everything before the last `</think>`. If the prompt opened it, `response` must begin with that
  `<think>`. A response without thinking is returned whole.
  """
  _, _, answer = response.rpartition('</think>')
  return None if '<think>' in answer else answer


def boxes(text: str) -> list[tuple[int, int] | None]:
  r"""The contents of all boxes of a text as (begin, end), in the order in which they open; None for one that never
  closes.

  These are boxes: `\boxed{...}`, `\fbox{...}` and, without braces, `\boxed 7`, `\boxed x`, `\boxed\frac{1}{2}`. A box
  within a closed box is part of its content.
  """
  at = text.find('box')  # fast: most of a response comes before its first box
  if at < 0:
    return []
  found: list[tuple[int, int | None]] = []  # [begin, end) of the content
  opened: list[int | None] = []  # for every open brace the index in `found` of its box, None for another brace
  at = max(0, at - 3)
  while (token := _TOKEN.search(text, at)) is not None:
    at = token.end()
    mark = token.group()
    if mark == '{':
      opened.append(None)
    elif mark == '}':
      box = opened.pop() if opened else None
      if box is not None:
        found[box] = (found[box][0], token.start())
        del found[box + 1 :]
    elif len(mark) > 2 and mark[-1] not in '{}':
      if text.startswith('{', at):
        at += 1
        opened.append(len(found))
        found.append((at, None))
      elif (end := _bare(text, at)) is not None:
        found.append((at, end))
        at = end
  return [(begin, end) if end is not None else None for begin, end in found]


def _bare(text: str, begin: int) -> int | None:
  """The end of the content of a box without braces, None where there is no such content."""
  if bare := _BARE.match(text, begin):
    return bare.end()
  command = _COMMAND.match(text, begin)
  if command is None:
    return None
  end = command.end()
  while True:
    if text.startswith('{', end):
      closed = closing(text, end + 1, end + _LONGEST)
      if closed is None:
        return None
      end = closed + 1
    elif argument := _ARGUMENT.match(text, end):
      end = argument.end()
    else:
      return end


def closing(text: str, begin: int, end: int | None = None) -> int | None:
  """The position of the brace that closes the one before `begin`; None if it is not closed before `end`."""
  depth = 1
  for brace in _BRACE.finditer(text, begin, len(text) if end is None else end):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return brace.start()
  return None


def last_box(text: str) -> tuple[int, int] | None:
  """(begin, end) of the content of the last box of a text; None if there is no box, or the last one never closes."""
  found = boxes(text)
  return found[-1] if found else None


def all_boxed(text: str) -> list[str]:
  """The contents of all closed boxes of a text, stripped, in order, without repetitions."""
  return list(dict.fromkeys(text[slice(*span)].strip() for span in boxes(text) if span is not None))


def extract_boxed(response: str) -> str | None:
  """The content of the last box of a response, stripped; if that is nothing but a box, the content of the inner box.

  None if there is no box after the thinking, if the last one never closes, or if the thinking is not closed.
  """
  text = answer_part(response)
  span = None if text is None else last_box(text)
  if span is None:
    return None
  inner = text[slice(*span)].strip()
  for _ in range(_NESTED):
    box = _BOX.match(inner)
    if box is None or not inner.startswith('{', box.end()) or closing(inner, box.end() + 1) != len(inner) - 1:
      break
    inner = inner[box.end() + 1 : -1].strip()
  return inner
