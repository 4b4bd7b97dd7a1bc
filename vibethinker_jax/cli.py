"""The `vibethinker` command: files in, files out, JSON Lines.

A verb reads and checks everything before it computes, and its output appears whole or not at all. What a user got
wrong ends with one line on stderr that names the file, the row and what was expected, and with exit code 2.
Heavy libraries are imported by the verbs that need them, so that `vibethinker --help` answers at once.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

from vibethinker_jax.data.problem import field, read_rows
from vibethinker_jax.errors import BadInput

_SCORE_TOKENS = 4096  # tokens a forward pass holds, padding included
_SCORE_LOGITS = 1024  # of them, how many have their logits in memory at the same time
_DTYPES = ('float32', 'bfloat16')
NO_TPU = {  # for `plan`: as if there were no accelerator, and libtpu did not look for one, loudly
  'JAX_PLATFORMS': 'cpu',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-16',
  'TPU_LOG_DIR': 'disabled',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
  'TF_CPP_MIN_LOG_LEVEL': '3',
}
_TINY_RUN = pathlib.Path('runs/tiny/final')  # served where no model is named, if it is there


def run() -> None:
  """Entry point of the installed command."""
  sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
  """Run one verb on `argv` (default: the command line): 0 or its own exit code, 2 for bad input, 130 for Ctrl-C."""
  # transformers would tell every user of a tokenizer that PyTorch is not installed
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
  try:
    args = _parser().parse_args(argv)
    return args.verb(args) or 0
  except BadInput as error:
    print('vibethinker:', ' '.join(str(error).split()), file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('\nvibethinker: interrupted; nothing is half-written, and `evaluate` goes on where it was', file=sys.stderr)
    return 130


def score(args: argparse.Namespace) -> None:
  """{"id", "tokens" or "text"} -> {"id", "logprobs"}: ln p(tokens[i+1] | tokens[:i+1]) at temperature 1."""
  from vibethinker_jax.model.hf import read_config

  rows = _rows(args.input, {'id', 'tokens', 'text'})
  with _output(args.output) as out:
    config = read_config(args.model)
    text = _text(args.model) if any('text' in row for _, row in rows) else None
    sequences = []
    for where, row in rows:
      name = _one_of(row, ('tokens', 'text'), where)
      ids = _ids(row, where, config.V) if name == 'tokens' else _encode(row, name, where, text, args.model)
      if not ids:
        raise BadInput(f'{where}: "{name}" is empty, expected at least one token')
      if len(ids) > config.positions:
        raise BadInput(f'{where}: {len(ids)} tokens, the model has {config.positions} positions')
      sequences.append(ids)
    logprobs = _score(_model(args.model, args.dtype), sequences, args.model)
    for (_, row), values in zip(rows, logprobs):
      _write(out, {'id': row['id'], 'logprobs': values})


def generate(args: argparse.Namespace) -> None:
  """{"id", "tokens" or "prompt" or "messages"} -> n samples of each, in order."""
  import numpy as np
  from tqdm import tqdm

  from vibethinker_jax.engine.engine import Engine, Request
  from vibethinker_jax.engine.sampling import Sampling
  from vibethinker_jax.model.hf import read_config

  for name, low, high in (('n', 1, 2**31), ('max_tokens', 1, 2**31), ('rows', 1, 2**31), ('seed', 0, 2**32)):
    value = vars(args)[name]
    if not low <= value < high:
      raise BadInput(f'--{name.replace("_", "-")} {value}: expected {low} to {high - 1}')
  sampling = Sampling(args.temperature, args.top_k, args.top_p, args.min_p)
  if (fault := sampling.fault()) is not None:
    raise BadInput(f'generate: {fault}')
  rows = _rows(args.input, {'id', 'tokens', 'prompt', 'messages'})
  with _output(args.output) as out:
    config = read_config(args.model)
    text = _text(args.model)
    engine = Engine(config, _stop_ids(args.model, text), rows=args.rows)
    requests = []
    for number, (where, row) in enumerate(rows):
      name = _one_of(row, ('tokens', 'prompt', 'messages'), where)
      if name == 'tokens':
        ids = _ids(row, where, config.V)
      elif name == 'prompt':
        ids = _encode(row, name, where, text, args.model)
      else:
        ids = _chat(row, where, text, args.model)
      request = Request(tuple(ids), args.max_tokens, args.n, sampling, args.seed, number)
      if (why := engine.refusal(request)) is not None:
        raise BadInput(f'{where}: {why}')
      requests.append(request)
    done = {}
    with tqdm(total=len(rows) * args.n, desc='generate', unit='sample', dynamic_ncols=True) as bar:
      for c in engine.generate(_model(args.model, args.dtype), requests):
        done[c.request, c.sample] = c
        bar.update()
    for (number, sample), c in sorted(done.items()):
      if not np.isfinite(c.logps).all():
        raise BadInput(f'{args.model}: log-probabilities are not finite, the weights are broken')
      row = {'id': rows[number][1]['id'], 'sample': sample, 'tokens': c.tokens.tolist()}
      row['text'] = None if text is None else text.decode(row['tokens'])
      _write(out, {**row, 'logprobs': c.logps.tolist(), 'finish_reason': c.finish})


def fuse(args: argparse.Namespace) -> None:
  """Weighted mean of Hugging Face directories, in the first one's dtype and with its tokenizer."""
  from vibethinker_jax.model import hf
  from vibethinker_jax.spectrum import fusion

  models: list[pathlib.Path] = args.models
  try:
    weights = [1 / len(models)] * len(models) if args.weights is None else _numbers(args.weights)
    fusion.check_weights(weights, len(models))
  except ValueError as error:
    raise BadInput(f'--weights: {error}') from None
  if args.out.exists() and (not args.out.is_dir() or any(args.out.resolve() == m.resolve() for m in models)):
    raise BadInput(f'{args.out}: expected a new directory, or one to replace that is no input')
  if args.out.is_dir() and any(args.out.iterdir()) and not (args.out / 'config.json').exists():
    raise BadInput(f'{args.out}: not empty and no model directory, so it is not replaced')
  configs = [hf.read_config(m) for m in models]
  for path, config in zip(models[1:], configs[1:]):
    for name in ('V', 'D', 'L', 'K', 'G', 'H', 'F', 'tied', 'rope_theta', 'norm_eps'):
      ours, first = vars(config)[name], vars(configs[0])[name]
      if ours != first:
        raise BadInput(f'{path / "config.json"}: {_SIZES[name]} is {ours}, in {models[0]} it is {first}')
  vocabularies = [_vocabulary(m) for m in models]
  for path, vocabulary in zip(models[1:], vocabularies[1:]):
    if vocabulary is not None and vocabularies[0] is not None and vocabulary != vocabularies[0]:
      raise BadInput(f'{path / "tokenizer.json"}: another vocabulary than that of {models[0]}')
  loaded = [hf.load(m) for m in models]
  for model in loaded:
    model.config = configs[0]  # what may still differ (how many positions) goes by the first
  try:
    hf.save(fusion.fuse(loaded, weights), args.out, models[0], _config_stop_ids(models[0]))
  except OSError as error:
    raise BadInput(f'{args.out}: cannot be written ({error.strerror})') from None


