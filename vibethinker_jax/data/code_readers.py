"""The shapes that published problems of programming come in: each reader makes one Problem of one row.

Two shapes cannot be asked without more than the statement, and keep the format part that their authors print: a
function to be written from examples (MBPP) and a program for a contest (LiveCodeBench).
"""

import base64
import io
import json
import pickle
import posixpath
import zlib

from vibethinker_jax.data.problem import Problem, Solution, digest_id, field, words
from vibethinker_jax.errors import BadInput


def humaneval(row: dict, where: str) -> Problem:
  """HumanEval: a signature with a docstring, to be completed; `check(entry_point)` after "test" must not raise.

  What the prompt defines above the signature becomes part of the setup of the tests: a program may not replace the
  `poly` or `encode_cyclic` with which it is checked.
  """
  prompt, entry = words(row, 'prompt', where), words(row, 'entry_point', where)
  begin = prompt.rfind(f'def {entry}')
  if begin < 0:
    raise BadInput(f'{where}: "prompt" must end in the definition of {entry}')
  setup = prompt[:begin] + words(row, 'test', where)
  tests = {'entry_point': entry, 'setup': setup, 'asserts': [f'check({entry})']}
  code = prompt + words(row, 'canonical_solution', where)
  return Problem(words(row, 'task_id', where), 'code', prompt, tests=tests, solutions=(_program(code),))


def mbpp(row: dict, where: str) -> Problem:
  """MBPP: the task with its asserts; without these a model could not know the names that it has to define."""
  asserts = field(row, 'test_list', list, where)
  if not asserts or not all(isinstance(a, str) for a in asserts):
    raise BadInput(f'{where}: "test_list" must be a list of asserts with at least one')
  shown = '\n'.join(asserts)
  return Problem(
    f'mbpp/{field(row, "task_id", int, where)}',
    'code',
    f'{words(row, "text", where)}\nYour code should pass these tests:\n\n{shown}',
    tests={'entry_point': None, 'setup': field(row, 'test_setup_code', str, where), 'asserts': asserts},
    solutions=(_program(words(row, 'code', where).replace('\r\n', '\n')),),
  )


def code_contests(row: dict, where: str) -> Problem:
  """CodeContests as {"problem", "tests": {"inputs", "outputs"}}: programs from stdin to stdout."""
  prompt, tests = words(row, 'problem', where).strip(), field(row, 'tests', dict, where)
  inputs, outputs = (field(tests, name, list, f'{where}, tests') for name in ('inputs', 'outputs'))
  if not inputs or len(inputs) != len(outputs):
    raise BadInput(f'{where}: {len(inputs)} inputs and {len(outputs)} outputs, expected as many of both, at least one')
  tests = [{'input': a, 'output': b} for a, b in zip(inputs, outputs)]
  return Problem(digest_id('code_contests', prompt, json.dumps(tests)), 'code', prompt, tests=tests)


def kattis(row: dict, where: str) -> Problem:
  """Kattis packages as {"id", "statement_tex", "tests", "accepted_py"}; accepted programs are the solutions."""
  named = {t['name']: t for t in field(row, 'tests', list, where)}
  tests = []
  for name, test in named.items():
    # in a package one test may be a link to another; read as a file, its text is the path: ../subtask1/1.in
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), test['input'].removesuffix('.in')))
    test = named.get(target, test) if test['input'].startswith('../') else test
    tests.append({'input': test['input'], 'output': test['output']})
  accepted = field(row, 'accepted_py', dict, where)
  return Problem(
    f'kattis/{words(row, "id", where)}',
    'code',
    words(row, 'statement_tex', where),
    tests=tests,
    solutions=tuple(_program(code, name) for name, code in accepted.items()),
  )


def livecodebench(row: dict, where: str) -> Problem:
  """LiveCodeBench's test*.jsonl: public and private tests, on stdin or of a method of `Solution`; `date` is set.

  Private tests are JSON, or base64 of a compressed pickle of JSON. Nothing but plain values is read from the pickle.
  """
  question, starter = words(row, 'question_content', where), field(row, 'starter_code', str, where)
  cases = [*_cases(row, 'public_test_cases', where), *_cases(row, 'private_test_cases', where)]
  if not cases:
    raise BadInput(f'{where}: no test cases')
  if starter.strip():
    ask = 'You will use the following starter code to write the solution to the problem and enclose your code within '
    ask, shown = ask + 'delimiters.', starter
  else:
    ask = 'Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the '
    ask, shown = ask + 'sample inputs). Enclose your code within delimiters as follows.', '# YOUR CODE HERE'
  return Problem(
    f'livecodebench/{words(row, "question_id", where)}',
    'code',
    f'### Question:\n{question}\n\n### Format: {ask}\n```python\n{shown}\n```\n\n'
    '### Answer: (use the provided format with backticks)\n\n',
    tests=_functional(row, cases, where) if cases[0]['testtype'] == 'functional' else _plain_tests(cases),
    difficulty={'easy': 1, 'medium': 3, 'hard': 5}.get(row.get('difficulty')),
    date=words(row, 'contest_date', where)[:10],
  )


def _program(code: str, path: str = 'reference') -> Solution:
  return Solution(f'```python\n{code.rstrip()}\n```', path)


class _TextOnly(pickle.Unpickler):
  """Reads a pickle of plain values. A pickle that names a class or function is refused, and nothing of it is run."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(f'names {module}.{name}')


def _cases(row: dict, name: str, where: str) -> list[dict]:
  raw = field(row, name, str, where)
  try:
    try:
      cases = json.loads(raw)
    except json.JSONDecodeError:
      cases = json.loads(_TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(raw)))).load())
  except (ValueError, TypeError, zlib.error, EOFError, pickle.UnpicklingError) as error:
    raise BadInput(f'{where}: "{name}" is neither JSON nor a compressed text ({error})') from None
  wanted = ('input', 'output', 'testtype')
  if not isinstance(cases, list) or not all(isinstance(c, dict) and set(wanted) <= set(c) for c in cases):
    raise BadInput(f'{where}: "{name}" must be a list of objects with {", ".join(wanted)}')
  return cases


def _plain_tests(cases: list[dict]) -> list[dict]:
  return [{'input': case['input'], 'output': case['output']} for case in cases]


def _functional(row: dict, cases: list[dict], where: str) -> dict:
  """Asserts that call the method named in "metadata": one JSON value on each line is one argument of a call."""
  try:
    name = json.loads(field(row, 'metadata', str, where))['func_name']
    calls = [([json.loads(a) for a in c['input'].split('\n') if a.strip()], json.loads(c['output'])) for c in cases]
  except (ValueError, TypeError, KeyError) as error:
    raise BadInput(
      f'{where}: a functional test needs "func_name" in metadata and JSON in its cases ({error})'
    ) from None
  return {
    'entry_point': 'Solution',
    'setup': _JSON_LIKE,
    'asserts': [f'assert _json_like(Solution().{name}(*{arguments!r})) == {wanted!r}' for arguments, wanted in calls],
  }


# a tuple equals a list, as in LiveCodeBench's own comparison
_JSON_LIKE = """def _json_like(value):
  return [_json_like(v) for v in value] if isinstance(value, (list, tuple)) else value
"""
