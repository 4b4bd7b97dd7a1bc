import os
import pathlib
import re

import pytest

from vibethinker_jax.verify import sandbox
from vibethinker_jax.verify.code import extract_code, job
from vibethinker_jax.verify.grader import Grader
from vibethinker_jax.verify.output import same_output

DOUBLE = {'entry_point': 'f', 'setup': '', 'asserts': ['assert f(1) == 2', 'assert f(2) == 4']}
SUM = [{'input': '1 2\n', 'output': '3\n'}, {'input': '5 7', 'output': '12'}]


def fenced(code: str) -> str:
  return f'<think>hm</think>Here:\n```python\n{code}\n```\nDone.'


@pytest.mark.parametrize(
  'text, code',
  [
    ('```python\nx = 1\n```', 'x = 1'),
    ('```\nx = 1\n```', 'x = 1'),
    ('```py\nx = 1\n\ny = 2\n```', 'x = 1\n\ny = 2'),
    ('```Python3\nx = 1\n``` ', 'x = 1'),
    ('```python\nx = 1\n```\nbetter\n```python\nx = 2\n```', 'x = 2'),
    ('```python\nx = 1\n```\nrun\n```bash\nls\n```', 'x = 1'),
    ('```python\nx = 1\n```\nmore\n```python\nx = 2', 'x = 1'),
    ('<think>\n```python\nx = 1\n```\n</think>\nno code', None),
    ('<think>\n```python\nx = 1\n```\n</think>\n```python\nx = 2\n```', 'x = 2'),
    ('```python\nx = 1', None),
    ('```python\n```', ''),
    ('x = 1', None),
    ('', None),
    # tags
    ('```{python}\nx = 1\n```', 'x = 1'),
    ('```{.python .numberLines}\nx = 1\n```', 'x = 1'),
    ('```python {title="a.py"}\nx = 1\n```', 'x = 1'),
    ('```python title="a.py"\nx = 1\n```', 'x = 1'),
    ('``` title="a.py"\nx = 1\n```', 'x = 1'),
    ('```python:main.py\nx = 1\n```', 'x = 1'),
    ('```Python 3\nx = 1\n```', 'x = 1'),
    ('``` python\nx = 1\n```', 'x = 1'),
    ('```python3.11\nx = 1\n```', 'x = 1'),
    ('```py3\nx = 1\n```', 'x = 1'),
    ('```pypy3\nx = 1\n```', 'x = 1'),
    ('```ipython\nx = 1\n```', 'x = 1'),
    ('```python # solution\nx = 1\n```', 'x = 1'),
    ('```cpython\nx = 1\n```', None),
    ('```pycon\nx = 1\n```', None),
    ('```{.cpp}\nx = 1\n```', None),
    ('~~~python\nx = 1\n~~~', None),
    # fences
    ('````python\nx = 1\n````', 'x = 1'),
    ('````python\ns = """\n```\n"""\n````', 's = """\n```\n"""'),
    ('```python\nx = 1\n````', 'x = 1'),
    ('```markdown\n```python\nx = 1\n```\n```', None),
    ('```python\nx = 1\n``` done', 'x = 1'),
    ('```python\nx = 1\n```.', 'x = 1'),
    ('```python\nx = 1\n``` and `y`', 'x = 1'),
    ('```python\nx = 1\n```<|im_end|>', 'x = 1'),
    ('```python\nx = 1\n```<|endoftext|>\n', 'x = 1'),
    ('```python\nx = 1\n```</answer>', 'x = 1'),
    ('Here: ```python\nx = 1\n```', 'x = 1'),
    ('1. ```python\nx = 1\n```', 'x = 1'),
    ('> ```python\n> x = 1\n> ```', None),
    ('Use ```x``` like so:\n```python\nx = 1\n```', 'x = 1'),
    ('Write it in ```\n```python\nx = 1\n```', 'x = 1'),
    ('```python\n# ``` x\nx = 1\n```', '# ``` x\nx = 1'),
    ('```python\nx = 1\n```python\nx = 2\n```', 'x = 2'),
    ('```python x = 1```', None),
    ('```python\nx = 1```', None),
    ('\ufeff```python\nx = 1\n```', 'x = 1'),
    ('\u200b```python\u200b\nx = 1\n\u200b```\u200b', 'x = 1'),
    ('```python\r\nif x:\r\n  y\r\n```\r\n', 'if x:\n  y'),
    ('- so:\n  ```python\n  if x:\n    y\n\n  z\n  ```', 'if x:\n  y\n\nz'),
    ('\t```python\nif x:\n\ty\n\t```', 'if x:\n\ty'),
    # the end of the thinking
    ('```python\n# </think>\nx = 1\n```', '# </think>\nx = 1'),
    ('so</think>\n```python\nx = "</think>"\n```', 'x = "</think>"'),
    ('<think>a</think>\n```python\nx = "</think>"\n```\nNo </think> here', 'x = "</think>"'),
    ('```python\nx = 0\n```\nso </think>\n```python\nx = 1', None),
    ('```python\nx = 0\n</think>\n```\nx = 1\n```', 'x = 1'),
    ('```python\nx = 0\n so</think>\n```python\nx = 1\n```', 'x = 1'),
    ('```python\nx = 0\n```\n```python\n# hm </think>\nno more', None),
    ('<think>\n```python\nx = 1\n```\n', 'x = 1'),
  ],
)
def test_extract_code(text, code):
  assert extract_code(text) == code


