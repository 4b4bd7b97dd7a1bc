"""Computer algebra on LaTeX: math-verify compares, and what it calls equal is checked here before it counts.

math-verify rounds to a fixed number of decimals, and drops what it cannot read. The checks: two values without
variables agree to fifty digits of their size, or to six where one is a decimal; two formulas agree at several points;
two equations are multiples of each other, or have the same solutions. Only workers of symbolic.py run this file, since
any of it may take forever.
"""

import cmath
import itertools
import math
import re
from collections.abc import Sequence

from vibethinker_jax.verify import compare, official

_SIGNIFICANT = 50
_TOLERANCE = 1e-6  # of the size, where one of two values is a decimal
_POINTS = 8


def right(golds: Sequence[str], pred: str) -> bool:
  """Whether an answer is equal to one of the references (compare.py), where algebra may be used."""
  return any(compare.same(gold, pred, equal) for gold in golds)


def equal(gold: str, pred: str, about: bool) -> bool:
  """Whether two expressions or relations in LaTeX are equal; with `about`, to the digits that `pred` shows."""
  a, b = parsed(gold), parsed(pred)
  if a is None or b is None:
    return False
  if about:
    return _near(a, b, (gold, pred))
  return bool((_engine(a, b) and _confirmed(a, b)) or _identical(a, b))


def parsed(latex: str):
  """One expression as math-verify parses it, a sympy object; None where it finds none."""
  import math_verify
  from latex2sympy2_extended import NormalizationConfig

  # units were removed before (quantity.py), and math-verify would take variables for units
  config = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed='last', equations=False
  )
  reader = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=config)
  found = math_verify.parse(f'\\boxed{{{latex}}}', [reader], fallback_mode='no_fallback', parsing_timeout=None)
  return found[0] if found else None


def engine(
  golds: Sequence[str], pred: str, targets: Sequence[str], precision: int, strict: bool, set_relations: bool
) -> bool:
  """Whether math-verify alone calls texts with an expression equal; arguments as in `symbolic.engine_job`."""
  import math_verify

  kinds = {
    'latex': math_verify.LatexExtractionConfig(boxed_match_priority=0),
    'expr': math_verify.ExprExtractionConfig(),
  }
  config = [kinds[target] for target in targets]
  found = math_verify.parse(pred, config, parsing_timeout=None)
  return any(
    math_verify.verify(
      math_verify.parse(gold, config, parsing_timeout=None),
      found,
      float_rounding=precision,
      strict=strict,
      allow_set_relation_comp=set_relations,
      timeout_seconds=None,
    )
    for gold in golds
  )


def _engine(a, b) -> bool:
  import math_verify

  return math_verify.verify([a], [b], float_rounding=6, strict=True, timeout_seconds=None)


def _confirmed(a, b) -> bool:
  """Whether what math-verify holds equal is."""
  import sympy
  from sympy.core.relational import Relational

  a, b = (side.doit() if isinstance(side, sympy.MatrixExpr) else side for side in (a, b))
  if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
    return a.shape == b.shape and all(_same_values(x, y) for x, y in zip(a.flat(), b.flat()))
  if isinstance(a, Relational) and isinstance(b, Relational):
    return _same_relations(a, b)
  if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
    return _same_values(a, b)
  # sets, intervals and the inequalities that describe them: math-verify compares these exactly
  return all(isinstance(side, sympy.Set | sympy.logic.boolalg.Boolean | sympy.Tuple) for side in (a, b))


def _identical(a, b) -> bool:
  """Whether two constants are equal that math-verify does not evaluate, such as powers of a complex number."""
  import sympy

  if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
    return False
  a, b = (side.subs({x: sympy.I for x in side.free_symbols if x.name == 'i'}) for side in (a, b))
  if a.free_symbols or b.free_symbols or a.has(sympy.Float) or b.has(sympy.Float):
    return False
  return _same_values(a, b)


def _same_values(a, b) -> bool:
  import sympy

  if a == b:
    return True
  names = sorted(a.free_symbols | b.free_symbols, key=str)
  decimal = a.has(sympy.Float) or b.has(sympy.Float)
  if not names:
    try:
      return _same_numbers(a, b, decimal)
    except TypeError:
      return False
  settled = 0
  for n in range(_POINTS):
    point = {x: sympy.Rational(7 * n + 3 * i + 5, 11 + 2 * i) for i, x in enumerate(names)}
    try:
      verdict = _same_numbers(a.subs(point), b.subs(point), decimal)
    except (TypeError, ValueError, ZeroDivisionError):  # no number at this point
      continue
    if not verdict:
      return False
    settled += 1
  return settled > 0 or sympy.simplify(a - b) == 0


def _same_numbers(a, b, decimal: bool) -> bool:
  """Whether two constants are equal; decimal: one is a decimal. Raises TypeError where one is no number."""
  import sympy

  a, b = a.doit(), b.doit()
  if a.is_Rational and b.is_Rational and not decimal:
    return a == b
  digits = 30 if decimal else _digits(a)
  x, y = sympy.N(a, digits), sympy.N(b, digits)
  if not (x.is_number and y.is_number) or x.has(sympy.nan, sympy.zoo) or y.has(sympy.nan, sympy.zoo):
    raise TypeError('no number')
  if x.is_infinite or y.is_infinite:
    return x == y
  size = max(abs(x), abs(y))
  if decimal:
    return bool(abs(x - y) <= _TOLERANCE * size) and bool(abs(x - y) < 1e-6)
  return bool(abs(x - y) <= size * sympy.Float(10, digits) ** (10 - digits)) if size else True


