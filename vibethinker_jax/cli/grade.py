"""{"id", "response", "answer" or "tests"} -> {"id", "score", "extracted", "reason"}."""

import argparse
import dataclasses
import pathlib

from vibethinker_jax.cli import files, flags
from vibethinker_jax.data.problem import answer_text, field
from vibethinker_jax.errors import BadInput

# further fields of the samples.jsonl of `evaluate`, so that it can be graded again
_SAMPLE = (
  'problem', 'sample', 'tokens', 'finish_reason', 'score', 'extracted', 'reason', 'vote', 'steps', 'steps_share',
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
  flags.add_rows(parser)
  parser.add_argument('--workers', type=int, default=2, help='processes of each kind at most')
  parser.add_argument('--deadline', type=float, default=10.0, help='seconds one response may take')
  parser.add_argument('--strict', action='store_true', help="the published grader's rules")
  parser.add_argument('--steps', action='store_true', help='check the equalities of each response too')
  parser.add_argument(
    '--problems', type=pathlib.Path, metavar='F', help="an evaluation's problems.jsonl, for its samples (default: none)"
  )


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.data.sources import load
  from vibethinker_jax.verify.code import check_tests
  from vibethinker_jax.verify.grader import Grader

  flags.check_range('--workers', args.workers, 1, 2**10)
  flags.check_seconds('--deadline', args.deadline)
  files.apart([('--in', args.input), ('--problems', args.problems)], [('--out', args.output)])
  rows = files.rows(args.input, {'id', 'response', 'answer', 'tests', *_SAMPLE})
  problems = {} if args.problems is None else {p.id: p for p in load(args.problems)}
  asked = []
  for where, row in rows:
    response = field(row, 'response', str, where)
    if args.problems is not None:
      problem = problems.get(field(row, 'problem', str, where))
      if problem is None:
        raise BadInput(f'{where}: problem {row["problem"]!r} is not in {args.problems}')
      asked.append((response, problem.answer, problem.tests))
      continue
    if files.one_of(row, ('answer', 'tests'), where) == 'answer':
      asked.append((response, _answers(row, where), None))
      continue
    try:
      check_tests(row['tests'])
    except ValueError as error:
      raise BadInput(f'{where}: {error}') from None
    asked.append((response, None, row['tests']))
  with files.output(args.output) as out, Grader(args.workers, args.deadline, args.strict) as grader:
    verdicts = [dataclasses.asdict(verdict) for verdict in grader.grade(asked)]
    if args.steps:
      traces = grader.check_traces(asked)
      verdicts = [{**v, 'steps': t.checked, 'steps_share': t.share} for v, t in zip(verdicts, traces)]
    for (_, row), verdict in zip(rows, verdicts):
      files.write(out, {'id': row['id'], **verdict})


def _answers(row: dict, where: str) -> tuple[str, ...]:
  """The accepted answers as texts."""
  answer = field(row, 'answer', (str, int, float, list), where)
  texts = answer if isinstance(answer, list) else [answer]
  if not texts or any(isinstance(a, bool) or not isinstance(a, str | int | float) for a in texts):
    raise BadInput(f'{where}: field "answer" must be a text, a number, or a list of at least one of them')
  return tuple(answer_text(a, where) for a in texts)
