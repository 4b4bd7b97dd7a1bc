"""The sweep of fusion weights over the simplex of the experts, with controls and other ways to merge.

Weights are compared on probing half A. The score of the winner there is too high, since it is the maximum of many noisy
scores. The winner, the plain mean and all controls are therefore evaluated again on half B and on the test problems. A
point is a weighted mean of experts that were loaded once, and its evaluation; points/NAME-SET.json holds its verdicts.
"""

import dataclasses
import functools
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
from vibethinker_jax.run_summary import write_verdicts
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.spectrum.fusion import dare, ema_weights, fuse, simplex_grid, slerp, ties
from vibethinker_jax.spectrum.passk import mean_pass_at_k
from vibethinker_jax.ssp import Pipeline
from vibethinker_jax.study import simplex_page, sweep
from vibethinker_jax.study.simplex_page import SETS, weights_in
from vibethinker_jax.workdir import timed

MOST = 100_000  # points of a sweep


@dataclasses.dataclass(frozen=True)
class Simplex:
  """Which weights are tried, and with which controls they are compared.

  search: 'grid'; 'dirichlet', which draws weights at random; or 'coordinate', which searches step by step.
  parts: grid: the weights are multiples of 1/parts.
  draws: dirichlet: the number of random weights, besides the corners and the plain mean.
  concentration: dirichlet: its parameter; 1 is uniform over the simplex.
  steps: coordinate: the length of the steps towards each expert, round by round.
  score: the score by which the winner is chosen.
  random: control: the number of means of randomly drawn checkpoints, each of as many as there are experts.
  ema: control: the decay from checkpoint to checkpoint of an exponential moving average.
  merges: control: whether to merge the experts by SLERP, TIES and DARE.
  density: TIES: the share of a tensor's changes that is kept.
  drop: DARE: the share of a tensor's changes that is dropped.
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
  """The config in its two parts: the fields of experiments/ssp.py, and `simplex`. Raises BadInput."""
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
  """As ablation.run. Once all weights have been tried, the call with no number evaluates winner and controls."""
  s, x = read(values)
  planned = weights_of(s, x)
  numbered = sweep.chosen([name_of(w) for w in planned], which)
  if which and x.search == 'coordinate':
    raise BadInput('--points: a coordinate search chooses each point by the points before it, in one process')
  sweep.claim(directory, 'simplex', values, s, devices)
  if not which:
    sweep.make_start(directory, s, devices)
  sweep.check_made(directory / 'start' / 'experts.json')
  here = Sweep(directory, s, x, devices)
  with here.pipeline.computing():  # the start is only read, and not claimed: other jobs may read it too
    todo = [w for w in planned if name_of(w) in numbered]
    for number, w in enumerate(todo, 1):
      here.score(w, f'mixture {number} of {len(todo)}')
    if x.search == 'coordinate' and which is None:
      here.climb(planned)
    searched = x.search != 'coordinate' or which is None  # else the search may have been interrupted
    if not which and searched and all(here.path(name_of(w), 'a').exists() for w in planned):
      here.confirm()
  return write_report(directory)


def weights_of(s: RunConfig, x: Simplex) -> list[tuple[float, ...]]:
  """The weights that are known before the search: all of them, except for a coordinate search."""
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
  """Mixtures of the experts of start/, and their scores."""

  def __init__(self, directory: pathlib.Path, s: RunConfig, x: Simplex, devices: Sequence[jax.Device] | None):
    """`directory`: of the sweep; `devices`: None: all. Raises BadInput."""
    self.directory, self.s, self.x = directory, s, x
    self.pipeline = Pipeline(s, directory / 'start', devices)

  @functools.cached_property
  def experts(self) -> list[Qwen2]:
    """The experts, loaded once."""
    return [self.pipeline.experts.checkpoint(*one) for one in self.pipeline.experts.chosen().values()]

  def path(self, name: str, half: str) -> pathlib.Path:
    """The file of a point's verdicts on a set, 'a', 'b' or 'test'."""
    return self.directory / 'points' / f'{name}-{half}.json'

  def ask(self, name: str, half: str, make: Callable[[], Qwen2], what: str) -> float:
    """The score of a point on a set, over all domains; it is evaluated where its file does not exist yet.

    Args:
      name: of the point.
      half: the set: 'a', 'b' or 'test'.
      make: the point's model.
      what: how the point is called in the line that is printed.
    """
    p, s, path = self.pipeline, self.s, self.path(name, half)
    new = not path.exists()
    if new:
      p.pause(f'{name} on {SETS[half]} is next')
      how = s.evaluate if half == 'test' else s.probe
      problems = {'a': p.sets.probe_a, 'b': p.sets.probe_b, 'test': p.sets.test}[half]
      with timed(p.workdir, 'points'):
        sets = {d: problems[d] for d in s.data.domains}
        write_verdicts(path, p.sample_and_grade(how, make(), sets, f'{name} {half}', path))
    correct = json.loads(path.read_text())['correct']
    score = mean_pass_at_k(np.concatenate([correct[d] for d in s.data.domains]), self.k)
    if new:
      tqdm.write(f'{what}, {name} on {SETS[half]}: Pass@{self.k} {score:.1%}')
    return score

  @property
  def k(self) -> int:
    """The K of the score by which the winner is chosen."""
    return self.s.probe.k if self.x.score == 'pass@k' else 1

  def score(self, weights: Sequence[float], what: str = 'mixture') -> float:
    """The score of weights on half A."""
    return self.ask(name_of(weights), 'a', lambda: self._mixture(weights), what)

  def best(self, weights: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """The weights with the best score on half A; of equals the nearest to the plain mean."""
    return max(weights, key=lambda w: (self.score(w), -sum(v * v for v in w)))

  def tried(self) -> list[tuple[float, ...]]:
    """All weights that have a score."""
    return [weights_in(path.name) for path in sorted((self.directory / 'points').glob('w_*-a.json'))]

  def climb(self, begin: Sequence[tuple[float, ...]]) -> None:
    """Coordinate search: from the best of `begin`, a step towards each expert in turn, kept where it scores better."""
    here = self.best(begin)
    for step, corner in itertools.product(self.x.steps, range(len(self.experts))):
      moved = tuple((1 - step) * w + step * (i == corner) for i, w in enumerate(here))
      here = self.best([here, moved])

  def soup(self) -> tuple[float, ...]:
    """Greedy soup: experts from the best to the worst, each added where the mean with it is no worse."""
    n = len(self.experts)
    corner = lambda i: tuple(float(i == j) for j in range(n))
    members: list[int] = []
    for i in sorted(range(n), key=lambda i: -self.score(corner(i))):
      mean = lambda group: tuple((j in group) / len(group) for j in range(n))
      if not members or self.score(mean([*members, i])) >= self.score(mean(members)):
        members.append(i)
    return mean(members)

  def confirm(self) -> None:
    """Evaluate winner, plain mean and controls on all three sets; controls.json names their points."""
    p, x, n, sft = self.pipeline, self.x, len(self.experts), self.pipeline.experts
    corners = [tuple(float(i == j) for j in range(n)) for i in range(n)]
    soup = self.soup()  # before the winner is chosen, since the points of the soup can win too
    mixtures = {
      'winner': self.best(self.tried()),
      'plain mean': (1 / n,) * n,
      'best single': max(corners, key=self.score),
      'greedy soup': soup,
    }
    made = {name: (name_of(w), lambda w=w: self._mixture(w)) for name, w in mixtures.items()}
    checkpoints = sft.every()
    rng = np.random.default_rng(self.s.seed + 1)
    drawn = [[checkpoints[i] for i in rng.integers(len(checkpoints), size=n)] for _ in range(x.random)]
    made['last checkpoint'] = ('last', lambda: sft.mean_of(sft.last()))
    made['equally spaced'] = ('spaced', lambda: sft.mean_of(sft.spaced()))
    made['EMA'] = ('ema', lambda: sft.weighted_mean(checkpoints, self._ema()))
    for i, chosen in enumerate(drawn):
      made[f'random checkpoints {i + 1}'] = (f'random{i}', lambda chosen=chosen: sft.mean_of(chosen))
    if x.merges:
      key, even = jax.random.key(self.s.seed), [1 / n] * n
      made['SLERP'] = ('slerp', self._slerp)
      # jitted: one compilation, and not one for each operation on each shape
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
    """The mean with the rounded weights of the point's name, so that the name tells how to make the model."""
    return fuse(self.experts, weights_in(name_of(weights)))

  def _ema(self) -> list[float]:
    """Weights of all checkpoints: an exponential moving average of each run, and the mean over runs."""
    sft = self.pipeline.experts
    runs = sft.runs()
    return [w / len(runs) for run in runs for w in ema_weights(len(sft.steps(run)), self.x.ema)]

  def _slerp(self) -> Qwen2:
    """SLERP of all experts with equal weights, one after the other."""
    out = self.experts[0]
    for i, expert in enumerate(self.experts[1:], 2):
      out = jax.jit(slerp)(out, expert, 1 / i)
    return out


def write_report(directory: pathlib.Path) -> pathlib.Path:
  """Write the page with the results so far; returns its path."""
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
