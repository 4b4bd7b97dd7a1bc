r"""The examples of SFT, made from problems and their solutions: more of them, filtered, weighted and ordered.

  perturbed   copies with the same answer: variables, names or units renamed, or the given facts in another order
  fault_of    why a solution should not be learned from: it repeats itself, or has no answer
  key_spans   where the equations of a solution, their results and the final answer are, for weights in the loss
  easy_first, hard_and_long   the order of a curriculum, and its second stage (arXiv 2606.16140)

A problem with several solutions gives several rows. A perturbation is a rule about words, and a rule can be wrong about
a text: the solutions of every copy are therefore graded again. The caller passes in the graders of answers and steps.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from annotated_types import Interval
from pydantic import NonNegativeFloat, NonNegativeInt

from vibethinker_jax.boxes import last_box
from vibethinker_jax.data.problem import Problem, Solution, field, read_rows

Row = tuple[Problem, Solution]
Judge = Callable[[list[tuple]], list[bool]]  # (response, answer, tests) -> whether it is right
Steps = Callable[[list[tuple]], list[float | None]]  # the same -> share of equalities that hold, None without any
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How the examples of SFT are made. The defaults take every solution as it is.

  copies: perturbed copies of a problem at most.
  equation: loss weight of equations, in solutions without weights of their own.
  result: loss weight of the text after the last equals sign of an equation, likewise.
  answer: loss weight of the final answer, likewise.
  repetition: share of repeated eight-word runs above which a solution is left out.
  steps: share of a solution's equalities that must hold, or it is left out; 0 switches the check off.
  judged: solutions that the grader finds wrong are left out.
  error_rates: the samples.jsonl of a reference model's evaluation on these problems, or JSON Lines of
    {"id", "error_rate"}; with it only hard and long rows stay.
  least_error: error rate from which on a row is hard. Published: 0.75, for the 3B model.
  least_characters: characters of the solution from which on a row is long.
  """

  copies: NonNegativeInt = 0
  equation: NonNegativeFloat = 1.0
  result: NonNegativeFloat = 1.0
  answer: NonNegativeFloat = 1.0
  repetition: Share = 1.0
  steps: Share = 0.0
  judged: bool = False
  error_rates: str = ''
  least_error: Share = 0.75
  least_characters: NonNegativeInt = 0


def solved(problems: Sequence[Problem]) -> list[Row]:
  """(problem, solution) for every solution of every problem."""
  return [(problem, solution) for problem in problems for solution in problem.solutions]


def chosen(problems: Sequence[Problem], s: Augmentation) -> list[Row]:
  """The rows before any filter: all solutions, or with `s.error_rates` only hard and long ones. Raises BadInput."""
  rows = solved(problems)
  return hard_and_long(rows, _error_rates(s.error_rates), s.least_error, s.least_characters) if s.error_rates else rows


def sft_examples(
  problems: Sequence[Problem], s: Augmentation, judge: Judge, steps: Steps, seed: int
) -> tuple[list[Row], dict[str, int]]:
  """The rows of SFT, and how many were left out for each fault.

  Args:
    problems: with solutions.
    s: what to make of them.
    judge: says which responses are right.
    steps: gives the share of equalities that hold in each response.
    seed: of the perturbed copies.
  """
  rows = chosen(problems, s)
  copies = [copy for p in {id(p): p for p, _ in rows}.values() for copy in perturbed(p, s.copies, seed)]
  made = solved(copies)
  kept, counts = [], {}
  for group, judged in ((rows, s.judged), (made, True)):  # copies are always graded: a rule can be wrong about a text
    asked = [(solution.text, p.answer, p.tests) for p, solution in group]
    right = judge(asked) if judged and group else [True] * len(group)
    shares = steps(asked) if s.steps and group else [None] * len(group)
    for (problem, solution), good, share in zip(group, right, shares, strict=True):
      fault = fault_of(problem, solution, s) or (None if good else 'wrong answer')
      if fault is None and share is not None and share < s.steps:
        fault = 'inconsistent steps'
      if fault is not None:
        counts[fault] = counts.get(fault, 0) + 1
        continue
      spans = solution.key_spans or key_spans(solution.text, s.equation, s.result, s.answer)
      kept.append((problem, dataclasses.replace(solution, key_spans=spans)))
  return kept, counts


