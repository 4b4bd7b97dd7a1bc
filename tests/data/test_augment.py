"""The examples of SFT: perturbations keep the answer, faults are found, key steps weigh more, easy ones come first."""

import dataclasses
import json
import os
import pathlib
import random
import re

import numpy as np
import pytest

from vibethinker_jax.boxes import last_box
from vibethinker_jax.data import augment
from vibethinker_jax.data.augment import (
  Augmentation,
  easy_first,
  hard_and_long,
  key_spans,
  perturbed,
  repeated_share,
  sft_examples,
)
from vibethinker_jax.data.batches import PackedDataset
from vibethinker_jax.data.problem import Problem, Solution
from vibethinker_jax.data.sources import load
from vibethinker_jax.verify.answer import judge_exactly

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))

STORY = Problem(
  's',
  'algebra',
  'Tom has 5 pounds of flour. Anna owns 12 pounds of sugar. How many pounds do they have?',
  '17',
  solutions=(Solution('Tom and Anna have 5 + 12 = 17 pounds.\nThe answer is \\boxed{17}.'),),
)
FORMULA = Problem(
  'f',
  'algebra',
  'Find the sum of the roots of $x^2 - \\max(3, 2)x + 2 = 0$.',
  '3',
  solutions=(
    Solution('Since $(x-1)(x-2) = 0$, $x = 1$ or $x = 2$; \\[1 + 2 = \\boxed{3}.\\]', key_spans=((0, 5, 2.0),)),
  ),
)
right = lambda rows: [(v := judge_exactly(text, answer)) is not None and v.score == 1 for text, answer, _ in rows]
nobody = random.Random(0)


def unasked(rows):
  raise AssertionError('nobody asked for steps to be checked')


def test_variables_are_renamed_in_formulas_alone():
  made = augment.variable_renamed(FORMULA, nobody)
  new = re.search(r'\$([a-z])\^2', made.prompt)[1]
  assert new != 'x' and made.prompt == f'Find the sum of the roots of ${new}^2 - \\max(3, 2){new} + 2 = 0$.'
  assert (
    made.solutions[0].text == re.sub(r'\bx\b', new, FORMULA.solutions[0].text) and made.solutions[0].key_spans == ()
  )
  refused = [
    dataclasses.replace(FORMULA, answer='x - 3'),  # the answer speaks of it
    dataclasses.replace(FORMULA, prompt='If x is as in $x = 3$, find 2x.'),  # outside formulas too
    dataclasses.replace(FORMULA, prompt='$lcmx(2, x) = 4$'),  # inside a word
    dataclasses.replace(FORMULA, prompt='$\\sin 30 = A$'),  # none there
  ]
  assert [augment.variable_renamed(p, nobody) for p in refused] == [None] * 4


def test_people_units_and_order_of_a_story():
  person = augment.person_renamed(STORY, nobody)
  (old,) = {'Tom', 'Anna'} - set(re.findall('[A-Z][a-z]+', person.prompt))
  assert old not in person.solutions[0].text and person.prompt != STORY.prompt
  unit = augment.unit_changed(STORY, nobody)
  assert unit.prompt == STORY.prompt.replace('pounds', 'kilograms') and 'kilograms' in unit.solutions[0].text
  converted = dataclasses.replace(STORY, prompt=STORY.prompt + ' A pound is 16 ounces.')
  assert augment.unit_changed(converted, nobody) is None
  order = augment.facts_reordered(STORY, nobody)
  assert order.prompt == 'Anna owns 12 pounds of sugar. Tom has 5 pounds of flour. How many pounds do they have?'
  leaning = dataclasses.replace(STORY, prompt=STORY.prompt.replace('Anna owns', 'Then he finds'))
  assert augment.facts_reordered(leaning, nobody) is None


def test_copies_keep_answer_and_are_the_same_every_time():
  copies = perturbed(STORY, 3, seed=0)
  assert len(copies) == 3 and copies == perturbed(STORY, 3, seed=0)
  assert (
    {p.answer for p in copies} == {'17'}
    and len({p.id for p in copies}) == 3
    and STORY.prompt not in {p.prompt for p in copies}
  )
  assert perturbed(dataclasses.replace(STORY, answer=None, tests=[{}]), 3, 0) == []


def test_copies_of_real_problems_are_right():
  """Of 300 problems of GSM8K and MATH, every copy's solution still ends in the answer."""
  if not (DATA / 'gsm8k').exists():
    pytest.skip(f'{DATA}: no data; set VIBETHINKER_DATA')
  for name, reader in (('gsm8k/test.jsonl', 'gsm8k'), ('math/math500.jsonl', 'math')):
    copies = [c for p in load(DATA / name, reader)[:300] for c in perturbed(p, 4, 0)]
    assert len(copies) > 50
    assert all(right([(c.solutions[0].text, c.answer, None) for c in copies]))