_SIZES = {
  'V': 'vocab_size',
  'D': 'hidden_size',
  'L': 'num_hidden_layers',
  'K': 'num_key_value_heads',
  'G': 'query heads per key-value head',
  'H': 'head_dim',
  'F': 'intermediate_size',
  'tied': 'tie_word_embeddings',
  'rope_theta': 'rope_theta',
  'norm_eps': 'rms_norm_eps',
}


# what `evaluate` writes of a sample besides, so that anybody can grade its samples.jsonl again
_SAMPLE = ('problem', 'sample', 'tokens', 'finish_reason', 'score', 'extracted', 'reason', 'steps', 'steps_share')


def grade(args: argparse.Namespace) -> None:
  """{"id", "response", "answer" or "tests"} -> {"id", "score", "extracted", "reason"}."""
  from vibethinker_jax.data.sources import load
  from vibethinker_jax.verify.code import check_tests
  from vibethinker_jax.verify.grader import Grader

  if args.workers < 1 or not args.deadline > 0:
    raise BadInput('grade: expected --workers of 1 or more and a --deadline of more than 0 seconds')
  rows = _rows(args.input, {'id', 'response', 'answer', 'tests', *_SAMPLE})
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
    if _one_of(row, ('answer', 'tests'), where) == 'answer':
      asked.append((response, _answers(row, where), None))
      continue
    try:
      check_tests(row['tests'])
    except ValueError as error:
      raise BadInput(f'{where}: {error}') from None
    asked.append((response, None, row['tests']))
  with _output(args.output) as out, Grader(args.workers, args.deadline, args.strict) as grader:
    verdicts = [dataclasses.asdict(verdict) for verdict in grader.grade(asked)]
    if args.steps:
      traces = grader.check_traces(asked)
      verdicts = [{**v, 'steps': t.checked, 'steps_share': t.share} for v, t in zip(verdicts, traces)]
    for (_, row), verdict in zip(rows, verdicts):
      _write(out, {'id': row['id'], **verdict})


