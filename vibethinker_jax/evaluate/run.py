"""A model on test sets, each in a directory of its own. `vibethinker evaluate`, experiments/evaluate.py and vt.evaluate
all start evaluations here.

The directory of an evaluation holds

  config.json     everything that decides a sample or a verdict (claims.py); where any of it changes, the directory is
                  refused
  problems.jsonl  the problems as the model was asked them (data/problem.py)
  samples.jsonl   a row for each sample (samples.py), written as soon as it is drawn. Once all are drawn, the rows get
                  their verdicts: score, extracted, reason, and vote for an answer of mathematics; steps and steps_share
                  where equalities were checked
  summary.json    the scores (scores.py)
  table.md        the scores beside the published ones

An evaluation that was killed goes on where it was when it is started again. The random numbers of a sample belong to
(seed, the id of its problem, its place among the problem's samples), so some of the problems give the same samples as
all of them.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import jax

from vibethinker_jax import runtime
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.distributed import gather, share_work
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.sampling import number_of
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import claims, samples
from vibethinker_jax.evaluate.benchmarks import Task
from vibethinker_jax.evaluate.claims import Subject
from vibethinker_jax.evaluate.scores import summarise, table
from vibethinker_jax.model import hf
from vibethinker_jax.model.mesh import own_mesh
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.model_directory import load_model, load_tokenizer
from vibethinker_jax.shared_files import write_json, write_text
from vibethinker_jax.verify.grader import Grader

_BATCH = 256  # responses graded between two steps of the progress bar
_VERDICT = ('score', 'extracted', 'reason', 'vote', 'steps', 'steps_share')  # fields of a row that grading adds


def tokenizer_of(directory: pathlib.Path) -> ChatTokenizer:
  """The tokenizer of a model directory; responses end as its files say.

  Raises BadInput where it has no chat template, or has ids for which the model has no row.
  """
  tokenizer = load_tokenizer(directory)
  if tokenizer is None or tokenizer.hf.chat_template is None:
    raise BadInput(f'{directory}: evaluation needs a tokenizer with a chat template')
  return tokenizer


def load(directory: pathlib.Path, tokenizer: ChatTokenizer, dtype: str, rows: int) -> Subject:
  """The model of a Hugging Face directory, ready to be evaluated.

  Args:
    directory: of the model.
    tokenizer: `tokenizer_of` the directory.
    dtype: of the weights and of what the layers compute in.
    rows: samples decoded at a time, by all processes together.
  """
  return subject(str(directory), hf.fingerprint(directory), load_model(directory, dtype), tokenizer, rows)


def subject(name: str, weights: str, model: Qwen2, tokenizer: ChatTokenizer, rows: int) -> Subject:
  """A model in memory, ready to be evaluated; all devices decode, each with a copy of it.

  Args:
    name, weights: as in Subject.
    model: computes in the dtype of its config.
    tokenizer: has a chat template; its `stop_ids` end a response.
    rows: samples decoded at a time, by all processes together.
  """
  own = -(-rows // jax.process_count())
  mesh, ids = own_mesh(jax.local_devices()), tokenizer.size
  engine = Engine(model.config, tokenizer.stop_ids, rows=own, mesh=mesh, vocabulary=ids)
  return Subject(name, weights, engine, engine.place(model), tokenizer)


def evaluate(
  subject: Subject,
  tasks: Mapping[pathlib.Path, Task],
  grader: Grader,
  seed: int,
  steps: bool = False,
  regrade: bool = False,
) -> list[dict]:
  """Draws and grades what the directories do not hold yet, one task after the other.

  Args:
    subject: the model.
    tasks: by directory. All directories are checked before anything is drawn.
    grader: gives the verdicts.
    seed: of the samples.
    steps: the equalities in the responses are checked too.
    regrade: the samples that exist are graded again; the grader may be another one than before.

  Returns:
    The summary of each task, as its summary.json holds it.

  Raises:
    BadInput: a directory holds another evaluation, or something else; or as samples.py:collect.
  """
  for directory, task in tasks.items():
    claims.check(directory, claims.claim(subject, task, grader, seed), regrade)
  return [_evaluate(subject, task, directory, grader, seed, steps, regrade) for directory, task in tasks.items()]


def _evaluate(
  subject: Subject, task: Task, directory: pathlib.Path, grader: Grader, seed: int, steps: bool, regrade: bool
) -> dict:
  path, problems = directory / 'samples.jsonl', task.asked
  if regrade:
    _forget_verdicts(path)  # before the claim changes: it must never stand beside verdicts of the grader before
  claims.take(directory, claims.claim(subject, task, grader, seed), task)
  numbers = [number_of(problem.id) for problem in problems]
  of_model = subject.engine, subject.model, subject.tokenizer
  rows = samples.collect(*of_model, problems, task.protocol, seed, numbers, path)
  if any('score' not in row for row in rows):
    rows = _with(rows, share_work(rows, lambda mine: judge(mine, problems, grader)))
    samples.write_rows(path, rows)
  if steps and any('steps' not in row for row in rows):
    rows = _with(rows, share_work(rows, lambda mine: check_steps(mine, problems, grader)))
    samples.write_rows(path, rows)
  summary = summarise(task, subject.name, rows) | {'strict': grader.strict}
  write_json(directory / 'summary.json', summary)
  write_text(directory / 'table.md', table([summary]))
  return summary


def _forget_verdicts(path: pathlib.Path) -> None:
  """Takes the verdicts from the samples that exist, so that they are graded again."""
  have = gather(samples.settle(path) if jax.process_index() == 0 else {})[0]
  if have:
    samples.write_rows(path, [{k: v for k, v in row.items() if k not in _VERDICT} for row in have.values()])


def _with(rows: Sequence[dict], more: Sequence[dict]) -> list[dict]:
  return [row | new for row, new in zip(rows, more, strict=True)]


def judge(rows: Sequence[dict], problems: Sequence[Problem], grader: Grader) -> list[dict]:
  """For each row "score", "extracted" and "reason"; for an answer to a problem of mathematics also "vote".

  Args:
    rows: of samples.jsonl.
    problems: those that the rows name.
    grader: gives the verdicts.
  """
  by_id = {problem.id: problem for problem in problems}
  out = []
  with runtime.bar(len(rows), 'grade', 'sample') as bar:
    for begin in range(0, len(rows), _BATCH):
      batch = rows[begin : begin + _BATCH]
      verdicts = [dataclasses.asdict(verdict) for verdict in grader.grade(_asked_of(batch, by_id))]
      voting = [v for row, v in zip(batch, verdicts) if v['extracted'] and by_id[row['problem']].tests is None]
      for verdict, key in zip(voting, grader.vote_keys([v['extracted'] for v in voting])):
        verdict['vote'] = key
      out += verdicts
      bar.update(len(batch))
  return out


def _asked_of(rows: Sequence[dict], problems: dict[str, Problem]) -> list[tuple]:
  return [(row['response'], problems[row['problem']].answer, problems[row['problem']].tests) for row in rows]


def check_steps(rows: Sequence[dict], problems: Sequence[Problem], grader: Grader) -> list[dict]:
  """For each row "steps", the number of equalities that could be decided, and "steps_share", the share that holds.

  Args:
    rows: of samples.jsonl.
    problems: those that the rows name.
    grader: checks the equalities.
  """
  by_id = {problem.id: problem for problem in problems}
  out = []
  with runtime.bar(len(rows), 'steps', 'sample') as bar:
    for begin in range(0, len(rows), _BATCH):
      batch = rows[begin : begin + _BATCH]
      traces = grader.check_traces(_asked_of(batch, by_id))
      out += [{'steps': t.checked, 'steps_share': t.share} for t in traces]
      bar.update(len(batch))
  return out
