r"""The structure of an answer: lists, tuples, sets, unions, chains of relations, and the scalars in them.

It is read here and not by an algebra system, which takes `HTH` for a product and reads `-(1,2)` in its own way. The
input is in the one spelling of `latex.tidy`.
"""

import dataclasses
import re

_TOKEN = re.compile(r'\\text\{[^{}]*\}|\\begin\{[a-zA-Z]*\*?\}|\\end\{[a-zA-Z]*\*?\}|\\[a-zA-Z]+|\\.|.', re.DOTALL)
_OPEN = {'(', '[', '{', '\\{', '\\langle', '\\lfloor', '\\lceil'}
_CLOSE = {')', ']', '}', '\\}', '\\rangle', '\\rfloor', '\\rceil'}
_PAIRS = {
  '(': ')',
  '[': ']',
  '{': '}',
  '\\{': '\\}',
  '\\langle': '\\rangle',
  '\\lfloor': '\\rfloor',
  '\\lceil': '\\rceil',
}
_CONNECTIVE = re.compile(r'\\text\{(and|or)\}', re.IGNORECASE)
RELATIONS = {
  '=', '<', '>', '\\le', '\\ge', '\\ne', '\\approx', '\\sim', '\\equiv', '\\in', '\\notin', '\\to', '\\Rightarrow',
  '\\iff', '\\lor', '\\land', '\\mid', '\\subset', '\\subseteq', '\\propto', '\\cong', '\\perp', '\\parallel',
  '\\mapsto', '\\leftarrow', '\\gets', '\\ll', '\\gg', '\\hookrightarrow', '\\leadsto', '\\because', '\\therefore',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scalar:
  """One value: a number, an expression, a matrix, words; with its unit."""

  text: str


@dataclasses.dataclass(frozen=True)
class Several:
  """Values side by side without brackets: all solutions, in any order. connectives: the words between them."""

  parts: tuple['Part', ...]
  connectives: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Tuple:
  """A point or an interval: brackets and values in order."""

  opening: str
  parts: tuple['Part', ...]
  closing: str


@dataclasses.dataclass(frozen=True)
class Set:
  """Values between braces, in any order."""

  parts: tuple['Part', ...]


@dataclasses.dataclass(frozen=True)
class Union:
  """A union of sets, in any order."""

  parts: tuple['Part', ...]


@dataclasses.dataclass(frozen=True)
class Chain:
  """Members and the relations between them: `x = 2 + 3 = 5`. At an open end the member is empty."""

  members: tuple['Part', ...]
  relations: tuple[str, ...]
  text: str


Part = Scalar | Several | Tuple | Set | Union | Chain


def tokens(text: str) -> list[str]:
  r"""The tokens of a text: commands, `\text{}` groups, ends of environments, escaped and plain characters."""
  return _TOKEN.findall(text)


def balanced(text: str) -> bool:
  """Whether every bracket is closed; `]` may close `(` and `)` may close `[`, as in an interval."""
  opened = []
  for token in tokens(text):
    if token in _OPEN:
      opened.append(token)
    elif token in _CLOSE:
      if not opened:
        return False
      begun = opened.pop()
      if _PAIRS[begun] != token and not {begun, token} <= {'(', '[', ')', ']'}:
        return False
  return not opened


def split(text: str, marks: set[str]) -> tuple[list[str], list[str]]:
  """The parts of a text between the marks outside all brackets and environments, and these marks in order."""
  parts, found, depth = [''], [], 0
  for token in tokens(text):
    if token in _OPEN or token.startswith('\\begin'):
      depth += 1
    elif token in _CLOSE or token.startswith('\\end{'):
      depth = max(0, depth - 1)
    elif depth == 0 and token in marks:
      found.append(token)
      parts.append('')
      continue
    parts[-1] += token
  return [part.strip() for part in parts], found


def read(text: str) -> Part:
  """The structure of a tidied answer."""
  text, connectives = _joined(text)
  if len(groups := [part for part in split(text, {';'})[0] if part]) > 1:
    return Several(tuple(_grouped(part) for part in groups), connectives)
  if len(parts := [part for part in split(_whole_numbers(text), {','})[0] if part]) > 1:
    return Several(tuple(_single(part) for part in parts), connectives)
  return _single(_whole_numbers(text).strip(', '))


def _grouped(text: str) -> Part:
  """One of the parts between semicolons: in it, `p=5, q=2` is a point, like `(5, 2)`."""
  part = read(text)
  return Tuple('(', part.parts, ')') if isinstance(part, Several) else part


def _joined(text: str) -> tuple[str, frozenset[str]]:
  """The text with commas for `and` and `or` outside brackets, and which of the two words there were."""
  words = set()
  out, depth = [], 0
  for token in tokens(text):
    depth += (token in _OPEN) - (token in _CLOSE)
    if depth == 0 and (match := _CONNECTIVE.fullmatch(token)):
      words.add(match[1].lower())
      token = ','
    out.append(token)
  return ''.join(out), frozenset(words)


def _whole_numbers(text: str) -> str:
  """The text without commas that group thousands, as in `12,345 \\pi`; `1, 234` and `(1,234)` stay lists."""
  if not re.search(r'\d,\d', text) or re.search(r',(?!\d{3}(?!\d))|(?<!\d),', text) or text[:1] in '([':
    return text
  return re.sub(r'(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d)', lambda m: m.group().replace(',', ''), text)


def _single(text: str) -> Part:
  """The structure of a text that has no comma outside brackets."""
  text = text.strip()
  members, relations = split(text, RELATIONS)
  if relations:
    return Chain(tuple(read(member) if member else Scalar('') for member in members), tuple(relations), text)
  pieces, cups = split(text, {'\\cup'})
  if cups:
    return Union(tuple(_single(piece) for piece in pieces))
  marks = tokens(text)
  if len(marks) > 2 and marks[0] in _OPEN and _closes_last(marks):
    inner = text[len(marks[0]) : len(text) - len(marks[-1])].strip()
    opening, end = marks[0], marks[-1]
    if opening == '\\{' and end == '\\}':
      parts = read(inner)
      return Set(parts.parts if isinstance(parts, Several) else (parts,))
    if opening in ('(', '[', '\\langle') and end in (')', ']', '\\rangle'):
      items = [part for part in split(inner, {',', ';'})[0]]
      if len(items) > 1 and all(items):
        return Tuple(opening.replace('\\langle', '('), tuple(map(_single, items)), end.replace('\\rangle', ')'))
      if len(items) == 1 and (opening, end) in (('(', ')'), ('[', ']')):
        return _single(inner)
    if opening == '{' and end == '}':
      return read(inner)
  return Scalar(text)


def _closes_last(marks: list[str]) -> bool:
  """Whether the last token of a text closes the bracket that is its first token."""
  depth = 0
  for i, token in enumerate(marks):
    depth += (token in _OPEN) - (token in _CLOSE)
    if depth == 0:
      return i == len(marks) - 1
  return False


def matrix(text: str) -> tuple[str, list[list[str]]] | None:
  """The environment and the entries of a text that is one matrix, None for anything else."""
  match = re.fullmatch(r'\\begin\{([pbvBV]?matrix|array|cases)\}\s*(?:\{[lcr|]*\})?(.*?)\\end\{\1\}', text, re.DOTALL)
  if match is None or '\\begin' in match[2]:
    return None
  # some data sets lost one of the two backslashes at the end of a row
  rows = [row for row in re.split(r'\\\\|\\(?=[-+\d.(])', match[2].strip()) if row.strip()]
  return match[1], [[entry.strip() for entry in row.split('&')] for row in rows]