def evaluate(args: argparse.Namespace) -> None:
  """The paper's protocol on a benchmark or a file of problems: OUT/summary.json, samples.jsonl, table.md; resumable."""
  from vibethinker_jax.data import sources
  from vibethinker_jax.engine.engine import Engine
  from vibethinker_jax.engine.sampling import Sampling
  from vibethinker_jax.evaluate import benchmarks, run
  from vibethinker_jax.model.hf import read_config
  from vibethinker_jax.verify.grader import Grader

  if (args.benchmark is None) == (args.data is None):
    raise BadInput('evaluate: expected exactly one of --benchmark and --data')
  if args.benchmark is not None:
    if args.reader is not None:
      raise BadInput('evaluate: --reader goes with --data, a benchmark has its own')
    protocol = benchmarks.named(args.benchmark).protocol
    problems = benchmarks.load(args.benchmark, args.data_dir, tuple(args.file), args.skip_bad)
  else:
    protocol = benchmarks.Protocol(64)
    problems = benchmarks.distinct(sources.load(args.data, args.reader or 'problems', skip_bad=args.skip_bad))
  for name, low in (('limit', 1), ('rows', 1), ('seed', 0), ('n', 1), ('max_tokens', 1), ('workers', 1)):
    value = vars(args)[name]
    if value is not None and not low <= value < 2**31:
      raise BadInput(f'--{name.replace("_", "-")} {value}: expected {low} to {2**31 - 1}')
  if not args.deadline > 0:
    raise BadInput(f'--deadline {args.deadline}: expected more than 0 seconds')
  fields = ('n', 'temperature', 'top_p', 'top_k', 'max_tokens', 'instruction')
  given = {name: vars(args)[name] for name in fields if vars(args)[name] is not None}
  protocol = dataclasses.replace(protocol, **given)
  if (fault := Sampling(protocol.temperature, protocol.top_k, protocol.top_p).fault()) is not None:
    raise BadInput(f'evaluate: {fault}')
  config, text = read_config(args.model), _text(args.model)
  if text is None or text.tokenizer.chat_template is None:
    raise BadInput(f'{args.model}: evaluation needs a tokenizer with a chat template')
  engine = Engine(config, _stop_ids(args.model, text), rows=args.rows)
  with Grader(args.workers, args.deadline, args.strict) as grader:
    summary = run.evaluate(
      args.benchmark or args.data.name,
      str(args.model),
      engine,
      _model(args.model, args.dtype),
      text,
      problems[: args.limit],
      protocol,
      grader,
      args.seed,
      args.output,
      args.steps,
    )
  print(run.table([summary]), end='')


def prepare(args: argparse.Namespace) -> None:
  """Problems of any source, equal ones merged, as a data set of ArrayRecord files: what a config's `path` may name."""
  from vibethinker_jax.data import records
  from vibethinker_jax.data.problem import merge
  from vibethinker_jax.data.sources import Source, load_all

  readers = args.reader if len(args.reader) > 1 else (args.reader or ['problems']) * len(args.input)
  if len(readers) != len(args.input):
    raise BadInput(f'prepare: {len(readers)} times --reader for {len(args.input)} times --in, expected one or as many')
  if args.shards is not None and args.shards < 1:
    raise BadInput(f'--shards {args.shards}: expected 1 or more')
  if args.output.exists() and not (args.output / 'features.json').exists():
    raise BadInput(f'{args.output}: expected a new directory, or a data set of this command to replace')
  rows = load_all(Source(path, reader, skip_bad=args.skip_bad) for path, reader in zip(args.input, readers))
  problems = merge(rows)
  try:
    records.write({args.split: problems}, args.output, args.shards)
  except OSError as error:
    raise BadInput(f'{args.output}: cannot be written ({error.strerror or error})') from None
  solutions = sum(len(p.solutions) for p in problems)
  print(f'{args.output}: {len(problems)} problems with {solutions} solutions, of {len(rows)} rows')


def decontaminate(args: argparse.Namespace) -> None:
  """Leaves out the training rows that share 10-grams with evaluation problems or nearly repeat them, and says why."""
  from tqdm import tqdm

  from vibethinker_jax.data.decontaminate import STOCK, Decontaminate, Index, find_leaks

  stock = STOCK if args.stock is None else tuple(line for line in _lines(args.stock) if line.strip())
  if args.output.resolve() == args.report.resolve():
    raise BadInput(f'{args.report}: --out and --report name the same file')
  skipped: list[BadInput] = []
  problems = [named for path in args.eval for _, named in _statements(path, args.skip_bad, skipped)]
  try:
    index = Index(problems, Decontaminate(args.n, args.threshold, args.least, args.common, stock))
  except ValueError as error:
    raise BadInput(f'decontaminate: {error}') from None
  kinds = {'ngram': 0, 'near_duplicate': 0}
  with _output(args.output) as out, _output(args.report) as report:
    waiting: collections.deque[dict] = collections.deque()

    def read():
      for row, named in _statements(args.train, args.skip_bad, skipped):
        waiting.append(row)
        yield named

    total = 0
    for leak in tqdm(find_leaks(read(), index), desc='decontaminate', unit='row', dynamic_ncols=True):
      row, total = waiting.popleft(), total + 1
      if leak is None:
        out.write(json.dumps(row, ensure_ascii=False, default=str) + '\n')
      else:
        kinds[leak.kind] += 1
        _write(report, dataclasses.asdict(leak))
  if skipped:
    print(f'{len(skipped)} malformed rows left out, the first: {skipped[0]}', file=sys.stderr)
  removed = ', '.join(f'{count} by {kind}' for kind, count in kinds.items())
  print(f'{sum(kinds.values())} of {total} rows taken out ({removed}); {len(index.ids)} evaluation problems')


