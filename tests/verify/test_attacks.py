"""Hostile programs, kept in attacks.md: none may score, hang the grader, or reach what is not its own."""

import pathlib
import re
import socket

import pytest

from vibethinker_jax.verify import sandbox
from vibethinker_jax.verify.grader import Grader

TESTS = {
  'function': {
    'entry_point': 'f',
    'setup': '',
    'asserts': ['assert f(1) == 2', 'assert f(2) == 4', 'assert f(3) == 6'],
  },
  'close': {
    'entry_point': 'f',
    'setup': 'import math',
    'asserts': ['assert abs(f(1) - 0.1) < 1e-6', 'assert math.isclose(f(2), 0.2)'],
  },
  'member': {
    'entry_point': None,
    'setup': '',
    'asserts': ['assert 7 in f(1)', 'assert set(f(2)) == {8}', 'assert sorted(f(3)) == [9]'],
  },
  'difference': {'entry_point': 'f', 'setup': '', 'asserts': ['assert abs(f(1) - 0.1) < 1e-6']},
  'rounded': {'entry_point': 'f', 'setup': '', 'asserts': ['assert round(0.3 - f(1), 6) == 0']},
  'days': {
    'entry_point': 'f',
    'setup': 'from datetime import date',
    'asserts': ['assert (f(1) - date(2020, 1, 2)).days == 0'],
  },
  'rest': {'entry_point': 'f', 'setup': '', 'asserts': ['assert len(f(1) - {5}) == 0']},
  'nothing': {'entry_point': 'f', 'setup': '', 'asserts': ['assert {5} - f(1) == set()']},
  'with': {
    'entry_point': 'f',
    'setup': '',
    'asserts': ['with f(1) as x:\n  value = x.value\n  assert value == 2', 'with f(2) as x: assert x.value == 4'],
  },
  'loop': {
    'entry_point': 'f',
    'setup': 'def right(n): return f(n) == 2 * n',
    'asserts': ['assert all(map(right, [1, 2, 3]))', 'assert not [n for n in map(f, [1]) if n != 2]'],
  },
  'unittest': {
    'entry_point': 'f',
    'setup': 'import io, unittest\nclass Case(unittest.TestCase):\n  def test(self): self.assertEqual(f(1), 2)',
    'asserts': [
      'suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)\n'
      'assert unittest.TextTestRunner(io.StringIO()).run(suite).wasSuccessful()'
    ],
  },
  'array': {
    'entry_point': 'f',
    'setup': 'import numpy as np',
    'asserts': ['assert np.allclose(f(1), [2.0])', 'assert (f(2) == np.array([4.0])).all()'],
  },
  'stdin': [{'input': '1 2\n', 'output': '3\n'}, {'input': '5 7\n', 'output': '12\n'}],
}
GOOD = 'def f(x): return 2 * x'


def read(part: str) -> dict[str, str]:
  """Heading -> program of one part of attacks.md."""
  text = pathlib.Path(__file__).with_name('attacks.md').read_text()
  (part,) = re.findall(rf'^# {part}\n(.*?)(?=^# |\Z)', text, re.DOTALL | re.MULTILINE)
  return dict(re.findall(r'^## (.*?)\n\n```python\n(.*?)\n```$', part, re.DOTALL | re.MULTILINE))


def fenced(code: str) -> str:
  return f'```python\n{code}\n```'


FORGERIES, EXHAUSTIONS, INTRUSIONS = map(read, ('Forgeries', 'Exhaustions', 'Intrusions'))
YES = re.search(r'```python\n(class Yes.*?)\n```', pathlib.Path(__file__).with_name('attacks.md').read_text(), re.S)[1]


def test_forty_attacks_at_least():
  assert len(FORGERIES) + len(EXHAUSTIONS) + len(INTRUSIONS) >= 40


def test_no_forgery_scores(grader):
  rows = [(fenced(f'{YES}\n{code}'), None, TESTS[heading.rpartition(': ')[2]]) for heading, code in FORGERIES.items()]
  verdicts = grader.grade(rows)
  assert [heading for heading, verdict in zip(FORGERIES, verdicts, strict=True) if verdict.score] == []
  assert grader.grade([(fenced(GOOD), None, TESTS['function'])])[0].reason == 'passed'


def test_honest_solutions_of_the_same_tests_pass(grader):
  rows = [
    (GOOD, 'function'),
    ('def f(x): return x / 10', 'close'),
    ('def f(x): return [x + 6]', 'member'),
    ('def f(x): return iter([x + 6])', 'member'),
    ('def f(x): yield x + 6', 'member'),
    (
      'from contextlib import contextmanager\nfrom types import SimpleNamespace\n'
      '@contextmanager\ndef f(x): yield SimpleNamespace(value=2 * x)',
      'with',
    ),
    ('def f(x): return 2 * x', 'loop'),
    ('def f(x): return 2 * x', 'unittest'),
    ('import numpy as np\ndef f(x): return np.array([2 * x])', 'array'),
    ('def f(x): return 0.1', 'difference'),
    ('def f(x): return 0.3', 'rounded'),
    ('from datetime import date\ndef f(x): return date(2020, 1, 2)', 'days'),
    ('def f(x): return {5}', 'rest'),
    ('def f(x): return {5}', 'nothing'),
    ('print(sum(map(int, input().split())))', 'stdin'),
  ]
  assert [v.reason for v in grader.grade([(fenced(code), None, TESTS[kind]) for code, kind in rows])] == [
    'passed'
  ] * len(rows)


def test_no_exhaustion_outlives_its_deadline():
  with Grader(workers=2, deadline_s=1.0) as grader:
    verdicts = grader.grade([(fenced(code), None, TESTS['function']) for code in EXHAUSTIONS.values()])
    assert {v.reason.split(':')[0] for v in verdicts} <= {'timeout', 'error', 'worker died'}
    assert all(v.score == 0 for v in verdicts)
    good = [(fenced(GOOD), None, TESTS['function'])] * 4
    assert [v.reason for v in grader.grade(good)] == ['passed'] * 4
    assert len(grader.pids()) == 2


def test_no_intrusion_succeeds(grader, tmp_path):
  if 'no namespaces' in sandbox.isolation_level():
    pytest.skip(f'this kernel gives none: {sandbox.isolation_level()}')
  tmp_path.chmod(0o777)
  secret = tmp_path / 'secret'
  secret.write_text('x')
  with socket.create_server(('127.0.0.1', 0)) as server, socket.socket(socket.AF_UNIX) as unix:
    unix.bind('\0vibethinker-test')
    unix.listen()
    facts = {'HERE': repr(__file__), 'SECRET': repr(str(secret)), 'PORT': str(server.getsockname()[1])}
    rows = []
    for code in INTRUSIONS.values():
      for word, fact in facts.items():
        code = code.replace(word, fact)
      rows.append((fenced(f'{code}\n{GOOD}'), None, TESTS['function']))
    verdicts = grader.grade(rows)
  failed = {name: v.reason for name, v in zip(INTRUSIONS, verdicts, strict=True) if v.reason != 'passed'}
  assert failed == {}
