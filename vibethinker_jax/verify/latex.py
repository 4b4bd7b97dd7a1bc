r"""The LaTeX of an answer in one spelling: without commands that only change its looks, with all words in `\text{}`.

Everything that has a meaning is kept: numbers, letters, operators, brackets, commas, words. Nothing is computed here.
"""

import functools
import re
import unicodedata

from vibethinker_jax.boxes import closing
from vibethinker_jax.verify import vocabulary

# Characters that NFKC would misread (a superscript 2 as the digit 2), or would not change.
_VULGAR = {
  '½': '1/2', '⅓': '1/3', '⅔': '2/3', '¼': '1/4', '¾': '3/4', '⅕': '1/5', '⅖': '2/5', '⅗': '3/5', '⅘': '4/5',
  '⅙': '1/6', '⅚': '5/6', '⅐': '1/7', '⅛': '1/8', '⅜': '3/8', '⅝': '5/8', '⅞': '7/8', '⅑': '1/9', '⅒': '1/10',
}  # fmt: skip
_RAISED = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ', '0123456789+-ni')
_LOWERED = str.maketrans('₀₁₂₃₄₅₆₇₈₉₊₋', '0123456789+-')
_SIGNS = {
  '−': '-', '–': '-', '—': '-', '‐': '-', '‑': '-', '﹣': '-', '×': r'\times ', '✕': r'\times ', '·': r'\cdot ',
  '⋅': r'\cdot ', '∙': r'\cdot ', '÷': r'\div ', '⁄': '/', '∕': '/', '±': r'\pm ', '∓': r'\mp ', '≤': r'\le ',
  '≦': r'\le ', '⩽': r'\le ', '≥': r'\ge ', '≧': r'\ge ', '⩾': r'\ge ', '≠': r'\ne ', '≈': r'\approx ',
  '≡': r'\equiv ', '∼': r'\sim ', '→': r'\to ', '⇒': r'\Rightarrow ', '⇔': r'\iff ', '∪': r'\cup ', '∩': r'\cap ',
  '∈': r'\in ', '∉': r'\notin ', '∅': r'\emptyset ', '∞': r'\infty ', '∨': r'\lor ', '∧': r'\land ', '∣': r'\mid ',
  'ℝ': r'\mathbb{R}', 'ℤ': r'\mathbb{Z}', 'ℚ': r'\mathbb{Q}', 'ℕ': r'\mathbb{N}', 'ℂ': r'\mathbb{C}', '…': r'\ldots ',
  '°': r'^\circ ', 'º': r'^\circ ', '′': "'", '’': "'", '‘': "'", '“': '"', '”': '"', 'α': r'\alpha ', 'β': r'\beta ',
  'γ': r'\gamma ', 'θ': r'\theta ', 'λ': r'\lambda ', 'φ': r'\phi ', 'ω': r'\omega ', 'π': r'\pi ', '、': ',',
  '元': r'\text{yuan}', '或': r'\text{or}', '∠': r'\angle ', '⟨': r'\langle ', '⟩': r'\rangle ',
}  # fmt: skip
_INVISIBLE = dict.fromkeys(map(ord, '\u200b\u200c\u200d\u2060\ufeff\u00ad'))

_ALIASES = {
  'dfrac': 'frac', 'tfrac': 'frac', 'cfrac': 'frac', 'leq': 'le', 'leqslant': 'le', 'geq': 'ge', 'geqslant': 'ge',
  'neq': 'ne', 'varnothing': 'emptyset', 'dots': 'ldots', 'cdots': 'ldots', 'dotsc': 'ldots', 'implies': 'Rightarrow',
  'Longrightarrow': 'Rightarrow', 'rightarrow': 'to', 'longrightarrow': 'to', 'vee': 'lor', 'wedge': 'land',
  'Leftrightarrow': 'iff', 'dbinom': 'binom', 'tbinom': 'binom', 'lbrace': '{', 'rbrace': '}', 'thickapprox': 'approx',
  'simeq': 'approx', 'ast': 'cdot', 'bullet': 'cdot',
}  # fmt: skip
_PLAIN = {'lt': '<', 'gt': '>', 'lbrack': '[', 'rbrack': ']', 'lparen': '(', 'rparen': ')', 'colon': ':', 'vert': '|',
          'lvert': '|', 'rvert': '|', 'degree': r'^\circ ', 'euro': '€', 'pounds': '£', 'textdollar': r'\$',
          'percent': r'\%'}  # fmt: skip
