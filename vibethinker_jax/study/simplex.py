"""The sweep of fusion weights over the simplex of the experts, beside controls and other merges.

Weights are compared on probing half A. Whatever wins there is biased upwards, being the best of many noisy scores, so
the winner, the plain mean and all controls are confirmed on half B and on the test problems. A point is one tree.map
over experts that were loaded once, and one evaluation; points/NAME-SET.json holds its verdicts.
"""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import jax
import numpy as np
from annotated_types import Interval
from tqdm import tqdm

from vibethinker_jax.config import RunConfig
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import bad_value
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.spectrum.fusion import dare, ema_weights, fuse, simplex_grid, slerp, ties
from vibethinker_jax.spectrum.passk import mean_pass_at_k
from vibethinker_jax.ssp import Pipeline, write_asked
from vibethinker_jax.study import simplex_page, sweep
from vibethinker_jax.study.simplex_page import SETS, weights_in
from vibethinker_jax.train.metric_writer import write_json

MOST = 100_000  # points of a sweep


@dataclasses.dataclass(frozen=True)
class Simplex:
  """Which weights are tried, and what they are compared with.

  search: 'grid', 'dirichlet' (drawn), or 'coordinate' (step by step).
  parts: grid: weights are multiples of 1/parts.
  draws: dirichlet: how many, beside the corners and the middle.
  concentration: dirichlet: 1 is uniform over the simplex.
  steps: coordinate: how far to go towards each expert, round after round.
  score: what the winner is chosen by.
  random: control: means of as many checkpoints as there are experts, drawn at random.
  ema: control: decay from checkpoint to checkpoint.
  merges: control: SLERP, TIES and DARE of the experts.
  density: TIES: share of a tensor's changes that is kept.
  drop: DARE: share of a tensor's changes that is dropped.
  """

  search: Literal['grid', 'dirichlet', 'coordinate']
  parts: Annotated[int, Interval(ge=1, le=1000)] = 4
  draws: Annotated[int, Interval(ge=0, le=MOST)] = 30
  concentration: Annotated[float, Interval(ge=0.01, le=10000)] = 1.0
  steps: tuple[Annotated[float, Interval(gt=0, le=1)], ...] = (0.3, 0.1)
  score: Literal['pass@k', 'pass@1'] = 'pass@k'
  random: Annotated[int, Interval(ge=0, le=1000)] = 3
  ema: Annotated[float, Interval(ge=0, lt=1)] = 0.5
  merges: bool = True
  density: Annotated[float, Interval(gt=0, le=1)] = 0.5
  drop: Annotated[float, Interval(ge=0, lt=1)] = 0.5


def read(values: Mapping) -> tuple[RunConfig, Simplex]:
  """A config's parts: those of experiments/ssp.py, and `simplex`. Raises BadInput."""
  s, x = sweep.read(values, 'simplex', Simplex)
  if s.evaluate.k != s.probe.k:
    raise bad_value('config.evaluate.k', s.evaluate.k, f'that of config.probe, {s.probe.k}')
  n = len(s.data.domains)
  if x.search == 'grid' and math.comb(x.parts + n - 1, n - 1) > MOST:
    raise bad_value(
      'config.simplex.parts', x.parts, f'fewer: of {n} domains they make {math.comb(x.parts + n - 1, n - 1)} points'
    )
  return s, x