# ---- quality ---------------------------------------------------------------------------------------------------------


def fault_of(problem: Problem, solution: Solution, s: Augmentation) -> str | None:
  """What the rules find wrong with a solution: 'no answer' (no box, no program), 'repetition', or None."""
  answered = '```' in solution.text if problem.answer is None else last_box(solution.text) is not None
  if s.judged and not answered:
    return 'no answer'
  return 'repetition' if s.repetition < 1 and repeated_share(solution.text) > s.repetition else None


def repeated_share(text: str, n: int = 8) -> float:
  """The share of runs of n words that occur earlier in the text: 0 for most texts, near 1 for a loop."""
  found = text.split()
  runs = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
  return 1 - len(set(runs)) / len(runs) if runs else 0.0


# ---- key steps -------------------------------------------------------------------------------------------------------


def key_spans(text: str, equation: float, result: float, answer: float) -> tuple[tuple[int, int, float], ...]:
  r"""The key steps of a solution as (begin, end, weight) in characters; spans of weight 1 are left out.

  Args:
    text: of the solution.
    equation: weight of formulas with an equals sign. A formula stands between LaTeX's signs ($, \[, \(), or is an
      "a + b = c" of numbers in plain text.
    result: weight of the text after the last equals sign of a formula.
    answer: weight of the last `\boxed{}`.

  Where spans overlap, the later one counts: a result over its equation, the answer over both.
  """
  equations, results, final = [], [], []
  for formula in _FORMULA.finditer(text):
    begin, end = formula.span()
    sign = text.rfind('=', begin, end)
    if sign < 0:
      continue
    equations.append((begin, end, equation))
    while end > begin and text[end - 1] in '$\\])} \n.':
      end -= 1
    after = sign + 1 + len(text[sign + 1 : end]) - len(text[sign + 1 : end].lstrip())
    if after < end:
      results.append((after, end, result))
  if (span := last_box(text)) is not None:
    final.append((text.rindex('\\', 0, span[0]), min(span[1] + 1, len(text)), answer))
  return tuple(span for span in (*equations, *results, *final) if span[2] != 1.0)


_FORMULA = re.compile(
  r'\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|(?<!\\)\$[^$]+?(?<!\\)\$'
  r'|[\d(][\d\s+*/().,%-]*=\s*\\?\$?\s*-?\d[\d.,]*\d|[\d(][\d\s+*/().,%-]*=\s*\\?\$?\s*-?\d',
  re.DOTALL,
)


# ---- perturbations ---------------------------------------------------------------------------------------------------


def perturbed(problem: Problem, copies: int, seed: int) -> list[Problem]:
  """Up to `copies` variants of a problem of mathematics, each made by one rule, with the same answer.

  The solutions are changed in the same way. The id is that of the problem and the name of the rule. A rule that does
  not apply, or that is not sure to keep the answer, makes no copy. seed: of the choice of rules and words.
  """
  out: list[Problem] = []
  if problem.answer is None or not copies:
    return out
  rng = random.Random(f'{seed}/{problem.id}')
  rules = [variable_renamed, person_renamed, unit_changed, facts_reordered]
  rng.shuffle(rules)
  for rule in rules:
    if len(out) < copies and (made := rule(problem, rng)) is not None:
      out.append(dataclasses.replace(made, id=f'{problem.id}#{rule.__name__}'))
  return out


