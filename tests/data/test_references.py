"""The real data against the graders: what each problem says of itself is judged right."""

import os
import pathlib

import pytest

from vibethinker_jax.data.sources import load
from vibethinker_jax.verify.grader import Grader

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))


def wrong(name: str, reader: str) -> tuple[int, list]:
  """How many problems there are, and (id, answer, reason) of those whose own solution, or answer, is judged wrong."""
  if not (DATA / name).exists():
    pytest.skip(f'{DATA / name} is absent; set VIBETHINKER_DATA to the folder of data files')
  problems = load(DATA / name, reader, skip_bad=True)
  said = [p.solutions[0].text if p.solutions else f'\\boxed{{{p.answer}}}' for p in problems]
  with Grader(workers=2) as grader:
    verdicts = grader.grade([(text, p.answer, p.tests) for text, p in zip(said, problems)])
  return len(problems), [(p.id, p.answer, v.reason) for p, v in zip(problems, verdicts) if not v.score]


@pytest.mark.parametrize(
  ('name', 'reader', 'count', 'share'),
  [
    ('gsm8k/test.jsonl', 'gsm8k', 1319, 0.995),
    ('math/math500.jsonl', 'math', 500, 0.995),
    ('math/math_test_5000.jsonl', 'math', 5000, 0.995),
    ('competition/hmmt25.jsonl', 'math', 30, 1),
    ('competition/olymmath_en_hard.jsonl', 'math', 100, 1),
    ('stem_mcq/mmlu_stem_3018.jsonl', 'multiple_choice', 3018, 1),
  ],
)
def test_answers(name, reader, count, share):
  found, failed = wrong(name, reader)
  assert found == count and len(failed) <= (1 - share) * count, failed


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'reader', 'count'),
  [
    ('code/HumanEval.jsonl.gz', 'humaneval', 164),
    ('code/mbpp.jsonl', 'mbpp', 974),
    ('code/kattis_examples_3.json', 'kattis', 3),
  ],
)
def test_programs(name, reader, count):
  assert wrong(name, reader) == (count, [])