def _statements(path: pathlib.Path, skip_bad: bool, skipped: list) -> Iterator[tuple[dict, tuple[str, str]]]:
  """(row, (id, statement)) for every row of a source; malformed ones are raised, or put into `skipped`."""
  from vibethinker_jax.data.decontaminate import named_text
  from vibethinker_jax.data.sources import rows

  empty = True
  for where, row in rows(path):
    empty = False
    try:
      if isinstance(row, BadInput):
        raise row
      yield row, named_text(row, where)
    except BadInput as error:
      if not skip_bad:
        raise
      skipped.append(error)
  if empty:
    raise BadInput(f'{path}: no rows')


def _lines(path: pathlib.Path) -> list[str]:
  try:
    return path.read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise BadInput(f'{path}: cannot be read ({error})') from None


def report(args: argparse.Namespace) -> None:
  """The page of a run or a sweep, DIR/report.html; of several runs, one page that compares them. Prints its path."""
  from vibethinker_jax.evaluate.compare import write_compared
  from vibethinker_jax.evaluate.report import write_report

  first, *others = args.directories
  try:
    if others:
      print(write_compared(args.directories, args.output))
    elif (first / 'sweep.json').exists():
      from vibethinker_jax.study import pages

      print(pages.write_report(first))
    else:
      print(write_report(first))
  except OSError as error:
    raise BadInput(f'{first}: {error.strerror or error}') from None
  except ValueError as error:
    raise BadInput(str(error)) from None


def reproduce(args: argparse.Namespace) -> int:
  """Runs a finished workdir again and compares bits; exit code 1 where something differs."""
  from vibethinker_jax.reproduce import reproduce

  again = args.output or args.directory.with_name(f'{args.directory.resolve().name}-again')
  compared = reproduce(args.directory, again)
  print(compared)
  return 1 if compared.differences else 0


def plan(args: argparse.Namespace) -> int:
  """Whether a config's stages fit a machine, and what the run costs; exit code 1 where they do not fit."""
  os.environ |= NO_TPU  # before jax starts

  from vibethinker_jax import cluster
  from vibethinker_jax import plan as planning
  from vibethinker_jax.settings import freeze, load_config
  from vibethinker_jax.ssp import Settings

  settings = freeze(Settings, load_config(args.config, dict(map(_change, args.set))))
  on = planning.machine(args.topology)
  if on.chip.platform != 'tpu':
    cluster.cpu_devices(on.devices)
  report = planning.plan(settings, on, None if args.estimate else args.cache)
  print(planning.table(report))
  if args.output is not None:
    with _output(args.output) as out:
      json.dump(report, out, indent=2)
      out.write('\n')
  return 0 if report['fits'] else 1


def serve(args: argparse.Namespace) -> None:
  """An OpenAI-compatible API and a chat page on one model, until SIGTERM or Ctrl-C."""
  from vibethinker_jax.serve import server

  for name, low, high in (('port', 0, 65536), ('page_port', 0, 65536), ('warm', 0, 2**31)):
    if not low <= vars(args)[name] < high:
      raise BadInput(f'--{name.replace("_", "-")} {vars(args)[name]}: expected {low} to {high - 1}')
  if not 0 <= args.grace < float('inf'):
    raise BadInput(f'--grace {args.grace}: expected 0 or more seconds')
  keys = () if args.keys is None else tuple(line.strip() for line in _lines(args.keys) if line.strip())
  if args.keys is not None and not keys:
    raise BadInput(f'{args.keys}: no keys in it, expected one a line')
  engine, model, text = _served(args)
  doors = server.Doors(args.host, args.port, None if args.no_page else args.page_port)
  server.run(engine, model, text, args.name, doors, args.waiting, args.warm, keys, args.grace)


def chat(args: argparse.Namespace) -> None:
  """The chat page in a terminal."""
  from vibethinker_jax.serve import terminal
  from vibethinker_jax.serve.api import Service
  from vibethinker_jax.serve.solve import Judges
  from vibethinker_jax.serve.worker import Worker

  engine, model, text = _served(args)
  judges = Judges(1)
  try:
    terminal.run(Service(args.name, text, Worker(engine, model, args.waiting), judges), args.preset)
  finally:
    judges.close()


