"""A model on a test set by a protocol: samples drawn, judged, counted; killed at any moment it goes on where it was.

The directory of an evaluation holds

  config.json     the evaluation's claim on the directory: all that decides a sample or a verdict; a change is refused
  problems.jsonl  the problems, in the project's form
  samples.jsonl   a line a sample, written as soon as it is drawn; once all are, with their verdicts (and their steps')
  summary.json    the scores
  table.md        the scores beside the published ones

A sample's random numbers belong to (seed, its problem's id, its own number), so what is drawn after a restart is what
would have been drawn, none is drawn twice, and a part of the problems gives what all of them give.

Of several processes, which all see the directory, each draws the samples of its share of the problems and judges its
share of the responses. Each appends to a file of its own (samples.1.jsonl, ...), which becomes part of samples.jsonl
when all are drawn, or when the evaluation is started again, by however many.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from vibethinker_jax import runtime
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.distributed import gather, share_work
from vibethinker_jax.engine.engine import Completion, Request
from vibethinker_jax.engine.sampling import SamplingParams, number_of
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import claims
from vibethinker_jax.evaluate.benchmarks import PUBLISHED, Protocol
from vibethinker_jax.evaluate.claims import Subject
from vibethinker_jax.spectrum.passk import interval, maj_at_k, pass_at_k
from vibethinker_jax.train.metric_writer import write_json, write_text
from vibethinker_jax.verify.grader import Grader

_BATCH = 256  # responses graded between two steps of the progress bar
_VERDICT = ('score', 'extracted', 'reason', 'steps', 'steps_share')  # of a row, what judges have added


def evaluate(
  name: str,
  subject: Subject,
  problems: Sequence[Problem],
  protocol: Protocol,
  grader: Grader,
  seed: int,
  directory: pathlib.Path,
  steps: bool = False,
  regrade: bool = False,
) -> dict:
  """Draws and judges what `directory` does not yet hold. Returns the summary, as summary.json holds it.

  `name` is the benchmark's or the data's. With `steps`, the equalities of the responses are checked too. With
  `regrade` the samples that are there are judged again, by a grader that may be another. Raises BadInput where the
  directory holds another evaluation, or something else.
  """
  asked, path = claims.asked(problems, protocol), directory / 'samples.jsonl'
  claim = claims.claim(name, subject, asked, protocol, grader, seed)
  claims.check(directory, claim, regrade)
  if regrade:
    _forget_verdicts(path)  # before the claim is another: it must never hold for verdicts of the judge before
  claims.take(directory, claim, asked)
  rows = draw(subject, asked, protocol, seed, path)
  if any('score' not in row for row in rows):
    rows = _with(rows, share_work(rows, lambda mine: judge(mine, asked, grader)))
    _write_rows(path, rows)
  if steps and any('steps' not in row for row in rows):
    rows = _with(rows, share_work(rows, lambda mine: check_steps(mine, asked, grader)))
    _write_rows(path, rows)
  summary = summarise(name, subject.name, asked, rows, protocol) | {'strict': grader.strict}
  write_json(directory / 'summary.json', summary)
  write_text(directory / 'table.md', table([summary]))
  return summary


def _forget_verdicts(path: pathlib.Path) -> None:
  """Of the samples that are there what was drawn alone is left, for the judges to see again."""
  have = gather(_settled(path) if jax.process_index() == 0 else {})[0]
  if have:
    _write_rows(path, [{k: v for k, v in row.items() if k not in _VERDICT} for row in have.values()])


def _write_rows(path: pathlib.Path, rows: Sequence[dict]) -> None:
  write_text(path, ''.join(json.dumps(row) + '\n' for row in rows))


def _with(rows: Sequence[dict], more: Sequence[dict]) -> list[dict]:
  return [row | new for row, new in zip(rows, more, strict=True)]


def draw(
  subject: Subject, problems: Sequence[Problem], protocol: Protocol, seed: int, path: pathlib.Path
) -> list[dict]:
  """All samples of all problems, in order; those that `path` does not hold are drawn, and appended as they finish.

  Of several processes each draws for every n-th problem, into a file beside `path`, and all return everything.
  A problem whose prompt leaves no room for a token is not asked: its samples are empty, with finish reason 'no room'.
  """
  engine, tokenizer = subject.engine, subject.tokenizer
  have = gather(_settled(path) if jax.process_index() == 0 else {})[0]
  sampling = SamplingParams(protocol.temperature, protocol.top_k, protocol.top_p)
  requests, places, resume_from = [], [], []
  prompts: dict[int, tuple[int, ...]] = {}
  drawn: dict[tuple[str, int], dict] = {}
  mine = range(jax.process_index(), len(problems), jax.process_count())
  kept = sum((problems[i].id, sample) in have for i in mine for sample in range(protocol.n))
  with (
    _part(path, jax.process_index()).open('a', encoding='utf-8') as file,
    runtime.bar(len(mine) * protocol.n, 'sample', 'sample', kept) as bar,
  ):

    def keep(i: int, sample: int, tokens: list[int], finish: str) -> None:
      problem = problems[i]
      response = tokenizer.response(prompts[i], tokens)
      row = {'id': f'{problem.id}#{sample}', 'problem': problem.id, 'sample': sample, 'response': response}
      row |= {'answer': problem.answer} if problem.tests is None else {}
      drawn[problem.id, sample] = row | {'tokens': len(tokens), 'finish_reason': finish}
      file.write(json.dumps(drawn[problem.id, sample]) + '\n')
      file.flush()
      bar.update()

    for i in mine:
      problem = problems[i]
      prompt = prompts[i] = tuple(tokenizer.prompt(problem))
      budget = min(protocol.max_tokens, engine.max_length - len(prompt))
      there = [sample for sample in range(protocol.n) if (problem.id, sample) in have]
      if budget < 1:
        for sample in sorted({*range(protocol.n)} - {*there}):
          keep(i, sample, [], 'no room')
        continue
      resume_from += [Completion(len(requests), sample, *[np.zeros(0)] * 3, 'kept') for sample in there]
      requests.append(Request(prompt, budget, protocol.n, sampling, seed, number_of(problem.id)))
      places.append(i)
    for done in engine.generate(subject.model, requests, resume_from):
      i = places[done.request]
      if done.finish == 'kept':
        continue
      if done.finish.startswith('refused'):
        raise BadInput(f'problem {problems[i].id}: {done.finish}')
      if not np.isfinite(done.logps).all():
        raise BadInput(f'problem {problems[i].id}: log-probabilities are not finite, the weights are broken')
      keep(i, done.sample, done.tokens.tolist(), done.finish)
  for part in gather(drawn):
    have |= part
  rows = [have[problem.id, sample] for problem in problems for sample in range(protocol.n)]
  if jax.process_count() > 1:
    _write_rows(path, rows)
    if jax.process_index() > 0:
      _part(path, jax.process_index()).unlink()
  return rows


def _part(path: pathlib.Path, process: int) -> pathlib.Path:
  """Where a process appends what it draws."""
  return path if process == 0 else path.with_suffix(f'.{process}{path.suffix}')


def _settled(path: pathlib.Path) -> dict[tuple[str, int], dict]:
  """`read_samples` of `path`, into which goes what other processes had drawn when they were stopped."""
  parts = [
    part for part in sorted(path.parent.glob(f'{path.stem}.*{path.suffix}')) if part.stem.split('.')[-1].isdecimal()
  ]
  have: dict = {}
  for part in (*parts, path):  # what `path` holds may be judged already
    have |= read_samples(part)
  if parts:
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    scratch.write_text(''.join(json.dumps(row) + '\n' for row in have.values()))
    scratch.replace(path)
  for part in parts:
    part.unlink()
  return have


def read_samples(path: pathlib.Path) -> dict[tuple[str, int], dict]:
  """The whole rows of samples.jsonl by (problem, sample); a line cut short by a kill is cut off the file."""
  if not path.exists():
    return {}
  data = path.read_bytes()
  whole = data[: data.rfind(b'\n') + 1]
  if len(whole) < len(data):
    with path.open('r+b') as file:
      file.truncate(len(whole))
  rows = {}
  for number, line in enumerate(whole.decode('utf-8').split('\n')[:-1], 1):
    try:
      row = json.loads(line)
      rows[row['problem'], row['sample']] = row
    except (ValueError, KeyError, TypeError):
      raise BadInput(f'{path}, line {number}: not a sample of an evaluation') from None
  return rows


def judge(rows: Sequence[dict], problems: Sequence[Problem], grader: Grader) -> list[dict]:
  """ "score", "extracted" and "reason" of each row; of an answer to a problem of mathematics also its "vote"."""
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
  """Of each row "steps", how many equalities were settled, and "steps_share", the share of those that holds."""
  by_id = {problem.id: problem for problem in problems}
  out = []
  with runtime.bar(len(rows), 'steps', 'sample') as bar:
    for begin in range(0, len(rows), _BATCH):
      batch = rows[begin : begin + _BATCH]
      traces = grader.check_traces(_asked_of(batch, by_id))
      out += [{'steps': t.checked, 'steps_share': t.share} for t in traces]
      bar.update(len(batch))
  return out


def summarise(
  name: str, model_name: str, problems: Sequence[Problem], rows: Sequence[dict], protocol: Protocol
) -> dict:
  """summary.json of judged rows, which stand in the order of problems and samples."""
  n, P = protocol.n, len(problems)
  groups = [rows[i * n : (i + 1) * n] for i in range(P)]
  parts: dict[str, dict[str, list[int]]] = {'domains': {}, 'levels': {}}
  for i, problem in enumerate(problems):
    parts['domains'].setdefault(problem.domain or 'unlabelled', []).append(i)
    parts['levels'].setdefault(str(problem.difficulty or 'unlabelled'), []).append(i)
  votes = all(problem.tests is None for problem in problems)
  return {
    'benchmark': name,
    'model': model_name,
    'protocol': dataclasses.asdict(protocol),
    **_scores(groups, n, votes),
    **{
      part: {label: _scores([groups[i] for i in members], n, votes) for label, members in sorted(labels.items())}
      for part, labels in parts.items()
    },
    'published': {model: scores[name] for model, scores in PUBLISHED.items() if name in scores},
  }


def _scores(groups: Sequence[Sequence[dict]], n: int, votes: bool) -> dict:
  """Pass@1 as the mean over all samples, pass@k and maj@k for powers of two, with intervals over problems."""
  correct = np.array([[row['score'] for row in group] for group in groups])
  ks = [2**j for j in range(n.bit_length()) if 2**j <= n]
  ks += [n] if n not in ks else []
  values = {f'pass@{k}': pass_at_k(n, correct.sum(1), k) for k in ks}
  if votes:
    counts = [_votes(group) for group in groups]
    values |= {f'maj@{k}': np.array([maj_at_k(*count, k) for count in counts]) for k in ks if k > 1}
  out = {'n_problems': len(groups), 'n_samples': n}
  for name, value in values.items():
    out[name], out[f'{name}_ci'] = float(value.mean()), list(interval(value))
  every = [row for group in groups for row in group]
  if shares := [row['steps_share'] for row in every if row.get('steps_share') is not None]:
    out['steps_share'] = float(np.mean(shares))
  return out | {
    'truncated': float(np.mean([row['finish_reason'] != 'stop' for row in every])),
    'mean_tokens': float(np.mean([row['tokens'] for row in every])),
    'no_answer': float(np.mean([row['extracted'] is None for row in every])),
  }


def _votes(group: Sequence[dict]) -> tuple[int, list[int], int]:
  """Of a problem's samples: how many are right, how many gave each wrong answer, how many gave none."""
  right = sum(row['score'] for row in group)
  wrong = [row.get('vote') for row in group if not row['score']]
  counts = collections.Counter(vote for vote in wrong if vote)
  return right, list(counts.values()), len(wrong) - counts.total()


