r"""The parts of one value of an answer: its number or expression, its unit, and the words that change its meaning.

An answer may leave the unit out, but may not have another unit. Counting words, which change the value (million, or,
not, remainder), must be in both reference and answer, or in neither.
"""

import dataclasses
import re
from fractions import Fraction

from vibethinker_jax.verify import vocabulary

_DIGITS = 1000  # no right answer is longer, and the time to read an int is quadratic in its digits
_LARGEST = 400  # of a power of ten

_UNSIGNED = r'(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+'
_DECIMAL = re.compile(rf'({_UNSIGNED})')
_POWER = re.compile(rf'(?:({_UNSIGNED})\s*(?:\\times|\\cdot|[*x])\s*)?10\s*\^\s*(?:\{{\s*([+-]?\d+)\s*\}}|(\d))')
_E = re.compile(rf'({_UNSIGNED})[eE]([+-]?\d+)')
_RATIO = re.compile(rf'([+-]?)\s*({_UNSIGNED})\s*/\s*([+-]?)\s*({_UNSIGNED})')
_FRAC = re.compile(rf'\\frac\s*\{{\s*([+-]?)\s*({_UNSIGNED})\s*\}}\s*\{{\s*([+-]?)\s*({_UNSIGNED})\s*\}}')
_MIXED = re.compile(r'(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+) (\d+)\s*/\s*(\d+)')
_REPEATING = re.compile(r'(\d*)\.(\d*)(?:\\overline|\\bar|\\dot)\s*(?:\{\s*(\d+)\s*\}|(\d))')
_ENDLESS = re.compile(r'(\d*)\.(\d*?)(\d+?)\3\3\s*(?:\\ldots|\.\.\.)')

_WITH_LETTER = re.compile(r'(.*\d)\s*([mgshLNJWV])')  # a unit of one letter after a plain number

