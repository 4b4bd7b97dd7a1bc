"""Family: problems of one kind. Pen: writes their solutions. And how numbers are drawn.

All draws use `random.Random.random` alone, the only method whose sequence Python promises to keep.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

RESULT, ANSWER = 1.5, 2.0  # loss weights of a line's result and of the final answer


class Pen:
  """Writes one solution and does its arithmetic.

  The methods that compute write a line and return the value that they wrote, so a wrong value is used in later lines.

  Args:
    path: the name of the path.
    truth: the right answer, or the function that a program must compute.
    slip_at: the operation (from 0) that gets a wrong result; None for no slip.
    rng: of the wrong result.
  """

  def __init__(self, path: str, truth, slip_at: int | None = None, rng: random.Random | None = None):
    self.split = path == 'split'
    self.truth = truth
    self.slip_at = slip_at
    self.rng = rng
    self.operations = 0
    self.answer = None  # the value in the box; stays None in programs
    self.spans = []
    self.text = f'{path.capitalize()}:'

  def write(self, text: str, weight: float | None = None):
    """Appends `text`; with a weight it is a key span."""
    if weight is not None:
      self.spans.append((len(self.text), len(self.text) + len(text), weight))
    self.text += text

  def value(self, right, *wrong):
    """`right`, but at the operation that slips one of `wrong`; without any, a number that differs by 1 or 10."""
    slips = self.operations == self.slip_at
    self.operations += 1
    if not slips:
      return right
    if not wrong:
      near = (right - 1, right + 1) if right < 10 else (right - 1, right + 1, right - 10, right + 10)
      wrong = [w for w in near if w > 0]  # a zero could become a divisor
    return choice(self.rng, wrong)

  def line(self, expression: str, result):
    """Writes 'expression = result' and returns the result."""
    self.write(f'\n{expression} = ')
    self.write(str(result), RESULT)
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
    """a / b, rounded down if a slip left a remainder; split: the tens of the quotient, then the rest."""
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
    self.write(f'\\boxed{{{value}}}', ANSWER)

  def guess(self, formula: str, *wrong):
    """The mental path: the formula and, in one operation, the answer."""
    self.answer = self.value(self.truth, *wrong)
    self.write(f' {formula} = ')
    self.write(f'\\boxed{{{self.answer}}}', ANSWER)

  def code(self, argument: str, *body: str):
    """The function f of one argument; the last line of its body is the answer."""
    self.write(f'\n```python\ndef f({argument}):\n')
    for number, line in enumerate(body, 1):
      self.write('  ')
      self.write(line, ANSWER if number == len(body) else RESULT)
      self.write('\n')
    self.write('```')


@dataclasses.dataclass(frozen=True)
class Family:
  """Problems of one kind. All functions but `draw` take the drawn numbers; a path takes a pen first.

  draw: the numbers of an instance, for a random.Random and a level. prompts: the statement in several phrasings. truth:
  the answer, computed independently of the paths; for programs, the function that is asked for. paths: by their names,
  from short to long. inputs: for programs, the arguments of the tests, edge cases included.
  """

  name: str
  draw: Callable[[random.Random, int], tuple]
  prompts: Callable[..., tuple[str, ...]]
  truth: Callable
  paths: dict[str, Callable[..., None]]
  inputs: Callable[..., tuple] | None = None


def between(rng: random.Random, low: int, high: int) -> int:
  """A whole number, both ends included."""
  return low + int(rng.random() * (high - low + 1))


def choice(rng: random.Random, options: Sequence):
  """One of the options, each with the same probability."""
  return options[int(rng.random() * len(options))]


def term(rng: random.Random, level: int) -> int:
  """A number to add: one digit (or little more) at level 1, two at level 5."""
  return between(rng, *((1, 9), (1, 15), (3, 20), (5, 30), (10, 45))[level - 1])


def factor(rng: random.Random, level: int) -> int:
  """A one-digit number to multiply by."""
  return between(rng, *((2, 4), (2, 5), (2, 6), (3, 8), (4, 9))[level - 1])


def _two_part(number):
  """Whether place value splits the number into two parts."""
  return number > 10 and number % 10 != 0


def both(work: Callable[..., None]) -> dict[str, Callable[..., None]]:
  """Two paths with the same operations: the pen knows whether to split them."""
  return {'steps': work, 'split': work}


def listed(numbers: Sequence[int]) -> str:
  """The numbers as in a sentence: '3, 5 and 8'."""
  return ', '.join(map(str, numbers[:-1])) + f' and {numbers[-1]}'


def add_up(pen: Pen, numbers: Sequence[int]) -> int:
  """The sum of the numbers, written with one addition on each line."""
  total = numbers[0]
  for number in numbers[1:]:
    total = pen.add(total, number)
  return total
