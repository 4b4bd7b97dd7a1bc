"""Problems by domain and by purpose: what is trained on, what checkpoints are probed with, what is reported."""

import dataclasses
import random
from collections.abc import Sequence

from vibethinker_jax.data import synthetic
from vibethinker_jax.data.problem import Problem, merge
from vibethinker_jax.data.sources import Source, load_all
from vibethinker_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Data:
  """Where problems come from, and how many of each kind a domain gets.

  `source` 'synthetic' is the embedded world. 'files' reads `train_files` and `test_files`; the probing halves are then
  taken out of train.
  """

  source: str
  domains: tuple[str, ...]  # those with an expert each; further domains are trained and tested, not probed
  others: tuple[str, ...]
  train: int
  probe: int  # in each of the two halves
  test: int
  paths: tuple[str, ...] = ()  # synthetic: solution paths SFT sees; () is all
  train_files: tuple[Source, ...] = ()
  test_files: tuple[Source, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sets:
  """Disjoint sets of problems by domain."""

  train: dict[str, list[Problem]]
  probe_a: dict[str, list[Problem]]  # checkpoints are chosen on this half
  probe_b: dict[str, list[Problem]]  # and the chosen one is reported on this one
  test: dict[str, list[Problem]]


def load_sets(data: Data, seed: int) -> Sets:
  """The sets that `data` describes. Raises BadInput or ValueError."""
  if data.source == 'synthetic':
    return _synthetic(data, seed)
  if data.source == 'files':
    return _files(data, seed)
  raise BadInput(f"config.data.source is {data.source!r}, expected 'synthetic' or 'files'")


def _synthetic(data: Data, seed: int) -> Sets:
  paths = data.paths or None
  draw = lambda split, n, domains: {d: synthetic.problems(d, split, n, seed, paths) for d in domains}
  every = (*data.domains, *data.others)
  return Sets(
    draw('train', data.train, every),
    draw('probe_a', data.probe, data.domains),
    draw('probe_b', data.probe, data.domains),
    draw('test', data.test, every),
  )


def _files(data: Data, seed: int) -> Sets:
  train, test = merge(load_all(data.train_files)), merge(load_all(data.test_files))
  seen = {p.prompt for p in test}
  train = [p for p in train if p.prompt not in seen]
  rng = random.Random(seed)
  rng.shuffle(train)
  rng.shuffle(test)
  sets = Sets({}, {}, {}, {})
  for domain in (*data.domains, *data.others):
    own, final = ([p for p in problems if p.domain == domain] for problems in (train, test))
    probes = 2 * data.probe if domain in data.domains else 0
    if len(own) <= probes or not final:
      named = ', '.join(source.path for source in data.train_files)
      raise BadInput(
        f'{named}: {len(own)} training and {len(final)} test problems of domain {domain!r}, '
        f'expected more than {probes} and at least 1'
      )
    if domain in data.domains:
      sets.probe_a[domain], sets.probe_b[domain] = own[: data.probe], own[data.probe : probes]
    sets.train[domain] = own[probes : probes + data.train]
    sets.test[domain] = final[: data.test]
  return sets


def solved(problems: Sequence[Problem]) -> list[tuple]:
  """(problem, solution) for every solution: what SFT trains on."""
  return [(problem, solution) for problem in problems for solution in problem.solutions]
