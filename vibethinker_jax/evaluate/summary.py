"""The models of a run, from its summary.json: their scores, which names are one model, and how two models differ.

Every part of a summary may be missing or null: a run that stopped early has only some of the models.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from vibethinker_jax.evaluate.html import percent
from vibethinker_jax.evaluate.paired import Difference, difference
from vibethinker_jax.spectrum.passk import pass_at_k, wilson

_DOMAINS = ('algebra', 'geometry', 'calculus', 'statistics', 'math', 'code', 'all')
MODELS = {'base': 0, 'last': 1, 'uniform': 2, 'fused': 4, 'rl': 5}  # in the order of the stages; experts are 3


@dataclasses.dataclass(frozen=True)
class Score:
  """A score and its 95% interval in per cent; NaN where it was not measured."""

  value: float
  lo: float
  hi: float

  def __str__(self) -> str:
    interval = f' <small>[{self.lo:.1f}, {self.hi:.1f}]</small>' if math.isfinite(self.lo + self.hi) else ''
    return percent(self.value) + interval


def number(value: object) -> float:
  """A finite number as it is, NaN for everything else."""
  return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def part(data: Mapping, *keys: str) -> dict:
  """A nested object; {} where it is missing or null."""
  for key in keys:
    data = data.get(key) or {}
  return data


def models_of(summary: dict) -> list[str]:
  """The models in the order of the pipeline: MODELS with the experts among them, then the others as in the file."""
  names = part(summary, 'models')
  return sorted(names, key=lambda m: MODELS[m] if m in MODELS else 3 if m.startswith('expert_') else 6)


def ordered(names: Sequence[str]) -> list[str]:
  """The distinct names: first the known domains in their order, then the others in the order given."""
  return [d for d in _DOMAINS if d in names] + [d for d in dict.fromkeys(names) if d not in _DOMAINS]


def measured(summary: dict) -> list[str]:
  """Domains that any model was evaluated on."""
  return ordered([d for model in part(summary, 'models') for d in part(summary, 'models', model)])


def ks_of(summary: dict) -> list[int]:
  """[1, K], where K is the largest one among the keys pass@K; [1] where there is no K above 1."""
  rows = [part(summary, 'models', model) for model in part(summary, 'models')]
  keys = [key for row in rows for d in row for key in part(row, d)]
  return sorted({1, max([int(key[5:]) for key in keys if re.fullmatch(r'pass@\d+', key)], default=1)})


def score_of(summary: dict, model: str, domain: str, k: int) -> Score:
  """Pass@k in per cent; NaN where the summary has none.

  Where all problems score the same, a bootstrap gives an interval of width 0; Wilson's interval is given instead.
  """
  cell = part(summary, 'models', model, domain)
  value = number(cell.get(f'pass@{k}'))
  lo, hi = map(number, cell.get(f'pass@{k}_ci') or (None, None))
  if lo == hi and 0 <= value <= 1 and number(cell.get('n_problems')) >= 1:
    lo, hi = wilson(value, cell['n_problems'])
  return Score(*(100 * x for x in (value, lo, hi)))


def headline_domains(summary: dict) -> list[str]:
  """The domain of the headline, and code where it was measured.

  The first is 'math' (all mathematics together), else 'all', else the first domain that was measured.
  """
  domains = measured(summary)
  main = [d for d in ('math', 'all') if d in domains] + domains
  return list(dict.fromkeys([*main[:1], *(['code'] if 'code' in domains else [])]))


def label(*models: str) -> str:
  """A model as the page calls it; where it has several names (`models`), all of them."""
  experts = [m.removeprefix('expert_') for m in models if m.startswith('expert_')]
  names = {'last': 'last checkpoint', 'uniform': 'uniform mean', 'rl': 'fused + RL'}
  said = [names.get(m, m) for m in models if not m.startswith('expert_')]
  if experts:
    said.append(f'expert{"s" if len(experts) > 1 else ""} {", ".join(experts)}')
  return ' = '.join(said)


# ---- models that are one


def _mixtures(summary: dict, weights: Sequence[float] | None) -> dict[str, dict[tuple, float]]:
  """For each model, as far as the summary tells: its SFT checkpoints (run, step) and their weights in the mean."""
  experts = {d: part(summary, 'experts', d) for d in part(summary, 'experts')}
  chosen = {d: (e.get('run'), e.get('selected_step')) for d, e in experts.items()}
  if not chosen or any(None in checkpoint for checkpoint in chosen.values()):
    return {}
  steps = {e['run']: e.get('steps') or [e['selected_step']] for e in experts.values()}
  last = {(run, max(own)): 1 / len(steps) for run, own in steps.items()}
  out = {f'expert_{d}': {checkpoint: 1.0} for d, checkpoint in chosen.items()} | {'last': last}
  if all(len(own) == 1 for own in steps.values()):
    out['uniform'] = last
  fused: dict[tuple, float] = {}
  for checkpoint, weight in zip(chosen.values(), weights or [1 / len(chosen)] * len(chosen)):
    fused[checkpoint] = fused.get(checkpoint, 0.0) + weight
  return out | {'fused': {checkpoint: weight for checkpoint, weight in fused.items() if weight}}


def same_models(summary: dict, weights: Sequence[float] | None = None) -> list[tuple[str, ...]]:
  """The models in their order, as tuples of names; the names in a tuple are one model.

  Two names are one model where they are the same mean of the same checkpoints and all their scores are equal.

  Args:
    summary: the content of summary.json.
    weights: of the experts in the fused model, in their order; None is the plain mean.
  """
  rows = part(summary, 'models')
  mixtures = {
    name: {checkpoint: round(weight, 9) for checkpoint, weight in mixture.items()}
    for name, mixture in _mixtures(summary, weights).items()
  }
  groups: list[list[str]] = []
  for name in models_of(summary):
    same = lambda other, name=name: mixtures.get(other) == mixtures.get(name) and rows[other] == rows[name]
    home = next((group for group in groups if name in mixtures and same(group[0])), None)
    if home is None:
      groups.append([name])
    else:
      home.append(name)
  return [tuple(group) for group in groups]


# ---- how two models differ


@dataclasses.dataclass(frozen=True)
class Change:
  """The change from the score of one model to that of another, in points (per cent of problems)."""

  before: Score
  after: Score
  paired: Difference | None  # over the problems of both; None where the verdicts are missing
  alike: bool  # both models have the same score on every problem

  @property
  def points(self) -> float:
    """The difference; NaN where one of the scores is missing."""
    return self.after.value - self.before.value

  @property
  def is_clear(self) -> bool:
    """Whether the paired interval does not contain 0; without one, whether the two scores' intervals are disjoint."""
    if self.paired is not None:
      return self.paired.is_clear
    return self.after.hi < self.before.lo or self.before.hi < self.after.lo

  @property
  def interval(self) -> str:
    """What is known about the uncertainty of the difference; '' where nothing is known."""
    if self.alike:
      return 'the same on every problem'
    if self.paired is not None:
      return f'95% [{self.paired.low:+.1f}, {self.paired.high:+.1f}]'
    if not math.isfinite(self.before.lo + self.before.hi + self.after.lo + self.after.hi):
      return ''
    return '95% intervals disjoint' if self.is_clear else '95% intervals overlap'

  def __str__(self) -> str:
    if not math.isfinite(self.points):
      return '–'
    return f'{self.points:+.1f} points' + (f', {self.interval}' if self.interval else '')


