r"""The synthetic problems: seeded problem families, small enough for a 0.85M-parameter model on two CPU cores.

All families together are called the embedded world. A family (in `world/`, one file for each domain) draws numbers for
a level from 1 (one digit) to 5 (several operations with two digits), and can write the same solution in several ways,
which are called its paths. The shortest and least reliable path comes first:

  mental   one formula and the answer: all the arithmetic at once           "x = (47 - 12) / 5 = \boxed{7}"
  (named)  another method where the family has one: area, base, sum, ...
  steps    one operation on each line                                       "23 * 7 = 161"
  split    the same, with two-digit operations split by place value         "23 * 7 = 140 + 21 = 161"

In programs, mental folds the constants, literal copies them, steps names the parts, loop counts. Each solution begins
with the name of its path ("Split:"). So a policy chooses a path with its first token, and reinforcement learning can
move probability from the careless paths to the reliable ones.

A `Pen` writes all texts. It can be told to make one arithmetic slip; later lines then follow from the wrong value. In
this way `corpus` imitates text of the web, while `problems` gives correct solutions only.

Splits are disjoint by construction: a digest of (family, numbers) decides to which split an instance belongs. Neither
the phrasing nor the order of the numbers enters the digest, so a box of 3 by 5 and one of 5 by 3 are in the same split.
"""

import hashlib
import math
import random
from collections.abc import Iterator

from vibethinker_jax.data.problem import Problem, Solution
from vibethinker_jax.data.world import algebra, calculus, code, geometry, statistics
from vibethinker_jax.data.world.family import Family, Pen, between, choice

MATH_DOMAINS = ('algebra', 'geometry', 'calculus', 'statistics')
DOMAINS = (*MATH_DOMAINS, 'code')
SPLITS = ('train', 'probe_a', 'probe_b', 'test')
LEVELS = (1, 2, 3, 4, 5)

_SHARES = {'train': 80, 'probe_a': 5, 'probe_b': 5, 'test': 10}  # percent
_TRIES = 5000  # draws for one problem before its family and level count as exhausted

FAMILIES: dict[str, tuple[Family, ...]] = {
  'algebra': algebra.FAMILIES,
  'geometry': geometry.FAMILIES,
  'calculus': calculus.FAMILIES,
  'statistics': statistics.FAMILIES,
  'code': code.FAMILIES,
}
# Every path, in the order in which the families list them.
PATHS = tuple(dict.fromkeys(path for families in FAMILIES.values() for family in families for path in family.paths))


def _digest(family, numbers):
  return hashlib.blake2b(f'{family.name}:{",".join(map(str, numbers))}'.encode(), digest_size=6)


def split_of(family: Family, numbers: tuple) -> str:
  """The split to which an instance belongs."""
  bucket = int.from_bytes(_digest(family, sorted(numbers, key=str)).digest(), 'big') % 100
  for split, share in _SHARES.items():
    if bucket < share:
      return split
    bucket -= share
  raise AssertionError('the shares sum to 100')


def _draw(rng, family, level, split, taken=()):
  """The numbers of an instance that belongs to the split and is not among those taken."""
  for _ in range(_TRIES):
    numbers = family.draw(rng, level)
    if split_of(family, numbers) == split and numbers not in taken:
      return numbers
  raise ValueError(
    f'{family.name}, level {level}: no further instance of split {split!r} in {_TRIES} draws; ask for fewer'
  )


def _solve(family, numbers, path, slip_at=None, rng=None):
  pen = Pen(path, family.truth(*numbers), slip_at, rng)
  family.paths[path](pen, *numbers)
  return pen


def _slipped(rng, family, numbers, path):
  """A solution with one slip. Where the slip cancels out (36 / 5, rounded to 7), another one is tried."""
  clean = _solve(family, numbers, path)
  for _ in range(20):
    pen = _solve(family, numbers, path, int(rng.random() * clean.operations), rng)
    if pen.answer != clean.answer or family.inputs:
      break
  return pen


def _problem(rng, domain, family, level, numbers, pens):
  truth = family.truth(*numbers)
  tests = None
  if family.inputs:
    asserts = [f'assert f({x}) == {truth(x)}' for x in family.inputs(*numbers)]
    tests = {'entry_point': 'f', 'setup': '', 'asserts': asserts}
  return Problem(
    id=f'{domain}/{family.name}/{level}/{_digest(family, numbers).hexdigest()}',
    domain=domain,
    prompt=choice(rng, family.prompts(*numbers)),
    answer=None if tests else str(truth),
    tests=tests,
    solutions=tuple(Solution(pen.text, path, tuple(pen.spans)) for path, pen in pens.items()),
    difficulty=level,
  )


def _check(names, known, what):
  unknown = sorted(set(names) - set(known))
  if unknown:
    raise ValueError(f'unknown {what} {", ".join(map(repr, unknown))}; known: {", ".join(known)}')


