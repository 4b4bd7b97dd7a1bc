r"""How often the default judge pays for a wrong answer, and how often it refuses a right one.

    python experiments/audit_judges.py --data=DIR

DIR holds MATH, AIME, HMMT, AMC and OlymMATH (docs/judges.md names the files). Every reference answer is altered so that
it is wrong: its sign, its base, the order of its parts, a bracket, its unit, one digit. Every one is also written in
another way that is right. Printed are, by kind, how many altered ones are paid and how many rewritten ones are
refused, each of them, and answers judged in a second. Seeds are the references' own texts: two runs agree.
"""

import hashlib
import pathlib
import random
import re
import time
from collections.abc import Callable

from absl import flags

from vibethinker_jax.config_io import run_app
from vibethinker_jax.data.sources import load
from vibethinker_jax.verify.grader import Grader

DATA = flags.DEFINE_string('data', None, 'folder of the reference files', required=True)
WORKERS = flags.DEFINE_integer('workers', 2, lower_bound=1, help='processes that judge')
SHOWN = flags.DEFINE_integer('shown', 40, lower_bound=0, help='cases of each kind to print')

FILES = (
  'math/math_test_5000.jsonl:math', 'math/math_train_7500.parquet:verl', 'math/math500.jsonl:math',
  'competition/aime_1983_2023_with_solutions.json:math', 'competition/aime24.jsonl:math',
  'competition/aime25.jsonl:math', 'competition/hmmt25.jsonl:math', 'competition/amc23.jsonl:math',
  'competition/olymmath_en_easy.jsonl:math', 'competition/olymmath_en_hard.jsonl:math',
)  # fmt: skip

_TUPLE = re.compile(r'[(\[]([^()\[\]]+,[^()\[\]]+)[)\]]')
_UNIT = re.compile(r'\\(?:text|mbox|mathrm)\{\s*([a-z]+)\s*\}')


def sign(answer: str, rng: random.Random) -> str | None:
  """The answer with a minus in front, or without the one it had."""
  if (
    not re.search(r'\d', answer) or re.search(r'\\pm|[A-Za-z]{4,}\s*$', answer) or re.match(r'[-{}]*0(?![.\d])', answer)
  ):
    return None
  return answer[1:] if answer.startswith('-') else f'-{answer}'


def one_sign(answer: str, rng: random.Random) -> str | None:
  """A plus or minus within the answer turned round."""
  places = [m.start() for m in re.finditer(r'(?<=[\w)}])\s*[+-](?=\s*[\w\\(])', answer)]
  if not places or '\\pm' in answer:
    return None
  at = rng.choice(places)
  at += len(answer[at:]) - len(answer[at:].lstrip())
  return answer[:at] + ('-' if answer[at] == '+' else '+') + answer[at + 1 :]


def digit(answer: str, rng: random.Random) -> str | None:
  """One digit raised by one."""
  places = [i for i, c in enumerate(answer) if c.isdigit() and c.isascii()]
  if not places:
    return None
  at = rng.choice(places)
  return answer[:at] + str((int(answer[at]) + 1) % 10) + answer[at + 1 :]


def base(answer: str, rng: random.Random) -> str | None:
  """Another base, or none."""
  match = re.fullmatch(r'(.*\d)_\{?(\d+)\}?', answer)
  if match is None or match[2] == '10':
    return None
  return rng.choice((match[1], f'{match[1]}_{{{int(match[2]) + 1}}}'))


def order(answer: str, rng: random.Random) -> str | None:
  """Two parts of a tuple, or two letters of a word, exchanged."""
  answer = re.sub(r'\\(left|right)', '', answer)
  if (match := _TUPLE.fullmatch(answer)) and '\\infty' not in answer:
    parts = [part.strip() for part in match[1].split(',')]
    if len(set(parts)) < 2:
      return None
    i = next(i for i in range(len(parts) - 1) if parts[i] != parts[i + 1])
    parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return answer.replace(match[1], ','.join(parts))
  word = re.fullmatch(r'(?:\\text\{)?\(?([A-Za-z]{2,})\)?\}?', answer)
  if word is None or word[1] != word[1].strip() or len(set(word[1].lower())) < 2:
    return None
  letters = list(word[1])
  i = next(i for i in range(len(letters) - 1) if letters[i].lower() != letters[i + 1].lower())
  letters[i], letters[i + 1] = letters[i + 1], letters[i]
  return answer.replace(word[1], ''.join(letters))


