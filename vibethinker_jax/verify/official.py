"""The rules of the published grader, for scores that are compared with published ones; workers of symbolic.py run them.

VibeThinker's evaluation folder grades with the rules of DeepScaleR, which go back to those of the MATH data set. A
response counts if it has `</think>`; its answer is the last `\boxed{}` after that. The answer is right if it equals a
reference after either of two normalisations, or if sympy finds that their difference is 0, where the rules consider
that safe to ask. The rules are narrower than math-verify's: no intervals against inequalities, no set order, 1/3 is not
2/6, exponents of two digits are not evaluated. Some are odd (`1,999.99999999` is 1999) and are kept, because a score
can be compared only if the same rules gave it. This file is written anew; docs/judges.md says how far it was compared.
"""

import math
import re
import unicodedata
from collections.abc import Sequence

_UNITS = (
  'degree', 'cm', 'centimeter', 'meter', 'mile', 'second', 'minute', 'hour', 'day', 'week', 'month', 'year', 'foot',
  'feet', 'inch', 'yard',
)  # fmt: skip
_SIGNS = {'√': 'sqrt', 'π': 'pi', '∞': 'inf', '∪': 'U', '·': '*', '×': '*'}
_TEXT = re.compile(r'^\\text\{(.+?)\}$')
_COMMAS = re.compile(r'(\d)(,)(\d\d\d)($|\D)')
_FRACTION = re.compile(r'^-?[0-9]+.?/0*[1-9][0-9]*.?$')
_SLASH = re.compile(r'(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)')
_UNSAFE = re.compile(r'\^\{|\^\(|\^[0-9]+\^|\^[0-9][0-9]+')


def extract(response: str) -> str | None:
  r"""The answer of a response: the last `\boxed{}` between the first `</think>` and the next. None without either."""
  parts = response.split('</think>')
  return None if len(parts) < 2 else _boxed(parts[1])


def golds(answer: str | Sequence[str]) -> list[str]:
  r"""The accepted texts; of a text with a `\boxed`, only the content of its last box, if that closes."""
  texts = [answer] if isinstance(answer, str) else answer
  inner = [_boxed(text) if '\\boxed' in text else text for text in texts]
  return [text for text in inner if text is not None]


def _boxed(text: str) -> str | None:
  begin = text.rfind('\\boxed')
  if begin < 0 or not text.startswith('{', begin + len('\\boxed')):
    return None
  depth = 0
  for brace in re.finditer('[{}]', text[begin:]):
    depth += 1 if brace.group() == '{' else -1
    if depth == 0:
      return text[begin + len('\\boxed{') : begin + brace.start()]
  return None


def right(gold: str, answer: str) -> bool:
  """Whether the published grader takes `answer` for `gold`."""
  return _tidy(gold) == _tidy(answer) or _alike(gold, answer)


# ---- first normalisation: the MATH data set's, text against text


def _tidy(text: str) -> str:
  text = text.strip()
  if inner := _TEXT.search(text):
    text = inner[1].strip()
  try:
    return _tidied(text)
  except (IndexError, ValueError):  # it fails on a command with nothing after it and on two units: the text stays
    return text


def _tidied(text: str) -> str:
  for old, new in (('\n', ''), ('\\!', ''), ('\\\\', '\\'), ('tfrac', 'frac'), ('dfrac', 'frac')):
    text = text.replace(old, new)
  for mark in ('\\left', '\\right', '^{\\circ}', '^\\circ', '\\$'):
    text = text.replace(mark, '')
  if '\\text{ ' in text:
    text, _ = text.split('\\text{ ')  # a unit; ValueError where there are two
  text = text.replace('\\%', '').replace(' .', ' 0.').replace('{.', '{0.')
  if text.startswith('.'):
    text = '0' + text
  sides = text.split('=')
  if len(sides) == 2 and len(sides[0]) <= 2:
    text = sides[1]
  text = _braced_roots(text).replace(' ', '')
  text = _braced_fractions(text)
  if text == '0.5':
    return '\\frac{1}{2}'
  return f'\\frac{{{slash[1]}}}{{{slash[2]}}}' if (slash := _SLASH.fullmatch(text)) else text


def _braced_roots(text: str) -> str:
  r"""`\sqrt3` as `\sqrt{3}`. Raises IndexError for a root with nothing behind it."""
  first, *rest = text.split('\\sqrt')
  return first + ''.join(f'\\sqrt{part}' if part[0] == '{' else f'\\sqrt{{{part[0]}}}{part[1:]}' for part in rest)