_TEXT = re.compile(r'\\text\{([^{}]*)\}\s*(?:\^\s*(\d|\{\s*-?\d+\s*\}))?')
_DEGREE = re.compile(r'\^\\circ(?![a-zA-Z])\s*([CF](?![a-zA-Z]))?')
_MODULUS = re.compile(r'\\pmod\s*\{?\s*(\w+)\s*\}?|\(\s*\\text\{mod\}\s*(\w+)\s*\)|\(\s*\\(?:b?mod)\s*\{?(\w+)\}?\s*\)')
_MONEY = re.compile(r'\\\$|[$€£¥₹¢]')
_BASE_WORD = re.compile(r'\(?\s*(?:\\text\{in\}\s*)?\\text\{base\}\s*(?:-\s*)?(\\text\{\w+\}|\d+)\s*\)?')
_BASED = re.compile(
  r'([+-]?)\s*([0-9A-Za-z]*\d[0-9A-Za-z]*(?:\.[0-9A-Za-z]+)?|[A-F]{2,})\s*_\s*(?:\{\s*)?(\d+|\\text\{\w+\}|[a-z]{3,})\s*\}?'
)


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A value, and the words and signs around it.

  value: LaTeX without words. percent: whether it is a percentage. unit: canonical words, in order. counting: the
  counting words. scale: the power of ten that words gave, which is part of `value`. modulus: of a congruence.
  """

  value: str
  percent: bool = False
  unit: tuple[str, ...] = ()
  counting: tuple[str, ...] = ()
  scale: int = 0
  modulus: str | None = None


def quantity(text: str) -> Quantity:
  """The parts of a tidied scalar."""
  unit: list[str] = []
  counting: list[str] = []
  scale, percent, modulus = 0, False, None
  if match := _MODULUS.search(text):
    modulus = match[1] or match[2] or match[3]
    text = text[: match.start()] + text[match.end() :]
  text = _BASE_WORD.sub(lambda m: '_{' + m[1].removeprefix('\\text{').rstrip('}') + '}', text)
  if not re.search(r'_\s*(\{\s*)?\\text', text):
    for match in _TEXT.finditer(text):
      for word in _words(match[1]):
        if word in vocabulary.SCALES:
          scale += vocabulary.SCALES[word]
        elif word in vocabulary.PERCENT:
          percent = True
        elif word in vocabulary.COUNTING:
          counting.append(word)
        elif word not in vocabulary.NEUTRAL:
          unit.append(_canonical(word))
      if match[2] and unit:
        power = match[2].strip('{} ')
        unit.insert(-1, {'2': 'sq', '3': 'cu'}.get(power, f'^{power}'))
    text = _TEXT.sub(' ', text)
  for match in _DEGREE.finditer(text):
    unit.append('degree' + (match[1] or ''))
  text = _DEGREE.sub(' ', text)
  for match in _MONEY.finditer(text):
    unit.append(_canonical(match.group().removeprefix('\\')))
  text = _MONEY.sub(' ', text)
  text = re.sub(r'\s+', ' ', text).strip().strip(',').strip()
  text = re.sub(r'^\(\s*\)|\(\s*\)$', '', text).strip()
  if text.endswith('%'):
    percent, text = True, text[:-1].rstrip()
  if scale:
    text = f'{text}\\times 10^{{{scale}}}' if number(text) is not None else f'({text})\\times 10^{{{scale}}}'
  return Quantity(text, percent, tuple(dict.fromkeys(unit)), tuple(counting), scale, modulus)


def without_letter(value: str) -> str | None:
  """A plain number without the one-letter unit after it (`5m`), None for anything else."""
  match = _WITH_LETTER.fullmatch(value)
  return match[1] if match and number(match[1]) is not None else None


def units_agree(gold: Quantity, pred: Quantity) -> bool:
  """Whether the words of an answer agree with those of the reference."""
  if sorted(gold.counting) != sorted(pred.counting):
    return False
  if gold.modulus is not None and pred.modulus is not None and gold.modulus != pred.modulus:
    return False
  one, other = set(gold.unit), set(pred.unit)
  if not one:
    return len(other) <= 6
  if other and _powers(one) != _powers(other):
    return False
  other -= {'unit'} if 'unit' not in one else set()
  return other <= one or one <= other


def _powers(unit: set[str]) -> set[str]:
  return {word for word in unit if word in ('sq', 'cu') or word.startswith('^')}


def _words(content: str) -> list[str]:
  return [
    word.strip('.,:;!?()') for word in re.split(r'[\s/]+|(?<=\w)-(?=\w)', content.lower()) if word.strip('.,:;!?()')
  ]


def _canonical(word: str) -> str:
  for form in (word, word.removesuffix('s'), word.removesuffix('es')):
    if form in vocabulary.UNITS:
      return vocabulary.UNITS[form]
  return word.removesuffix('s') if len(word) > 3 else word


def based(value: str) -> tuple[str, int] | None:
  """The digits and the base of numbers such as `1010_2`, `2A_{16}`, `2016_{seven}`; None for anything else."""
  match = _BASED.fullmatch(re.sub(r'^([+-]?)\(([0-9A-Za-z.]+)\)', r'\1\2', value))
  if match is None:
    return None
  base = match[3].removeprefix('\\text{').rstrip('}')
  found = vocabulary.BASES.get(base)
  if base.isdigit() and len(base) < 4:
    found = int(base)
  if found is None:
    return None
  return (match[1].replace('+', '') + (match[2].lstrip('0') or '0').upper(), found)


def number(text: str) -> Fraction | None:
  r"""The exact value of a number in a tidied text, None for anything else.

  Read are `1,000`, `-.5`, `3/4`, `\frac{3}{4}`, `3\frac{1}{2}`, `3 1/2`, `2.5e3`, `1.6 \times 10^{-19}`,
  `0.1\overline{6}` and their like.
  """
  if len(text) > _DIGITS:
    return None
  text = text.strip()
  if text.startswith('(') and text.endswith(')') and ',' not in text:
    text = text[1:-1].strip()
  sign = 1
  if text[:1] in ('+', '-'):
    sign, text = (-1 if text[0] == '-' else 1), text[1:].strip()
  value = _positive(text)
  return None if value is None else sign * value


def _positive(text: str) -> Fraction | None:
  if match := _DECIMAL.fullmatch(text):
    return _unsigned(match[1])
  if match := _RATIO.fullmatch(text) or _FRAC.fullmatch(text):
    top_sign, top, bottom_sign, bottom = match.groups()
    below = _unsigned(bottom)
    if not below or (top_sign and '/' in text):  # the sign in front was removed: `--1/2` is not read
      return None
    value = _unsigned(top) / below
    return -value if (top_sign, bottom_sign).count('-') == 1 else value
  if match := _MIXED.fullmatch(text):
    whole, top, bottom = (int(part) for part in match.groups() if part is not None)
    return whole + Fraction(top, bottom) if top < bottom else None
  if match := _E.fullmatch(text):
    return _scaled(match[1], match[2])
  if match := _POWER.fullmatch(text):
    return _scaled(match[1] or '1', match[2] or match[3])
  if match := _REPEATING.fullmatch(text):
    return _repeating(match[1], match[2], match[3] or match[4])
  if match := _ENDLESS.fullmatch(text):
    return _repeating(*match.groups())
  return None


def _unsigned(text: str) -> Fraction:
  text = text.replace(',', '').replace(' ', '')
  whole, _, part = text.partition('.')
  return Fraction(int(whole + part or '0'), 10 ** len(part))


def _scaled(mantissa: str, power: str) -> Fraction | None:
  if len(power) > 5 or abs(int(power)) > _LARGEST:
    return None
  return _unsigned(mantissa) * Fraction(10) ** int(power)


def _repeating(whole: str, fixed: str, cycle: str) -> Fraction:
  value = Fraction(int(whole + fixed or '0'), 10 ** len(fixed))
  return value + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
