"""Texts as words that can be compared: one case, one script and one spelling of LaTeX. And which words are formulas.

Letters that look like Latin letters become Latin letters. Unicode's compatibility decomposition removes accents,
full-width and bold forms; invisible characters are left out; a table has Cyrillic and Greek look-alikes. (Unicode's
confusables.txt has these and many more, from scripts that a reader would not mistake for Latin.)
"""

import re
import unicodedata
from collections.abc import Sequence

# LaTeX's commands for space, size and type face; a command ends where its letters end
_LATEX = re.compile(
  r'\\(?:[\\,;:!> ]|[dt](?=frac)|(?:q?quad|left|right|[bB]igg?[lr]?|displaystyle|mbox'
  r'|(?:text|math)(?:bf|it|rm)?)(?![a-zA-Z]))'
)
_FOREIGN = re.compile(r'[^\w\x00-\x7f]')
_WORD = re.compile(r'[0-9]+|[^\W_0-9]+[0-9]*')
_SIGN = re.compile(r'[-+=<>]')
_END = re.compile(r'[?!;"$\n]|[.,:](?=\s|$)|\\[\])]')
_ALIKE = str.maketrans(
  'АВЕЅІЈКМНОРСТУХҮԌԚԜаеѕіјкорсухүԁԛԝһӏѵгвнмтьΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγικνορτυχϲϳıɡɑ−',
  'ABESIJKMHOPCTYXYGQWaesijkopcyxydqwhlvrbhmtbABEZHIKMNOPTYXayikvoptuxcjiga-',
)
_INVISIBLE = frozenset(('Mn', 'Me', 'Cf'))  # accents, once they stand apart, and what has no width

_NAMES = frozenset(  # of functions and signs, as LaTeX spells them
  re.findall(
    r'\w+',
    'frac dfrac tfrac cfrac sqrt sin cos tan cot sec csc arcsin arccos arctan log ln exp lim max min prod int cdot '
    'cdots ldots dots vdots times div pm mp le leq ge geq ne neq lt gt equiv approx sim pi theta alpha beta gamma '
    'delta epsilon varepsilon lambda mu nu omega phi varphi psi rho sigma tau infty binom dbinom tbinom circ angle '
    'overline underline vec bar hat mathbb mathcal cup cap pmod bmod mod gcd lcm det begin end pmatrix bmatrix '
    'vmatrix matrix cases array align aligned operatorname lfloor rfloor lceil rceil langle rangle abc xyz abcd',
  )
)
_SHORT = frozenset(re.findall(r'\w+', 'of to in is it be as at so we he by or on do if me my up an go no us am'))


def normal(text: str) -> str:
  """The text in lower case, with look-alikes unified and without LaTeX's spacing; other non-ASCII signs are spaces."""
  if text.isascii():
    return _LATEX.sub(' ', text).lower()
  apart = unicodedata.normalize('NFKD', text)
  seen = ''.join(c for c in apart if c.isascii() or unicodedata.category(c) not in _INVISIBLE)
  return _FOREIGN.sub(' ', _LATEX.sub(' ', seen.translate(_ALIKE)).lower())


def words(text: str) -> list[str]:
  """The words of a text: numbers, and runs of letters with the digits after them."""
  return _WORD.findall(normal(text))


def loose(found: Sequence[str]) -> list[str]:
  """The words, with every word of a single letter replaced by the same sign."""
  return ['_' if len(w) == 1 and w.isalpha() else w for w in found]


def is_formula(word: str) -> bool:
  """Whether a word belongs to formulas: a number, one or two letters, or LaTeX's name of a function or sign."""
  return (
    word.isdigit() or len(word) == 1 or word in _NAMES or (len(word) == 2 and word.isalpha() and word not in _SHORT)
  )


def is_identity(found: Sequence[str], n: int) -> bool:
  """Whether n or more words are a formula of general use, with hardly any prose.

  A formula is specific to its problem by its numbers: numbers of 5 or more whose predecessor does not occur in it. Two
  of these are enough, or one in a formula of 1.5 n words or more.
  """
  if 2 * sum(not is_formula(word) for word in found) >= n:
    return False
  numbers = {int(word) for word in found if word.isdigit() and len(word) < 10}
  own = sum(number >= 5 and number - 1 not in numbers for number in numbers)
  return own < 2 and (own < 1 or 2 * len(found) < 3 * n)


def holds(text: str, short: str) -> bool:
  """Whether `text` contains the problem `short`: the same words and signs, and an end where `short` has one.

  "Compute 2 + 3." is neither in "compute 2 - 3." nor in "compute 2 + 3 x.". What comes before it in `text` does not
  matter, unless it is part of the same formula.
  """
  whole, problem = normal(text), normal(short)
  found, wanted = _tokens(whole), _tokens(problem)
  while _SIGN.fullmatch(wanted[-1][0]):
    wanted.pop()
  open_ended = not is_formula(wanted[-1][0]) and not _END.search(problem, wanted[-1][2])
  wanted = [token for token, _, _ in wanted]
  names = [token for token, _, _ in found]
  for i in range(len(found) - len(wanted) + 1):
    if names[i : i + len(wanted)] != wanted:
      continue
    before, after = found[max(0, i - 1) : i], found[i + len(wanted) :][:1]
    ends = open_ended or all(_END.search(whole[found[i + len(wanted) - 1][2] : begin + 1]) for _, begin, _ in after)
    goes_on = is_formula(wanted[0]) and any(
      (is_formula(token) or _SIGN.fullmatch(token)) and not _END.search(whole[end : found[i][1]])
      for token, _, end in before
    )
    if ends and not goes_on:
      return True
  return False


def _tokens(whole: str) -> list[tuple[str, int, int]]:
  """(token, begin, end) of the words in a text in normal form, and of the signs before words of formulas."""
  out = []
  for match in re.finditer(f'{_WORD.pattern}|{_SIGN.pattern}', whole):
    if out and _SIGN.fullmatch(out[-1][0]) and not (_SIGN.fullmatch(match[0]) or is_formula(match[0])):
      out.pop()  # a hyphen
    out.append((match[0], *match.span()))
  return out
