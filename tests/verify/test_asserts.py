"""Test runner and program are two processes: what they send each other, and what they do not."""

import json
import pathlib
import re
import socket
import sys
import types

import pytest

from vibethinker_jax.verify.asserts import AssertChannel, names_of_the_program
from vibethinker_jax.verify.channel import Channel
from vibethinker_jax.verify.grader import Grader
from vibethinker_jax.verify.program import ProgramChannel
from vibethinker_jax.verify.remote import Remote
from vibethinker_jax.verify.values import Gone

# (program, entry point, setup, asserts) that must pass as they would in one process
HONEST = {
  'plain values': (
    'def f(x): return x',
    'f',
    'from fractions import Fraction\nfrom decimal import Decimal\nfrom collections import deque\nimport datetime',
    [
      f'assert f({v}) == {v} and type(f({v})) is type({v})'
      for v in (
        'None', 'True', '0', '-7', '2**200', '-3**150', '0.1', '1e300', '"a\\u00e9\\ud800"', 'b"\\xff"', '1 + 2j',
        '[1, [2, (3,)]]', '{"a": {1: [2]}, (1, 2): None}', '{1, 2}', 'frozenset({3})', 'range(2, 9, 3)', 'int',
        'Fraction(1, 3)', 'Decimal("0.10")', 'deque([1, 2], 3)', 'datetime.date(2025, 2, 1)',
        'datetime.timedelta(1, 2, 3)',
      )
    ]
    + ['assert f(float("inf")) == float("inf")', 'assert f(float("nan")) != f(float("nan"))'],
  ),
  'arguments changed in place': (
    'def f(l, d, s): l.sort(); d["b"] = 1; s.add(3)',
    'f',
    '',
    ['l, d, s = [3, 1, 2], {}, {1}\nassert f(l, d, s) is None\nassert (l, d, s) == ([1, 2, 3], {"b": 1}, {1, 3})'],
  ),
  'functions handed over': (
    'def f(g, x): return g(g(x))',
    'f',
    'calls = []\ndef g(x):\n  calls.append(x)\n  return x + 1',
    [
      'assert f(g, 1) == 3', 'assert calls == [1, 2]', 'assert f(lambda s: s * 2, "a") == "aaaa"',
      'assert f(sorted, "ba") == ["a", "b"]',
    ],
  ),
  'functions handed back': ('def f(n): return lambda x: x + n', 'f', '', ['assert f(2)(3) == 5']),
  'generators': (
    'def f():\n  n = 0\n  while True:\n    n += 1\n    yield n',
    'f',
    'from itertools import islice',
    ['assert list(islice(f(), 3)) == [1, 2, 3]', 'assert next(f()) == 1', 'assert 5 in f()'],
  ),
  'iterators handed over': (
    'def f(xs): return sum(xs)',
    'f',
    '',
    ['assert f(x for x in (1, 2)) == 3', 'assert f(iter([4])) == 4'],
  ),
  'objects of the program': (
    'class Node:\n  def __init__(self, v): self.v, self.left = v, None\n  def __eq__(self, o): return self.v == o.v\n'
    'def depth(n): return 0 if n is None else 1 + depth(n.left)',
    None,
    'root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)',
    [
      'assert depth(root) == 3', 'assert root.left.v == 2', 'assert Node(1) == root != Node(4)',
      'assert isinstance(root, Node)',
    ],
  ),
  'a class with methods': (
    'class Stack:\n  def __init__(self): self.l = []\n  def push(self, x): self.l.append(x)\n'
    '  def pop(self): return self.l.pop()\n  def __len__(self): return len(self.l)\n'
    '  def __getitem__(self, i): return self.l[i]',
    'Stack',
    's = Stack()\ns.push(5)\ns.push(6)',
    ['assert len(s) == 2', 'assert s[0] == 5', 'assert list(s) == [5, 6]', 'assert s.pop() == 6 and s.pop() == 5'],
  ),
  'objects of the tests': (
    'def f(p):\n  p.x += 1\n  return p.x + p.y()',
    'f',
    'class P:\n  x = 1\n  def y(self): return 10',
    ['p = P()\nassert f(p) == 12 and p.x == 2'],
  ),
  'exceptions': (
    'def f(x):\n  if x < 0: raise ValueError("no")\n  return {}[x]',
    'f',
    'def raises(kind, x):\n  try: f(x)\n  except kind as error: return str(error)\n  raise AssertionError',
    ['assert raises(ValueError, -1) == "no"', 'assert "3" in raises(KeyError, 3)'],
  ),
  'a name that is built in': ('def sum(a, b): return a - b', None, '', ['assert sum(10, 15) == -5']),
  'a module of the standard library': (
    'import math\ndef f(x): return x / 3',
    None,
    '',
    ['assert math.isclose(f(1), 1 / 3)'],
  ),
  'a subclass of a plain type': (
    'from collections import Counter, OrderedDict, namedtuple\nP = namedtuple("P", "x y")\n'
    'def f(k): return {0: Counter("aab"), 1: OrderedDict(a=1), 2: P(1, 2)}[k]',
    'f',
    '',
    ['assert f(0) == {"a": 2, "b": 1}', 'assert f(1) == {"a": 1}', 'assert f(2) == (1, 2)'],
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', HONEST)
def test_a_process_of_its_own_is_not_noticed(grader, name):
  code, entry, setup, asserts = HONEST[name]
  tests = {'entry_point': entry, 'setup': setup, 'asserts': asserts}
  assert grader.grade([(f'```python\n{code}\n```', None, tests)])[0].reason == 'passed'


def read_functions() -> dict[str, tuple[str, list[str]]]:
  """Heading -> program and tests of the functions in honest.md."""
  text = pathlib.Path(__file__).with_name('honest.md').read_text().partition('\n# Scripts\n')[0]
  blocks = r'^## (.*?)\n\n```python\n(.*?)\n```\n\n```python\n(.*?)\n```$'
  return {
    name: (code, tests.split('\n# ----\n')) for name, code, tests in re.findall(blocks, text, re.DOTALL | re.MULTILINE)
  }


def test_honest_functions(monkeypatch):
  functions = read_functions()
  assert len(functions) > 30
  for code, asserts in functions.values():
    module = types.ModuleType('solution')
    monkeypatch.setitem(sys.modules, 'solution', module)
    for text in (code, *asserts):  # in one process the asserts hold
      exec(text, module.__dict__)
  rows = [
    (f'```python\n{code}\n```', None, {'entry_point': None, 'setup': '', 'asserts': asserts})
    for code, asserts in functions.values()
  ]
  with Grader(workers=2) as grader:
    verdicts = grader.grade(rows)
  assert {name: v.reason for name, v in zip(functions, verdicts) if not v.score} == {}


def test_no_object_of_the_program_is_read_at_an_address(ends):
  line, _ = ends
  remote = Remote(line, 0)  # any use of it would send a request and wait for ever
  for name in ('__array_interface__', '__array_struct__', '__array__'):
    with pytest.raises(AttributeError):
      getattr(remote, name)


@pytest.mark.parametrize(
  ('setup', 'asserts', 'entry', 'names'),
  [
    ('', ['assert f(1) == 2'], 'f', ['f']),
    ('', ['assert abs(f(1)) == len([g])'], None, ['f', 'g']),
    ('', ['assert sum(10, 15) == 6'], None, ['sum']),
    ('', ['assert sum(10, 15) == 6'], 'f', ['f']),
    ('import math', ['assert math.pi < f(1)'], None, ['f']),
    ('', ['assert math.pi < f(1)'], None, ['f']),
    ('def check(c):\n  for i in range(3): assert c(i) == poly(i)', ['check(f)'], 'f', ['f', 'poly']),
    ('def poly(x): return x\ndef check(c): assert c(1) == poly(1)', ['check(f)'], 'f', ['f']),
    ('no python', ['assert f(1'], None, []),
  ],
)
def test_names_of_the_program(setup, asserts, entry, names):
  assert sorted(names_of_the_program(setup, asserts, entry)) == sorted(names)


@pytest.fixture
def ends():
  a, b = socket.socketpair()
  with a, b:
    b.settimeout(10)
    yield AssertChannel(a), b


def test_the_tests_lend_only_what_tests_hand_over(ends):
  line, _ = ends
  with pytest.raises(TypeError, match='cannot be sent'):
    line.encode(line)
  number = line.encode(len)[1]
  for op, args in (
    ('getattr', [['yours', number], '__self__']),
    ('getattr', ['a text', 'format']),
    ('setattr', [['yours', number], 'x', 1]),
    ('eq', [1, 1]),
    ('name', ['f']),
    ('exec', ['1']),
  ):
    with pytest.raises(TypeError, match='not for the program'):
      line.do(op, *map(line.decode, args))
  with pytest.raises(Gone):
    line.answer('call', [['type', 'type'], ['tuple', []], ['dict', []]])


@pytest.mark.parametrize(
  'data',
  [
    {}, ['no such tag'], [], ['int', 'x'], ['yours', 99], ['yours', 'a'], ['module', 'jax'], ['module', 'this'],
    ['type', 'exec'], ['type', '__import__'], ['value', 'os', 'system', [['list', ['ls']]]], ['list', 5],
    ['dict', [['list', []]], [1]], ['range', 1, 2, 0], ['value', 'fractions', 'Fraction', [1, 0]], ['bytes', 'zz'],
  ],
)  # fmt: skip
def test_what_encode_never_makes_is_refused(ends, data):
  with pytest.raises(Gone):
    ends[0].decode(data)


@pytest.mark.parametrize('data', [b'', b'\xff\xff\xff\xff', b'\0\0\0\x02{}', b'\0\0\0\x03[[[', b'\0\0\0\x02[]'])
def test_what_is_no_message_is_refused(ends, data):
  line, other = ends
  other.sendall(data)
  other.close()
  with pytest.raises(Gone):
    line.receive()


def test_both_ends_speak_the_same(ends):
  line, other = ends
  program = ProgramChannel(other, {'f': lambda x: x})
  value = {'a': [1, (2.5, None)], 'b': {3}}
  assert program.decode(json.loads(json.dumps(line.encode(value)))) == value
  assert issubclass(ProgramChannel, Channel) and program.do('name', 'f')(1) == 1
