"""Evaluates a model on the report's benchmarks, one after the other, and writes one table of all of them.

  python experiments/evaluate.py --config=configs/evaluate.py --workdir=runs/eval --config.model=DIR

The same command continues an evaluation that was stopped. Each benchmark has a directory in the workdir
(vibethinker_jax/evaluate/run.py says what it holds); workdir/table.md has the scores beside the published ones.
All devices decode, each with a copy of the model (a CPU is one device). On several hosts, start one process on each
with --distributed (docs/clusters.md).
"""

import dataclasses
import os
import pathlib
import sys

os.environ.setdefault(
  'TRANSFORMERS_VERBOSITY', 'error'
)  # only its tokenizers are used: no warning that torch is absent

import jax
from absl import flags, logging

from vibethinker_jax.config_io import config_flag, freeze, process_flags, run_app
from vibethinker_jax.disk import writing
from vibethinker_jax.evaluate import benchmarks, run, scores
from vibethinker_jax.lock import held
from vibethinker_jax.shared_files import write_text
from vibethinker_jax.tasks import Evaluation, check_evaluation
from vibethinker_jax.verify.grader import Grader

CONFIG, JOIN = config_flag(), process_flags()
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where everything is written; an existing evaluation is continued.', required=True
)


def evaluate(s: Evaluation, workdir: pathlib.Path) -> str:
  """Evaluates the model on every benchmark of the settings, and returns the table of all of them.

  Raises BadInput; before `workdir` is made, where settings, problems or tokenizer are wrong.
  """
  check_evaluation(s)
  tasks = {workdir / name: _task(s, name) for name in s.benchmarks}
  tokenizer = run.tokenizer_of(pathlib.Path(s.model))
  with held(workdir), writing(workdir):
    subject = run.load(pathlib.Path(s.model), tokenizer, s.dtype, s.rows)
    for task in tasks.values():
      print(f'{task.name}: {len(task.problems)} problems, {task.protocol.samples} samples of each', file=sys.stderr)
    with Grader(s.workers, s.deadline_s, s.strict) as grader:
      summaries = run.evaluate(subject, tasks, grader, s.seed, s.steps, s.regrade)
    table = scores.table(summaries)
    write_text(workdir / 'table.md', table)
  return table


def _task(s: Evaluation, name: str) -> benchmarks.Task:
  files = (pathlib.Path(s.files[name]),) if name in s.files else ()
  task = benchmarks.published(name, pathlib.Path(s.data), files).changed(s.n or None, s.max_tokens or None)
  return dataclasses.replace(task, problems=task.problems[: s.limit or None])


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
