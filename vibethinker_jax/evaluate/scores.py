"""Numbers from verdicts: Pass@k and maj@k with intervals over problems, as the summaries and tables hold them."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from vibethinker_jax.evaluate.benchmarks import PUBLISHED, Task
from vibethinker_jax.spectrum.passk import interval, maj_at_k, pass_at_k


def scores(correct: np.ndarray, k: int) -> dict:
  """Pass@1 and Pass@k of verdicts, bool [P,N], with 95% intervals over problems: a cell of a run's summary.json."""
  P, N = correct.shape
  one, many = correct.mean(1), pass_at_k(N, correct.sum(1), k)
  return {
    'n_problems': P,
    'n_samples': N,
    'pass@1': float(one.mean()),
    'pass@1_ci': list(interval(one)),
    f'pass@{k}': float(many.mean()),
    f'pass@{k}_ci': list(interval(many)),
  }


def by_domain(verdicts: Mapping[str, np.ndarray], k: int, pooled: Sequence[str]) -> dict:
  """`scores` of every domain, from verdicts bool [P,N] by domain; where several domains are `pooled`, also of all of
  these together, as 'math'.
  """
  out = {domain: scores(correct, k) for domain, correct in verdicts.items()}
  together = [verdicts[domain] for domain in pooled if domain in verdicts]
  if len(together) > 1:
    out['math'] = scores(np.concatenate(together), k)
  return out


def summarise(task: Task, model: str, rows: Sequence[dict]) -> dict:
  """The summary.json of an evaluation.

  Args:
    task: what was asked.
    model: its name.
    rows: of samples.jsonl, graded, in the order of the problems and of their samples.
  """
  problems, n = task.problems, task.protocol.samples
  groups = [rows[i * n : (i + 1) * n] for i in range(len(problems))]
  parts: dict[str, dict[str, list[int]]] = {'domains': {}, 'levels': {}}
  for i, problem in enumerate(problems):
    parts['domains'].setdefault(problem.domain or 'unlabelled', []).append(i)
    parts['levels'].setdefault(str(problem.difficulty or 'unlabelled'), []).append(i)
  votes = all(problem.tests is None for problem in problems)
  of = lambda some: _of_groups(some, n, task.protocol.k, votes)
  return {
    'benchmark': task.name,
    'model': model,
    'protocol': task.record(),
    **of(groups),
    **{
      part: {label: of([groups[i] for i in members]) for label, members in sorted(labels.items())}
      for part, labels in parts.items()
    },
    'published': {model: known[task.name] for model, known in PUBLISHED.items() if task.name in known},
  }


def _of_groups(groups: Sequence[Sequence[dict]], n: int, k: int, votes: bool) -> dict:
  """Scores of problems with n samples each: Pass@1 is the mean over all samples; Pass@j and maj@j are there for j = k
  and every power of two up to it. maj@j only where answers are voted on (`votes`).
  """
  correct = np.array([[row['score'] for row in group] for group in groups])
  ks = [2**j for j in range(k.bit_length()) if 2**j <= k]
  ks += [k] if k not in ks else []
  values = {f'pass@{j}': pass_at_k(n, correct.sum(1), j) for j in ks}
  if votes:
    counts = [_votes(group) for group in groups]
    values |= {f'maj@{j}': np.array([maj_at_k(*count, j) for count in counts]) for j in ks if j > 1}
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
  """Of the samples of a problem: how many are right, how many gave each wrong answer, how many gave no answer."""
  right = sum(row['score'] for row in group)
  wrong = [row.get('vote') for row in group if not row['score']]
  counts = collections.Counter(vote for vote in wrong if vote)
  return right, list(counts.values()), len(wrong) - counts.total()


def table(summaries: Sequence[dict]) -> str:
  """Summaries of one model as Markdown, below the published models: Pass@1 in per cent with its 95% interval."""
  names = [s['benchmark'] for s in summaries]
  models = [model for model, known in PUBLISHED.items() if any(name in known for name in names)]
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