def bracket(answer: str, rng: random.Random) -> str | None:
  """A bracket of another kind."""
  answer = re.sub(r'\\(left|right)', '', answer)
  match = _TUPLE.fullmatch(answer)
  if match is None:
    return None
  first, *_, last = match[1].split(',')
  ends = [(i, c) for i, c in ((0, first), (1, last)) if 'infty' not in c]
  if not ends or latex_equal(first, last):
    return None
  end = rng.choice(ends)[0]
  swap = {'(': '[', '[': '(', ')': ']', ']': ')'}
  at = answer.index(match[1]) - 1 if end == 0 else len(answer) - 1
  return answer[:at] + swap[answer[at]] + answer[at + 1 :]


def latex_equal(a: str, b: str) -> bool:
  return re.sub(r'\s', '', a) == re.sub(r'\s', '', b)


def unit(answer: str, rng: random.Random) -> str | None:
  """Another unit than the one that the reference has."""
  match = _UNIT.search(answer)
  if match is None or match[1] in ('and', 'or', 'if', 'for') or not re.search(r'\d', answer):
    return None
  other = rng.choice([u for u in ('furlongs', 'kelvin', 'acres', 'lumens') if u != match[1]])
  return answer.replace(match[1], other)


def fraction(answer: str, rng: random.Random) -> str | None:
  """A fraction turned upside down."""
  match = re.search(r'\\frac\{(\d+)\}\{(\d+)\}', answer)
  if match is None or match[1] == match[2]:
    return None
  return answer.replace(match.group(), f'\\frac{{{match[2]}}}{{{match[1]}}}', 1)


def exponent(answer: str, rng: random.Random) -> str | None:
  """An exponent raised by one."""
  match = re.search(r'\^(?:\{(\d+)\}|(\d))', answer)
  if match is None or re.search(r'(?:^|[^\d.])[01]\s*\^|\\(?:text|mbox)', answer):
    return None
  return answer.replace(match.group(), f'^{{{int(match[1] or match[2]) + 1}}}', 1)


_HEDGES = (
  '{a} \\text{{ or }} {b}', '{a}, {b}', '{b}; {a}', '{b} = {a}', '{b} = {a} = {b}',
  '{a} \\approx {b}', '{b} \\approx {a}',
  '{a} \\to {b}', '{b} \\Rightarrow {a}', '\\max({a},{b})', '{a} \\text{{ (not }} {b})', '\\boxed{{{a}}} {b}',
  '{b} \\boxed{{{a}}}', '{a} \\pm {b}', '{b} \\ne {a}', 'x = {b} = {a}', 'x = {a} = {b}',
  '{b} \\quad {a}', '({a}, {b})',
  '\\{{{a}, {b}\\}}', '{a} \\text{{ if }} x>0, {b} \\text{{ otherwise}}', '{a} \\lor {b}', '{a} : {b}', '{a} \\cup {b}',
  '{a} \\text{{ million}}', 'not {a}', '{a}_{{{b}}}', '{a}^{{}}{b}', '{a}\\text{{{b}}}', '{b}...{a}', '{b} \\equiv {a}',
)  # fmt: skip


def hedge(answer: str, rng: random.Random) -> str | None:
  """The right answer, and a wrong one beside it."""
  other = digit(answer, rng)
  if other is None or other == answer or len(answer) > 60:
    return None
  return rng.choice(_HEDGES).format(a=answer, b=other)


def letter(answer: str, rng: random.Random) -> str | None:
  """One variable called otherwise."""
  letters = re.findall(r'(?<![\\a-zA-Z])[a-z](?![a-zA-Z])', answer)
  if not letters or '=' in answer or '\\text' in answer:
    return None
  old = rng.choice(letters)
  new = next(c for c in 'qwuvsz' if c not in answer)
  return re.sub(rf'(?<![\\a-zA-Z]){old}(?![a-zA-Z])', new, answer, count=1)


ALTERATIONS = (sign, one_sign, digit, base, order, bracket, unit, fraction, exponent, hedge, letter)


def spaced(answer: str, rng: random.Random) -> str | None:
  """Sizes and thin spaces."""
  if '\\text' in answer or '\\left' in answer or '\\!' in answer:
    return None
  return re.sub(r'(?<!\\left)\(', r'\\left( ', re.sub(r'(?<!\\right)\)', r' \\right)', answer.replace(',', ',\\ ')))