def _served(args: argparse.Namespace):
  """Engine, model and text of `serve` and `chat`."""
  import jax

  from vibethinker_jax.engine.cache import Int8Slots, Slots
  from vibethinker_jax.engine.engine import Engine
  from vibethinker_jax.model.hf import read_config
  from vibethinker_jax.model.int8 import quantize
  from vibethinker_jax.ssp import TINY_BASE

  for name, low in (('rows', 1), ('block', 1), ('waiting', 0)):
    if not low <= vars(args)[name] < 2**20:
      raise BadInput(f'--{name} {vars(args)[name]}: expected {low} to {2**20 - 1}')
  directory = args.model or (_TINY_RUN if (_TINY_RUN / 'config.json').exists() else TINY_BASE)
  if (directory / 'final' / 'config.json').exists():
    directory = directory / 'final'  # a workdir
  print(f'vibethinker: {directory}', file=sys.stderr)
  config = dataclasses.replace(read_config(directory), dtype=args.dtype)
  if not 1 <= (args.max_length or 1) <= config.positions:
    raise BadInput(f'--max-length {args.max_length}: expected 1 to {config.positions}, which the model was made for')
  text = _text(directory)
  if text is None or text.tokenizer.chat_template is None:
    raise BadInput(f'{directory}: serving needs a tokenizer with a chat template')
  # what is compiled once is found again at the next start
  jax.config.update('jax_compilation_cache_dir', str(args.cache))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  model = _model(directory, args.dtype)
  cache = Int8Slots if args.int8_cache else Slots
  engine = Engine(config, _stop_ids(directory, text), args.rows, args.block, max_length=args.max_length, cache=cache)
  # few sizes, for each is compiled anew; below 16 rows a step is hardly cheaper
  engine.row_sizes = [size for size in engine.row_sizes if size >= min(16, args.rows)]
  return engine, quantize(model) if args.int8_weights else model, text


def _change(text: str) -> tuple[str, object]:
  """NAME=VALUE; what is no literal is a text."""
  import ast

  name, given, value = text.partition('=')
  if not given:
    raise BadInput(f'--set {text}: expected NAME=VALUE')
  with contextlib.suppress(ValueError, SyntaxError):
    return name, ast.literal_eval(value)
  return name, value


