"""Calculus: derivatives and integrals of polynomials of degree two at most."""

from vibethinker_jax.data.world.family import RESULT, Family, between, both, factor, term


def _differentiate(pen, a, b, k):
  slope = pen.value(2 * a)
  pen.write("\nf'(x) = ")
  pen.write(f'{slope}x + {b}', RESULT)
  pen.box(pen.add(pen.mul(slope, k), b))


DERIVATIVE = Family(
  name='derivative',
  draw=lambda rng, level: (between(rng, 2, 4 + 2 * level), term(rng, level), factor(rng, level)),
  prompts=lambda a, b, k: (
    f"Let f(x) = {a}x^2 + {b}x. Find f'({k}).",
    f'Find the slope of {a}x^2 + {b}x at x = {k}.',
    f'What is the derivative of {a}x^2 + {b}x at x = {k}?',
  ),
  truth=lambda a, b, k: 2 * a * k + b,
  paths={
    'mental': lambda pen, a, b, k: pen.guess(f'2 * {a} * {k} + {b}'),
    **both(_differentiate),
  },
)


def _draw_integral(rng, level):
  a = 2 * between(rng, 2, 6 + level // 2)
  return (
    a,
    between(rng, *((1, 15), (1, 20), (2, 25), (5, 25), (8, 30))[level - 1]),
    between(rng, level, 5 + level),
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
  root = between(rng, *((1, 8), (1, 9), (2, 9), (4, 10), (5, 10))[level - 1])
  return 2 * root, between(rng, 1, 20 + 20 * level)


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
    **both(_climb),
  },
)

SLOPE = Family(
  name='slope',
  draw=lambda rng, level: (
    factor(rng, level),
    term(rng, level),
    *((start := between(rng, 1, 5 * level)), start + between(rng, 1, 4 * level)),
  ),
  prompts=lambda a, b, p, q: (
    f'Find the mean slope of {a}x^2 + {b}x from {p} to {q}.',
    f'Let f(x) = {a}x^2 + {b}x. What is its mean slope from x = {p} to x = {q}?',
    f'Between x = {p} and x = {q}, what is the mean slope of {a}x^2 + {b}x?',
  ),
  truth=lambda a, b, p, q: (a * q * q + b * q - a * p * p - b * p) // (q - p),
  paths={
    'mental': lambda pen, a, b, p, q: pen.guess(f'{a} * ({p} + {q}) + {b}'),
    **both(lambda pen, a, b, p, q: pen.box(pen.add(pen.mul(pen.add(p, q), a), b))),
  },
)

FAMILIES = (DERIVATIVE, INTEGRAL, PEAK, SLOPE)
