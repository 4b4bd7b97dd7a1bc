r"""Are two single values equal? Words, units, bases, ratios and percentages are decided here, the rest by algebra.

A verdict is True, False, or None where only algebra can decide. Algebra is a function of two LaTeX expressions that the
caller passes in; `undecided` is the function that always gives None.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from vibethinker_jax.verify import latex, vocabulary
from vibethinker_jax.verify.quantity import Quantity, based, number, quantity, units_agree, without_letter
from vibethinker_jax.verify.structure import matrix, split, tokens

Equal = Callable[[str, str, bool], bool | None]  # reference, answer, whether about equal is enough


def undecided(gold: str, pred: str, about: bool) -> None:
  """The algebra that decides nothing."""


def every(verdicts: Iterable[bool | None]) -> bool | None:
  unknown = False
  for verdict in verdicts:
    if verdict is False:
      return False
    unknown |= verdict is None
  return None if unknown else True


def some(verdicts: Iterable[bool | None]) -> bool | None:
  unknown = False
  for verdict in verdicts:
    if verdict:
      return True
    unknown |= verdict is None
  return None if unknown else False


def is_words(gold: str) -> bool:
  """Whether a reference consists of words, or of letters in an order: `HTH`, `C,A,B`, `\\text{Monday}`."""
  bare = latex.tight(re.sub(r'\\text\{([^{}]*)\}', r'\1', gold))
  if not re.fullmatch(r"(?:[^\W\d_]|[\s.,;:'!?-]|\\ )*", bare) or (
    quantity(gold).value == '' and re.search(r'\d', bare)
  ):
    return False
  letters = re.sub(r'[\W_]', '', bare)
  listed = ',' in bare or ';' in bare
  return len(letters) > 1 and (not listed or all(re.fullmatch(r'[A-Z]|\w{2,}', p) for p in re.findall(r'\w+', bare)))


def spelt(text: str) -> str:
  """Words and letters without case, punctuation, dots of products, and articles."""
  bare = re.sub(r'\\text\{([^{}]*)\}', r' \1 ', text).replace('\\cdot', '')
  bare = re.sub(r'^\s*(?:the|a|an)\s+', '', bare, flags=re.IGNORECASE)
  bare = re.sub(r'\s*\b(?:and|or)\b\s*', ',', bare) if re.search(r',|\band\b|\bor\b', bare) else bare
  bare = re.sub(r'[,;]+', ',', re.sub(r'\s|[.:!?\'()\[\]]', '', bare))
  return bare.strip(',').casefold()


def letters(text: str) -> set[str]:
  """The variables of an expression."""
  text = re.sub(r'\\text\{[^{}]*\}', ' ', text)
  greek = set(re.findall(r'\\(alpha|beta|gamma|delta|theta|lambda|mu|sigma|phi|omega|angle)(?![a-zA-Z])', text))
  return greek | set(re.findall('[a-zA-Z]', re.sub(r'\\[a-zA-Z]+', ' ', text)))


def scalars(gold: str, pred: str, equal: Equal) -> bool | None:
  if latex.tight(gold) == latex.tight(pred):
    return True
  if is_words(gold):
    return spelt(gold) == spelt(pred)
  g, p = quantity(gold), quantity(pred)
  if not units_agree(g, p):
    return False
  if g.counting and not set(g.counting) <= {'infinity', 'times'}:
    return spelt(gold) == spelt(pred)
  if not g.value or not p.value:
    return False
  one, other = based(g.value), based(p.value)
  if one or other:
    return _bases(one, other, g, p)
  if ':' in g.value or ':' in p.value:
    return _ratios(g.value, p.value, equal)
  if g.percent or p.percent:
    return _percentages(g, p, equal)
  return _expressions(g.value, p.value, equal)


def _bases(one: tuple[str, int] | None, other: tuple[str, int] | None, gold: Quantity, pred: Quantity) -> bool:
  """Whether numbers of a base are equal digit for digit; base ten need not be written."""
  if one is not None and other is not None:
    return one == other
  digits, base = one or other
  plain = number(pred.value if one else gold.value)
  return base == 10 and plain is not None and digits.lstrip('-').isdigit() and plain == int(digits)


def _ratios(gold: str, pred: str, equal: Equal) -> bool | None:
  """`3:4` equals `6:8` and 3/4; a time of day, or a ratio of three numbers, equals only itself."""
  golds, preds = split(gold, {':'})[0], split(pred, {':'})[0]
  if re.fullmatch(r'(?:[01]?\d|2[0-4])\s*:\s*[0-5]\d(?:\s*:\s*[0-5]\d)?', gold):
    return len(golds) == len(preds) and all(
      number(a) is not None and number(a) == number(b) for a, b in zip(golds, preds)
    )
  if len(golds) == 2 and len(preds) < 3:
    divided = [f'\\frac{{{parts[0]}}}{{{parts[1]}}}' if len(parts) == 2 else parts[0] for parts in (golds, preds)]
    return _expressions(*divided, equal) if all((*golds, *preds)) else False
  return every(_expressions(a, b, equal) for a, b in zip(golds, preds)) if len(golds) == len(preds) else False


def _percentages(gold: Quantity, pred: Quantity, equal: Equal) -> bool | None:
  """A percentage equals the number without its sign, and a hundredth of that: only the question says which is meant."""
  if gold.percent and pred.percent:
    return _expressions(gold.value, pred.value, equal)
  hundredth = lambda value: f'\\frac{{{value}}}{{100}}'
  golds, preds = ((gold.value, hundredth(gold.value)), (pred.value,)) if gold.percent else (
    (gold.value,), (pred.value, hundredth(pred.value)))  # fmt: skip
  return some(_expressions(a, b, equal) for a in golds for b in preds)


def _expressions(gold: str, pred: str, equal: Equal) -> bool | None:
  """Compares two values without units. Two plain numbers are compared exactly, everything else by algebra."""
  if latex.tight(gold) == latex.tight(pred):
    return True
  one, other = number(gold), number(pred)
  if one is not None and other is None and (bare := without_letter(pred)) is not None:
    other = number(bare)
  if one is not None and other is not None:
    return one == other
  if (a := matrix(gold)) is not None and (b := matrix(pred)) is not None:
    if (a[0][0] == 'v') != (b[0][0] == 'v') or [len(row) for row in a[1]] != [len(row) for row in b[1]]:
      return False
    if a[0][0] != 'v':
      return every(scalars(latex.tidy(x), latex.tidy(y), equal) for r, s in zip(a[1], b[1]) for x, y in zip(r, s))
  if not readable(pred, gold) or _points(gold) != _points(pred):
    return False
  return equal(gold, pred, False)


def _points(text: str) -> list[str]:
  """Capital letters in a row, sorted: they name points, but algebra takes them for a product in any order."""
  return sorted(re.findall('[A-Z]{2,}', re.sub(r'\\[a-zA-Z]+', ' ', text)))


def readable(pred: str, gold: str) -> bool:
  """Whether a parser reads all of an expression, apart from signs that the reference has too.

  Parsers drop what they do not know. So these are refused: numbers side by side, subscripts of numbers, dots, values in
  brackets with commas, and commands that do not belong to an expression.
  """
  marks = tokens(pred)
  known = set(tokens(gold))
  opened = 0
  for i, token in enumerate(marks):
    if re.fullmatch(r'\\[^a-zA-Z{}%$|\\]', token):
      return False  # no command of LaTeX: the meaning is unknown
    if token in '([{' or token in ('\\{', '\\lfloor', '\\lceil'):
      opened += 1
    elif token in ')]}' or token in ('\\}', '\\rfloor', '\\rceil'):
      opened -= 1
    elif (
      token.startswith('\\')
      and token not in known
      and token[1:] not in vocabulary.COMMANDS
      and not token.startswith('\\begin')
    ):
      if not token.startswith('\\end') and token != '\\\\':
        return False
    elif (token in '?#@;"~`_&' and token not in known and not (token == '_' and i and marks[i - 1][-1].isalpha())) or (
      token == ',' and opened and ',' not in known
    ):
      return False
  if re.search(r'\\frac\{[^{}]*\}\{[^{}]*\}\s*\\frac', pred) and '}\\frac' not in latex.tight(gold):
    return False  # a sum to some readers, a product to others
  if re.search(
    r'\d\s+\.?\d|\.\s*\.|\d\s*_|\d\.\d+\.\d|\}\s*\d', re.sub(r'\^\{|_\{|\\(?:begin|end)\{\w+\}', '^(', pred)
  ):
    return bool(re.search(r'\d\s+\d|\.\s*\.|\d\s*_|\}\s*\d', gold))
  return _strictly_balanced(marks)


def _strictly_balanced(marks: Sequence[str]) -> bool:
  opened, pairs = [], {')': '(', ']': '[', '}': '{', '\\}': '\\{', '\\rfloor': '\\lfloor', '\\rceil': '\\lceil'}
  for token in marks:
    if token in pairs.values():
      opened.append(token)
    elif token in pairs and (not opened or opened.pop() != pairs[token]):
      return False
  return not opened