class _Parser(argparse.ArgumentParser):
  """argparse, whose errors are one line too."""

  def error(self, message: str):
    raise BadInput(f'{message} (see {self.prog} --help)')


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(prog='vibethinker', description=__doc__.split('\n')[0])
  verbs = parser.add_subparsers(required=True, metavar='VERB')

  def add(function, *files: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
    verb.set_defaults(verb=function)
    if 'model' in files:
      verb.add_argument('--model', type=pathlib.Path, required=True, metavar='DIR', help='Hugging Face directory')
      verb.add_argument('--dtype', choices=_DTYPES, default='float32', help='of weights and layers')
    if 'rows' in files:
      verb.add_argument('--in', dest='input', type=pathlib.Path, required=True, metavar='F', help='JSON Lines')
      verb.add_argument('--out', dest='output', type=pathlib.Path, required=True, metavar='F', help='JSON Lines')
    return verb

  add(score, 'model', 'rows')
  verb = add(generate, 'model', 'rows')
  verb.add_argument('--n', type=int, default=1, help='samples of each row')
  verb.add_argument('--temperature', type=float, default=1.0, help='0 is greedy')
  verb.add_argument('--top-p', type=float, default=1.0, help='1 is off')
  verb.add_argument('--top-k', type=int, default=-1, help='-1 is off')
  verb.add_argument('--min-p', type=float, default=0.0, help='0 is off')
  verb.add_argument('--max-tokens', type=int, required=True, metavar='N', help='new tokens of a sample at most')
  verb.add_argument('--seed', type=int, default=0)
  verb.add_argument('--rows', type=int, default=64, help='samples decoded at a time')
  verb = add(fuse)
  verb.add_argument('--out', type=pathlib.Path, required=True, metavar='DIR')
  verb.add_argument('--weights', metavar='W,W,...', help='one each, summing to 1 (default: equal ones)')
  verb.add_argument('models', type=pathlib.Path, nargs='+', metavar='DIR')
  verb = add(grade, 'rows')
  verb.add_argument('--workers', type=int, default=2, help='processes of each kind at most')
  verb.add_argument('--deadline', type=float, default=10.0, help='seconds one response may take')
  verb.add_argument('--strict', action='store_true', help="the published grader's rules")
  verb.add_argument('--steps', action='store_true', help='check the equalities of each response too')
  verb.add_argument(
    '--problems', type=pathlib.Path, metavar='F', help="an evaluation's problems.jsonl, for its samples"
  )
  verb = add(evaluate, 'model')
  verb.add_argument('--benchmark', metavar='NAME', help='see vibethinker_jax/evaluate/benchmarks.py')
  verb.add_argument('--data', type=pathlib.Path, metavar='F', help='problems of your own instead')
  verb.add_argument('--reader', metavar='NAME', help='shape of --data (default: problems)')
  data = pathlib.Path(os.environ.get('VIBETHINKER_DATA', '../shared/data'))
  verb.add_argument('--data-dir', type=pathlib.Path, default=data, metavar='DIR', help=f'of the benchmarks ({data})')
  verb.add_argument(
    '--file', type=pathlib.Path, action='append', default=[], metavar='F', help='your own file of the benchmark'
  )
  verb.add_argument('--limit', type=int, metavar='N', help='only the first N problems')
  verb.add_argument('--skip-bad', action='store_true', help='leave malformed rows out and count them')
  verb.add_argument('--n', type=int, help="samples of each problem (default of these: the benchmark's protocol)")
  verb.add_argument('--temperature', type=float)
  verb.add_argument('--top-p', type=float)
  verb.add_argument('--top-k', type=int)
  verb.add_argument('--max-tokens', type=int, metavar='N')
  verb.add_argument('--instruction', metavar='TEXT', help='what follows every statement')
  verb.add_argument('--seed', type=int, default=0)
  verb.add_argument('--rows', type=int, default=64, help='samples decoded at a time')
  verb.add_argument('--workers', type=int, default=2, help='graders of each kind at most')
  verb.add_argument('--deadline', type=float, default=10.0, help='seconds one response may take')
  verb.add_argument('--strict', action='store_true', help="the published grader's rules")
  verb.add_argument('--steps', action='store_true', help='check the equalities of each response too')
  verb.add_argument('--out', dest='output', type=pathlib.Path, required=True, metavar='DIR')
  verb = add(prepare)
  verb.add_argument(
    '--in', dest='input', required=True, action='append', metavar='F', help='as data/sources.py names one; repeatable'
  )
  verb.add_argument('--reader', action='append', default=[], metavar='NAME', help='one for all, or one for each')
  verb.add_argument('--out', dest='output', type=pathlib.Path, required=True, metavar='DIR')
  verb.add_argument('--split', default='train', metavar='NAME')
  verb.add_argument('--shards', type=int, metavar='N', help='files (default: by size)')
  verb.add_argument('--skip-bad', action='store_true', help='leave malformed rows out and count them')
  verb = add(decontaminate)
  verb.add_argument('--train', type=pathlib.Path, required=True, metavar='F', help='rows to be cleaned')
  verb.add_argument('--eval', type=pathlib.Path, required=True, action='append', metavar='F', help='may be repeated')
  verb.add_argument('--out', dest='output', type=pathlib.Path, required=True, metavar='F', help='rows kept, JSON Lines')
  verb.add_argument('--report', type=pathlib.Path, required=True, metavar='F', help='why a row went, JSON Lines')
  verb.add_argument('--n', type=int, default=10, help='words in a row that give a problem away')
  verb.add_argument('--threshold', type=float, default=0.7, help='Jaccard similarity of near-duplicates')
  verb.add_argument('--least', type=int, default=8, help='three-word shingles a text needs for that')
  verb.add_argument('--common', type=int, default=5, help='evaluation problems that make a 10-gram a stock phrase')
  verb.add_argument(
    '--stock', type=pathlib.Path, metavar='F', help='stock phrases, one a line (default: those of AIME)'
  )
  verb.add_argument('--skip-bad', action='store_true', help='count malformed rows and go on')
  verb = add(plan)
  verb.add_argument('--config', required=True, metavar='FILE[:PRESET]', help='of experiments/ssp.py')
  verb.add_argument(
    '--topology', required=True, metavar='T', help='v5e:4x4, v5p:4x4x4, v6e:8x8, a100:8, h200:1, cpu:1 ...'
  )
  verb.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='a field of the config')
  verb.add_argument('--out', dest='output', type=pathlib.Path, metavar='F', help='the report as JSON')
  verb.add_argument('--estimate', action='store_true', help='by the memory model alone: seconds, nothing compiled')
  folder = _cache('plan')
  verb.add_argument('--cache', type=pathlib.Path, default=folder, metavar='DIR', help=f'compiled stages ({folder})')
  for function in (serve, chat):
    verb = add(function)
    verb.add_argument(
      '--model',
      type=pathlib.Path,
      metavar='DIR',
      help='Hugging Face directory or workdir (default: the tiny run, or base)',
    )
    verb.add_argument('--name', default='vibethinker', help='what clients call it')
    verb.add_argument('--dtype', choices=_DTYPES, default='float32', help='of weights and layers')
    verb.add_argument('--int8-weights', action='store_true', help='a quarter of the bytes of float32')
    verb.add_argument('--int8-cache', action='store_true', help='keys and values too')
    verb.add_argument('--rows', type=int, default=64, help='samples decoded at a time')
    verb.add_argument('--waiting', type=int, default=256, help='samples that may wait for a row; then 429')
    verb.add_argument('--block', type=int, default=16, help='tokens between two looks at who came, went or is done')
    verb.add_argument('--max-length', type=int, metavar='N', help="prompt and answer together (default: the model's)")
    verb.add_argument('--cache', type=pathlib.Path, default=_cache('xla'), metavar='DIR', help='compiled functions')
    if function is chat:
      verb.add_argument('--preset', choices=('math', 'code', 'explore', 'evaluate'), default='math')
      continue
    verb.add_argument('--host', default='127.0.0.1', help='0.0.0.0 for everybody')
    verb.add_argument('--port', type=int, default=8000)
    verb.add_argument('--page-port', type=int, default=7860)
    verb.add_argument('--no-page', action='store_true', help='the API alone')
    verb.add_argument('--keys', type=pathlib.Path, metavar='F', help='API keys, one a line (default: none asked for)')
    verb.add_argument('--warm', type=int, default=256, metavar='N', help='lengths compiled beforehand, beside serving')
    verb.add_argument('--grace', type=float, default=30.0, metavar='S', help='seconds to finish in after SIGTERM')
  verb = add(report)
  verb.add_argument('directories', type=pathlib.Path, nargs='+', metavar='DIR', help='workdir of a run or a sweep')
  page = pathlib.Path('compared.html')
  verb.add_argument('--out', dest='output', type=pathlib.Path, default=page, metavar='F', help=f'of several ({page})')
  verb = add(reproduce)
  verb.add_argument('directory', type=pathlib.Path, metavar='DIR', help='workdir of a finished run')
  verb.add_argument('--out', dest='output', type=pathlib.Path, metavar='DIR', help='where to run it (DIR-again)')
  return parser