@dataclasses.dataclass(frozen=True)
class Models:
  """The models of a run: its summary, the names of each model, and verdicts bool [P,N] by model and domain."""

  summary: dict
  groups: tuple[tuple[str, ...], ...]
  verdicts: Mapping[str, Mapping[str, np.ndarray]]

  def of(self, name: str) -> tuple[str, ...] | None:
    """All names of the model; None where it was not evaluated."""
    return next((group for group in self.groups if name in group), None)

  def change(self, before: str, after: str, domain: str, k: int) -> Change:
    """The change in Pass@k on a domain from model `before` to model `after`."""
    a, b = (score_of(self.summary, m, domain, k) for m in (before, after))
    tables = [self.verdicts.get(m, {}).get(domain) for m in (before, after)]
    if any(t is None or t.shape[1] < k for t in tables) or len(tables[0]) != len(tables[1]):
      return Change(a, b, None, False)
    old, new = (100 * pass_at_k(t.shape[1], t.sum(1), k) for t in tables)
    alike = bool(np.array_equal(old, new))
    return Change(a, b, None if alike or len(old) < 2 else difference(new[None], old[None]), alike)


def read_models(workdir: pathlib.Path, summary: dict, config: dict) -> Models:
  """The models of a run, with the verdicts from evaluate/<model>.json.

  Args:
    workdir: of the run.
    summary, config: the contents of its summary.json and config.json.

  Raises ValueError for a file of verdicts that is damaged.
  """
  groups = same_models(summary, part(config, 'fusion').get('weights'))
  pooled = list(part(summary, 'experts'))
  verdicts = {}
  for group in groups:
    # a model with several names was evaluated once, under one of them
    path = next((p for name in group if (p := workdir / 'evaluate' / f'{name}.json').exists()), None)
    if path is None:
      continue
    correct = _verdicts(path)
    if len(own := [correct[d] for d in pooled if d in correct]) > 1:
      correct['math'] = np.concatenate(own)
    fits = lambda d, name=group[0]: part(summary, 'models', name, d).get('n_problems')
    own = {d: rows for d, rows in correct.items() if rows.ndim == 2 and len(rows) == fits(d)}
    verdicts |= {name: own for name in group}
  return Models(summary, tuple(groups), verdicts)


def _verdicts(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    correct = json.loads(path.read_text(encoding='utf-8'))['correct']
    return {domain: np.array(rows, bool) for domain, rows in correct.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path}: expected the verdicts of a model, by domain ({error})') from error
