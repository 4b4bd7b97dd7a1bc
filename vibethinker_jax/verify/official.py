"""The published grader's rules, for scores that are to be compared with published ones; run in symbolic.py's workers.

VibeThinker's evaluation folder grades with the rules of DeepScaleR, which go back to the MATH data set's: a response
counts if it has `</think>`, its answer is the last `\boxed{}` after that, and it is right if it equals a gold one
after either of two normalisations, or if sympy finds their difference to be 0 where that is thought safe to ask. The
rules are narrower than math-verify's: no intervals against inequalities, no set order, 1/3 is not 2/6, exponents of
two digits are not evaluated. This file states them anew.
"""

import re

_UNITS = (
  'degree', 'cm', 'centimeter', 'meter', 'mile', 'second', 'minute', 'hour', 'day', 'week', 'month', 'year', 'foot',
  'feet', 'inch', 'yard',
)  # fmt: skip
_SIGNS = {'√': 'sqrt', 'π': 'pi', '∞': 'inf', '∪': 'U', '·': '*', '×': '*'}
_COMMAS = re.compile(r'(\d)(,)(\d\d\d)($|\D)')
_FRACTION = re.compile(r'-?[0-9]+.?/0*[1-9][0-9]*.?')


def extract(response: str) -> str | None:
  r"""The answer of a response: the last `\boxed{}` between the first `</think>` and the next. None without either."""
  parts = response.split('</think>')
  if len(parts) < 2:
    return None
  text = parts[1]
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
  if inner := re.search(r'^\\text\{(.+?)\}$', text):
    text = inner[1].strip()
  whole = text
  for old, new in (('\n', ''), ('\\!', ''), ('\\\\', '\\'), ('tfrac', 'frac'), ('dfrac', 'frac')):
    text = text.replace(old, new)
  for mark in ('\\left', '\\right', '^{\\circ}', '^\\circ', '\\$'):
    text = text.replace(mark, '')
  if text.count('\\text{ ') > 1:
    return whole  # two units: the published code gives up here
  text = text.split('\\text{ ')[0].replace('\\%', '')
  text = text.replace(' .', ' 0.').replace('{.', '{0.')
  if not text:
    return text
  if text[0] == '.':
    text = '0' + text
  sides = text.split('=')
  if len(sides) == 2 and len(sides[0]) <= 2:
    text = sides[1]
  text = re.sub(r'\\sqrt([^{])', r'\\sqrt{\1}', text).replace(' ', '')
  text = re.sub(r'\\frac([^{])([^{])', r'\\frac{\1}{\2}', text)
  text = re.sub(r'\\frac([^{])\{', r'\\frac{\1}{', text)
  if text == '0.5':
    return '\\frac{1}{2}'
  return re.sub(r'^(-?\d+)/(-?\d+)$', r'\\frac{\1}{\2}', text)


# ---- second normalisation: plain text for sympy


def _plain(text: str) -> str:
  if inner := re.search(r'^\\text\{(.+?)\}$', text.strip()):
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
  value = _float(text)
  if value is not None and abs(value - round(value)) <= 1e-7:
    text = str(round(value))
  if '\\' in text:
    text = _without_latex(text)
  text = re.sub('- *', '-', text)
  text = re.sub('([0-9]) +([0-9])', r'\1+\2', text)  # a mixed number is a sum
  text = re.sub('[ {}]', '', text).lower()
  return str(round(float(_ungrouped(text)))) if _is_int(text) else text


def _without_latex(text: str) -> str:
  from pylatexenc.latex2text import LatexNodes2Text

  text = text.replace('\\tfrac', '\\frac').replace('\\dfrac', '\\frac').replace('\\frac', ' \\frac')
  try:
    text = LatexNodes2Text().latex_to_text(text)
  except Exception:  # what it raises for broken LaTeX is not documented; the published code keeps the text then
    return text
  for sign, word in _SIGNS.items():
    text = text.replace(sign, word)
  return text.strip()


def _float(text: str) -> float | None:
  try:
    value = float(text)
  except ValueError:
    return None
  return value if abs(value) < 1e300 else None


def _ungrouped(text: str) -> str:
  while (shorter := _COMMAS.sub(r'\1\3\4', text)) != text:
    text = shorter
  return text


def _is_int(text: str) -> bool:
  value = _float(_ungrouped(text))
  return value is not None and abs(value - round(value)) <= 1e-7


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
  if _FRACTION.fullmatch(gold) and _FRACTION.fullmatch(answer):
    return gold == answer
  if _is_int(gold) != _is_int(answer):
    return False
  difference = f'({gold})-({answer})'
  letters = {c for c in difference.replace('sqrt', '').replace('frac', '') if c.isalpha()}
  if len(letters) > 2 or re.search(r'\^\{|\^\(|\^[0-9]+\^|\^[0-9][0-9]+', difference) or '_' in difference:
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
  except Exception:  # any text of a model may reach this parser, and any exception leave it
    return False
