"""The graders on real data: the solution of each problem is graded right, or is listed in docs/judges.md."""

import os
import pathlib
import re

import pytest

from vibethinker_jax.data.sources import load
from vibethinker_jax.verify.grader import Grader

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', ROOT.parent / 'shared' / 'data'))
JUDGES = ('default', 'strict')


@pytest.fixture(scope='module')
def graders():
  with Grader(workers=2) as default, Grader(workers=2, strict=True) as strict:
    yield {'default': default, 'strict': strict}


def wrong(name: str, reader: str, grader: Grader) -> tuple[int, dict]:
  """How many problems there are, and id -> (answer, answer found, reason) where their own solution is judged wrong."""
  if not (DATA / name).exists():
    pytest.skip(f'{DATA / name} is absent; set VIBETHINKER_DATA to the folder of data files')
  problems = load(DATA / name, reader, skip_bad=True)
  said = [p.solutions[0].text if p.solutions else f'\\boxed{{{p.answer}}}' for p in problems]
  verdicts = grader.grade([(f'</think>{text}', p.answer, p.tests) for text, p in zip(said, problems)])
  failed = {p.id: (p.answer, v.extracted, v.reason) for p, v in zip(problems, verdicts) if not v.score}
  return len(problems), failed


def listed(name: str, judge: str) -> set[str]:
  """Ids of the rows that docs/judges.md lists for a file and a judge ('both' are of either)."""
  section = re.search(rf'^### {re.escape(name)}$(.*?)(?=^#|\Z)', (ROOT / 'docs' / 'judges.md').read_text(), re.M | re.S)
  rows = re.findall(r'^\| (\S+/\S+) \| (default|strict|both) \|', section[1] if section else '', re.M)
  return {name for name, whose in rows if whose in (judge, 'both')}


@pytest.mark.parametrize('judge', JUDGES)
@pytest.mark.parametrize(
  ('name', 'reader', 'count'),
  [
    ('gsm8k/train.jsonl', 'gsm8k', 7473),
    ('gsm8k/test.jsonl', 'gsm8k', 1319),
    ('math/math500.jsonl', 'math', 500),
    ('math/math_test_5000.jsonl', 'math', 5000),
    ('math/math_train_7500.parquet', 'verl', 7498),
    ('competition/aime_1983_2023_with_solutions.json', 'math', 975),
    ('competition/hmmt25.jsonl', 'math', 30),
    ('competition/olymmath_en_hard.jsonl', 'math', 100),
    ('stem_mcq/mmlu_stem_3018.jsonl', 'multiple_choice', 3018),
  ],
)
def test_answers(name, reader, count, judge, graders):
  """A failure here shows the rows in question: id, answer, answer found, reason."""
  found, failed = wrong(name, reader, graders[judge])
  known = listed(name, judge)
  assert found == count
  assert {i: row for i, row in failed.items() if i not in known} == {}
  assert known <= set(failed)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'reader', 'count'),
  [
    ('code/HumanEval.jsonl.gz', 'humaneval', 164),
    ('code/mbpp.jsonl', 'mbpp', 974),
    ('code/kattis_examples_3.json', 'kattis', 3),
  ],
)
def test_programs(name, reader, count, graders):
  assert wrong(name, reader, graders['default']) == (count, {})


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'reader', 'doubted'),
  [('gsm8k/train.jsonl', 'gsm8k', 34), ('gsm8k/test.jsonl', 'gsm8k', 1), ('math/math500.jsonl', 'math', 7)],
)
def test_steps(name, reader, doubted):
  """How many reference solutions have a step that does not hold, as docs/judges.md says."""
  if not (DATA / name).exists():
    pytest.skip(f'{DATA / name} is absent; set VIBETHINKER_DATA to the folder of data files')
  with Grader(workers=2, deadline_s=1.0) as grader:
    shares = grader.steps([(p.solutions[0].text, p.answer, p.tests) for p in load(DATA / name, reader)])
  assert sum(share is not None and share < 1 for share in shares) == doubted
