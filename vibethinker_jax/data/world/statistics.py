"""Statistics: means, medians, chances."""

from fractions import Fraction

from vibethinker_jax.data.world.family import RESULT, Family, add_up, between, both, factor, listed, term


def _draw_mean(rng, level):
  a, b, c = (between(rng, 1, 15) if level == 1 else term(rng, level) for _ in range(3))
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
    f'Find the mean of {listed(numbers)}.',
    f'What is the mean of {listed(numbers)}?',
    f'Three scores are {listed(numbers)}. Find their mean.',
  ),
  truth=lambda *numbers: sum(numbers) // len(numbers),
  paths={
    'mental': lambda pen, *numbers: pen.guess(f'({" + ".join(map(str, numbers))}) / {len(numbers)}'),
    # Each number counted from the smallest one.
    'base': _mean_from_base,
    **both(lambda pen, *numbers: pen.box(pen.div(add_up(pen, numbers), len(numbers)))),
  },
)


def _draw_median(rng, level):
  # Close numbers are the harder ones: their tens no longer tell which is larger.
  count, width = ((3, 15), (3, 40), (5, 99), (5, 40), (5, 15))[level - 1]
  low = 1 if level < 4 else between(rng, 10, 60)
  numbers = []
  while len(numbers) < count:
    number = between(rng, low, low + width - 1)
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
  pen.write(' '.join(map(str, ordered)), RESULT)
  pen.box(_middle(pen, ordered))


def _median_by_dropping(pen, *numbers):
  ordered = sorted(numbers)
  for low in range(len(numbers) // 2):
    pen.write(f'\ndrop {ordered[low]} and {ordered[-1 - low]}')
  pen.write('\nleft ')
  middle = _middle(pen, ordered)
  pen.write(str(middle), RESULT)
  pen.box(middle)


MEDIAN = Family(
  name='median',
  draw=_draw_median,
  prompts=lambda *numbers: (
    f'Find the median of {listed(numbers)}.',
    f'What is the median of {listed(numbers)}?',
    f'Which of {listed(numbers)} is in the middle by size?',
  ),
  truth=lambda *numbers: sorted(numbers)[len(numbers) // 2],
  paths={
    'mental': lambda pen, *numbers: pen.guess('median', *(n for n in numbers if n != pen.truth)),
    'steps': _median_by_order,
    'drop': _median_by_dropping,
  },
)


def _draw_missing(rng, level):
  count, mean = min(factor(rng, level) + 1, 9), term(rng, level) + 1
  return count, mean, count * mean - between(rng, 1, 2 * mean - 1)


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
    **both(lambda pen, count, mean, rest: pen.box(pen.sub(pen.mul(count, mean), rest))),
  },
)


def _guess_chance(pen, red, *others):
  whole = red + sum(others)
  formula = f'{red} / ({" + ".join(map(str, (red, *others)))})'
  pen.guess(formula, Fraction(red, whole + 1), Fraction(red + 1, whole), Fraction(red, sum(others)))


CHANCE = Family(
  name='chance',
  draw=lambda rng, level: tuple(term(rng, level) for _ in range(3)),
  prompts=lambda red, blue, green: (
    f'A bag has {red} red, {blue} blue and {green} green balls. Find the chance of red.',
    f'Of {listed((red, blue, green))} red, blue and green balls one is drawn. What is the chance of red?',
    f'A box has {green} green, {blue} blue and {red} red pens. What is the chance that a pen is red?',
  ),
  truth=lambda red, blue, green: Fraction(red, red + blue + green),
  paths={
    'mental': _guess_chance,
    **both(lambda pen, red, *others: pen.box(pen.reduce(red, add_up(pen, (red, *others))))),
  },
)

FAMILIES = (MEAN, MEDIAN, MISSING, CHANCE)