def test_faults():
  loop = 'I add one and one and I get two. ' * 30 + '\\boxed{2}'
  assert repeated_share(loop) > 0.8 and repeated_share(STORY.solutions[0].text) == 0
  solutions = {'a': '1 + 1 = 2, \\boxed{2}', 'no answer': '1 + 1 = 2', 'wrong answer': '\\boxed{3}', 'repetition': loop}
  problem = Problem('p', '', 'What is 1 + 1?', '2', solutions=tuple(map(Solution, solutions.values())))
  rows, counts = sft_examples([problem], Augmentation(judged=True, repetition=0.5), right, unasked, 0)
  assert [solution.text for _, solution in rows] == [solutions['a']]
  assert counts == {'no answer': 1, 'wrong answer': 1, 'repetition': 1}
  rows, counts = sft_examples([problem], Augmentation(), right, unasked, 0)
  assert [solution for _, solution in rows] == list(problem.solutions) and counts == {}


def test_steps_that_do_not_hold_leave_a_solution_out():
  texts = ['half', 'all', 'none', 'no claims']
  problem = Problem('p', '', 'What is 1 + 1?', '2', solutions=tuple(map(Solution, texts)))
  program = Problem('c', 'code', 'Echo.', tests=[{'input': 'x', 'output': 'x'}], solutions=(Solution('half'),))
  shares = {'half': 0.5, 'all': 1.0, 'none': 0.0, 'no claims': None}
  steps = lambda rows: [None if tests else shares[text] for text, _, tests in rows]
  for least, kept in ((0.5, ['half', 'all', 'no claims', 'half']), (0.6, ['all', 'no claims', 'half'])):
    rows, counts = sft_examples([problem, program], Augmentation(steps=least), right, steps, 0)
    assert [solution.text for _, solution in rows] == kept
    assert counts == {'inconsistent steps': 5 - len(kept)}


def test_a_copy_that_went_wrong_is_left_out():
  rows, counts = sft_examples([STORY], Augmentation(copies=2), lambda asked: [False] * len(asked), unasked, 0)
  assert rows == [(STORY, STORY.solutions[0])] and counts == {'wrong answer': 2}


def test_key_spans():
  text = STORY.solutions[0].text
  spans = {text[a:b]: w for a, b, w in key_spans(text, 1.5, 2.0, 3.0)}
  assert spans == {'5 + 12 = 17': 1.5, '17': 2.0, '\\boxed{17}': 3.0}
  text = 'So $x^2 = 9$, and $y$ is free. Then\n\\[x = \\frac{6}{2} = \\boxed{3}.\\]'
  spans = [(text[a:b], w) for a, b, w in key_spans(text, 1.0, 2.0, 3.0)]
  assert spans == [('9', 2.0), ('\\boxed{3', 2.0), ('\\boxed{3}', 3.0)] or spans[-1] == ('\\boxed{3}', 3.0)
  assert key_spans(text, 1.0, 1.0, 1.0) == ()


def test_spans_of_real_solutions_lie_in_the_text():
  if not (DATA / 'math').exists():
    pytest.skip(f'{DATA}: no data; set VIBETHINKER_DATA')
  for problem in load(DATA / 'math/math500.jsonl', 'math'):
    text = problem.solutions[0].text
    spans = key_spans(text, 1.5, 2.0, 3.0)
    assert all(0 <= a < b <= len(text) for a, b, _ in spans)
    a, b, _ = spans[-1]
    assert text[slice(*last_box(text))] in text[a:b] and text[a] == '\\'


def test_curriculum():
  problems = [Problem(str(i), '', 'What?', '1', difficulty=d) for i, d in enumerate([5, 1, None, 1])]
  rows = [(p, Solution('x' * (10 - i))) for i, p in enumerate(problems)]
  assert [p.id for p, _ in easy_first(rows)] == ['3', '1', '2', '0']
  assert [p.id for p, _ in hard_and_long(rows, {'0': 0.9, '1': 0.2, '3': 1.0}, 0.75, 8)] == ['0']


def test_error_rates_come_from_a_file(tmp_path):
  path = tmp_path / 'rates.jsonl'
  path.write_text(json.dumps({'id': 's', 'error_rate': 0.8}) + '\n' + json.dumps({'id': 'f', 'error_rate': 0.5}) + '\n')
  samples = [{'id': f'{i}#{n}', 'problem': i, 'score': int(n < k)} for i, k in (('s', 1), ('f', 2)) for n in range(4)]
  (tmp_path / 'samples.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in samples))
  for rates in (path, tmp_path / 'samples.jsonl'):  # a quarter of the samples of s is right, half of those of f
    rows, _ = sft_examples([STORY, FORMULA], Augmentation(error_rates=str(rates)), right, unasked, 0)
    assert [p.id for p, _ in rows] == ['s']


def test_a_window_keeps_the_order_and_can_be_resumed():
  """Without packing (one row fills a batch): every epoch holds each row once, none far from its place."""
  render = lambda i: {
    k: np.full(4, i, t) for k, t in (('tokens', np.int32), ('targets', np.int32), ('weights', np.float32))
  }
  make = lambda: PackedDataset(range(1, 41), render, B=1, T=4, seed=0, window=8)
  data, seen = make(), []
  for step in range(80):
    seen.append(int(next(data).tokens[0, 0]))
    if step == 30:
      position = data.position()
  again = make()
  again.restore(position)
  assert [int(next(again).tokens[0, 0]) for _ in range(49)] == seen[31:]
  for epoch in (seen[:40], seen[40:]):
    assert sorted(epoch) == list(range(1, 41)) and epoch != sorted(epoch)
    assert all((i - 1) // 8 == k // 8 for k, i in enumerate(epoch))
