r"""The embedded world: seeded problem families small enough for a 0.85M-parameter model on two CPU cores.

A family draws numbers for a level of 1 (one-digit) to 5 (several two-digit operations) and can tell the same
solution in several ways, its paths. Shortest and least reliable first:

  mental   one formula and the answer: all the arithmetic at once           "x = (47 - 12) / 5 = \boxed{7}"
  (named)  another method where the family has one: area, base, sum, ...
  steps    one operation a line                                             "23 * 7 = 161"
  split    one a line too, two-digit operations cut by place value          "23 * 7 = 140 + 21 = 161"

In programs, mental folds the constants, literal copies them, steps names the parts, loop counts. Each text
opens with the name of its path ("Split:"), so a policy decides early, and reinforcement learning can move
probability from the careless paths to the reliable ones.

All texts are written by a `Pen`, whose arithmetic can be told to slip once; later lines then follow from the
wrong value. That is how `corpus` imitates text of the web, while `problems` gives clean solutions only.

Splits are disjoint by construction: a digest of (family, numbers) names the split of an instance. Phrasing
and the order of the numbers do not enter, so a box of 3 by 5 and one of 5 by 3 never lie on two sides. All
draws use `random.Random.random` alone, the one method whose sequence Python promises to keep.
"""

import dataclasses
import hashlib
import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction

from vibethinker_jax.data.problem import Problem, Solution

MATH_DOMAINS = ('algebra', 'geometry', 'calculus', 'statistics')
DOMAINS = (*MATH_DOMAINS, 'code')
SPLITS = ('train', 'probe_a', 'probe_b', 'test')
LEVELS = (1, 2, 3, 4, 5)

_SHARES = {'train': 80, 'probe_a': 5, 'probe_b': 5, 'test': 10}  # percent
_RESULT, _ANSWER = 1.5, 2.0  # loss weights of a line's result and of the final answer
_TRIES = 5000  # draws for one problem before its cell counts as exhausted