_LOOKS = re.compile(
  r'\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|tiny|small|normalsize|large|Large|'
  r'LARGE|huge|Huge|bfseries|itshape|rm|bf|it|sf|tt|boldmath|cal|mathstrut|strut|centering|mleft|mright|middle|,)'
  r'(?![a-zA-Z])\.?'
)
_SPACES = re.compile(r'\\(?:quad|qquad|thinspace|enspace|space|newline|hfill)(?![a-zA-Z])|(?<!\\)\\[;: \n]|~')
# A wide space separates two values; next to words and commas it has no meaning.
_QUAD = re.compile(r'(?<=[^\s,;:&=\\({\[])\s*\\q?quad\s*(?=[^\s,;:&=\\)}\]]|\\(?:[dt]?frac|sqrt|pi|left)(?![a-z]))')
_GONE = re.compile(r'\\[hv]space\*?\{[^{}]*\}|\\[hv]?phantom\{[^{}]*\}|\\tag\{[^{}]*\}|\\label\{[^{}]*\}')
_STYLES = re.compile(
  r'\\(?:bm|boldsymbol|mathit|mathsf|mathtt|mathcal|mathnormal|pmb|underline|underbar|ensuremath|mbox|hbox|textbf|'
  r'textit|textrm|textsf|texttt|textnormal|textup|textsc|emph|text|mathrm|mathbf|operatorname\*?)(?![a-zA-Z])\s*\{'
)
_OF_WORDS = ('mbox', 'hbox', 'text', 'emph', 'mathrm', 'mathbf', 'operatorname', 'mathit', 'mathsf', 'mathtt')
_COLOURS = re.compile(r'\\(?:text)?color\s*\{[^{}]*\}|\\colorbox\s*\{[^{}]*\}')
_COMMAND = re.compile(r'\\([a-zA-Z]+)')
_WORD = re.compile(r"[^\W\d_]+(?:[.'’-][^\W\d_]+)*\.?")
_PREFIX = re.compile(r'(?:so\s+)?(?:the\s+)?(?:(?:final|correct)\s+)?answer\s*(?:is\b\s*:?|:|=)\s*', re.IGNORECASE)


@functools.lru_cache(4096)  # a reference is compared with all samples of its group
def tidy(text: str) -> str:
  r"""The one spelling of an answer: `½` and `\dfrac{1}2` -> `\frac{1}{2}`, `\textbf{5} cm` -> `5 \text{cm}`.

  Marks around the whole (dollars, quotes, Markdown, braces, "Answer:", punctuation behind) are gone.
  """
  text = _unwrapped(_ascii(text))
  text = _commands(text)
  text = _styles(text)
  text = _unwrapped(_PREFIX.sub('', _without_text(text), count=1) if _PREFIX.match(_without_text(text)) else text)
  text = re.sub(r'\{\s*,\s*\}', '', text)  # 1{,}000
  text = re.sub(r'(?<![\\}\]a-zA-Z_^])\{\s*(\\text\{[^{}]*\})\s*\}', r'\1', text)
  text = _arguments(text)
  text = re.sub(r'\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![a-zA-Z])', r'^\\circ ', text)
  text = re.sub(r'([_^])\s*\{\s*([A-Za-z0-9])\s*\}', r'\1\2', text)
  text = re.sub(r'\\\{\s*\\\}', r'\\emptyset ', text)
  return re.sub(r'\s+', ' ', text).strip()