def test_same_output():
  assert same_output('1 2\n3\n\n', '1  2 \n3')
  assert same_output('', '\n')
  assert not same_output('1\n2', '1 2')
  assert not same_output('12', '1 2')
  assert same_output('\n 1 \n2\n', '1\n2')
  assert same_output('a b', ' a b ')
  assert not same_output('a  b', 'a b')  # spaces within a line count, unless it is all numbers
  assert not same_output('1\n2', '1\n\n2')
  assert same_output('1.0 1e3 007 1_000 +5', '1 1000 7 1000 5')
  assert same_output('Infinity', 'inf')
  assert same_output('nan', 'nan') and not same_output('NaN', 'nan') and not same_output('sNaN', 'nan')
  assert not same_output('0.333', '0.3333')
  assert not same_output('50000000000000000', '50000000000000001')
  assert not same_output('1 yes', '1.0 yes')
  assert not same_output('1', '1 1')
  assert not same_output('1e9999999999999999999', '1')
  assert not same_output('', '0')


def test_functions(grader):
  cases = [
    ('def f(x): return 2 * x', 'passed'),
    ('import random, threading, statistics\ndef f(x): return 2 * x', 'passed'),
    ('import dataclasses\n@dataclasses.dataclass\nclass A:\n  x: int\ndef f(x): return A(2 * x).x', 'passed'),
    ('if __name__ == "__main__": raise ValueError\ndef f(x): return 2 * x', 'passed'),
    ('def f(x): return 2', 'test 2 failed'),
    ('def f(x):\n  while True: pass', 'timeout'),
    ('import time\ndef f(x): time.sleep(60)', 'timeout'),
    ('def f(x): return y', "error: NameError: name 'y' is not defined (test 1)"),
    ('raise ValueError("no")', 'error: ValueError: no'),
    ('def f(x) return', 'error: SyntaxError'),
    ('def g(x): return 2 * x', "error: NameError: the entry point 'f' is not defined"),
    ('f = 3', "error: NameError: the entry point 'f' is not defined"),
    ('import os\nos._exit(0)', 'error: exited before'),
    ('import os\ndef f(x): os._exit(0)', 'error: exited before'),
    ('raise SystemExit(0)', 'error: SystemExit'),
    ('print("passed\\nok\\n" * 9)\nimport os, sys\nsys.stdout.flush()\nos._exit(0)', 'error: exited before'),
    (
      'import os\nfor i in range(3, 200):\n  try: os.write(i, b"passed")\n  except OSError: pass\nos._exit(0)',
      'error: exited before',
    ),
    ('x = "a" * 10**10\ndef f(x): return 2 * x', 'error: MemoryError'),
    # a busy machine may not give that much memory before the time is over
    ('x = []\nwhile True: x.append(bytearray(10**8))', ('error: MemoryError', 'timeout')),
    ('import os\nwhile True: os.write(1, b"a" * 10**6)', 'error: OSError'),
    ('import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)', ('error', 'timeout')),
    ('class E(Exception):\n  def __str__(self): raise self\nraise E', 'error: an exception'),
    ('import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\ndef f(x): return 0', ('error', 'test 1')),
  ]
  verdicts = grader.grade([(fenced(code), None, DOUBLE) for code, _ in cases])
  for (code, reason), verdict in zip(cases, verdicts, strict=True):
    assert verdict.reason.startswith(reason), code
    assert verdict.score == (reason == 'passed') and verdict.extracted == code