def table(summaries: Sequence[dict]) -> str:
  """Markdown: the published models and this one, Pass@1 in per cent with its 95% interval."""
  names = [s['benchmark'] for s in summaries]
  models = [model for model, scores in PUBLISHED.items() if any(name in scores for name in names)]
  lines = [['Pass@1, per cent', *names], ['---'] * (len(names) + 1)]
  lines += [
    [model, *(f'{PUBLISHED[model][n]:.1f}' if n in PUBLISHED[model] else '-' for n in names)] for model in models
  ]
  ours = [f'{100 * s["pass@1"]:.1f} [{100 * s["pass@1_ci"][0]:.1f}, {100 * s["pass@1_ci"][1]:.1f}]' for s in summaries]
  lines += [[f'**{summaries[0]["model"]}**', *ours]]
  lines += [['samples of a problem', *(str(s['n_samples']) for s in summaries)]]
  lines += [['truncated', *(f'{100 * s["truncated"]:.1f}%' for s in summaries)]]
  lines += [['mean tokens', *(f'{s["mean_tokens"]:.0f}' for s in summaries)]]
  if any('steps_share' in s for s in summaries):
    held = [f'{100 * s["steps_share"]:.1f}%' if 'steps_share' in s else '-' for s in summaries]
    lines += [['steps that hold', *held]]
  return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)
