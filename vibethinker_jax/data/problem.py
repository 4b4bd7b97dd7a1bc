"""Problem: the one record behind SFT, probing, RL and evaluation, and its JSON Lines file form.

A problem is data plus what its grader needs (an answer, or tests), so one object serves every stage. File form, one
object a line:

  {"id": "algebra/linear/17", "domain": "algebra", "prompt": "Solve ...", "answer": "12" or 12 or ["12", "12.0"],
   "tests": null, "difficulty": 3,
   "solutions": [{"text": "... \\\\boxed{12}", "path": "steps", "key_spans": [[10, 24, 2.0]]}]}

Exactly one of `answer` and `tests` is given. `tests` is `[{"input": text, "output": text}, ...]` for programs that read
stdin, or `{"entry_point": name or null, "setup": code, "asserts": [code, ...]}` for functions.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable

from vibethinker_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Solution:
  """One worked solution. `key_spans` are (start, end, weight) in characters of `text`: loss weights of key steps."""

  text: str
  path: str = ''
  key_spans: tuple[tuple[int, int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question with what judges it. `difficulty` is 1 (easy) to 5, or None where unknown."""

  id: str
  domain: str
  prompt: str
  answer: str | tuple[str, ...] | None = None
  tests: dict | list | None = None
  solutions: tuple[Solution, ...] = ()
  difficulty: int | None = None


def read_problems(path: pathlib.Path) -> list[Problem]:
  """Problems of a JSON Lines file in the form above. Raises BadInput naming file, line and what was expected."""
  return [problem_from(row, where) for where, row in read_rows(path)]


def read_gsm8k(path: pathlib.Path) -> list[Problem]:
  """GSM8K's own files: {"question", "answer"}, the final answer after `####`, calculator marks `<<...>>` removed."""
  problems = []
  for number, (where, row) in enumerate(read_rows(path)):
    question, answer = (field(row, name, str, where) for name in ('question', 'answer'))
    steps, mark, final = answer.rpartition('####')
    if not mark:
      raise BadInput(f'{where}: "answer" has no "####" before the final answer')
    final = final.strip().replace(',', '')
    clean = _CALCULATOR.sub('', steps).strip()
    problems.append(
      Problem(
        id=f'gsm8k/{path.stem}/{number}',
        domain='algebra',
        prompt=question.strip(),
        answer=final,
        solutions=(Solution(f'{clean}\nThe answer is \\boxed{{{final}}}.', path='gsm8k'),),
      )
    )
  return problems


_CALCULATOR = re.compile(r'<<[^>]*>>')


def read_rows(path: pathlib.Path) -> Iterable[tuple[str, dict]]:
  """('FILE, line N', object) for every non-empty line of a JSON Lines file. Raises BadInput."""
  try:
    text = pathlib.Path(path).read_bytes().decode('utf-8')
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  except UnicodeDecodeError as error:
    raise BadInput(f'{path}: not UTF-8 at byte {error.start}') from None
  rows = []
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise BadInput(f'{path}, line {number}: not JSON ({error.msg} at column {error.colno})') from None
    if not isinstance(row, dict):
      raise BadInput(f'{path}, line {number}: expected a JSON object, found {type(row).__name__}')
    rows.append((f'{path}, line {number}', row))
  if not rows:
    raise BadInput(f'{path}: no rows')
  return rows


def field(row: dict, name: str, kind: type | tuple, where: str):
  """row[name], which must be there and of type `kind`. Raises BadInput."""
  wanted = kind.__name__ if isinstance(kind, type) else ' or '.join(k.__name__ for k in kind)
  if name not in row:
    raise BadInput(f'{where}: field "{name}" is missing (expected {wanted})')
  if not isinstance(row[name], kind) or isinstance(row[name], bool):
    raise BadInput(f'{where}: field "{name}" must be {wanted}, found {type(row[name]).__name__}')
  return row[name]


def problem_from(row: dict, where: str) -> Problem:
  """A Problem from its JSON object; `where` names the row in error messages."""
  unknown = sorted(set(row) - {f.name for f in dataclasses.fields(Problem)})
  if unknown:
    raise BadInput(f'{where}: unknown field "{unknown[0]}"')
  answer, tests = row.get('answer'), row.get('tests')
  if (answer is None) == (tests is None):
    raise BadInput(f'{where}: exactly one of "answer" and "tests" is expected')
  if answer is not None:
    answer = field(row, 'answer', (str, int, float, list), where)
    answer = tuple(map(str, answer)) if isinstance(answer, list) else str(answer)
  solutions = tuple(
    Solution(
      field(s, 'text', str, where),
      s.get('path', ''),
      tuple((int(a), int(b), float(w)) for a, b, w in s.get('key_spans', ())),
    )
    for s in row.get('solutions', ())
  )
  return Problem(
    id=str(field(row, 'id', (str, int), where)),
    domain=field(row, 'domain', str, where) if 'domain' in row else '',
    prompt=field(row, 'prompt', str, where),
    answer=answer,
    tests=tests,
    solutions=solutions,
    difficulty=row.get('difficulty'),
  )
