"""Problem: the one record that SFT, probing, RL and evaluation work with, and how it is written in JSON Lines files.

A problem holds its statement and what its grader needs (an answer, or tests), so one object serves every stage. A file
has one object on each line:

  {"id": "algebra/linear/17", "domain": "algebra", "prompt": "Solve ...", "answer": "12" or 12 or ["12", "12.0"],
   "tests": null, "difficulty": 3, "date": "2025-02-14",
   "solutions": [{"text": "... \\\\boxed{12}", "path": "steps", "key_spans": [[10, 24, 2.0]]}]}

Exactly one of `answer` and `tests` is given. `tests` is `[{"input": text, "output": text}, ...]` for programs that read
stdin, or `{"entry_point": name or null, "setup": code, "asserts": [code, ...]}` for functions. An answer that is a
number keeps the digits with which it is written: a grader does not take 0.10 for 0.1, nor 0.00001 for 1e-05.
"""

import codecs
import contextlib
import dataclasses
import decimal
import gzip
import hashlib
import json
import math
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from vibethinker_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Solution:
  """One worked solution. `key_spans` are (start, end, weight) in characters of `text`: loss weights of key steps."""

  text: str
  path: str = ''
  key_spans: tuple[tuple[int, int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question, and what its responses are graded by: an answer (or several accepted ones), or tests.

  id: unique within a data set. domain: '' where it is unknown. prompt: the statement. tests: in one of the two forms
  above. difficulty: 1 (easy) to 5, or None. date: the day of publication (YYYY-MM-DD), or ''.
  """

  id: str
  domain: str
  prompt: str
  answer: str | tuple[str, ...] | None = None
  tests: dict | list | None = None
  solutions: tuple[Solution, ...] = ()
  difficulty: int | None = None
  date: str = ''


class Number(float):
  """A number of a JSON file with a point or an exponent, and its text: a float alone would be written differently."""

  def __new__(cls, text: str):
    number = super().__new__(cls, text)
    number.text = text
    return number


def read_rows(path: pathlib.Path) -> list[tuple[str, dict]]:
  """('FILE, line N', object) for every non-empty line of a JSON Lines file, as `opened` reads it. Raises BadInput."""
  rows = list(json_lines(path))
  for _, row in rows:
    if isinstance(row, BadInput):
      raise row
  if not rows:
    raise BadInput(f'{named(path)}: no rows')
  return rows


def json_lines(path: pathlib.Path) -> Iterator[tuple[str, dict | BadInput]]:
  """Like `read_rows`, one line at a time. In place of a broken line comes its error, which the caller raises or skips.

  Raises BadInput where the file itself cannot be read.
  """
  with opened(path) as file:
    for number, line in enumerate(file, 1):
      line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
      if line.strip():
        where = f'{named(path)}, line {number}'
        yield where, _object(line, where)


@contextlib.contextmanager
def opened(path: str | pathlib.Path) -> Iterator[BinaryIO]:
  """A file open for reading bytes: a `.gz` is unpacked, `-` is stdin. Raises BadInput where reading fails."""
  try:
    if str(path) == '-':
      if sys.stdin is None:
        raise OSError('it is closed')
      yield sys.stdin.buffer
    else:
      with gzip.open(path) if pathlib.Path(path).suffix == '.gz' else open(path, 'rb') as file:
        yield file
  except (OSError, EOFError, zlib.error) as error:
    raise BadInput(f'{named(path)}: cannot be read ({reason(error)})') from None


def named(path: str | pathlib.Path) -> str:
  """How messages name a file."""
  return 'stdin' if str(path) == '-' else str(path)


def reason(error: Exception) -> str:
  """The words of an error of the operating system."""
  return (error.strerror if isinstance(error, OSError) else None) or str(error)


def parse_json(text: str):
  """The value of a JSON text; numbers with a point or an exponent are `Number`s. Raises ValueError, RecursionError."""
  return json.loads(text, parse_float=Number, parse_constant=Number)


def _object(line: bytes, where: str) -> dict | BadInput:
  try:
    row = parse_json(line.decode('utf-8'))
  except UnicodeDecodeError as error:
    return BadInput(f'{where}: not UTF-8 at byte {error.start} of the line')
  except json.JSONDecodeError as error:
    return BadInput(f'{where}: not JSON ({error.msg} at column {error.colno})')
  except (RecursionError, ValueError):  # ten thousand brackets; a number of ten thousand digits
    return BadInput(f'{where}: not JSON that can be read (nested too deep, or a number too long)')
  return row if isinstance(row, dict) else BadInput(f'{where}: expected a JSON object, found {type(row).__name__}')


def field(row: dict, name: str, kind: type | tuple, where: str):
  """row[name]. Raises BadInput where it is missing or not of type `kind`; `where` names the row in the message."""
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
  """row[name], a text that is not blank. Raises BadInput where it is anything else."""
  text = field(row, name, str, where)
  if _is_blank(text):
    raise BadInput(f'{where}: field "{name}" is empty')
  try:
    text.encode()
  except UnicodeEncodeError:  # JSON can hold half a character; no tokenizer takes it
    raise BadInput(f'{where}: field "{name}" is no text (a lone surrogate), expected Unicode') from None
  return text


def _is_blank(text: str) -> bool:
  """Whether a text has no visible character."""
  return not any(c.isprintable() and not c.isspace() for c in text)


def answer_text(value: str | int | float, where: str) -> str:
  """An answer as text; a number has all its digits and no exponent (27.0 is 27). Raises BadInput where it is blank."""
  text = _digits(value, where) if isinstance(value, float) else str(value).strip()
  if _is_blank(text):
    raise BadInput(f'{where}: no answer')
  return text


def _digits(value: float, where: str) -> str:
  text = value.text if isinstance(value, Number) else repr(float(value))
  exact = decimal.Decimal(text) if math.isfinite(value) else decimal.Decimal('NaN')
  if not exact.is_finite() or (exact and not value):
    raise BadInput(f'{where}: the answer is {text[:40]}, expected a number from 1e-308 to 1e308 in size')
  text = f'{exact:f}'
  return (text.partition('.')[0] if exact == exact.to_integral_value() else text) if exact else '0'


def _accepted(answer, where: str) -> str | tuple[str, ...]:
  if not isinstance(answer, list):
    return answer_text(answer, where)
  if not answer or not all(isinstance(a, str | int | float) and not isinstance(a, bool) for a in answer):
    raise BadInput(f'{where}: "answer" must be a text, a number or a list of them')
  return tuple(answer_text(a, where) for a in answer)


def _tests(row: dict, where: str) -> dict | list:
  """The tests, in one of the forms that verify/code.py takes. Checked here, before any sample is drawn."""
  tests = field(row, 'tests', (list, dict), where)
  if isinstance(tests, list):
    right = all(isinstance(test, dict) and set(test) == {'input', 'output'} for test in tests)
    texts = [text for test in tests for text in test.values()] if right else []
  else:
    asserts, entry = tests.get('asserts'), tests.get('entry_point')
    right = set(tests) == {'entry_point', 'setup', 'asserts'} and isinstance(asserts, list) and asserts != []
    right = right and (entry is None or (isinstance(entry, str) and entry.isidentifier()))
    right = right and not any(isinstance(line, str) and _is_blank(line) for line in asserts)  # every program would pass
    texts = [tests['setup'], *asserts] if right else []
  if not texts or not all(isinstance(text, str) for text in texts):
    forms = (
      '[{"input": text, "output": text}, ...] or {"entry_point": name or null, "setup": code, "asserts": [code, ...]}'
    )
    raise BadInput(f'{where}: "tests" must be {forms}, not empty')
  return tests


def _solution(row: dict, where: str) -> Solution:
  if not isinstance(row, dict):
    raise BadInput(f'{where}: expected {{"text": text, ...}}, found {type(row).__name__}')
  text = words(row, 'text', where)
  spans = field(row, 'key_spans', list, where) if 'key_spans' in row else []
  try:
    spans = tuple((int(begin), int(end), float(weight)) for begin, end, weight in spans)
  except (TypeError, ValueError, OverflowError):
    raise BadInput(f'{where}: "key_spans" must be [[begin, end, weight], ...]') from None
  for begin, end, weight in spans:
    if not (0 <= begin < end <= len(text) and 0 <= weight < float('inf')):
      raise BadInput(f'{where}: key span {[begin, end, weight]}: expected 0 <= begin < end <= {len(text)}, weight >= 0')
  return Solution(text, field(row, 'path', str, where) if 'path' in row else '', spans)


def digest_id(form: str, prompt: str, answer: str) -> str:
  """An id for a row that has none: FORM/ and a digest of prompt and answer.

  So it stays the same when a file is filtered, sharded or put in another order.
  """
  key = f'{" ".join(prompt.split())}\n{answer}'
  return f'{form}/{hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]}'


def row_of(problem: Problem) -> dict:
  """The JSON object that `problem_from` reads, without empty fields."""
  row = dataclasses.asdict(problem)
  row['solutions'] = [{k: v for k, v in solution.items() if v} for solution in row['solutions']]
  return {k: v for k, v in row.items() if k in ('id', 'prompt') or v not in (None, '', [], ())}


def merge(problems: Iterable[Problem]) -> list[Problem]:
  """One problem for each group with the same prompt and the same answer or tests, with the solutions of all of them.

  Prompts are compared after each run of white space has become one space. The first problem of a group gives the id and
  the place in the order. Where its domain, difficulty or date is unknown, the next problem that has one gives it.
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
