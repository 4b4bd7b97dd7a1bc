"""Cases that nobody here wrote, of the published evaluation's grader, LiveCodeBench's runner and others: `judges.jsonl`
beside the data folder. Where two cases could not both be right, one is listed here and argued in docs/judges.md."""

import json
import os
import pathlib

import pytest

from vibethinker_jax.verify.grader import Grader

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))
CASES = DATA.parent / 'cases' / 'judges.jsonl'

# id -> why it is judged otherwise
CODE = {
  'kept-code_stdin-354': 'quit() ends a program, as exit() does and as Python has it',
  'kept-code_stdin-377': 'what is written to sys.__stdout__ is printed, as in issue_code-150',
  'kept-code_stdin-380': 'atexit runs, as in issue_code-149',
  'kept-code_stdin-381': 'threads are waited for, as in issue_code-148',
}
MATHEMATICS = {'kept-own_math-955': '0.999... is 1, by the rule that reads 0.142857142857... as 1/7'}


def read(code: bool) -> list[dict]:
  if not CASES.exists():
    pytest.skip(f'{CASES} is absent; set VIBETHINKER_DATA to a folder of data files that cases stand beside')
  rows = [json.loads(line) for line in CASES.read_text().split('\n') if line]
  return [row for row in rows if (row.get('tests') is not None) == code]


def judged_otherwise(rows: list[dict]) -> dict[str, tuple[int, str]]:
  """Id -> score and reason of the cases that are not judged as they expect."""
  verdicts = {}
  for strict in (False, True):
    some = [row for row in rows if row.get('strict', False) == strict]
    with Grader(workers=2, strict=strict) as grader:
      graded = grader.grade([(row['response'], row.get('answer'), row.get('tests')) for row in some])
    verdicts |= {row['id']: verdict for row, verdict in zip(some, graded, strict=True)}
  return {row['id']: (v.score, v.reason) for row in rows if (v := verdicts[row['id']]).score != row['expected']}


@pytest.mark.slow
def test_code():
  wrong = judged_otherwise(read(code=True))
  assert {i: verdict for i, verdict in wrong.items() if i not in CODE} == {}
  assert set(CODE) <= set(wrong)


def test_mathematics():
  wrong = judged_otherwise(read(code=False))
  assert {i: verdict for i, verdict in wrong.items() if i not in MATHEMATICS} == {}
  assert set(MATHEMATICS) <= set(wrong)
