"""Evaluates a model on a benchmark, by the report's protocol, or on your own problems; goes on where it was stopped.

OUT gets summary.json, samples.jsonl and table.md (evaluate/run.py). It runs on all devices of one process;
experiments/evaluate.py runs on several processes.
"""

import argparse
import dataclasses
import os
import pathlib

from vibethinker_jax.cli import files, flags
from vibethinker_jax.data.problem import named
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  flags.add_model(parser)
  parser.add_argument('--benchmark', metavar='NAME', help='a published benchmark (evaluate/benchmarks.py), or --data')
  parser.add_argument('--data', type=pathlib.Path, metavar='F', help='a file of your own problems, or --benchmark')
  parser.add_argument('--reader', metavar='NAME', help='shape of the rows of --data (default: problems)')
  data = pathlib.Path(os.environ.get('VIBETHINKER_DATA', '../shared/data'))
  parser.add_argument(
    '--data-dir', type=pathlib.Path, default=data, metavar='DIR', help=f'folder of the benchmarks ({data})'
  )
  parser.add_argument(
    '--file',
    type=pathlib.Path,
    action='append',
    default=[],
    metavar='F',
    help='your own file of the benchmark; may be repeated',
  )
  parser.add_argument('--limit', type=int, metavar='N', help='only the first N problems (default: all)')
  parser.add_argument('--skip-bad', action='store_true', help='leave out malformed rows and count them')
  parser.add_argument('--n', type=int, help="samples of each problem (default: the protocol's)")
  parser.add_argument('--temperature', type=float, help="0 is greedy (default: the protocol's)")
  parser.add_argument('--top-p', type=float, help="1 is off (default: the protocol's)")
  parser.add_argument('--top-k', type=int, help="-1 is off (default: the protocol's)")
  parser.add_argument('--max-tokens', type=int, metavar='N', help="new tokens of a sample (default: the protocol's)")
  parser.add_argument('--instruction', metavar='TEXT', help="text after every statement (default: the protocol's)")
  parser.add_argument('--seed', type=int, default=0, help='another seed gives other samples')
  parser.add_argument('--rows', type=int, default=64, help='samples decoded at a time')
  parser.add_argument('--workers', type=int, default=2, help='processes of each kind of grader, at most')
  parser.add_argument('--deadline', type=float, default=10.0, help='seconds that grading one response may take')
  parser.add_argument('--strict', action='store_true', help="grade by the published grader's rules")
  parser.add_argument(
    '--regrade', action='store_true', help='grade the samples in OUT again; the grader may be another'
  )
  parser.add_argument('--steps', action='store_true', help='also check the equalities in each response')
  parser.add_argument(
    '--out',
    dest='output',
    type=pathlib.Path,
    required=True,
    metavar='DIR',
    help='a new directory, or that of an evaluation to be continued',
  )


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.evaluate.run import evaluate, load, tokenizer_of
  from vibethinker_jax.evaluate.scores import table
  from vibethinker_jax.verify.grader import Grader

  if (args.benchmark is None) == (args.data is None):
    raise BadInput('evaluate: expected exactly one of --benchmark and --data')
  if args.file and args.data is not None:
    raise BadInput('evaluate: --file goes with --benchmark, whose file it replaces')
  files.apart([('--data', args.data), *(('--file', file) for file in args.file)], [])
  files.apart_from_directory([('--model', args.model)], args.output)
  directory, task = files.directory(args.output), _task(args)
  tokenizer = tokenizer_of(args.model)
  subject = load(args.model, tokenizer, args.dtype, args.rows)
  with Grader(args.workers, args.deadline, args.strict) as grader:
    summaries = evaluate(subject, {directory: task}, grader, args.seed, args.steps, args.regrade)
  print(table(summaries), end='')


def _task(args: argparse.Namespace):
  """The problems that are asked for, and how the model is asked and sampled (a Task). Raises BadInput."""
  from vibethinker_jax.data import sources
  from vibethinker_jax.evaluate import benchmarks

  if args.benchmark is not None:
    if args.reader is not None:
      raise BadInput('evaluate: --reader goes with --data, a benchmark has its own')
    task = benchmarks.published(args.benchmark, args.data_dir, args.file, args.skip_bad)
  else:
    problems = sources.load(args.data, args.reader or 'problems', skip_bad=args.skip_bad)
    task = benchmarks.own(named(args.data.name), problems)
  for name, low in (('limit', 1), ('rows', 1), ('seed', 0), ('n', 1), ('max_tokens', 1), ('workers', 1)):
    if vars(args)[name] is not None:
      flags.check_range(f'--{name.replace("_", "-")}', vars(args)[name], low, 2**31)
  flags.check_seconds('--deadline', args.deadline)
  task = task.changed(args.n, args.max_tokens, args.temperature, args.top_p, args.top_k, args.instruction)
  return dataclasses.replace(task, problems=task.problems[: args.limit])