def _cache(name: str) -> pathlib.Path:
  """Where this user keeps what can be made again."""
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')) / 'vibethinker' / name


def _rows(path: pathlib.Path, fields: set[str]) -> list[tuple[str, dict]]:
  """Rows of a file, with ids that differ and no field but `fields`."""
  rows, seen = list(read_rows(path)), {}
  for where, row in rows:
    if unknown := sorted(set(row) - fields):
      raise BadInput(f'{where}: unknown field "{unknown[0]}" (expected {", ".join(sorted(fields))})')
    name = field(row, 'id', (str, int), where)
    if name in seen:
      raise BadInput(f'{where}: id {name!r} was given in {seen[name]} already, expected ids that differ')
    seen[name] = where
  return rows


def _one_of(row: dict, names: Sequence[str], where: str) -> str:
  given = [name for name in names if name in row]
  if len(given) != 1:
    wanted = ', '.join(f'"{name}"' for name in names)
    raise BadInput(f'{where}: expected exactly one of {wanted}, found {len(given)}')
  return given[0]


def _ids(row: dict, where: str, V: int) -> list[int]:
  ids = field(row, 'tokens', list, where)
  for i in ids:
    if type(i) is not int or not 0 <= i < V:
      raise BadInput(f'{where}: "tokens" must be whole numbers from 0 to {V - 1}, found {json.dumps(i)[:40]}')
  return ids


def _encode(row: dict, name: str, where: str, text, model: pathlib.Path) -> list[int]:
  """Ids of raw text, nothing added."""
  content = field(row, name, str, where)
  _check_text(content, name, where)
  return _tokenizer_of(text, name, where, model).encode(content, add_special_tokens=False)


def _chat(row: dict, where: str, text, model: pathlib.Path) -> list[int]:
  """Ids of a conversation, up to where the assistant begins to speak."""
  import jinja2

  messages = field(row, 'messages', list, where)
  if not messages:
    raise BadInput(f'{where}: "messages" is empty, expected at least one')
  for number, message in enumerate(messages, 1):
    at = f'{where}, message {number}'
    if not isinstance(message, dict) or set(message) != {'role', 'content'}:
      raise BadInput(f'{at}: expected {{"role": text, "content": text}}')
    field(message, 'role', str, at)
    _check_text(field(message, 'content', str, at), 'content', at)
  if _tokenizer_of(text, 'messages', where, model).chat_template is None:
    raise BadInput(f'{where}: "messages" needs a chat template, the tokenizer of {model} has none')
  try:
    return text.chat(messages)
  except jinja2.TemplateError as error:
    raise BadInput(f'{where}: the chat template refuses the messages ({error})') from None


def _check_text(content: str, name: str, where: str) -> None:
  """JSON can hold half a character (a lone surrogate), which no tokenizer takes."""
  try:
    content.encode()
  except UnicodeEncodeError:
    raise BadInput(f'{where}: "{name}" is no text (a lone surrogate), expected Unicode') from None


def _answers(row: dict, where: str) -> tuple[str, ...]:
  """The accepted answers as texts."""
  answer = field(row, 'answer', (str, int, float, list), where)
  texts = answer if isinstance(answer, list) else [answer]
  if not texts or any(isinstance(a, bool) or not isinstance(a, str | int | float) for a in texts):
    raise BadInput(f'{where}: field "answer" must be a text, a number, or a list of at least one of them')
  return tuple(map(str, texts))


def _numbers(text: str) -> list[float]:
  try:
    return [float(part) for part in text.split(',')]
  except ValueError:
    raise ValueError(f'{text!r} is no list of numbers, expected for example 0.5,0.5') from None


def _json(path: pathlib.Path) -> dict | None:
  """The object of a model's JSON file, None where there is no file."""
  if not path.exists():
    return None
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise BadInput(f'{path}: cannot be read as JSON ({error})') from None
  if not isinstance(value, dict):
    raise BadInput(f'{path}: expected a JSON object, found {type(value).__name__}')
  return value