def styled(answer: str, rng: random.Random) -> str | None:
  """Display fractions, a dollar on either side, a full stop."""
  return f'${answer.replace(chr(92) + "frac", chr(92) + "dfrac")}$.'


def named(answer: str, rng: random.Random) -> str | None:
  """A name in front of a value."""
  return f'x = {answer}' if re.fullmatch(r'-?(\d+|\\frac\{\d+\}\{\d+\}|\d*\\sqrt\{\d+\})', answer) else None


def reordered(answer: str, rng: random.Random) -> str | None:
  """A list of values the other way round."""
  listed = (', ' in answer and '\\!' not in answer) or re.search(r',\d{1,2}(?!\d)', answer)
  if not listed or re.search(r'[()\[\]{}=A-Za-z]', answer):
    return None
  return ', '.join(reversed([part.strip() for part in answer.split(',')]))


def decimal(answer: str, rng: random.Random) -> str | None:
  """A fraction that has an end as a decimal, or a whole number with one."""
  if match := re.fullmatch(r'(-?)\\frac\{(\d+)\}\{(2|4|5|8|10|20|25)\}', answer):
    return f'{match[1]}{int(match[2]) / int(match[3])!r}'
  return f'{answer}.0' if re.fullmatch(r'-?\d+', answer) else None


def without_unit(answer: str, rng: random.Random) -> str | None:
  """The unit left out."""
  bare = re.sub(r'\s*\\(?:text|mbox)\{\s*[a-z ]+\}(?:\^\d)?\.?$', '', answer)
  return bare if bare != answer and re.fullmatch(r'-?[\d.,\\$]+', bare) and 'illion' not in answer else None


def commuted(answer: str, rng: random.Random) -> str | None:
  """The two terms of a sum exchanged."""
  match = re.fullmatch(r'(\d+|\d*[a-z]|\d*\\sqrt\{\d+\})\s*\+\s*(\d+|\d*[a-z]|\d*\\sqrt\{\d+\}|\d*\\pi)', answer)
  return f'{match[2]} + {match[1]}' if match else None


REWRITINGS = (spaced, styled, named, reordered, decimal, without_unit, commuted)


def references(folder: pathlib.Path) -> list[str]:
  """Every different reference answer of the files."""
  found: dict[str, None] = {}
  for source in FILES:
    name, _, reader = source.partition(':')
    for problem in load(folder / name, reader, skip_bad=True):
      found.update(dict.fromkeys((problem.answer,) if isinstance(problem.answer, str) else problem.answer))
  return list(found)


def changed(golds: list[str], kinds: tuple[Callable, ...]) -> list[tuple[str, str, str]]:
  """(kind, reference, its other form) for every kind that applies to a reference."""
  out = []
  for gold in golds:
    for kind in kinds:
      seed = hashlib.sha256(f'{kind.__name__} {gold}'.encode()).digest()
      other = kind(gold, random.Random(seed))
      if other is not None and other != gold:
        out.append((kind.__name__, gold, other))
  return out


def main(argv) -> None:
  del argv
  golds = references(pathlib.Path(DATA.value))
  with Grader(WORKERS.value) as grader:
    for title, kinds, wanted in (('altered', ALTERATIONS, 0), ('rewritten', REWRITINGS, 1), ('as they are', (), 1)):
      cases = changed(golds, kinds) if kinds else [('same', gold, gold) for gold in golds]
      began = time.monotonic()
      verdicts = grader.grade([(f'\\boxed{{{other}}}', gold, None) for _, gold, other in cases])
      seconds = time.monotonic() - began
      faults = [(*case, v.reason) for case, v in zip(cases, verdicts) if v.score != wanted]
      what = 'refused' if wanted else 'paid'
      print(f'\n{title}: {len(faults)} of {len(cases)} {what}, {len(cases) / seconds:.0f} answers/s')
      for name in sorted({case[0] for case in cases}):
        listed = [fault for fault in faults if fault[0] == name]
        print(f'  {name}: {len(listed)} of {sum(case[0] == name for case in cases)}')
        for _, gold, other, reason in listed[: SHOWN.value]:
          print(f'    {gold!r} <- {other!r} ({reason})')


if __name__ == '__main__':
  run_app(main)