def test_programs(grader):
  cases = [
    ('a, b = map(int, input().split())\nprint(a + b)', 'passed'),
    ('import sys\nprint(sum(map(int, sys.stdin.read().split())))\nsys.exit()', 'passed'),
    ('import sys\nsys.stdout.buffer.write(b"%d" % sum(map(int, sys.stdin.buffer.read().split())))', 'passed'),
    ('if __name__ == "__main__": print(sum(map(int, open(0).read().split())))', 'passed'),
    ('print(3)', 'test 2 failed'),
    ('', 'test 1 failed'),
    ('print(sum(map(int, input().split())))\nraise SystemExit(1)', 'error: SystemExit'),
    ('print(sum(map(int, input().split())))\n1 / 0', 'error: ZeroDivisionError'),
    ('input(); input()', 'error: EOFError'),
    ('while True: pass', 'timeout'),
  ]
  verdicts = grader.grade([(fenced(code), None, SUM) for code, _ in cases])
  for (code, reason), verdict in zip(cases, verdicts, strict=True):
    assert verdict.reason.startswith(reason) and verdict.score == (reason == 'passed'), code


def test_ordinary_scripts():
  text = pathlib.Path(__file__).with_name('honest.md').read_text().partition('\n# Scripts\n')[2]
  scripts = dict(re.findall(r'^## (.*?)\n\n```python\n(.*?)\n```$', text, re.DOTALL | re.MULTILINE))
  assert len(scripts) > 70
  tests = [{'input': '3\n1 2 3\n', 'output': '6\n'}]
  with Grader(workers=2) as grader:
    verdicts = grader.grade([(fenced(code), None, tests) for code in scripts.values()])
  assert {name: v.reason for name, v in zip(scripts, verdicts) if not v.score} == {}


@pytest.mark.parametrize(
  ('code', 'reason'),
  [
    ('print(6)\nexit(1)', 'error: SystemExit: 1'),
    ('print(6)\nexit("bye")', 'error: SystemExit: bye'),
    ('print(6)\nexit(True)', 'error: SystemExit'),
    ('import os\nprint(6)\nos._exit(0)', 'test 1 failed'),  # what was not flushed is lost
    ('import threading\nprint(6, flush=True)\nthreading.Thread(target=threading.Event().wait).start()', 'timeout'),
    ('import jax', 'error: ModuleNotFoundError'),
    ('print(6)\nnowhere', 'error: NameError'),
  ],
)
def test_scripts_that_end_badly(grader, code, reason):
  assert grader.grade([(fenced(code), None, [{'input': '', 'output': '6'}])])[0].reason.startswith(reason)


def test_contests_are_run_as_livecodebench_runs_them(grader):
  def tests(*asserts: str, name: str = 'Solution') -> dict:
    return {'entry_point': name, 'setup': '', 'asserts': list(asserts)}

  cases = [
    ('class Solution:\n  def f(self, a: List[int]) -> Optional[int]: return gcd(*a)', 'passed'),
    ('def f(a): return a and 3', 'passed'),
    ('@cache\ndef g(a): return 3\ndef f(a): return g(tuple(a))', 'passed'),
    (
      'class Solution:\n  n = 0\n  def f(self, a):\n    self.n += 1\n    return self.n + 2',
      'test 2 failed',
    ),  # one instance
    ('class Solution:\n  def f(self, a):\n    def g(n): return n and g(n - 1)\n    return g(9000) + 3', 'passed'),
    ('class Solution:\n  def g(self, a): return 3', 'error: AttributeError'),
    ('def g(a): return 3', 'error: AttributeError'),
    ('class Solution:\n  def __init__(self): raise ValueError\n  def f(self, a): return 3', 'error: ValueError'),
    ('class Solution:\n  def f(self, a): return 3\nexit()', 'error: SystemExit'),
  ]
  calls = tests('assert Solution().f([9, 6]) == 3', 'assert Solution().f([3, 3]) == 3')
  for (code, reason), v in zip(cases, grader.grade([(fenced(code), None, calls) for code, _ in cases]), strict=True):
    assert v.reason.startswith(reason), (code, v.reason)
  # elsewhere a name must be imported, and the stack is Python's
  others = [
    ('def f(a: List[int]): return 3', "error: NameError: name 'List'"),
    ('def f(a):\n  def g(n): return n and g(n - 1)\n  return g(9000) + 3', 'error: RecursionError'),
  ]
  for code, reason in others:
    verdict = grader.grade([(fenced(code), None, tests('assert f([9, 6]) == 3', name='f'))])[0]
    assert verdict.reason.startswith(reason)


