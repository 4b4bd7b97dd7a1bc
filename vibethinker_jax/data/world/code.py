"""Code: functions of one argument, given by a formula."""

from vibethinker_jax.data.world.family import Family, between, choice, factor, term

_OVER = ('>', '>=', '<')  # the right sign, then those that a slip puts in its place
_FLIPPED = {'+': '-', '-': '+'}
_TO = {'+': 'to', '-': 'from'}


def _draw_product(rng, level):
  """A constant k and a product b * c that the mental path folds."""
  return between(rng, 2, 9), factor(rng, level), term(rng, level)


def _draw_affine(rng, level):
  k, b, c = _draw_product(rng, level)
  return k, choice(rng, '+-'), b, c


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
  each = f'{pen.value(k)} * i + {pen.value(b)} * {pen.value(c)}'
  pen.code('n', f'return sum({each} for i in range(1, {pen.value("n + 1", "n")}))')


def _series_loop(pen, k, b, c):
  last = pen.value('n + 1', 'n')
  each = f's += {pen.value(k)} * i + {pen.value(b)} * {pen.value(c)}'
  pen.code('n', 's = 0', f'for i in range(1, {last}):', f'  {each}', 'return s')


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
  return k, b, c, choice(rng, [m for m in (7, 11, 13) if b % m and c % m])


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

FAMILIES = (AFFINE, THRESHOLD, SERIES, REMAINDER, COUNT)