def run(
  values: Mapping,
  directory: pathlib.Path,
  which: Sequence[int] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> pathlib.Path:
  """As ablation.run. The call without numbers confirms winner and controls, once all weights have been tried."""
  s, x = read(values)
  planned = weights_of(s, x)
  numbered = sweep.chosen([name_of(w) for w in planned], which)
  if which and x.search == 'coordinate':
    raise BadInput('--points: a coordinate search goes from point to point, in one process')
  sweep.claim(directory, 'simplex', values, s, devices)
  if not which:
    sweep.make_start(directory, s, devices)
  sweep.check_made(directory / 'start' / 'experts.json')
  here = Sweep(directory, s, x, devices)
  with here.pipeline.computing() as base:  # the start is only read: jobs with other points may do so too
    here.load(base)
    todo = [w for w in planned if name_of(w) in numbered]
    for number, w in enumerate(todo, 1):
      here.score(w, f'mixture {number} of {len(todo)}')
    if x.search == 'coordinate' and which is None:
      here.climb(planned)
    searched = x.search != 'coordinate' or which is None  # else the search may have been cut short
    if not which and searched and all(here.path(name_of(w), 'a').exists() for w in planned):
      here.confirm(base)
  return write_report(directory)


def weights_of(s: RunConfig, x: Simplex) -> list[tuple[float, ...]]:
  """The weights that are tried whatever comes out: all of them, but for a coordinate search."""
  n = len(s.data.domains)
  middle = (1 / n,) * n
  corners = [tuple(float(i == j) for j in range(n)) for i in range(n)]
  if x.search == 'grid':
    points = simplex_grid(n, x.parts)
  elif x.search == 'dirichlet':
    drawn = np.random.default_rng(s.seed).dirichlet([x.concentration] * n, x.draws)
    points = [*corners, *(tuple(float(v) for v in w) for w in drawn)]
  else:
    points = corners
  return [*points, *([middle] if name_of(middle) not in map(name_of, points) else [])]


def name_of(weights: Sequence[float]) -> str:
  """A point's file name."""
  return 'w_' + '_'.join(f'{w:.4f}' for w in weights)


class Sweep:
  """The experts in memory, and what has been asked of their mixtures."""

  def __init__(self, directory: pathlib.Path, s: RunConfig, x: Simplex, devices: Sequence[jax.Device] | None):
    self.directory, self.s, self.x = directory, s, x
    self.pipeline = Pipeline(s, directory / 'start', devices)

  def load(self, base: Qwen2) -> None:
    """The experts, once."""
    experts = json.loads((self.directory / 'start' / 'experts.json').read_text())
    self.experts = [self.pipeline.checkpoint(base, e['run'], e['selected_step']) for e in experts.values()]

  def path(self, name: str, half: str) -> pathlib.Path:
    """Where the verdicts of a point on a set ('a', 'b' or 'test') are."""
    return self.directory / 'points' / f'{name}-{half}.json'

  def ask(self, name: str, half: str, make: Callable[[], Qwen2], what: str) -> float:
    """The point's score, pooled over the domains; it is evaluated where that has not been done, and told as `what`."""
    p, s, path = self.pipeline, self.s, self.path(name, half)
    new = not path.exists()
    if new:
      p.pause(f'{name} on {SETS[half]} is next')
      how = s.evaluate if half == 'test' else s.probe
      problems = {'a': p.sets.probe_a, 'b': p.sets.probe_b, 'test': p.sets.test}[half]
      with p.timed('points'):
        sets = {d: problems[d] for d in s.data.domains}
        write_asked(path, p.sample_and_grade(how, make(), sets, f'{name} {half}', path))
    correct = json.loads(path.read_text())['correct']
    score = mean_pass_at_k(np.concatenate([correct[d] for d in s.data.domains]), self.k)
    if new:
      tqdm.write(f'{what}, {name} on {SETS[half]}: Pass@{self.k} {score:.1%}')
    return score

  @property
  def k(self) -> int:
    """Of the score that the winner is chosen by."""
    return self.s.probe.k if self.x.score == 'pass@k' else 1

  def score(self, weights: Sequence[float], what: str = 'mixture') -> float:
    """A point of the simplex on half A."""
    return self.ask(name_of(weights), 'a', lambda: self._mixture(weights), what)

  def best(self, weights: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Those with the best score on half A; of equals the ones nearest to the plain mean."""
    return max(weights, key=lambda w: (self.score(w), -sum(v * v for v in w)))

  def tried(self) -> list[tuple[float, ...]]:
    """Every point of the simplex that has a score."""
    return [weights_in(path.name) for path in sorted((self.directory / 'points').glob('w_*-a.json'))]

  def climb(self, begin: Sequence[tuple[float, ...]]) -> None:
    """Coordinate search: from the best of `begin` towards each expert in turn, as long as that is better."""
    here = self.best(begin)
    for step, corner in itertools.product(self.x.steps, range(len(self.experts))):
      moved = tuple((1 - step) * w + step * (i == corner) for i, w in enumerate(here))
      here = self.best([here, moved])

  def soup(self) -> tuple[float, ...]:
    """Greedy soup: experts from the best to the worst, each kept where the mean with it is no worse."""
    n = len(self.experts)
    corner = lambda i: tuple(float(i == j) for j in range(n))
    members: list[int] = []
    for i in sorted(range(n), key=lambda i: -self.score(corner(i))):
      mean = lambda group: tuple((j in group) / len(group) for j in range(n))
      if not members or self.score(mean([*members, i])) >= self.score(mean(members)):
        members.append(i)
    return mean(members)

  def confirm(self, base: Qwen2) -> None:
    """Winner, plain mean and controls on all three sets; controls.json says which points they are."""
    p, x, n = self.pipeline, self.x, len(self.experts)
    corners = [tuple(float(i == j) for j in range(n)) for i in range(n)]
    soup = self.soup()  # before the winner is looked for: its points are tried like all others, now or at a restart
    mixtures = {
      'winner': self.best(self.tried()),
      'plain mean': (1 / n,) * n,
      'best single': max(corners, key=self.score),
      'greedy soup': soup,
    }
    made = {name: (name_of(w), lambda w=w: self._mixture(w)) for name, w in mixtures.items()}
    checkpoints = [(run, step) for run in p.runs() for step in p.steps(run)]
    rng = np.random.default_rng(self.s.seed + 1)
    drawn = [[checkpoints[i] for i in rng.integers(len(checkpoints), size=n)] for _ in range(x.random)]
    made['last checkpoint'] = ('last', lambda: p.mean_of(base, p.last()))
    made['equally spaced'] = ('spaced', lambda: p.mean_of(base, p.spaced()))
    made['EMA'] = ('ema', lambda: p.weighted_mean(base, checkpoints, self._ema()))
    for i, chosen in enumerate(drawn):
      made[f'random checkpoints {i + 1}'] = (f'random{i}', lambda chosen=chosen: p.mean_of(base, chosen))
    if x.merges:
      key, even = jax.random.key(self.s.seed), [1 / n] * n
      made['SLERP'] = ('slerp', self._slerp)
      # jitted: one compilation instead of one for each operation on each shape
      made['TIES'] = ('ties', lambda: jax.jit(lambda b, m: ties(b, m, even, x.density))(p.base(), self.experts))
      made['DARE'] = ('dare', lambda: jax.jit(lambda b, m: dare(b, m, even, x.drop, key))(p.base(), self.experts))
    for said, (name, make) in made.items():
      for half in ('a', 'b', 'test'):
        self.ask(name, half, make, said)
    write_json(
      self.directory / 'controls.json',
      {'points': {said: name for said, (name, _) in made.items()}, 'winner': mixtures['winner']},
    )

  def _mixture(self, weights: Sequence[float]) -> Qwen2:
    """By the digits that its name tells: whoever reads the name can make the same model."""
    return fuse(self.experts, weights_in(name_of(weights)))

  def _ema(self) -> list[float]:
    """Of each run's checkpoints, the runs weighted alike."""
    runs = self.pipeline.runs()
    return [w / len(runs) for run in runs for w in ema_weights(len(self.pipeline.steps(run)), self.x.ema)]

  def _slerp(self) -> Qwen2:
    """All experts alike, one after the other."""
    out = self.experts[0]
    for i, expert in enumerate(self.experts[1:], 2):
      out = jax.jit(slerp)(out, expert, 1 / i)
    return out


def write_report(directory: pathlib.Path) -> pathlib.Path:
  """The page of what has come out so far."""
  s, x = read(json.loads((directory / 'sweep.json').read_text())['config'])
  points = {}
  for path in sorted((directory / 'points').glob('*.json')):
    name, _, half = path.stem.rpartition('-')
    correct = json.loads(path.read_text())['correct']
    points.setdefault(name, {})[half] = {d: np.array(correct[d], bool) for d in s.data.domains}
  controls = directory / 'controls.json'
  known = json.loads(controls.read_text()) if controls.exists() else None
  tried = {name: weights_in(name) for name in points if name.startswith('w_')}
  lacking = [name_of(w) for w in weights_of(s, x) if 'a' not in points.get(name_of(w), {})]
  return simplex_page.write(directory, s, x.score, points, tried, known, lacking)
