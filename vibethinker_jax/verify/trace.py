r"""Do the steps of a trace hold? A trace is the text of a response; its score is the share of its claims that hold.

A claim is one equality of a chain `a = b = c` (or `\approx`), either in mathematics between dollars or LaTeX brackets,
or in plain text if both sides are arithmetic. Few equalities count as claims, since it costs more to call a right step
wrong than to skip a step:

  - arithmetic on both sides is always a claim: `3 \cdot 4 = 13` does not hold;
  - with variables, the first equality of a chain may be a definition or an equation to be solved (`2x + 3 = 11`), so it
    is no claim. The rest of the chain is read as a computation (`f(x) = (x+1)^2 = x^2 + 2x + 1`): an equality whose
    sides have the same variables claims that they are equal everywhere;
  - a decimal on the right is read as rounded to the digits that it shows;
  - a percentage equated to a plain number (`40 / 80 = 50%`, `100 - 60 = 40%`) is a claim only if it holds;
  - skipped are congruences, dots, plus-minus, inequalities, number bases, mixed numbers, functions of degrees, the
  letter
    i, and operators that a problem defines (`a \star b`).

Plain arithmetic is decided here with exact fractions, in microseconds. The rest goes to the workers of symbolic.py, and
a claim that they cannot settle in time counts as not checked.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from vibethinker_jax.verify import symbolic
from vibethinker_jax.verify.pool import Pool

_LONGEST = 200_000  # characters of a trace that are read
_SIDE = 300  # and of one side of an equality
_MOST = 1000  # claims of one trace
_DELIMITER = re.compile(r'\$\$|\\\$|\$|\\[\[\](]|\\\)|\\(?:begin|end)\{(?:align|aligned|equation|gather)\*?\}')
_CLOSES = {'$': '$', '$$': '$$', '\\[': '\\]', '\\(': '\\)'}
_STATEMENTS = re.compile(
  r'\\\\|\n|[;,](?=\s)|[.](?=\s|$)|\\q?quad(?![a-zA-Z])|\\(?:implies|iff|(?:Long)?[rR]ightarrow|to)(?![a-zA-Z])'
)
_SKIPPED = re.compile(
  r'\\(?:equiv|pmod|bmod|mod|pm|mp|[lcd]?dots|leq?|geq?|neq?|in|mid|sim|cong|text|mathrm|mbox|begin|end)(?![a-zA-Z])'
  r'|\.\.\.|…|[<>:|?@#]|\d_|\d\s*\\[dt]?frac|\\&'
  r'|\\(?:star|ast|circledast|diamond|Diamond|bullet|oplus|otimes|odot|spadesuit|heartsuit|clubsuit|nabla)(?![a-zA-Z])'
)
_DEGREES = re.compile(r'\\circ(?![a-zA-Z])|°')
_ANGLE = re.compile(r'\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])')
_LOOKS = re.compile(r'\\(?:left|right|displaystyle|[,;!:])|&|\\\$|\^\{?\\circ\}?|\\ ')
_PRODUCT = re.compile(r'(?<=\))\s*(?=\()|(?<![\d_^.])(\d+(?:\.\d+)?)\s*(?=\()')  # (3)(4) and 3(4)
_TIMES = re.compile(r'(?<=[\d)%])(\s+)[xX](\s+)(?=[\d(.$])')  # 3 x 4 in plain text
_CUT = re.compile(r'(?<!\w)[xX]\s*$')  # a times sign: what follows is only a second operand
_TWO_SLASHES = re.compile(r'/[^()+*/]*(?<=[\d ])/')  # 6 / 1/2 may be 12 or 3
_RUN = re.compile(r'[0-9.,+\-*/×÷·()=≈$%^ ]{5,400}')
_ITEM = re.compile(r'^[ \t]*(?:\d{1,3}[.)]|[-*])[ \t]+', re.MULTILINE)
_OPERATOR = re.compile(r'[0-9)%]\s*[-+*/×÷·^]')
_FRAC = re.compile(r'\\frac\{([^{}]*)\}\{([^{}]*)\}')
_SIGNS = {'×': '*', '·': '*', '÷': '/', '^': '**', '$': '', '−': '-', '%': '*(1/100)', '{,}': '', '{': '(', '}': ')'}
_DECIMAL = re.compile(r'\s*-?\d*(?:\.(\d+))?\s*')


@dataclasses.dataclass(frozen=True)
class Claim:
  """An equality as it is written in the trace. about: whether its sign is an approximation sign."""

  left: str
  right: str
  about: bool = False


@dataclasses.dataclass(frozen=True)
class Trace:
  """The result of checking a trace. holds: for each claim True, False, or None where it could not be settled."""

  claims: tuple[Claim, ...]
  holds: tuple[bool | None, ...]

  @property
  def checked(self) -> int:
    """How many claims were settled."""
    return sum(h is not None for h in self.holds)

  @property
  def share(self) -> float | None:
    """The share of the settled claims that hold; None if no claim was settled."""
    return sum(h is True for h in self.holds) / self.checked if self.checked else None


def claims(text: str) -> list[Claim]:
  """The claims of a trace, in mathematics first, then in plain text."""
  mathematics, words = _apart(text[:_LONGEST])
  out = []
  for piece in mathematics:
    for statement in _STATEMENTS.split(piece):
      out += _links(_unboxed(statement), _of_mathematics)
  words = _TIMES.sub(r'\1×\2', _ITEM.sub('', words).replace('–', '-').replace('−', '-'))
  for run in _RUN.finditer(words):
    # a letter next to the run belongs to it: "2x = 6" claims nothing about 2, and "n x 3/4 = 6" nothing about 3/4
    before, after = words[max(0, run.start() - 1) : run.start()], words[run.end() : run.end() + 1]
    cut = bool(_CUT.search(words, max(0, run.start() - 8), run.start()))
    pieces = re.split(r'[.,](?=\s|$)', run.group())
    for i, piece in enumerate(pieces):
      whole = piece.startswith(' ') or not (before.isalnum() or before in tuple(')]}_\\'))
      begins = i > 0 or (whole and not cut)
      ends = i < len(pieces) - 1 or piece.endswith(' ') or not (after.isalnum() or after in tuple('([{_\\'))
      out += _links(piece, functools.partial(_of_text, begins, ends))
    if len(out) >= _MOST:
      break
  return out[:_MOST]


def _apart(text: str) -> tuple[list[str], str]:
  """The pieces of mathematics in a text, and the rest of the text."""
  mathematics, words, opened, at = [], [], None, 0
  for mark in _DELIMITER.finditer(text):
    sign = mark.group()
    closes = sign.startswith('\\end') if opened and opened.startswith('\\begin') else sign == _CLOSES.get(opened)
    if opened and closes:
      mathematics.append(text[at : mark.start()])
      opened, at = None, mark.end()
    elif (sign in _CLOSES or sign.startswith('\\begin')) and opened not in ('$', '$$'):
      words.append(text[at : mark.start()])  # an opening bracket within brackets starts a new piece
      opened, at = sign, mark.end()
  if opened is None:
    words.append(text[at:])
  else:
    words.append(words.pop() + opened + text[at:])  # a single dollar sign is money
  return mathematics, '\n'.join(words)


def check(texts: Sequence[str], pool: Pool, deadline_s: float) -> list[Trace]:
  """Checks traces, in order. pool: its workers run `symbolic.command()`. deadline_s: seconds that a claim may take."""
  found = [claims(text) for text in texts]
  settled: dict[Claim, bool | None] = {}
  open_claims = []
  for claim in dict.fromkeys(claim for row in found for claim in row):
    left, right = _value(claim.left), _value(claim.right)
    if left is not None and right is not None:
      same = abs(left - right) <= _slack(claim)
      settled[claim] = same or (None if ('%' in claim.left) != ('%' in claim.right) else False)
    else:
      open_claims.append(claim)
  jobs = [symbolic.holds_job(_clean(c.left), _clean(c.right), float(_slack(c))) for c in open_claims]
  for claim, answer in zip(open_claims, symbolic.ask(pool, jobs, deadline_s), strict=True):
    settled[claim] = answer if isinstance(answer, bool) else None
  return [Trace(tuple(row), tuple(settled[claim] for claim in row)) for row in found]


def _links(statement: str, accept: Callable[[str, str, bool, bool], bool]) -> list[Claim]:
  """The claims of one chain; `accept(left, right, first, last)` says which of its equalities are claims."""
  if '=' not in statement and 'approx' not in statement and '≈' not in statement:
    return []
  if _SKIPPED.search(statement):
    return []
  sides, signs, depth, begin, at = [], [], 0, 0, 0
  while at < len(statement):
    depth += {'{': 1, '(': 1, '[': 1, '}': -1, ')': -1, ']': -1}.get(statement[at], 0)
    sign = next((s for s in ('=', '≈', '\\approx') if statement.startswith(s, at)), None)
    if sign is not None and depth == 0:
      sides.append(statement[begin:at].strip())
      signs.append(sign)
      at = begin = at + len(sign)
    else:
      at += 1
  sides.append(statement[begin:].strip())
  return [
    Claim(left, right, sign != '=')
    for k, (left, right, sign) in enumerate(zip(sides, sides[1:], signs))
    if 0 < len(_clean(left)) <= _SIDE
    and 0 < len(_clean(right)) <= _SIDE
    and accept(left, right, k == 0, k == len(sides) - 2)
  ]


def _of_mathematics(left: str, right: str, first: bool, last: bool) -> bool:
  variables = [_letters(side) for side in (left, right)]
  if 'i' in variables[0] or any(_DEGREES.search(side) and _ANGLE.search(side) for side in (left, right)):
    return False
  return variables[0] == variables[1] and not (first and variables[0])


def _of_text(begins: bool, ends: bool, left: str, right: str, first: bool, last: bool) -> bool:
  """begins, ends: whether the first and the last side of the chain are complete, and do not continue in words."""
  # "50% of 20 = 10" claims nothing about 20, and "2x + 3 + 4 = 11" nothing about 3 + 4
  if first and not (begins and _OPERATOR.search(left) and not re.match(r'[-+*/×÷·^)]\s|[+*/×÷·^)]', left)):
    return False
  if _TWO_SLASHES.search(left) or _TWO_SLASHES.search(right):
    return False
  return (ends or not last) and _value(left) is not None and _value(right) is not None


def _letters(side: str) -> set[str]:
  return set(re.findall('[a-zA-Z]', re.sub(r'\\[a-zA-Z]+', ' ', side)))


def _unboxed(statement: str) -> str:
  match = re.search(r'\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}', statement)
  return statement if match is None else statement[: match.start()] + match[1] + statement[match.end() :]


def _clean(side: str) -> str:
  """LaTeX without commands for looks, degrees and currency, and with a sign for every product of brackets."""
  plain = _LOOKS.sub(' ', re.sub(r'\\[dt]frac(?![a-zA-Z])', r'\\frac', side)).replace('\\%', '%').strip()
  return _PRODUCT.sub(lambda m: f'{m[1] or ""} \\cdot ', plain)


def _slack(claim: Claim) -> Fraction:
  """The allowed difference of the two sides: half a unit of the last digit that a decimal on the right shows."""
  shown = _DECIMAL.fullmatch(_clean(claim.right).replace('$', ''))
  if shown is None or (shown[1] is None and not claim.about):
    return Fraction(0)
  return Fraction(1, 2 * 10 ** len(shown[1] or ''))


def _value(side: str) -> Fraction | None:
  """The exact value of plain arithmetic, None for anything else."""
  text = _clean(side)
  if len(text) > _SIDE:
    return None
  text = _PRODUCT.sub(lambda m: f'{m[1] or ""} \\cdot ', _FRAC.sub(r'((\1)/(\2))', text))
  for sign, plain in (('\\times', '*'), ('\\cdot', '*'), ('\\div', '/'), *_SIGNS.items()):
    text = text.replace(sign, plain)
  text = re.sub(r'(?<=\d),(?=\d{3}(?!\d))', '', text)
  if not re.fullmatch(r'[0-9.+\-*/() ]+', text) or re.search(r'\d\s+\d|//', text):
    return None
  try:
    return _evaluate(ast.parse(text.strip(), mode='eval').body)
  except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
    return None


def _evaluate(node: ast.expr) -> Fraction:
  """The value of arithmetic. Raises ValueError for anything else, and for numbers that would become too large."""
  match node:
    case ast.Constant(value=int() | float() as value):
      return Fraction(repr(value))
    case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
      value = _evaluate(operand)
      return -value if isinstance(op, ast.USub) else value
    case ast.BinOp(left=left, op=op, right=right):
      a, b = _evaluate(left), _evaluate(right)
      match op:
        case ast.Add():
          return a + b
        case ast.Sub():
          return a - b
        case ast.Mult():
          return a * b
        case ast.Div():
          return a / b
        case ast.Pow() if b.denominator == 1 and abs(b) <= 64 and max(abs(a.numerator), a.denominator) < 10**9:
          return a ** int(b)
  raise ValueError('no plain arithmetic')