def test_the_name_of_a_contests_function_is_no_function_of_its_own(grader):
  tests = {'entry_point': 'Solution', 'setup': '', 'asserts': ['assert Solution().gcd(4, 6) == 2']}
  assert grader.grade([(fenced('x = gcd'), None, tests)])[0].reason.startswith('error: AttributeError')


def test_time_is_for_each_test_of_a_contest():
  few, many = [{'input': '', 'output': '1'}], [{'input': '', 'output': '1'}] * 12
  calls = {'entry_point': 'Solution', 'setup': '', 'asserts': ['assert Solution().f() == 1'] * 12}
  head = lambda tests, seconds: job('', tests, seconds, 0)[0]
  assert [head(few, s)['limit_s'] for s in (2, 10)] == [2, 10]
  assert [head(many, s)['limit_s'] for s in (2, 10, 120)] == [2, 6, 10]
  assert head(calls, 10)['limit_s'] == 6 and head(calls, 10)['tests'] == 12
  assert head(DOUBLE, 10)['limit_s'] == 10 and head(DOUBLE, 10)['tests'] == 1
  with Grader(workers=2, deadline_s=1.5) as grader:
    wait = 'import time\ntime.sleep(.3)\nprint(1)'
    method = 'import time\nclass Solution:\n  def f(self):\n    time.sleep(.3)\n    return 1'
    slow = 'import time\nclass Solution:\n  def f(self):\n    time.sleep(9)\n    return 1'
    rows = [(fenced(wait), None, many), (fenced(method), None, calls), (fenced(slow), None, calls)]
    assert [v.reason for v in grader.grade(rows)] == ['passed', 'passed', 'timeout']


def test_the_expected_output_is_not_in_the_program(grader):
  # It looks for the text in its own interpreter; in pieces, so as not to find its own constant.
  spy = (
    'import gc, sys\n'
    'places, frame = [o for o in gc.get_objects() if type(o) in (list, dict, tuple)], sys._getframe()\n'
    'while frame: places.append(dict(frame.f_locals)); frame = frame.f_back\n'
    'for o in places:\n'
    '  for v in list(o.values() if type(o) is dict else o):\n'
    '    if type(v) is str and v.startswith("".join(["the out", "come is"])): print(v); raise SystemExit\n'
  )
  tests = [{'input': 'the outcome is open', 'output': 'the outcome is secret'}]
  assert grader.grade([(fenced(spy), None, tests)])[0].reason == 'test 1 failed'
  # The spy can spy: the input does lie in its memory.
  tests = [{'input': 'the outcome is open', 'output': 'the outcome is open'}]
  assert grader.grade([(fenced(spy), None, tests)])[0].reason == 'passed'


def test_setup_runs_after_the_code(grader):
  tests = {
    'entry_point': None,
    'setup': 'base = one() + 1',
    'asserts': ['assert base == 2', 'assert one() == 1'],
  }
  assert grader.grade([(fenced('def one(): return 1'), None, tests)])[0].score == 1
  assert grader.grade([(fenced('def one(): return 3'), None, tests)])[0].reason == 'test 1 failed'


def test_fork_bomb_is_contained(grader):
  bomb = 'import os\nwhile True:\n  try: os.fork()\n  except OSError: pass'
  count = (
    'import os, time\nn = 0\ntry:\n  while n < 5000:\n    if os.fork() == 0: time.sleep(60)\n    n += 1\n'
    'except OSError: pass\nraise ValueError(n)'
  )
  verdicts = grader.grade([(fenced(bomb), None, DOUBLE), (fenced(count), None, DOUBLE)])
  assert verdicts[0].reason == 'timeout'
  if os.geteuid() == 0 or 'user' in sandbox.isolation_level():
    # Elsewhere the other processes of this user count too.
    assert verdicts[1].reason.startswith('error: ValueError: ') and int(verdicts[1].reason.split()[-1]) < 200
  good = fenced('def f(x): return 2 * x')
  assert [v.score for v in grader.grade([(good, None, DOUBLE)] * 4)] == [1] * 4