def tight(tidied: str) -> str:
  """A tidied text without spaces, except those between two digits, or between a command and a letter."""
  text = re.sub(r'(?<!\d) | (?!\d)', lambda m: m.group(), tidied)
  text = re.sub(r'(\\[a-zA-Z]+) (?=[a-zA-Z])', '\\1\0', text)
  text = re.sub(r'(\d) (?=\d)', '\\1\0', text)
  return text.replace(' ', '').replace('\0', ' ')


def _ascii(text: str) -> str:
  text = text.translate(_INVISIBLE)
  if text.isascii():
    return text
  for vulgar, ratio in _VULGAR.items():
    text = text.replace(vulgar, '\\frac{{{}}}{{{}}}'.format(*ratio.split('/')))
  text = re.sub('[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+', lambda m: '^{' + m.group().translate(_RAISED) + '}', text)
  text = re.sub('[₀₁₂₃₄₅₆₇₈₉₊₋]+', lambda m: '_{' + m.group().translate(_LOWERED) + '}', text)
  for sign, latex in _SIGNS.items():
    text = text.replace(sign, latex)
  text = re.sub(r'√\s*(\d+(?:\.\d+)?|[a-zA-Z]|\\pi ?)', r'\\sqrt{\1}', text)
  text = re.sub(r'√\s*\(([^()]*)\)', r'\\sqrt{\1}', text).replace('√', r'\sqrt')
  text = unicodedata.normalize('NFKC', text)
  for sign, latex in _SIGNS.items():  # those that were full-width or in another form
    text = text.replace(sign, latex)
  return text


_AROUND = (('$$', '$$'), ('$', '$'), ('\\(', '\\)'), ('\\[', '\\]'), ('**', '**'), ('__', '__'), ('`', '`'),
           ('"', '"'), ("'", "'"), ('``', "''"), ('*', '*'))  # fmt: skip


def _unwrapped(text: str) -> str:
  """The text without quotation marks, dollars and other marks around the whole of it."""
  while True:
    before = text
    text = text.strip().rstrip(';,').rstrip()
    if text.endswith('.') and not text.endswith('..') and not text.endswith(r'\right.'):
      text = text[:-1].rstrip()
    if text.endswith('\\') and not text.endswith('\\\\'):
      text = text[:-1].rstrip()
    for left, right in _AROUND:
      inner = text[len(left) : len(text) - len(right)]
      if len(text) > len(left + right) and text.startswith(left) and text.endswith(right) and right not in inner:
        text = inner
        break
    if text.startswith('{') and closing(text, 1) == len(text) - 1:
      text = text[1:-1]
    if text == before:
      return text


def _commands(text: str) -> str:
  """The text with plain signs in place of commands that are only other names or looks of them."""
  text = re.sub(r'\\dollar(?![a-zA-Z])', r'\\$', _GONE.sub('', text)).replace('\\&', '&')
  text = re.sub(r'\\(triangle|angle)(?=[A-Z])', r'\\\1 ', re.sub(r'(?<![a-zA-Z}\]])\{(\w+)\}(?=_)', r'\1', text))
  text = _COMMAND.sub(lambda m: '\\' + _ALIASES[m[1]] if m[1] in _ALIASES else m.group(), text)
  text = _COMMAND.sub(lambda m: _PLAIN.get(m[1], m.group()), text)
  # a thin space groups digits, any other space separates
  text = re.sub(r'(?<=\d)\\,(?=\d{3}(?!\d))', '', text)
  text = re.sub(r'(?<=\d),\s*\\!\s*(?=\d)', '', text)
  text = _QUAD.sub(lambda m: m.group() if re.search(r'\\(?:text|mbox)\{[^{}]*\}$', text[: m.start()]) else ' ; ', text)
  text = _SPACES.sub(' ', _LOOKS.sub(' ', _COLOURS.sub('', text)))
  text = re.sub(r'\\mathbb\s*([A-Z])', r'\\mathbb{\1}', re.sub(r'\\!|(?<![_^])\{\}', '', text))
  text = re.sub(r'\\overline\s*\{\s*([A-Z]{2})\s*\}', r'\1', text)  # a segment
  return text.replace('\\%', '%')


