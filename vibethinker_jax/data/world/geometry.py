"""Geometry: angles, areas, edges."""

from vibethinker_jax.data.world.family import Family, add_up, between, both, factor, listed, term


def _draw_angles(rng, level):
  if level == 1:
    return 5 * between(rng, 1, 17), 5 * between(rng, 1, 17)
  if level == 2:
    return 10 * between(rng, 2, 8), between(rng, 11, 89)
  return tuple(between(rng, 21, 89) for _ in range(2 if level == 3 else 3))


def _shape(angles):
  """The name of the shape with one angle more, and the sum of its angles."""
  return ('triangle', 180) if len(angles) == 2 else ('quadrilateral', 360)


def _subtract_angles(pen, *angles):
  rest = _shape(angles)[1]
  for angle in angles:
    rest = pen.sub(rest, angle)
  pen.box(rest)


ANGLE = Family(
  name='angle',
  draw=_draw_angles,
  prompts=lambda *angles: (
    f'A {_shape(angles)[0]} has angles {listed(angles)}. Find the last angle.',
    f'All but one of the angles of a {_shape(angles)[0]} are {listed(angles)}. What is the last one?',
    f'Find the last angle of a {_shape(angles)[0]} with angles {listed(angles)}.',
  ),
  truth=lambda *angles: _shape(angles)[1] - sum(angles),
  paths={
    'mental': lambda pen, *angles: pen.guess(' - '.join(map(str, (_shape(angles)[1], *angles)))),
    'sum': lambda pen, *angles: pen.box(pen.sub(_shape(angles)[1], add_up(pen, angles))),
    **both(_subtract_angles),
  },
)


def _draw_trapezoid(rng, level):
  a, b = term(rng, level), term(rng, level)
  return min(a, b), max(a, b) + between(rng, 1, 4), 2 * between(rng, level, 5 + level)


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
    **both(lambda pen, a, b, h: pen.box(pen.mul(pen.add(a, b), pen.div(h, 2)))),
  },
)


def _draw_garden(rng, level):
  a, b = factor(rng, level), term(rng, level)
  return a, b, between(rng, 1, min(a * b - 1, 10 * level + 40))


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
    **both(lambda pen, a, b, pond: pen.box(pen.sub(pen.mul(a, b), pond))),
  },
)

EDGES = Family(
  name='edges',
  draw=lambda rng, level: tuple(term(rng, level) for _ in range(3)),
  prompts=lambda a, b, c: (
    f'A box is {a} by {b} by {c}. Find the sum of all its edges.',
    f'Find the sum of the 12 edges of a {a} by {b} by {c} box.',
    f'A box has sides {a}, {b} and {c}. What do all its edges add up to?',
  ),
  truth=lambda a, b, c: 4 * (a + b + c),
  paths={
    'mental': lambda pen, a, b, c: pen.guess(f'4 * ({a} + {b} + {c})'),
    **both(lambda pen, *sides: pen.box(pen.mul(add_up(pen, sides), 4))),
  },
)

FAMILIES = (ANGLE, TRAPEZOID, GARDEN, EDGES)
