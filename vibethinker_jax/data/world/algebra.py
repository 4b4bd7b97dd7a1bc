"""Algebra: equations, expressions, sequences, prices."""

from vibethinker_jax.data.world.family import Family, between, both, choice, factor, term


def _draw_linear(rng, level):
  a, x, b = factor(rng, level), term(rng, level), term(rng, level)
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
    **both(lambda pen, a, b, c: pen.box(pen.div(pen.sub(c, b), a))),
  },
)


def _horner(pen, a, b, k):
  """With one product fewer than term by term, so that the split path stays short."""
  pen.box(pen.add(pen.mul(pen.add(k, a), k), b))


EVALUATE = Family(
  name='evaluate',
  draw=lambda rng, level: (term(rng, level), term(rng, level), factor(rng, level)),
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
  draw=lambda rng, level: (term(rng, level), factor(rng, level), between(rng, 2 + level, 10 + 2 * level)),
  prompts=lambda start, step, n: (
    f'A sequence starts {start}, {start + step}, {start + 2 * step}. Find term {n}.',
    f'The first term is {start} and each step adds {step}. Find term {n}.',
    f'Start at {start} and add {step} each time. What is term {n}?',
  ),
  truth=lambda start, step, n: start + (n - 1) * step,
  paths={
    'mental': lambda pen, start, step, n: pen.guess(f'{start} + {n - 1} * {step}'),
    **both(lambda pen, start, step, n: pen.box(pen.add(start, pen.mul(pen.sub(n, 1), step)))),
  },
)


def _draw_two(rng, level):
  limit = (18, 24, 30, 38, 48)[level - 1]
  small, gap = between(rng, 1, limit - 1), between(rng, 1, limit // 2)
  return 2 * small + gap, gap, choice(rng, 'xy')


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
    **both(
      lambda pen, total, gap, ask: pen.box(pen.div(pen.add(total, gap) if ask == 'x' else pen.sub(total, gap), 2))
    ),
  },
)

TOTAL = Family(
  name='total',
  draw=lambda rng, level: (factor(rng, level), term(rng, level), factor(rng, level), term(rng, level)),
  prompts=lambda m, a, n, b: (
    f'A pen costs {a} and a book costs {b}. Find the cost of {m} pens and {n} books.',
    f'What do {m} pens at {a} and {n} books at {b} cost?',
    f'Let a = {a} and b = {b}. Find {m}a + {n}b.',
  ),
  truth=lambda m, a, n, b: m * a + n * b,
  paths={
    'mental': lambda pen, m, a, n, b: pen.guess(f'{m} * {a} + {n} * {b}'),
    **both(lambda pen, m, a, n, b: pen.box(pen.add(pen.mul(m, a), pen.mul(n, b)))),
  },
)

FAMILIES = (LINEAR, EVALUATE, SEQUENCE, SUM_DIFFERENCE, TOTAL)