def _braced_fractions(text: str) -> str:
  r"""`\frac12` and `\frac1{2}` as `\frac{1}{2}`. Raises IndexError for a fraction with nothing behind it."""
  out, *rest = text.split('\\frac')
  for part in rest:
    if part[0] == '{':
      out += f'\\frac{part}'
    elif len(part) < 2:
      return text  # if one fraction has a single character after it, none is changed
    elif part[1] == '{':
      out += f'\\frac{{{part[0]}}}{part[1:]}'
    else:
      out += f'\\frac{{{part[0]}}}{{{part[1]}}}{part[2:]}'
  return out


# ---- second normalisation: plain text for sympy


def _plain(text: str) -> str:
  if inner := _TEXT.search(text):
    text = inner[1]
  for old, new in (('\\%', '%'), ('\\$', '$'), ('$', ''), ('%', ''), (' or ', ' , '), (' and ', ' , ')):
    text = text.replace(old, new)
  for word, power in (('million', 6), ('billion', 9), ('trillion', 12)):
    text = text.replace(word, f'*10^{power}')
  for unit in _UNITS:
    text = re.sub(rf'{unit}(es)?(s)? *(\^[0-9]+)?', '', text)
  text = re.sub(r'\^ *\\circ', '', text)
  if text.startswith('{') and text.endswith('}'):
    text = text[1:-1]
  text = re.sub(r',\\! *', '', text)
  if _is_whole(value := _float(text)):
    text = str(round(value))
  if '\\' in text:
    text = _without_latex(text)
  text = re.sub('- *', '-', text)
  text = re.sub('([0-9]) +([0-9])', r'\1+\2', text)  # a mixed number is a sum
  text = re.sub('[ {}]', '', text).lower()
  value = _float(_ungrouped(text))
  return str(int(value)) if _is_whole(value) else text  # the published code cuts off here, though it rounds above


def _without_latex(text: str) -> str:
  from pylatexenc.latex2text import LatexNodes2Text

  plain = text.replace('\\tfrac', '\\frac').replace('\\dfrac', '\\frac').replace('\\frac', ' \\frac')
  try:
    plain = LatexNodes2Text().latex_to_text(plain)
  except Exception:  # what it raises for broken LaTeX is not documented; the published code keeps the text then
    return text
  for sign, word in _SIGNS.items():
    plain = plain.replace(sign, word)
  return plain.strip()


def _float(text: str) -> float:
  """The number that Python reads in a text, NaN where it reads none."""
  try:
    return float(text)
  except ValueError:
    return math.nan


def _is_whole(value: float) -> bool:
  return math.isfinite(value) and abs(value - round(value)) <= 1e-7


def _ungrouped(text: str) -> str:
  while (shorter := _COMMAS.sub(r'\1\3\4', text)) != text:
    text = shorter
  return text


def _is_int(text: str) -> bool:
  return _is_whole(_float(_ungrouped(text)))


def _elements(text: str) -> list[str]:
  text = _ungrouped(text)
  if len(text) > 2 and text[0] in '()[]' and text[-1] in '()[]' and not re.search(r'[()\[\]]', text[1:-1]):
    return [part.strip() for part in text[1:-1].split(',')]
  return [text] if text else []


def _alike(gold: str, answer: str) -> bool:
  gold, answer = _plain(gold), _plain(answer)
  if gold == answer:
    return True
  if not answer or not gold:
    return False
  golds, answers = _elements(gold), _elements(answer)
  if len(golds) != len(answers) or (len(golds) > 1 and (gold[0], gold[-1]) != (answer[0], answer[-1])):
    return False
  return all(_equal(one, other) for one, other in zip(golds, answers))


def _equal(gold: str, answer: str) -> bool:
  if _FRACTION.search(gold) and _FRACTION.search(answer):
    return gold == answer
  if _is_int(gold) != _is_int(answer):
    return False
  difference = f'({gold})-({answer})'
  letters = {c for c in difference.replace('sqrt', '').replace('frac', '') if c.isalpha()}
  if len(letters) > 2 or _UNSAFE.search(difference):
    return False
  # This rule is ours: sympy's parser evaluates Python, where `__` leads from a number to all that the process may do.
  # Two letters can be enough, since Python normalises some signs to letters that `isalpha` does not count.
  if '__' in unicodedata.normalize('NFKC', difference):
    return False
  from sympy import simplify
  from sympy.parsing.sympy_parser import (
    implicit_multiplication_application,
    parse_expr,
    standard_transformations,
  )

  try:
    rules = (*standard_transformations, implicit_multiplication_application)
    return simplify(parse_expr(difference.replace('^', '**'), transformations=rules)) == 0
  except Exception:  # any text of a model may reach this parser, and it may raise anything
    return False