def variable_renamed(problem: Problem, rng: random.Random) -> Problem | None:
  """Renames one variable of the formulas, in the problem and in all its solutions.

  A letter counts as a variable if it stands alone in a formula of the problem, and does not occur outside formulas, in
  a run of letters, or in the answer. Capitals and a, d to j, l and o are never renamed: they mean other things too
  often.
  """
  texts = [problem.prompt, *(s.text for s in problem.solutions)]
  formulas = ' '.join(f for text in texts for f in _formulas(text))
  outside = ' '.join(_IN_DOLLARS.sub(' ', text) for text in texts)
  taken = set(re.findall('[a-zA-Z]', ' '.join(_answers(problem)))) | set(re.findall(r'\b[a-zA-Z]\b', outside))
  taken |= set(''.join(re.findall('[a-zA-Z]{2,}', formulas)))  # in a run of letters, none is surely a variable
  variables = sorted(set(_VARIABLE.findall(' '.join(_formulas(problem.prompt)))) & set('bckmnpqrstuvwxyz') - taken)
  free = sorted(set('abckmnpqrstuvwxyz') - taken - set(_VARIABLE.findall(formulas)))
  if not variables or not free or '[asy]' in outside:
    return None
  old, new = rng.choice(variables), rng.choice(free)
  return _changed(problem, lambda text: _IN_DOLLARS.sub(lambda formula: _renamed(formula[0], old, new), text))


def person_renamed(problem: Problem, rng: random.Random) -> Problem | None:
  """Gives one person another name that goes with the same pronouns."""
  present = set(re.findall(r'\b[A-Z][a-z]+\b', problem.prompt))
  for names in _NAMES:
    here, free = sorted(present & set(names)), sorted(set(names) - present)
    if here and free:
      return _words_changed(problem, {rng.choice(here): rng.choice(free)})
  return None


def unit_changed(problem: Problem, rng: random.Random) -> Problem | None:
  """Replaces a unit of measure by another of its kind, where it is the only one of its kind: no number changes."""
  whole = ' '.join([problem.prompt, *(s.text for s in problem.solutions)]).lower()
  found = set(re.findall('[a-z]+', whole))
  for kind in _UNITS:
    here = [unit for unit in kind if found & set(unit)]
    answered = {word for answer in _answers(problem) for word in re.findall('[a-z]+', answer.lower())}
    if len(here) == 1 and not _CONVERTING.search(whole) and not answered & set(here[0]):
      new = rng.choice([unit for unit in kind if unit != here[0]])
      return _words_changed(problem, dict(zip(here[0], new)))
  return None


def facts_reordered(problem: Problem, rng: random.Random) -> Problem | None:
  """Exchanges two neighbouring statements of the prompt that do not refer to an earlier one.

  A sentence with a pronoun or with a word of time, order or comparison stays where it is, and so does the question.
  """
  sentences = re.findall(r'[^.?!]+[.?!]+(?:\s+|$)', problem.prompt)
  if ''.join(sentences) != problem.prompt or len(sentences) < 3:
    return None
  states = [s.rstrip().endswith('.') and not _REFERRING.search(s.lower()) for s in sentences]
  pairs = [i for i in range(len(sentences) - 2) if states[i] and states[i + 1]]
  if not pairs:
    return None
  i = rng.choice(pairs)
  one, two = sentences[i].rstrip(), sentences[i + 1].rstrip()
  gaps = sentences[i][len(one) :], sentences[i + 1][len(two) :]
  prompt = ''.join([*sentences[:i], two, gaps[0], one, gaps[1], *sentences[i + 2 :]])
  return dataclasses.replace(problem, prompt=prompt)


