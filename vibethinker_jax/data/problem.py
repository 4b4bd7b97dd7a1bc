"""Problem: the one record behind SFT, probing, RL and evaluation, and its JSON Lines file form.

A problem is data plus what its grader needs (an answer, or tests), so one object serves every stage. File form, one
object a line:

  {"id": "algebra/linear/17", "domain": "algebra", "prompt": "Solve ...", "answer": "12" or 12 or ["12", "12.0"],
   "tests": null, "difficulty": 3, "date": "2025-02-14",
   "solutions": [{"text": "... \\\\boxed{12}", "path": "steps", "key_spans": [[10, 24, 2.0]]}]}

Exactly one of `answer` and `tests` is given. `tests` is `[{"input": text, "output": text}, ...]` for programs that read
stdin, or `{"entry_point": name or null, "setup": code, "asserts": [code, ...]}` for functions.
"""

import dataclasses
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator

from vibethinker_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Solution:
  """One worked solution. `key_spans` are (start, end, weight) in characters of `text`: loss weights of key steps."""

  text: str
  path: str = ''
  key_spans: tuple[tuple[int, int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question with what judges it.

  `domain` is '' where nobody has said, `difficulty` is 1 (easy) to 5 or None, `date` is the day of publication
  (YYYY-MM-DD) or ''.
  """

  id: str
  domain: str
  prompt: str
  answer: str | tuple[str, ...] | None = None
  tests: dict | list | None = None
  solutions: tuple[Solution, ...] = ()
  difficulty: int | None = None
  date: str = ''


def read_rows(path: pathlib.Path) -> list[tuple[str, dict]]:
  """('FILE, line N', object) for every non-empty line of a JSON Lines file, `.gz` or plain. Raises BadInput."""
  rows = list(json_lines(path))
  for _, row in rows:
    if isinstance(row, BadInput):
      raise row
  if not rows:
    raise BadInput(f'{path}: no rows')
  return rows


def json_lines(path: pathlib.Path) -> Iterator[tuple[str, dict | BadInput]]:
  """Like `read_rows`, one line at a time; a broken line comes as its error, for the caller to raise or to skip.

  Raises BadInput where the file itself cannot be read.
  """
  try:
    with gzip.open(path) if pathlib.Path(path).suffix == '.gz' else open(path, 'rb') as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          where = f'{path}, line {number}'
          yield where, _object(line, where)
  except (OSError, EOFError, zlib.error) as error:
    raise BadInput(f'{path}: cannot be read ({reason(error)})') from None


def reason(error: Exception) -> str:
  """What an error of the system says, in words."""
  return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _object(line: bytes, where: str) -> dict | BadInput:
  try:
    row = json.loads(line.decode('utf-8'))
  except UnicodeDecodeError as error:
    return BadInput(f'{where}: not UTF-8 at byte {error.start} of the line')
  except json.JSONDecodeError as error:
    return BadInput(f'{where}: not JSON ({error.msg} at column {error.colno})')
  except (RecursionError, ValueError):  # ten thousand brackets; a number of ten thousand digits
    return BadInput(f'{where}: not JSON that can be read (nested too deep, or a number too long)')
  return row if isinstance(row, dict) else BadInput(f'{where}: expected a JSON object, found {type(row).__name__}')


def field(row: dict, name: str, kind: type | tuple, where: str):
  """row[name], which must be there and of type `kind`. Raises BadInput."""
  wanted = kind.__name__ if isinstance(kind, type) else ' or '.join(k.__name__ for k in kind)
  if name not in row:
    raise BadInput(f'{where}: field "{name}" is missing (expected {wanted})')
  if not isinstance(row[name], kind) or isinstance(row[name], bool):
    raise BadInput(f'{where}: field "{name}" must be {wanted}, found {type(row[name]).__name__}')
  return row[name]


def problem_from(row: dict, where: str) -> Problem:
  """A Problem from its JSON object; `where` names the row in error messages. Raises BadInput."""
  unknown = sorted(set(row) - {f.name for f in dataclasses.fields(Problem)})
  if unknown:
    raise BadInput(f'{where}: unknown field "{unknown[0]}"')
  answer, tests = row.get('answer'), row.get('tests')
  if (answer is None) == (tests is None):
    raise BadInput(f'{where}: exactly one of "answer" and "tests" is expected')
  difficulty = row.get('difficulty')
  if difficulty is not None and (type(difficulty) is not int or not 1 <= difficulty <= 5):
    raise BadInput(f'{where}: "difficulty" must be a whole number from 1 to 5, found {difficulty!r}')
  solutions = field(row, 'solutions', list, where) if 'solutions' in row else []
  return Problem(
    id=str(field(row, 'id', (str, int), where)),
    domain=field(row, 'domain', str, where) if 'domain' in row else '',
    prompt=words(row, 'prompt', where),
    answer=None if answer is None else _accepted(field(row, 'answer', (str, int, float, list), where), where),
    tests=None if tests is None else _tests(row, where),
    solutions=tuple(_solution(s, f'{where}, solution {number}') for number, s in enumerate(solutions, 1)),
    difficulty=difficulty,
    date=field(row, 'date', str, where) if 'date' in row else '',
  )


def words(row: dict, name: str, where: str) -> str:
  """A field that must be a text with something in it. Raises BadInput."""
  text = field(row, name, str, where)
  if not text.strip():
    raise BadInput(f'{where}: field "{name}" is empty')
  return text


def answer_text(value: str | int | float, where: str) -> str:
  """An answer as text: 27.0 is 27. Raises BadInput where there is none."""
  text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
  if not text:
    raise BadInput(f'{where}: no answer')
  return text


def _accepted(answer, where: str) -> str | tuple[str, ...]:
  if not isinstance(answer, list):
    return answer_text(answer, where)
  if not answer or not all(type(a) in (str, int, float) for a in answer):
    raise BadInput(f'{where}: "answer" must be a text, a number or a list of them')
  return tuple(answer_text(a, where) for a in answer)


def _tests(row: dict, where: str) -> dict | list:
  tests = field(row, 'tests', (list, dict), where)
  if isinstance(tests, list):
    texts = [
      text for t in tests for text in (t.values() if isinstance(t, dict) and set(t) == {'input', 'output'} else [None])
    ]
  else:
    asserts = tests.get('asserts')
    texts = [tests.get('setup'), *(asserts if isinstance(asserts, list) and asserts else [None])]
  if not texts or not all(isinstance(text, str) for text in texts):
    forms = '[{"input": text, "output": text}, ...] or {"entry_point", "setup": text, "asserts": [text, ...]}'
    raise BadInput(f'{where}: "tests" must be {forms}, not empty')
  return tests


def _solution(row: dict, where: str) -> Solution:
  if not isinstance(row, dict):
    raise BadInput(f'{where}: expected {{"text": text, ...}}, found {type(row).__name__}')
  text = words(row, 'text', where)
  spans = field(row, 'key_spans', list, where) if 'key_spans' in row else []
  try:
    spans = tuple((int(begin), int(end), float(weight)) for begin, end, weight in spans)
  except (TypeError, ValueError):
    raise BadInput(f'{where}: "key_spans" must be [[begin, end, weight], ...]') from None
  for begin, end, weight in spans:
    if not (0 <= begin < end <= len(text) and 0 <= weight < float('inf')):
      raise BadInput(f'{where}: key span {[begin, end, weight]}: expected 0 <= begin < end <= {len(text)}, weight >= 0')
  return Solution(text, field(row, 'path', str, where) if 'path' in row else '', spans)


def row_of(problem: Problem) -> dict:
  """The JSON object that `problem_from` reads; what is empty is left out."""
  row = dataclasses.asdict(problem)
  row['solutions'] = [{k: v for k, v in solution.items() if v} for solution in row['solutions']]
  return {k: v for k, v in row.items() if k in ('id', 'prompt') or v not in (None, '', [], ())}


def merge(problems: Iterable[Problem]) -> list[Problem]:
  """One problem for every group that asks the same and wants the same, with the solutions of them all.

  Prompts are compared with their white space made single. The first of a group gives the id and the order; what it
  does not know (domain, difficulty, date) comes from the next that does.
  """
  merged: dict = {}
  for p in problems:
    key = (' '.join(p.prompt.split()), p.answer if p.tests is None else json.dumps(p.tests, sort_keys=True))
    first = merged.get(key, p)
    solutions = {solution.text: solution for solution in (*p.solutions, *first.solutions)}
    kept = dict.fromkeys(s.text for s in (*first.solutions, *p.solutions))
    merged[key] = dataclasses.replace(
      first,
      domain=first.domain or p.domain,
      solutions=tuple(solutions[text] for text in kept),
      difficulty=p.difficulty if first.difficulty is None else first.difficulty,
      date=first.date or p.date,
    )
  return list(merged.values())
