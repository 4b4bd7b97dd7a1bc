"""The benchmarks: sizes, dates, ids, what a task may be changed to."""

import json
import os
import pathlib

import pytest

from vibethinker_jax.data.problem import Problem
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import benchmarks
from vibethinker_jax.evaluate.benchmarks import BENCHMARKS, PUBLISHED

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', ROOT.parent / 'shared' / 'data'))


def write(path: pathlib.Path, rows) -> pathlib.Path:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def test_benchmarks_at_hand_have_their_published_size():
  if not DATA.exists():
    pytest.skip(f'{DATA} is absent; set VIBETHINKER_DATA to the folder of data files')
  for name, b in BENCHMARKS.items():
    if b.file:
      problems = benchmarks.load(name, DATA)
      assert len(problems) == b.expected == len({p.id for p in problems}), name


def test_published_scores_are_of_benchmarks():
  assert {name for scores in PUBLISHED.values() for name in scores} <= set(BENCHMARKS)


def test_date_windows(tmp_path):
  def row(i: int, date: str) -> dict:
    cases = json.dumps([{'input': '1\n', 'output': '1\n', 'testtype': 'stdin'}])
    return {
      'question_id': str(i),
      'question_content': f'Echo {i}.',
      'starter_code': '',
      'public_test_cases': cases,
      'private_test_cases': cases,
      'contest_date': date,
      'difficulty': 'easy',
    }

  dates = ['2024-07-31T00:00:00', '2024-08-01T00:00:00', '2025-01-31T20:00:00', '2025-02-01T00:00:00', '2025-05-02']
  file = write(tmp_path / 'test.jsonl', [row(i, date) for i, date in enumerate(dates)])
  windows = {v: [p.id for p in benchmarks.load(f'livecodebench-{v}', tmp_path, (file,))] for v in ('v5', 'v6')}
  assert windows == {'v5': ['livecodebench/1', 'livecodebench/2'], 'v6': ['livecodebench/3']}
  late = write(tmp_path / 'late.jsonl', [row(9, '2026-01-01')])
  with pytest.raises(BadInput, match='no problem published'):
    benchmarks.load('livecodebench-v5', tmp_path, (late,))


def test_equal_problems_get_ids_of_their_own():
  problems = [Problem('a', '', '?', '1'), Problem('b', '', '?', '1'), Problem('a', '', '?', '1')]
  assert [p.id for p in benchmarks.distinct(problems)] == ['a', 'b', 'a~2']
  with pytest.raises(BadInput, match='ids that differ'):
    benchmarks.distinct([*problems, Problem('a~2', '', '!', '1')])


def test_a_task_can_be_changed_and_tells_what_it_was():
  task = benchmarks.own('mine', [Problem('a', '', '1 + 1?', '2')])
  few = task.changed(n=3, temperature=0.5, instruction='Think.')
  assert (few.protocol.samples, few.protocol.k) == (3, 3) and few.asked[0].prompt == '1 + 1? Think.'
  assert task.record() == {
    **{'n': 64, 'temperature': 1.0, 'top_p': 0.95, 'top_k': -1, 'max_tokens': 40960, 'instruction': ''}
  }
  assert few.record() == task.record() | {'n': 3, 'temperature': 0.5, 'instruction': 'Think.'}
  for change, named in (({'n': 0}, 'n is 0'), ({'max_tokens': 0}, 'max_tokens is 0'), ({'top_p': 2}, 'top_p 2')):
    with pytest.raises(BadInput, match=named):
      task.changed(**change)
