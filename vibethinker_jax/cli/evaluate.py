"""The paper's protocol on a benchmark or a file of problems: OUT/summary.json, samples.jsonl, table.md; resumable.

On all devices of one process; experiments/evaluate.py takes several.
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
  parser.add_argument('--benchmark', metavar='NAME', help='a published one (evaluate/benchmarks.py), or --data')
  parser.add_argument('--data', type=pathlib.Path, metavar='F', help='problems of your own, or --benchmark')
  parser.add_argument('--reader', metavar='NAME', help='shape of --data (default: problems)')
  data = pathlib.Path(os.environ.get('VIBETHINKER_DATA', '../shared/data'))
  parser.add_argument('--data-dir', type=pathlib.Path, default=data, metavar='DIR', help=f'of the benchmarks ({data})')
  parser.add_argument(
    '--file',
    type=pathlib.Path,
    action='append',
    default=[],
    metavar='F',
    help='your own file of the benchmark; repeatable',
  )
  parser.add_argument('--limit', type=int, metavar='N', help='only the first N problems (default: all)')
  parser.add_argument('--skip-bad', action='store_true', help='leave malformed rows out and count them')
  parser.add_argument('--n', type=int, help="samples of each problem (default: the protocol's)")
  parser.add_argument('--temperature', type=float, help="0 is greedy (default: the protocol's)")
  parser.add_argument('--top-p', type=float, help="1 is off (default: the protocol's)")
  parser.add_argument('--top-k', type=int, help="-1 is off (default: the protocol's)")
  parser.add_argument('--max-tokens', type=int, metavar='N', help="new tokens of a sample (default: the protocol's)")
  parser.add_argument('--instruction', metavar='TEXT', help="what follows every statement (default: the protocol's)")
  parser.add_argument('--seed', type=int, default=0, help='another one gives other samples')
  parser.add_argument('--rows', type=int, default=64, help='samples decoded at a time')
  parser.add_argument('--workers', type=int, default=2, help='graders of each kind at most')
  parser.add_argument('--deadline', type=float, default=10.0, help='seconds one response may take')
  parser.add_argument('--strict', action='store_true', help="the published grader's rules")
  parser.add_argument('--regrade', action='store_true', help='judge the samples in OUT again, by another grader too')
  parser.add_argument('--steps', action='store_true', help='check the equalities of each response too')
  parser.add_argument(
    '--out', dest='output', type=pathlib.Path, required=True, metavar='DIR', help='goes on where it is'
  )


def run(args: argparse.Namespace) -> None:
  import jax

  from vibethinker_jax.data import sources
  from vibethinker_jax.engine.engine import Engine
  from vibethinker_jax.engine.sampling import SamplingParams
  from vibethinker_jax.evaluate import benchmarks
  from vibethinker_jax.evaluate.claims import Subject
  from vibethinker_jax.evaluate.run import evaluate, table
  from vibethinker_jax.model.hf import fingerprint, read_config
  from vibethinker_jax.model.mesh import own_mesh
  from vibethinker_jax.model_directory import load_model, load_tokenizer, stop_ids
  from vibethinker_jax.verify.grader import Grader

  if (args.benchmark is None) == (args.data is None):
    raise BadInput('evaluate: expected exactly one of --benchmark and --data')
  if args.file and args.data is not None:
    raise BadInput('evaluate: --file goes with --benchmark, whose file it stands for')
  files.apart([('--data', args.data), *(('--file', file) for file in args.file)], [])
  files.apart_from_directory([('--model', args.model)], args.output)
  directory = files.directory(args.output)
  if args.benchmark is not None:
    if args.reader is not None:
      raise BadInput('evaluate: --reader goes with --data, a benchmark has its own')
    protocol = benchmarks.named(args.benchmark).protocol
    problems = benchmarks.load(args.benchmark, args.data_dir, tuple(args.file), args.skip_bad)
  else:
    protocol = benchmarks.Protocol(64)
    problems = benchmarks.distinct(sources.load(args.data, args.reader or 'problems', skip_bad=args.skip_bad))
  for name, low in (('limit', 1), ('rows', 1), ('seed', 0), ('n', 1), ('max_tokens', 1), ('workers', 1)):
    if vars(args)[name] is not None:
      flags.check_range(f'--{name.replace("_", "-")}', vars(args)[name], low, 2**31)
  flags.check_seconds('--deadline', args.deadline)
  fields = ('n', 'temperature', 'top_p', 'top_k', 'max_tokens', 'instruction')
  given = {name: vars(args)[name] for name in fields if vars(args)[name] is not None}
  protocol = dataclasses.replace(protocol, **given)
  if (fault := SamplingParams(protocol.temperature, protocol.top_k, protocol.top_p).fault()) is not None:
    raise BadInput(f'evaluate: {fault}')
  config = dataclasses.replace(read_config(args.model), dtype=args.dtype)
  tokenizer = load_tokenizer(args.model)
  if tokenizer is None or tokenizer.hf.chat_template is None:
    raise BadInput(f'{args.model}: evaluation needs a tokenizer with a chat template')
  engine = Engine(config, stop_ids(args.model, tokenizer), rows=args.rows, mesh=own_mesh(jax.local_devices()))
  with Grader(args.workers, args.deadline, args.strict) as grader:
    model = engine.place(load_model(args.model, args.dtype))
    subject = Subject(str(args.model), fingerprint(args.model), engine, model, tokenizer)
    name, problems = args.benchmark or named(args.data.name), problems[: args.limit]
    summary = evaluate(name, subject, problems, protocol, grader, args.seed, directory, args.steps, args.regrade)
  print(table([summary]), end='')