def _digits(value) -> int:
  """Enough digits to distinguish a large whole number from the next one."""
  import sympy

  size = abs(sympy.N(value, 15))
  if not size.is_Float or not size.is_finite or size < 1:
    return _SIGNIFICANT
  return min(5000, _SIGNIFICANT + int(sympy.log(size, 10).evalf(5)) + 1)


def _same_relations(a, b) -> bool:
  """Whether two equations are multiples or have the same solutions, or two inequalities hold at the same points."""
  import sympy

  names = sorted(a.free_symbols | b.free_symbols, key=str)
  if not names:
    return a == b
  if isinstance(a, sympy.Eq) != isinstance(b, sympy.Eq):
    return False
  if not isinstance(a, sympy.Eq):
    return _hold_together(a, b, names)
  one, other = a.lhs - a.rhs, b.lhs - b.rhs
  ratios = set()
  for n in range(_POINTS):
    point = {x: sympy.Rational(7 * n + 3 * i + 5, 11 + 2 * i) for i, x in enumerate(names)}
    x, y = (complex(side.subs(point).evalf(30)) for side in (one, other))
    if cmath.isfinite(x) and cmath.isfinite(y) and x and y:
      ratios.add(complex(round((x / y).real, 9), round((x / y).imag, 9)))
  if len(ratios) == 1:
    return True
  solved = [sympy.solve(relation, *names, dict=True) for relation in (a, b)]
  return bool(solved[0]) and len(solved[0]) == len(solved[1])


def _hold_together(a, b, names) -> bool:
  import sympy

  grid = [sympy.Rational(n, 4) for n in range(-41, 42, 3)] + [sympy.Integer(n) for n in (-1000, 0, 1, 2, 5, 1000)]
  points = itertools.islice(itertools.product(grid, repeat=len(names)), 400)
  return all(bool(a.subs(dict(zip(names, p)))) == bool(b.subs(dict(zip(names, p)))) for p in points)


def _near(a, b, shown: tuple[str, str]) -> bool:
  """Whether one of two constants is a decimal, and equals the other one after rounding or cutting to its digits.

  shown: how the two are written. A decimal times a power of ten may differ by one per cent.
  """
  import sympy

  from vibethinker_jax.verify.quantity import number

  if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)) or a.free_symbols or b.free_symbols:
    return False
  x, y = complex(a.evalf(20)), complex(b.evalf(20))
  if any('10' in text and '^' in text and number(text) is not None for text in shown):
    return abs(x - y) <= 0.01 * abs(x)
  plain = [(len(text.partition('.')[2]), i) for i, text in enumerate(shown) if re.fullmatch(r'-?\d*\.?\d+', text)]
  if not plain or x.imag or y.imag:
    return False
  digits, i = min(plain)
  rounded, value = (x.real, y.real) if i == 0 else (y.real, x.real)
  unit = 10.0**-digits
  cut = math.copysign(math.floor(abs(value) / unit + 1e-9) * unit, value)
  return abs(rounded - value) <= 0.5000001 * unit or abs(rounded - cut) < 1e-6 * unit


def key(answer: str) -> str | None:
  """The text that equal answers share: their value to twelve digits. None unless it is one value without variables."""
  import sympy

  from vibethinker_jax.verify import latex
  from vibethinker_jax.verify.quantity import quantity

  value = parsed(quantity(latex.tidy(answer)).value)
  if not isinstance(value, sympy.Expr) or value.free_symbols:
    return None
  found = complex(value.evalf(20))
  return f'{found.real:.12g}{found.imag:+.12g}i' if cmath.isfinite(found) else None


def holds(left: str, right: str, slack: float) -> bool | None:
  """Whether two LaTeX expressions are equal up to `slack`: numbers to 12 digits, formulas at six points.

  None where a side does not parse, or the two have different variables.
  """
  import sympy
  from latex2sympy2_extended import latex2sympy

  try:
    a, b = latex2sympy(left), latex2sympy(right)
    if not isinstance(a, sympy.Expr) or not isinstance(b, sympy.Expr) or a.free_symbols != b.free_symbols:
      return None
    points = [{}]
    if a.free_symbols:
      names = sorted(a.free_symbols, key=str)
      points = [{x: sympy.Rational(7 * n + 3 * i + 5, 11 + 2 * i) for i, x in enumerate(names)} for n in range(6)]
    for point in points:
      x, y = (complex(side.subs(point).evalf(20)) for side in (a, b))
      if not (cmath.isfinite(x) and cmath.isfinite(y)):
        return None
      if abs(x - y) > max(slack * (1 + 1e-9), 1e-12 * max(abs(x), abs(y))):
        return False
  except Exception:  # a parser and an algebra system may raise anything for a text that is no formula
    return None
  return True


def published(golds: Sequence[str], pred: str) -> bool:
  """Whether the published grader accepts an answer for one of the references (official.py)."""
  return any(official.right(gold, pred) for gold in golds)