def _styles(text: str) -> str:
  r"""The text without styles, and with all words in `\text{}`: `5 cm` and `\mathrm{5 cm}` give the same."""
  out, at = [], 0
  while (style := _STYLES.search(text, at)) is not None:
    end = closing(text, style.end())
    if end is None:
      break
    out.append(_bare_words(text[at : style.start()]))
    name = style.group()[1:].rstrip('{ *')
    inner = text[style.end() : end]
    if re.match(r'\s*_', text[end + 1 :]):  # digits of a number of another base
      out.append(inner)
    elif inner.strip() in vocabulary.LETTER_UNITS and re.search(r'[\d})]\s*$', text[: style.start()]):
      out.append(f' \\text{{{inner.strip()}}} ')
    else:
      out.append(_worded(inner) if name.startswith(_OF_WORDS) else _styles(inner))
    at = end + 1
  return ''.join([*out, _bare_words(text[at:])])


def _worded(content: str) -> str:
  r"""The content of a style, with its words in `\text{}` and the rest unchanged."""
  if _STYLES.search(content) or '$' in content:
    content = _styles(content.replace('$', ' '))
    return content
  if not re.search(r'\d', content) and ' ' not in content.strip() and len(content.strip()) > 1:
    word = content.strip()
    if word in vocabulary.FUNCTIONS:
      return f'\\{word} '
    if re.fullmatch(r'[^\W\d_]+[^{}\\(),;:]*', word) and not re.search('[=<>+*]', word):
      return f' \\text{{{word}}} '
  return _WORD.sub(lambda m: _word(content, m), content)


def _word(content: str, match: re.Match) -> str:
  word = match.group()
  before = content[match.start() - 1 : match.start()]
  after = content[match.end() : match.end() + 1]
  if before == '\\' or before.isdigit() or after.isdigit() or (len(word) == 1 and word.isascii()):
    return word  # a command, a number of another base, a variable
  if word in vocabulary.FUNCTIONS:
    return f'\\{word} '
  return f' \\text{{{word}}} '


def _bare_words(text: str) -> str:
  r"""The text with words outside any style in `\text{}`: two or more letters that are no product of variables."""

  def worded(m: re.Match) -> str:
    word = m.group()
    spelt = word.isalpha() and len(word) > 4 and re.search('[aeiouy]', word) and text[m.start() - 1 : m.start()] == ' '
    known = word.lower().rstrip('.') in vocabulary.BARE
    return f' \\text{{{word}}} ' if known or spelt or not word.isascii() else word

  text = re.sub(r'(?<=\d)\s*([ap])\.?\s?m\b\.?', r' \\text{\1m} ', text) if ':' in text else text
  return re.sub(r"(?<![\\A-Za-z])(?:[^\W\d_]+(?:[.'][^\W\d_]+)*\.?)", worded, text)


def _without_text(text: str) -> str:
  return re.sub(r'\s+', ' ', re.sub(r'\\text\{([^{}]*)\}', r' \1 ', text)).strip().replace(' :', ':')


def _arguments(text: str) -> str:
  r"""The text with braces added to `\frac12` and `\sqrt2`."""
  text = re.sub(r'\\frac\s*(\d)\s*(\d)', r'\\frac{\1}{\2}', text)
  text = re.sub(r'\\frac\s*([0-9a-zA-Z])\s*\{', r'\\frac{\1}{', text)
  text = re.sub(r'(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])', r'\1{\2}', text)
  return re.sub(r'\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9a-zA-Z])', r'\\sqrt\1{\2}', text)