def problems(domain: str, split: str, n: int, seed: int, paths: tuple[str, ...] | None = None) -> list[Problem]:
  """`n` distinct problems with correct solutions; every prefix is balanced over families, then over levels.

  The same arguments give the same problems on every machine, and a smaller `n` gives a prefix of them.

  Args:
    domain: one of `DOMAINS`.
    split: one of `SPLITS`; two splits never share an instance.
    n: number of problems.
    seed: of numbers and phrasings.
    paths: the names of the paths to write, in the family's order (short to long), or None for all paths.

  Raises:
    ValueError: an unknown name, or more problems than a (family, level) has instances in this split.
  """
  _check([domain], DOMAINS, 'domain')
  _check([split], SPLITS, 'split')
  _check(paths or (), PATHS, 'path')
  rng = random.Random(f'{seed}/{domain}/{split}')
  families = FAMILIES[domain]
  taken = {family.name: set() for family in families}
  drawn = []
  for i in range(n):
    family, level = families[i % len(families)], LEVELS[i // len(families) % len(LEVELS)]
    numbers = _draw(rng, family, level, split, taken[family.name])
    taken[family.name].add(numbers)
    pens = {path: _solve(family, numbers, path) for path in family.paths if paths is None or path in paths}
    drawn.append(_problem(rng, domain, family, level, numbers, pens))
  return drawn


def _practice(rng):
  """Lines of arithmetic with nothing to solve, in one operation or split by place value."""
  pen = Pen(choice(rng, ('steps', 'split')), None)
  pen.text = 'Practice:'
  for _ in range(6):
    a, b, small = between(rng, 1, 99), between(rng, 1, 49), between(rng, 2, 9)
    choice(
      rng,
      (
        lambda a=a, b=b: pen.add(a, b),
        lambda a=a, b=b: pen.sub(a + b, b),
        lambda b=b, small=small: pen.mul(small, b),
        lambda b=b, small=small: pen.div(small * b, small),
      ),
    )()
  return pen


def corpus(
  n: int, seed: int, path_weights: dict[str, float], slip_rate: float, practice: float = 0.0, split: str = 'train'
) -> Iterator[Problem]:
  """The text of the base model: `n` problems over all domains, each with one solution, some of them wrong.

  Instances, and so ids, may repeat. `Problem.answer` is right even where the solution is not.

  Args:
    n: number of problems.
    seed: of all random numbers; item i depends on (seed, i) alone.
    path_weights: the weight of each path; a family draws one of its paths in proportion. A path not named has weight 0.
    slip_rate: share of solutions with one wrong operation; the error runs on to the answer.
    practice: share of items that are correct lines of arithmetic in place of a problem.
    split: the split of the instances.

  Raises:
    ValueError: an unknown name, or a family none of whose paths has weight.
  """
  _check([split], SPLITS, 'split')
  check_weights(path_weights)
  for i in range(n):
    rng = random.Random(f'{seed}/corpus/{split}/{i}')
    if rng.random() < practice:
      pen = _practice(rng)
      solution = Solution(pen.text, 'practice', tuple(pen.spans))
      yield Problem(id=f'practice/{i}', domain='practice', prompt='Practice.', solutions=(solution,))
      continue
    domain = choice(rng, DOMAINS)
    family, level = choice(rng, FAMILIES[domain]), choice(rng, LEVELS)
    numbers = _draw(rng, family, level, split)
    path = _weighted(rng, family, path_weights)
    pen = _slipped(rng, family, numbers, path) if rng.random() < slip_rate else _solve(family, numbers, path)
    yield _problem(rng, domain, family, level, numbers, {path: pen})


def check_weights(path_weights: dict[str, float]) -> None:
  """Raises ValueError for an unknown path, or a family none of whose paths has weight."""
  _check(path_weights, PATHS, 'path')
  for family in (family for families in FAMILIES.values() for family in families):
    if not _options(family, path_weights):
      raise ValueError(f'path_weights give no weight to a path of {family.name}: {", ".join(family.paths)}')


def _options(family, path_weights):
  return [(path, path_weights[path]) for path in family.paths if path_weights.get(path, 0) > 0]


def _weighted(rng, family, path_weights):
  options = _options(family, path_weights)
  mark = rng.random() * math.fsum(weight for _, weight in options)
  for path, weight in options:
    mark -= weight
    if mark < 0:
      return path
  return options[-1][0]


def text_lines(n: int, seed: int) -> Iterator[str]:
  """`n` texts to train a tokenizer on: prompt and solution, all paths equally often, no slips."""
  for problem in corpus(n, seed, dict.fromkeys(PATHS, 1.0), slip_rate=0.0):
    yield f'{problem.prompt}\n{problem.solutions[0].text}'