_NAMES = (
  ('Natalia', 'Betty', 'Julie', 'Maria', 'Janet', 'Emma', 'Lisa', 'Sarah', 'Anna', 'Mary', 'Alice'),
  ('James', 'Tom', 'John', 'Robert', 'David', 'Peter', 'Paul', 'Josh', 'Carlos', 'Daniel', 'Adam'),
)
_UNITS = (  # singular, plural
  (('mile', 'miles'), ('kilometer', 'kilometers')),
  (('pound', 'pounds'), ('kilogram', 'kilograms')),
  (('gallon', 'gallons'), ('liter', 'liters')),
)
# words that tie a number to one unit
_CONVERTING = re.compile(
  r'\b(?:foot|feet|inch|inches|yard|yards|meter|meters|centimeter|centimeters|ounce|ounces|gram|grams|ton|'
  r'tons|cup|cups|pint|pints|quart|quarts|km|mph|british|usd|convert)\b'
)
# words by which a sentence refers to an earlier one
_REFERRING = re.compile(
  r'\b(?:he|she|it|they|him|her|them|his|hers|its|their|this|that|these|those|then|after|before|first|second|'
  r'third|next|last|later|finally|now|also|too|so|thus|hence|therefore|however|if|when|while|remaining|'
  r'rest|left|more|less|fewer|than|other|others|another|each|same|twice|half|former|latter|again|still|'
  r'already|which|what|how|who|where|and|but)\b'
)
_IN_DOLLARS = re.compile(r'(?<!\\)\$\$.+?\$\$|(?<!\\)\$[^$]+?(?<!\\)\$|\\\[.+?\\\]|\\\(.+?\\\)', re.DOTALL)
_VARIABLE = re.compile(r'(?<![a-zA-Z\\])([a-z])(?![a-zA-Z])')
_TEXT = re.compile(r'(\\(?:text|textbf|mathrm|mbox|operatorname|begin|end)\{[^{}]*\}|\\[a-zA-Z]+)')


def _formulas(text: str) -> list[str]:
  return [_TEXT.sub(' ', formula) for formula in _IN_DOLLARS.findall(text)]


def _renamed(formula: str, old: str, new: str) -> str:
  """`formula` with a variable renamed; commands, and the words in them, stay."""
  parts = _TEXT.split(formula)
  return ''.join(part if i % 2 else part.replace(old, new) for i, part in enumerate(parts))


def _answers(problem: Problem) -> tuple[str, ...]:
  return (problem.answer,) if isinstance(problem.answer, str) else problem.answer or ()


def _words_changed(problem: Problem, names: dict[str, str]) -> Problem | None:
  pattern = re.compile(rf'\b(?:{"|".join(names)})\b')
  return _changed(problem, lambda text: pattern.sub(lambda word: names[word[0]], text))


def _changed(problem: Problem, swap: Callable[[str], str]) -> Problem | None:
  """The problem with `swap` applied to all texts, None where nothing changes. A changed solution has no key spans."""
  prompt = swap(problem.prompt)
  if prompt == problem.prompt:
    return None
  solutions = tuple(
    s if (text := swap(s.text)) == s.text else dataclasses.replace(s, text=text, key_spans=())
    for s in problem.solutions
  )
  return dataclasses.replace(problem, prompt=prompt, solutions=solutions)


# ---- curriculum ------------------------------------------------------------------------------------------------------


def easy_first(rows: Sequence[Row]) -> list[Row]:
  """Rows in order of difficulty, then of length; an unknown difficulty counts as 3."""
  return sorted(rows, key=lambda row: (3 if row[0].difficulty is None else row[0].difficulty, len(row[1].text)))


def _error_rates(path: str) -> dict[str, float]:
  """The error rate of each problem, by its id. A row with a "score" is one of several samples of its "problem"."""
  wrong: dict[str, list[float]] = {}
  for where, row in read_rows(path):
    if 'score' in row:
      name, rate = field(row, 'problem', str, where), 1 - field(row, 'score', int, where)
    else:
      name, rate = str(field(row, 'id', (str, int), where)), field(row, 'error_rate', (int, float), where)
    wrong.setdefault(name, []).append(float(rate))
  return {name: sum(rates) / len(rates) for name, rates in wrong.items()}


def hard_and_long(rows: Sequence[Row], errors: Mapping[str, float], least_error: float, least: int) -> list[Row]:
  """Rows of problems that a reference model mostly fails, with long solutions.

  Args:
    rows: of all problems.
    errors: the share of the reference model's samples that are wrong, by problem id. Problems without one are left out.
    least_error: the error rate from which on a problem is hard.
    least: the characters from which on a solution is long.
  """
  return [row for row in rows if errors.get(row[0].id, -1.0) >= least_error and len(row[1].text) >= least]