def test_the_world_outside_is_closed(grader, tmp_path):
  if 'no namespaces' in sandbox.isolation_level():
    pytest.skip(f'this kernel gives none: {sandbox.isolation_level()}')
  tmp_path.chmod(0o777)
  secret = tmp_path / 'secret'
  secret.write_text('x')
  here = pathlib.Path(__file__)

  def reason(code):
    return grader.grade([(fenced(code), None, DOUBLE)])[0].reason

  assert reason(f'open({str(tmp_path / "new")!r}, "w")').startswith('error: FileNotFoundError')
  assert reason(f'open({str(secret)!r})').startswith('error: FileNotFoundError')
  assert reason(f'open({str(here)!r})').startswith('error: FileNotFoundError')
  assert reason('open("/new", "w")').startswith(('error: OSError', 'error: PermissionError'))
  assert reason('import os\nopen(os.__file__, "a")').startswith(('error: OSError', 'error: PermissionError'))
  assert reason('import socket\nsocket.create_connection(("127.0.0.1", 9), 1)').startswith('error: OSError')
  assert reason('import os\nraise ValueError(os.getpid())') == 'error: ValueError: 1'
  assert reason('import os\nos.setuid(0)').startswith(('error: PermissionError', 'error: OSError'))
  assert not (tmp_path / 'new').exists()
  # Its own folder is writable, empty, and forgotten afterwards.
  own = 'import os\nassert not os.listdir(".")\nopen("new", "w").write("x")\ndef f(x): return 2 * x'
  assert [reason(own), reason(own)] == ['passed', 'passed']


def test_the_environment_is_not_inherited(grader):
  code = 'import os\nassert set(os.environ) <= {"PYTHONHASHSEED", "LC_CTYPE"}\ndef f(x): return 2 * x'
  assert grader.grade([(fenced(code), None, DOUBLE)])[0].reason == 'passed'


def test_verdicts_do_not_depend_on_the_hash_seed(grader):
  code = 'def f(x): return 2 * x\nraise ValueError(list({"a", "b", "c", "d", "e"}))'
  assert len({v.reason for v in grader.grade([(fenced(code), None, DOUBLE)] * 4)}) == 1


def test_kattis(grader, read_data):
  rows, expected = [], []
  for problem in read_data('code/kattis_examples_3.json'):
    tests = [
      {'input': test['input'], 'output': test['output']}
      for test in problem['tests']
      if not test['input'].startswith('../')  # a link to another test, taken for its content
    ]
    for kind, score in (('accepted_py', 1), ('wrong_py', 0), ('slow_py', 0)):
      for code in problem[kind].values():
        rows.append((fenced(code), None, tests))
        expected.append(score)
  assert [v.score for v in grader.grade(rows)] == expected and set(expected) == {0, 1}


def test_human_eval_example(grader, read_data):
  (problem,) = read_data('code/humaneval_example_problem.jsonl')
  entry = problem['entry_point']
  tests = {'entry_point': entry, 'setup': problem['test'], 'asserts': [f'check({entry})']}
  samples = read_data('code/humaneval_example_samples.jsonl')
  verdicts = grader.grade([(fenced(problem['prompt'] + s['completion']), None, tests) for s in samples])
  assert sum(v.score for v in verdicts) == 3 and len(verdicts) == 6


@pytest.mark.slow
def test_real_samples_of_human_eval(grader, read_data):
  rows = read_data('code/humaneval_codegen16B_100samples.jsonl')
  problems = {row['entry_point']: row for row in read_data('code/HumanEval.jsonl.gz')}
  asked, expected = [], []
  for row in rows[:30]:
    problem = problems[re.findall(r'^def (\w+)', row['prompt'], re.MULTILINE)[-1]]
    entry = problem['entry_point']
    # the helpers of the prompt (poly, encode_cyclic) are the tests' own, or a program could redefine them
    helpers = problem['prompt'][: problem['prompt'].rindex(f'def {entry}')]
    tests = {'entry_point': entry, 'setup': helpers + problem['test'], 'asserts': [f'check({entry})']}
    for completion in (problem['canonical_solution'], *row['samples'][:20]):
      asked.append((fenced(problem['prompt'] + completion), None, tests))
    expected.append(len(asked) - 21)
  verdicts = grader.grade(asked)
  assert len(verdicts) == 630
  assert [verdicts[i].reason for i in expected] == ['passed'] * 30
  samples = [v for i, v in enumerate(verdicts) if i not in expected]
  assert 0.1 < sum(v.score for v in samples) / len(samples) < 0.6  # CodeGen-16B: some are right, most are not
  assert all(v.reason == 'passed' or v.reason.startswith(('test', 'error', 'timeout')) for v in samples)


def test_mbpp_solutions(grader, read_data):
  rows = []
  for row in read_data('code/mbpp.jsonl')[::8]:
    tests = {'entry_point': None, 'setup': row['test_setup_code'], 'asserts': row['test_list']}
    rows.append((fenced(row['code']), None, tests))
  assert [v.reason for v in grader.grade(rows) if not v.score] == []