class Pen:
  """Writes one solution and does its arithmetic; with `slip_at` = k, operation k (from 0) comes out wrong.

  The methods that compute write a line and return the value written, so whatever is computed from it follows.
  """

  def __init__(self, path: str, truth, slip_at: int | None = None, rng: random.Random | None = None):
    self.split = path == 'split'
    self.truth = truth
    self.slip_at = slip_at
    self.rng = rng
    self.operations = 0
    self.answer = None  # the value boxed; stays None in programs
    self.spans = []
    self.text = f'{path.capitalize()}:'

  def write(self, text: str, weight: float | None = None):
    """Appends `text`, as a key span if it has a weight."""
    if weight is not None:
      self.spans.append((len(self.text), len(self.text) + len(text), weight))
    self.text += text

  def value(self, right, *wrong):
    """`right`; at the operation that slips, one of `wrong` or, with none named, a number off by 1 or 10."""
    slips = self.operations == self.slip_at
    self.operations += 1
    if not slips:
      return right
    if not wrong:
      near = (right - 1, right + 1) if right < 10 else (right - 1, right + 1, right - 10, right + 10)
      wrong = [w for w in near if w > 0]  # a zero would end as a divisor
    return _choice(self.rng, wrong)

  def line(self, expression: str, result):
    """Writes 'expression = result' and returns the result."""
    self.write(f'\n{expression} = ')
    self.write(str(result), _RESULT)
    return result

  def add(self, a: int, b: int) -> int:
    """a + b; split: the tens, then the ones."""
    if self.split and _two_part(a) and _two_part(b):
      tens, ones = self.value(a // 10 * 10 + b // 10 * 10), self.value(a % 10 + b % 10)
      return self.line(f'{a} + {b} = {tens} + {ones}', self.value(tens + ones))
    carries = a % 10 + b % 10 > 9 and a + b > 10
    return self.line(f'{a} + {b}', self.value(a + b, a + b - 10) if carries else self.value(a + b))

  def sub(self, a: int, b: int) -> int:
    """a - b; split: first the tens of b, then its ones."""
    if self.split and _two_part(b):
      rest = self.value(a - b // 10 * 10)
      return self.line(f'{a} - {b} = {rest} - {b % 10}', self.value(rest - b % 10))
    return self.line(f'{a} - {b}', self.value(a - b, a - b + 1, abs(a - b - 1), a - b + 10, a + b))

  def mul(self, a: int, b: int) -> int:
    """a * b; split: the tens and the ones of the larger factor."""
    small, large = sorted((a, b))
    if self.split and _two_part(large):
      tens, ones = self.value(large // 10 * 10 * small), self.value(large % 10 * small)
      return self.line(f'{a} * {b} = {tens} + {ones}', self.value(tens + ones))
    return self.line(f'{a} * {b}', self.value(a * b, a * b + 10, a * b + small, abs(a * b - large), a * b + 1))

  def div(self, a: int, b: int) -> int:
    """a / b, rounded down where a slip left a remainder; split: tens of the quotient, then what is left."""
    quotient = a // b
    if self.split and _two_part(quotient):
      tens = self.value(quotient // 10 * 10)
      rest = self.value(a - tens * b)
      return self.line(f'{a} / {b} = {tens} + {rest} / {b}', self.value(tens + rest // b))
    return self.line(f'{a} / {b}', self.value(quotient))

  def reduce(self, part: int, whole: int) -> Fraction:
    """The fraction part/whole in lowest terms."""
    right = Fraction(part, whole)
    if right.denominator == whole:
      return right
    return self.line(f'{part}/{whole}', self.value(right, right + Fraction(1, whole), Fraction(part, whole + 1)))

  def box(self, value):
    """Ends the solution with its answer."""
    self.answer = value
    self.write('\n')
    self.write(f'\\boxed{{{value}}}', _ANSWER)

  def guess(self, formula: str, *wrong):
    """The mental path: the formula and, in one operation, the answer."""
    self.answer = self.value(self.truth, *wrong)
    self.write(f' {formula} = ')
    self.write(f'\\boxed{{{self.answer}}}', _ANSWER)

  def code(self, argument: str, *body: str):
    """The function f of one argument; the last line of its body is the answer."""
    self.write(f'\n```python\ndef f({argument}):\n')
    for number, line in enumerate(body, 1):
      self.write('  ')
      self.write(line, _ANSWER if number == len(body) else _RESULT)
      self.write('\n')
    self.write('```')


@dataclasses.dataclass(frozen=True)
class Family:
  """Problems of one kind. All functions but `draw` take the drawn numbers; a path takes a pen before them.

  `truth` gives the answer of a problem, computed apart from its paths; for programs it gives the function
  that is asked for, and `inputs` the arguments it is tested on, edges included.
  """

  name: str
  draw: Callable[[random.Random, int], tuple]
  prompts: Callable[..., tuple[str, ...]]
  truth: Callable
  paths: dict[str, Callable[..., None]]
  inputs: Callable[..., tuple] | None = None


# --- Drawing ------------------------------------------------------------------------------------------------


def _between(rng, low, high):
  return low + int(rng.random() * (high - low + 1))


def _choice(rng, options):
  return options[int(rng.random() * len(options))]


def _term(rng, level):
  """A number to add: one digit (or little more) at level 1, two at level 5."""
  return _between(rng, *((1, 9), (1, 15), (3, 20), (5, 30), (10, 45))[level - 1])


def _factor(rng, level):
  """A one-digit number to multiply by."""
  return _between(rng, *((2, 4), (2, 5), (2, 6), (3, 8), (4, 9))[level - 1])


def _two_part(number):
  """Whether place value cuts the number in two."""
  return number > 10 and number % 10 != 0


def _both(work):
  """Paths told by the same lines: the pen knows whether to split them."""
  return {'steps': work, 'split': work}


# --- Algebra ------------------------------------------------------------------------------------------------


def _draw_linear(rng, level):
  a, x, b = _factor(rng, level), _term(rng, level), _term(rng, level)
  return a, b, a * x + b


LINEAR = Family(
  name='linear',
  draw=_draw_linear,
  prompts=lambda a, b, c: (
    f'Solve {a}x + {b} = {c}.',
    f'Find x if {a}x + {b} = {c}.',
    f'{b} more than {a} times x is {c}. Find x.',
  ),
  truth=lambda a, b, c: (c - b) // a,
  paths={
    'mental': lambda pen, a, b, c: pen.guess(f'x = ({c} - {b}) / {a}'),
    **_both(lambda pen, a, b, c: pen.box(pen.div(pen.sub(c, b), a))),
  },
)


def _horner(pen, a, b, k):
  """One product fewer than term by term, which keeps the split path short."""
  pen.box(pen.add(pen.mul(pen.add(k, a), k), b))


EVALUATE = Family(
  name='evaluate',
  draw=lambda rng, level: (_term(rng, level), _term(rng, level), _factor(rng, level)),
  prompts=lambda a, b, k: (
    f'Find x^2 + {a}x + {b} at x = {k}.',
    f'If x = {k}, what is x^2 + {a}x + {b}?',
    f'Let f(x) = x^2 + {a}x + {b}. Find f({k}).',
  ),
  truth=lambda a, b, k: k * k + a * k + b,
  paths={
    'mental': lambda pen, a, b, k: pen.guess(f'{k} * {k} + {a} * {k} + {b}'),
    'factor': _horner,
    'steps': lambda pen, a, b, k: pen.box(pen.add(pen.add(pen.mul(k, k), pen.mul(a, k)), b)),
    'split': _horner,
  },
)

SEQUENCE = Family(
  name='sequence',
  draw=lambda rng, level: (_term(rng, level), _factor(rng, level), _between(rng, 2 + level, 10 + 2 * level)),
  prompts=lambda start, step, n: (
    f'A sequence starts {start}, {start + step}, {start + 2 * step}. Find term {n}.',
    f'The first term is {start} and each step adds {step}. Find term {n}.',
    f'Start at {start} and add {step} each time. What is term {n}?',
  ),
  truth=lambda start, step, n: start + (n - 1) * step,
  paths={
    'mental': lambda pen, start, step, n: pen.guess(f'{start} + {n - 1} * {step}'),
    **_both(lambda pen, start, step, n: pen.box(pen.add(start, pen.mul(pen.sub(n, 1), step)))),
  },
)


def _draw_two(rng, level):
  limit = (18, 24, 30, 38, 48)[level - 1]
  small, gap = _between(rng, 1, limit - 1), _between(rng, 1, limit // 2)
  return 2 * small + gap, gap, _choice(rng, 'xy')


SUM_DIFFERENCE = Family(
  name='sum_difference',
  draw=_draw_two,
  prompts=lambda total, gap, ask: (
    f'x + y = {total} and x - y = {gap}. Find {ask}.',
    f'The sum of x and y is {total}, and x is {gap} more than y. Find {ask}.',
    f'Find {ask} if x + y = {total} and x = y + {gap}.',
  ),
  truth=lambda total, gap, ask: (total + gap) // 2 if ask == 'x' else (total - gap) // 2,
  paths={
    'mental': lambda pen, total, gap, ask: pen.guess(f'{ask} = ({total} {"+" if ask == "x" else "-"} {gap}) / 2'),
    **_both(
      lambda pen, total, gap, ask: pen.box(pen.div(pen.add(total, gap) if ask == 'x' else pen.sub(total, gap), 2))
    ),
  },
)

TOTAL = Family(
  name='total',
  draw=lambda rng, level: (_factor(rng, level), _term(rng, level), _factor(rng, level), _term(rng, level)),
  prompts=lambda m, a, n, b: (
    f'A pen costs {a} and a book costs {b}. Find the cost of {m} pens and {n} books.',
    f'What do {m} pens at {a} and {n} books at {b} cost?',
    f'Let a = {a} and b = {b}. Find {m}a + {n}b.',
  ),
  truth=lambda m, a, n, b: m * a + n * b,
  paths={
    'mental': lambda pen, m, a, n, b: pen.guess(f'{m} * {a} + {n} * {b}'),
    **_both(lambda pen, m, a, n, b: pen.box(pen.add(pen.mul(m, a), pen.mul(n, b)))),
  },
)


# --- Geometry -----------------------------------------------------------------------------------------------


def _draw_angles(rng, level):
  if level == 1:
    return 5 * _between(rng, 1, 17), 5 * _between(rng, 1, 17)
  if level == 2:
    return 10 * _between(rng, 2, 8), _between(rng, 11, 89)
  return tuple(_between(rng, 21, 89) for _ in range(2 if level == 3 else 3))


def _shape(angles):
  """The name of the shape with one angle more, and the sum of its angles."""
  return ('triangle', 180) if len(angles) == 2 else ('quadrilateral', 360)


def _list(numbers):
  return ', '.join(map(str, numbers[:-1])) + f' and {numbers[-1]}'


def _subtract_angles(pen, *angles):
  rest = _shape(angles)[1]
  for angle in angles:
    rest = pen.sub(rest, angle)
  pen.box(rest)


def _sum(pen, numbers):
  total = numbers[0]
  for number in numbers[1:]:
    total = pen.add(total, number)
  return total


ANGLE = Family(
  name='angle',
  draw=_draw_angles,
  prompts=lambda *angles: (
    f'A {_shape(angles)[0]} has angles {_list(angles)}. Find the last angle.',
    f'All but one of the angles of a {_shape(angles)[0]} are {_list(angles)}. What is the last one?',
    f'Find the last angle of a {_shape(angles)[0]} with angles {_list(angles)}.',
  ),
  truth=lambda *angles: _shape(angles)[1] - sum(angles),
  paths={
    'mental': lambda pen, *angles: pen.guess(' - '.join(map(str, (_shape(angles)[1], *angles)))),
    'sum': lambda pen, *angles: pen.box(pen.sub(_shape(angles)[1], _sum(pen, angles))),
    **_both(_subtract_angles),
  },
)


def _draw_trapezoid(rng, level):
  a, b = _term(rng, level), _term(rng, level)
  return min(a, b), max(a, b) + _between(rng, 1, 4), 2 * _between(rng, level, 5 + level)


TRAPEZOID = Family(
  name='trapezoid',
  draw=_draw_trapezoid,
  prompts=lambda a, b, h: (
    f'A trapezoid has bases {a} and {b} and height {h}. Find its area.',
    f'Find the area of a trapezoid with bases {a} and {b} and height {h}.',
    f'What is the area of a trapezoid of height {h} with bases {a} and {b}?',
  ),
  truth=lambda a, b, h: (a + b) * h // 2,
  paths={
    'mental': lambda pen, a, b, h: pen.guess(f'({a} + {b}) * {h} / 2'),
    **_both(lambda pen, a, b, h: pen.box(pen.mul(pen.add(a, b), pen.div(h, 2)))),
  },
)


def _draw_garden(rng, level):
  a, b = _factor(rng, level), _term(rng, level)
  return a, b, _between(rng, 1, min(a * b - 1, 10 * level + 40))


GARDEN = Family(
  name='garden',
  draw=_draw_garden,
  prompts=lambda a, b, pond: (
    f'A {a} by {b} garden has a pond of area {pond}. Find the area of the rest.',
    f'A pond of area {pond} lies in a {a} by {b} garden. What area is left?',
    f'Cut area {pond} from a rectangle of {a} by {b}. What area is left?',
  ),
  truth=lambda a, b, pond: a * b - pond,
  paths={
    'mental': lambda pen, a, b, pond: pen.guess(f'{a} * {b} - {pond}'),
    **_both(lambda pen, a, b, pond: pen.box(pen.sub(pen.mul(a, b), pond))),
  },
)

EDGES = Family(
  name='edges',
  draw=lambda rng, level: tuple(_term(rng, level) for _ in range(3)),
  prompts=lambda a, b, c: (
    f'A box is {a} by {b} by {c}. Find the sum of all its edges.',
    f'Find the sum of the 12 edges of a {a} by {b} by {c} box.',
    f'A box has sides {a}, {b} and {c}. What do all its edges add up to?',
  ),
  truth=lambda a, b, c: 4 * (a + b + c),
  paths={
    'mental': lambda pen, a, b, c: pen.guess(f'4 * ({a} + {b} + {c})'),
    **_both(lambda pen, *sides: pen.box(pen.mul(_sum(pen, sides), 4))),
  },
)


# --- Calculus -----------------------------------------------------------------------------------------------


def _differentiate(pen, a, b, k):
  slope = pen.value(2 * a)
  pen.write("\nf'(x) = ")
  pen.write(f'{slope}x + {b}', _RESULT)
  pen.box(pen.add(pen.mul(slope, k), b))


DERIVATIVE = Family(
  name='derivative',
  draw=lambda rng, level: (_between(rng, 2, 4 + 2 * level), _term(rng, level), _factor(rng, level)),
  prompts=lambda a, b, k: (
    f"Let f(x) = {a}x^2 + {b}x. Find f'({k}).",
    f'Find the slope of {a}x^2 + {b}x at x = {k}.',
    f'What is the derivative of {a}x^2 + {b}x at x = {k}?',
  ),
  truth=lambda a, b, k: 2 * a * k + b,
  paths={
    'mental': lambda pen, a, b, k: pen.guess(f'2 * {a} * {k} + {b}'),
    **_both(_differentiate),
  },
)


def _draw_integral(rng, level):
  a = 2 * _between(rng, 2, 6 + level // 2)
  return (
    a,
    _between(rng, *((1, 15), (1, 20), (2, 25), (5, 25), (8, 30))[level - 1]),
    _between(rng, level, 5 + level),
  )


def _mean_height(pen, a, b, k):
  """The height half way, times the width."""
  pen.box(pen.mul(pen.add(pen.mul(a // 2, k), b), k))


INTEGRAL = Family(
  name='integral',
  draw=_draw_integral,
  prompts=lambda a, b, k: (
    f'Integrate {a}x + {b} from 0 to {k}.',
    f'Find the integral of {a}x + {b} from 0 to {k}.',
    f'What is the area under {a}x + {b} from x = 0 to x = {k}?',
  ),
  truth=lambda a, b, k: a * k * k // 2 + b * k,
  paths={
    'mental': lambda pen, a, b, k: pen.guess(f'{a // 2} * {k}^2 + {b} * {k}'),
    'area': _mean_height,
    'steps': lambda pen, a, b, k: pen.box(pen.add(pen.mul(pen.mul(k, k), a // 2), pen.mul(b, k))),
    'split': _mean_height,
  },
)


def _draw_peak(rng, level):
  root = _between(rng, *((1, 8), (1, 9), (2, 9), (4, 10), (5, 10))[level - 1])
  return 2 * root, _between(rng, 1, 20 + 20 * level)


def _climb(pen, b, c):
  x = pen.div(b, 2)
  pen.box(pen.add(pen.mul(x, x), c))


PEAK = Family(
  name='peak',
  draw=_draw_peak,
  prompts=lambda b, c: (
    f'Find the largest value of {c} + {b}x - x^2.',
    f'What is the largest value of f(x) = {b}x - x^2 + {c}?',
    f'How large can {b}x - x^2 + {c} be?',
  ),
  truth=lambda b, c: b * b // 4 + c,
  paths={
    'mental': lambda pen, b, c: pen.guess(f'{b // 2}^2 + {c}'),
    **_both(_climb),
  },
)

SLOPE = Family(
  name='slope',
  draw=lambda rng, level: (
    _factor(rng, level),
    _term(rng, level),
    *((start := _between(rng, 1, 5 * level)), start + _between(rng, 1, 4 * level)),
  ),
  prompts=lambda a, b, p, q: (
    f'Find the mean slope of {a}x^2 + {b}x from {p} to {q}.',
    f'Let f(x) = {a}x^2 + {b}x. What is its mean slope from x = {p} to x = {q}?',
    f'Between x = {p} and x = {q}, what is the mean slope of {a}x^2 + {b}x?',
  ),
  truth=lambda a, b, p, q: (a * q * q + b * q - a * p * p - b * p) // (q - p),
  paths={
    'mental': lambda pen, a, b, p, q: pen.guess(f'{a} * ({p} + {q}) + {b}'),
    **_both(lambda pen, a, b, p, q: pen.box(pen.add(pen.mul(pen.add(p, q), a), b))),
  },
)


# --- Statistics ---------------------------------------------------------------------------------------------


def _draw_mean(rng, level):
  a, b, c = (_between(rng, 1, 15) if level == 1 else _term(rng, level) for _ in range(3))
  return a, b, c + -(a + b + c) % 3


def _mean_from_base(pen, *numbers):
  base = min(numbers)
  above = [pen.value(number - base) for number in numbers]
  total = pen.line(' + '.join(map(str, above)), pen.value(sum(above)))
  pen.box(pen.add(base, pen.div(total, len(numbers))))


MEAN = Family(
  name='mean',
  draw=_draw_mean,
  prompts=lambda *numbers: (
    f'Find the mean of {_list(numbers)}.',
    f'What is the mean of {_list(numbers)}?',
    f'Three scores are {_list(numbers)}. Find their mean.',
  ),
  truth=lambda *numbers: sum(numbers) // len(numbers),
  paths={
    'mental': lambda pen, *numbers: pen.guess(f'({" + ".join(map(str, numbers))}) / {len(numbers)}'),
    # Each number counted from the smallest one.
    'base': _mean_from_base,
    **_both(lambda pen, *numbers: pen.box(pen.div(_sum(pen, numbers), len(numbers)))),
  },
)


def _draw_median(rng, level):
  # Close numbers are the harder ones: their tens no longer tell which is larger.
  count, width = ((3, 15), (3, 40), (5, 99), (5, 40), (5, 15))[level - 1]
  low = 1 if level < 4 else _between(rng, 10, 60)
  numbers = []
  while len(numbers) < count:
    number = _between(rng, low, low + width - 1)
    if number not in numbers:
      numbers.append(number)
  return tuple(numbers)


def _middle(pen, numbers):
  """The middle of sorted numbers; a slip takes its neighbour."""
  half = len(numbers) // 2
  return pen.value(numbers[half], numbers[half - 1], numbers[half + 1])


def _median_by_order(pen, *numbers):
  ordered = sorted(numbers)
  pen.write('\nsorted ')
  pen.write(' '.join(map(str, ordered)), _RESULT)
  pen.box(_middle(pen, ordered))


def _median_by_dropping(pen, *numbers):
  ordered = sorted(numbers)
  for low in range(len(numbers) // 2):
    pen.write(f'\ndrop {ordered[low]} and {ordered[-1 - low]}')
  pen.write('\nleft ')
  middle = _middle(pen, ordered)
  pen.write(str(middle), _RESULT)
  pen.box(middle)


MEDIAN = Family(
  name='median',
  draw=_draw_median,
  prompts=lambda *numbers: (
    f'Find the median of {_list(numbers)}.',
    f'What is the median of {_list(numbers)}?',
    f'Which of {_list(numbers)} is in the middle by size?',
  ),
  truth=lambda *numbers: sorted(numbers)[len(numbers) // 2],
  paths={
    'mental': lambda pen, *numbers: pen.guess('median', *(n for n in numbers if n != pen.truth)),
    'steps': _median_by_order,
    'drop': _median_by_dropping,
  },
)


def _draw_missing(rng, level):
  count, mean = min(_factor(rng, level) + 1, 9), _term(rng, level) + 1
  return count, mean, count * mean - _between(rng, 1, 2 * mean - 1)


MISSING = Family(
  name='missing',
  draw=_draw_missing,
  prompts=lambda count, mean, rest: (
    f'The mean of {count} scores is {mean}. All but one add up to {rest}. Find the last one.',
    f'{count} numbers have mean {mean}. Without the last one their sum is {rest}. What is the last one?',
    f'Find the last of {count} numbers with mean {mean} if the sum of the rest is {rest}.',
  ),
  truth=lambda count, mean, rest: count * mean - rest,
  paths={
    'mental': lambda pen, count, mean, rest: pen.guess(f'{count} * {mean} - {rest}'),
    **_both(lambda pen, count, mean, rest: pen.box(pen.sub(pen.mul(count, mean), rest))),
  },
)


def _guess_chance(pen, red, *others):
  whole = red + sum(others)
  formula = f'{red} / ({" + ".join(map(str, (red, *others)))})'
  pen.guess(formula, Fraction(red, whole + 1), Fraction(red + 1, whole), Fraction(red, sum(others)))


CHANCE = Family(
  name='chance',
  draw=lambda rng, level: tuple(_term(rng, level) for _ in range(3)),
  prompts=lambda red, blue, green: (
    f'A bag has {red} red, {blue} blue and {green} green balls. Find the chance of red.',
    f'Of {_list((red, blue, green))} red, blue and green balls one is drawn. What is the chance of red?',
    f'A box has {green} green, {blue} blue and {red} red pens. What is the chance that a pen is red?',
  ),
  truth=lambda red, blue, green: Fraction(red, red + blue + green),
  paths={
    'mental': _guess_chance,
    **_both(lambda pen, red, *others: pen.box(pen.reduce(red, _sum(pen, (red, *others))))),
  },
)


# --- Code ---------------------------------------------------------------------------------------------------

_OVER = ('>', '>=', '<')  # the right sign, then what a slip makes of it
_FLIPPED = {'+': '-', '-': '+'}
_TO = {'+': 'to', '-': 'from'}


def _draw_product(rng, level):
  """A constant k and a product b * c that the mental path folds."""
  return _between(rng, 2, 9), _factor(rng, level), _term(rng, level)


def _draw_affine(rng, level):
  k, b, c = _draw_product(rng, level)
  return k, _choice(rng, '+-'), b, c


def _affine(pen, k, sign, constant):
  pen.code('x', f'return {pen.value(k)} * x {pen.value(sign, _FLIPPED[sign])} {constant}')


def _affine_steps(pen, k, sign, b, c):
  first, second = f't = {pen.value(b)} * {pen.value(c)}', f'u = {pen.value(k)} * x'
  pen.code('x', first, second, f'return u {pen.value(sign, _FLIPPED[sign])} t')


AFFINE = Family(
  name='affine',
  draw=_draw_affine,
  prompts=lambda k, sign, b, c: (
    f'Write f(x) that returns {k} * x {sign} {b} * {c}.',
    f'Write f(x): {k} times x {"plus" if sign == "+" else "minus"} {b} times {c}.',
    f'Write f(x) that {"adds" if sign == "+" else "takes"} {b} * {c} {_TO[sign]} {k} * x.',
  ),
  truth=lambda k, sign, b, c: lambda x: k * x + b * c if sign == '+' else k * x - b * c,
  inputs=lambda k, sign, b, c: (0, 1, 7, -3),
  paths={
    'mental': lambda pen, k, sign, b, c: _affine(pen, k, sign, str(pen.value(b * c))),
    'literal': lambda pen, k, sign, b, c: _affine(pen, k, sign, f'{pen.value(b)} * {pen.value(c)}'),
    'steps': _affine_steps,
  },
)


def _threshold_steps(pen, a, b, c):
  product, over = f't = {pen.value(b)} * {pen.value(c)}', pen.value(*_OVER)
  pen.code('x', product, f'if x {over} t:', f'  return x + {pen.value(a)}', 'return x')


THRESHOLD = Family(
  name='threshold',
  draw=_draw_product,
  prompts=lambda a, b, c: (
    f'Write f(x): x + {a} if x is over {b} * {c}, else x.',
    f'Write f(x) that adds {a} to x if x is over {b} times {c}.',
    f'Write f(x) that returns x + {a} for x over {b} * {c} and x for the rest.',
  ),
  truth=lambda a, b, c: lambda x: x + a if x > b * c else x,
  inputs=lambda a, b, c: (0, b * c, b * c + 1, b * c + 20),
  paths={
    'mental': lambda pen, a, b, c: pen.code(
      'x', f'return x + {pen.value(a)} if x {pen.value(*_OVER)} {pen.value(b * c)} else x'
    ),
    'literal': lambda pen, a, b, c: pen.code(
      'x',
      f'return x + {pen.value(a)} if x {pen.value(*_OVER)} {pen.value(b)} * {pen.value(c)} else x',
    ),
    'steps': _threshold_steps,
  },
)


def _series_formula(pen, k, b, c):
  half = f'{pen.value(k)} * n * (n {pen.value("+", "-")} 1) // 2'
  pen.code('n', f'return {half} + {pen.value(b * c)} * n')


def _series_sum(pen, k, b, c):
  term = f'{pen.value(k)} * i + {pen.value(b)} * {pen.value(c)}'
  pen.code('n', f'return sum({term} for i in range(1, {pen.value("n + 1", "n")}))')


def _series_loop(pen, k, b, c):
  last = pen.value('n + 1', 'n')
  term = f's += {pen.value(k)} * i + {pen.value(b)} * {pen.value(c)}'
  pen.code('n', 's = 0', f'for i in range(1, {last}):', f'  {term}', 'return s')


SERIES = Family(
  name='series',
  draw=_draw_product,
  prompts=lambda k, b, c: (
    f'Write f(n): the sum of {k} * i + {b} * {c} for i from 1 to n.',
    f'Write f(n) that adds up {k} * i + {b} * {c} for i from 1 to n.',
    f'For i from 1 to n add {k} * i + {b} * {c}. Write f(n).',
  ),
  truth=lambda k, b, c: lambda n: sum(k * i + b * c for i in range(1, n + 1)),
  inputs=lambda k, b, c: (0, 1, 2, 6),
  paths={
    'mental': _series_formula,
    'literal': _series_sum,
    'loop': _series_loop,
  },
)


def _draw_remainder(rng, level):
  k, b, c = _draw_product(rng, level)
  # A prime that divides neither factor: a wrong factor then always shows in some remainder.
  return k, b, c, _choice(rng, [m for m in (7, 11, 13) if b % m and c % m])


def _remainder_steps(pen, k, b, c, m):
  product, total = f't = {pen.value(b)} * {pen.value(c)}', f'u = {pen.value(k)} * x {pen.value("+", "-")} t'
  pen.code('x', product, total, f'return u % {pen.value(m)}')


REMAINDER = Family(
  name='remainder',
  draw=_draw_remainder,
  prompts=lambda k, b, c, m: (
    f'Write f(x): the remainder of {k} * x + {b} * {c} by {m}.',
    f'Write f(x) that returns {k} * x + {b} * {c} mod {m}.',
    f'Divide {k} * x + {b} * {c} by {m}. Write f(x) that returns the remainder.',
  ),
  truth=lambda k, b, c, m: lambda x: (k * x + b * c) % m,
  inputs=lambda k, b, c, m: (0, 1, 5, 10, m),
  paths={
    'mental': lambda pen, k, b, c, m: pen.code(
      'x', f'return ({pen.value(k)} * x + {pen.value(b * c % m)}) % {pen.value(m)}'
    ),
    'literal': lambda pen, k, b, c, m: pen.code(
      'x', f'return ({pen.value(k)} * x + {pen.value(b)} * {pen.value(c)}) % {pen.value(m)}'
    ),
    'steps': _remainder_steps,
  },
)


def _count(pen, limit):
  pen.code('xs', f'return sum(x {pen.value(*_OVER)} {limit} for x in xs)')


def _count_loop(pen, d, b, c):
  limit = f't = {pen.value(b)} * {pen.value(c)} + {pen.value(d)}'
  pen.code('xs', limit, 's = 0', 'for x in xs:', f'  if x {pen.value(*_OVER)} t:', '    s += 1', 'return s')


COUNT = Family(
  name='count',
  draw=_draw_product,
  prompts=lambda d, b, c: (
    f'Write f(xs): how many x in xs are over {b} * {c} + {d}.',
    f'Write f(xs) that returns how many items are over {b} times {c} plus {d}.',
    f'How many of xs are over {b} * {c} + {d}? Write f(xs).',
  ),
  truth=lambda d, b, c: lambda xs: sum(x > b * c + d for x in xs),
  inputs=lambda d, b, c: ([], [b * c + d], [b * c + d + 1, 0], [b * c + d, b * c + d + 5, b * c + d + 30]),
  paths={
    'mental': lambda pen, d, b, c: _count(pen, str(pen.value(b * c + d))),
    'literal': lambda pen, d, b, c: _count(pen, f'{pen.value(b)} * {pen.value(c)} + {pen.value(d)}'),
    'loop': _count_loop,
  },
)

FAMILIES: dict[str, tuple[Family, ...]] = {
  'algebra': (LINEAR, EVALUATE, SEQUENCE, SUM_DIFFERENCE, TOTAL),
  'geometry': (ANGLE, TRAPEZOID, GARDEN, EDGES),
  'calculus': (DERIVATIVE, INTEGRAL, PEAK, SLOPE),
  'statistics': (MEAN, MEDIAN, MISSING, CHANCE),
  'code': (AFFINE, THRESHOLD, SERIES, REMAINDER, COUNT),
}
# Every path of the world, in the order families tell them.
PATHS = tuple(dict.fromkeys(path for families in FAMILIES.values() for family in families for path in family.paths))


# --- Problems -----------------------------------------------------------------------------------------------


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
  """Numbers of an instance in the split that is not among those taken."""
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
  """A solution that slips once. Where the slip cancels out (36 / 5, rounded to 7), another is tried."""
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
    prompt=_choice(rng, family.prompts(*numbers)),
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
  """`n` distinct problems with clean solutions; any prefix is balanced over families, then levels.

  The same arguments give the same problems on every machine, and a smaller `n` a prefix of them.

  Args:
    domain: one of `DOMAINS`.
    split: one of `SPLITS`; two splits never share an instance.
    n: number of problems.
    seed: of numbers and phrasings.
    paths: names of the paths to write, in the family's order (short to long), or None for all it has.

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
  """Lines of arithmetic with nothing to solve, in one go or by place value."""
  pen = Pen(_choice(rng, ('steps', 'split')), None)
  pen.text = 'Practice:'
  for _ in range(6):
    a, b, small = _between(rng, 1, 99), _between(rng, 1, 49), _between(rng, 2, 9)
    _choice(
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
  """The base model's text: `n` problems over all domains, each with one solution, some of them wrong.

  Instances, and so ids, may repeat. `Problem.answer` is true even where the solution is not.

  Args:
    n: number of problems.
    seed: of everything; item i depends on (seed, i) alone.
    path_weights: weight of each path; a family draws one of its own in proportion. Paths not named weigh 0.
    slip_rate: share of solutions with one wrong operation, whose error runs on to the answer.
    practice: share of items that are plain lines of arithmetic, right ones, in place of a problem.
    split: the split of the instances.

  Raises:
    ValueError: an unknown name, or a family none of whose paths has weight.
  """
  _check([split], SPLITS, 'split')
  _check(path_weights, PATHS, 'path')
  for i in range(n):
    rng = random.Random(f'{seed}/corpus/{split}/{i}')
    if rng.random() < practice:
      pen = _practice(rng)
      solution = Solution(pen.text, 'practice', tuple(pen.spans))
      yield Problem(id=f'practice/{i}', domain='practice', prompt='Practice.', solutions=(solution,))
      continue
    domain = _choice(rng, DOMAINS)
    family, level = _choice(rng, FAMILIES[domain]), _choice(rng, LEVELS)
    numbers = _draw(rng, family, level, split)
    path = _weighted(rng, family, path_weights)
    pen = _slipped(rng, family, numbers, path) if rng.random() < slip_rate else _solve(family, numbers, path)
    yield _problem(rng, domain, family, level, numbers, {path: pen})


def _weighted(rng, family, path_weights):
  options = [(path, path_weights[path]) for path in family.paths if path_weights.get(path, 0) > 0]
  if not options:
    raise ValueError(f'path_weights give no weight to a path of {family.name}: {", ".join(family.paths)}')
  mark = rng.random() * math.fsum(weight for _, weight in options)
  for path, weight in options:
    mark -= weight
    if mark < 0:
      return path
  return options[-1][0]


def text_lines(n: int, seed: int) -> Iterator[str]:
  """`n` texts to learn a tokenizer from: prompt and solution, all paths alike, no slips."""
  for problem in corpus(n, seed, dict.fromkeys(PATHS, 1.0), slip_rate=0.0):
    yield f'{problem.prompt}\n{problem.solutions[0].text}'
