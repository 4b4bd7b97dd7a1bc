import subprocess
import sys
import time
import warnings

import pytest

from vibethinker_jax.verify import sandbox
from vibethinker_jax.verify.grader import Grader
from vibethinker_jax.verify.pool import Pool

TESTS = {'entry_point': 'f', 'setup': '', 'asserts': ['assert f() == 1']}


def test_mixed_rows_keep_their_order(grader):
  good, bad = (f'```python\ndef f(): return {n}\n```' for n in (1, 2))
  rows = [
    (good, None, TESTS),
    (r'\boxed{1}', '1', None),
    (bad, None, TESTS),
    (r'\boxed{\sqrt2}', '2^{1/2}', None),
  ]
  rows += [('no', None, TESTS), ('no', '1', None), (r'\boxed{2}', ('1', '2'), None)]
  verdicts = grader.grade(rows * 3)
  assert [v.reason for v in verdicts] == 3 * [
    'passed', 'exact', 'test 1 failed', 'math_verify', 'no code block', 'no boxed answer', 'exact'
  ]  # fmt: skip
  assert [v.score for v in verdicts] == 3 * [1, 1, 0, 1, 0, 0, 1]
  assert grader.grade([]) == []


@pytest.mark.parametrize(
  'row, message',
  [
    (('a', '1', TESTS), 'exactly one'),
    (('a', None, None), 'exactly one'),
    (('a', 1, None), 'text'),
    (('a', None, []), 'empty'),
    (('a', None, TESTS | {'asserts': []}), 'empty'),
    (('a', None, {'asserts': ['x']}), 'entry_point'),
    (('a', None, [{'input': 'x'}]), 'output'),
    (('a', None, 'assert x'), 'tests must be'),
  ],
)
def test_bad_rows_are_named(grader, row, message):
  with pytest.raises((ValueError, TypeError), match=f'row 1: .*{message}'):
    grader.grade([('a', '1', None), row])


def test_a_tower_of_powers_is_wrong_and_delays_nobody():
  towers = ['10^{10^{10}}', '9^{9^{9^{9}}}', '2^{3^{4^{5^{6}}}}']
  with Grader(workers=2, deadline_s=1.0) as grader:
    start = time.monotonic()
    rows = [(f'\\boxed{{{tower}}}', '5', None) for tower in towers]
    rows += [(r'\boxed{10**10**10}', '5', None), (r'\boxed{5}', '10^{10^{10^{10}}}', None)]
    rows += [(f'\\boxed{{\\sqrt{{{4 * n}}}}}', f'2\\sqrt{{{n}}}', None) for n in (2, 3, 5)]
    verdicts = grader.grade(rows)
    assert [v.score for v in verdicts] == [0] * 5 + [1] * 3
    assert 'timeout' in {v.reason for v in verdicts}
    assert time.monotonic() - start < 60


def test_grading_a_step_of_simple_answers_starts_no_process():
  with Grader() as grader:
    verdicts = grader.grade([(f'so \\boxed{{{n}}}', str(n // 2 * 2), None) for n in range(256)])
    assert sum(v.score for v in verdicts) == 128
    assert grader.pids() == []


def test_the_graders_import_no_jax():
  code = (
    'import sys\n'
    'import vibethinker_jax.verify.grader\n'
    'heavy = {"jax", "numpy", "sympy", "math_verify", "flax"} & set(sys.modules)\n'
    'ours = {m for m in sys.modules if m.startswith("vibethinker_jax.") and ".verify" not in m}\n'
    'ours -= {"vibethinker_jax.boxes"}\n'
    'assert not heavy and not ours, (heavy, ours)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=None)


def test_little_isolation_is_said_aloud(grader, monkeypatch):
  row = [('```python\ndef f(): return 1\n```', None, TESTS)]
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    if 'no namespaces' not in sandbox.isolation_level():
      grader.grade(row)
  monkeypatch.setattr(Pool, 'greetings', lambda self: ['no namespaces (no permission), still root'])
  with pytest.warns(RuntimeWarning, match='hardly isolated.*no permission'):
    grader.grade(row)


def test_a_deadline_must_be_positive():
  with pytest.raises(ValueError):
    Grader(deadline_s=0)
