"""A model on the report's benchmarks, one after the other, and one table of them all.

  python experiments/evaluate.py --config=configs/evaluate.py --workdir=runs/eval --config.model=DIR

Run again with the same workdir it goes on where it stopped. Each benchmark has its directory in the workdir
(vibethinker_jax/evaluate/run.py says what is in it); workdir/table.md stands beside the published rows.
All devices decode, each with a copy of the model (a CPU is one); on several hosts, one process each with --distributed
(docs/clusters.md).
"""

import dataclasses
import os
import pathlib
import sys

os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')  # only its tokenizers are used: it need not miss torch

import jax
from absl import flags, logging

from vibethinker_jax.config_io import config_flag, freeze, process_flags, run_app
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer, load_chat_tokenizer
from vibethinker_jax.disk import writing
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.evaluate import benchmarks, claims, run
from vibethinker_jax.lock import held
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import eos_ids, read_config
from vibethinker_jax.model.mesh import own_mesh
from vibethinker_jax.tasks import Evaluation, check_evaluation
from vibethinker_jax.train.metric_writer import write_text
from vibethinker_jax.verify.grader import Grader

CONFIG, JOIN = config_flag(), process_flags()
WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; an existing one is continued.', required=True)


def evaluate(s: Evaluation, workdir: pathlib.Path) -> str:
  """Every benchmark of the settings; the table. Raises BadInput, before there is a workdir for what needs none."""
  check_evaluation(s)
  sets = {}
  for name in s.benchmarks:
    files = (pathlib.Path(s.files[name]),) if name in s.files else ()
    sets[name] = benchmarks.load(name, pathlib.Path(s.data), files)[: s.limit or None]
  tokenizer = load_chat_tokenizer(pathlib.Path(s.model))
  tokenizer.check(read_config(s.model).V, s.model)
  with held(workdir), writing(workdir):
    return _evaluated(s, workdir, sets, tokenizer)


def _evaluated(s: Evaluation, workdir: pathlib.Path, sets: dict[str, list[Problem]], tokenizer: ChatTokenizer) -> str:
  model = hf.load(pathlib.Path(s.model), s.dtype)
  model.config = dataclasses.replace(model.config, dtype=s.dtype)
  own = -(-s.rows // jax.process_count())
  engine = Engine(model.config, {*tokenizer.stop_ids, *eos_ids(s.model)}, rows=own, mesh=own_mesh(jax.local_devices()))
  subject = claims.Subject(s.model, hf.fingerprint(pathlib.Path(s.model)), engine, engine.place(model), tokenizer)
  protocols, summaries = {}, []
  for name in sets:
    protocol = benchmarks.named(name).protocol
    protocols[name] = dataclasses.replace(protocol, n=s.n or protocol.n, max_tokens=s.max_tokens or protocol.max_tokens)
  with Grader(s.workers, s.deadline_s, s.strict) as grader:
    for name, problems in sets.items():  # all of them before any is drawn
      asked = claims.asked(problems, protocols[name])
      claim = claims.claim(name, subject, asked, protocols[name], grader, s.seed)
      claims.check(workdir / name, claim, s.regrade)
    for name, problems in sets.items():
      print(f'{name}: {len(problems)} problems, {protocols[name].n} samples of each', file=sys.stderr)
      where, protocol = workdir / name, protocols[name]
      summary = run.evaluate(name, subject, problems, protocol, grader, s.seed, where, s.steps, s.regrade)
      summaries.append(summary)
  table = run.table(summaries)
  write_text(workdir / 'table.md', table)
  return table


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # jax reports every kind of device that is not there
  settings = freeze(Evaluation, CONFIG.value)
  check_evaluation(settings)
  JOIN(1)
  table = evaluate(settings, pathlib.Path(WORKDIR.value))
  if jax.process_index() == 0:
    print(table, end='')


if __name__ == '__main__':
  run_app(main)