def _model(directory: pathlib.Path, dtype: str):
  """The model of a directory, with weights and layers in `dtype`."""
  from vibethinker_jax.model import hf

  model = hf.load(directory, dtype)
  model.config = dataclasses.replace(model.config, dtype=dtype)
  return model


def _text(directory: pathlib.Path):
  """The tokenizer of a model directory, None where it has none. Not every one needs to know ChatML here."""
  if not (directory / 'tokenizer.json').exists():
    return None
  from transformers import PreTrainedTokenizerFast

  from vibethinker_jax.data.text import Text

  try:
    return Text(PreTrainedTokenizerFast.from_pretrained(str(directory)))  # not AutoTokenizer: see data/text.py
  except Exception as error:  # the tokenizers library raises bare Exception for a broken file
    raise BadInput(f'{directory / "tokenizer.json"}: not a tokenizer ({error})') from None


def _tokenizer_of(text, name: str, where: str, model: pathlib.Path):
  if text is None:
    raise BadInput(f'{where}: "{name}" needs a tokenizer, {model / "tokenizer.json"} does not exist')
  return text.tokenizer


def _config_stop_ids(directory: pathlib.Path) -> tuple[int, ...]:
  """eos_token_id of generation_config.json, or else of config.json."""
  for name in ('generation_config.json', 'config.json'):
    ids = (_json(directory / name) or {}).get('eos_token_id')
    if ids is not None:
      ids = ids if isinstance(ids, list) else [ids]
      if any(type(i) is not int for i in ids):
        raise BadInput(f'{directory / name}: eos_token_id is {ids}, expected whole numbers')
      return tuple(ids)
  return ()


def _stop_ids(directory: pathlib.Path, text) -> set[int]:
  """What ends a response: what the model's files say, and what its tokenizer says."""
  ids = set(_config_stop_ids(directory))
  if text is not None:
    ids |= set(text.stop_ids) - {text.tokenizer.unk_token_id}  # which an unknown <|im_end|> would become
  return ids


def _vocabulary(directory: pathlib.Path) -> dict | None:
  """Every token of tokenizer.json and its id, None where there is no such file."""
  path = directory / 'tokenizer.json'
  raw = _json(path)
  if raw is None:
    return None
  try:
    vocabulary = raw['model']['vocab']
    if isinstance(vocabulary, list):
      vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token['content']: token['id'] for token in raw['added_tokens'] or ()}}
  except (KeyError, TypeError, ValueError):
    raise BadInput(f'{path}: not a tokenizer (expected "model" with "vocab", and "added_tokens")') from None


def _score(model, sequences: list[list[int]], directory: pathlib.Path) -> list[list[float]]:
  """ln p of every token but the first of each sequence, under a model read from `directory`."""
  import jax
  import numpy as np
  from tqdm import tqdm

  from vibethinker_jax.engine.engine import bucket

  logps = jax.jit(lambda m, tokens, *at: m.token_logps(m(tokens[:, :-1], *at), tokens[:, 1:])[0])
  by_length: dict[int, list[int]] = {}
  for i, ids in enumerate(sequences):
    if len(ids) > 1:
      by_length.setdefault(bucket(len(ids) - 1), []).append(i)
  out: list[list[float]] = [[] for _ in sequences]
  with tqdm(total=len(sequences), desc='score', unit='row', dynamic_ncols=True) as bar:
    bar.update(sum(len(ids) == 1 for ids in sequences))
    for T, members in sorted(by_length.items()):
      B = min(max(1, _SCORE_TOKENS // T), len(members))
      model.config = dataclasses.replace(model.config, logit_chunk=max(1, _SCORE_LOGITS // B))
      positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
      for begin in range(0, len(members), B):
        batch = members[begin : begin + B]
        tokens, segments = np.zeros((B, T + 1), np.int32), np.zeros((B, T), np.int32)
        for row, i in enumerate(batch):
          tokens[row, : len(sequences[i])] = sequences[i]
          segments[row, : len(sequences[i])] = 1
        values = np.asarray(logps(model, tokens, positions, segments))
        for row, i in enumerate(batch):
          own = values[row, : len(sequences[i]) - 1]
          if not np.isfinite(own).all():
            raise BadInput(f'{directory}: log-probabilities are not finite, the weights are broken')
          out[i] = own.tolist()
        bar.update(len(batch))
  return out


@contextlib.contextmanager
def _output(path: pathlib.Path) -> Iterator:
  """A text file that appears under `path` when the block ends well, and not at all when it does not."""
  if path.is_dir():
    raise BadInput(f'{path}: is a directory, expected a file to write')
  scratch = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = scratch.open('x', encoding='utf-8')
  except OSError as error:
    raise BadInput(f'{path}: cannot be written ({error.strerror})') from None
  try:
    with file:
      yield file
    scratch.replace(path)
  finally:
    scratch.unlink(missing_ok=True)


def _write(out, row: dict) -> None:
  out.write(json.dumps(row) + '\n')


if __name__ == '__main__':
  run()
