"""Is the boxed answer of a response the right one?

Nearly every verdict of a training run is about an integer, so the common case is decided here, exactly and in
microseconds: equal text after normalising, or two plain numbers compared as fractions. Plain against plain is
final, in both directions: 0.333 is not 1/3. Only what is left (roots, intervals, matrices, formulas) is a
question for math-verify, which runs in killable workers (see symbolic.py).

`judge_many` is the judge of training and evaluation; `judge_many_strictly` gives the published grader's verdicts
(official.py), for figures to be set beside published ones.
"""

import dataclasses
import re
from collections.abc import Sequence
from fractions import Fraction

from vibethinker_jax.verify import official, symbolic
from vibethinker_jax.verify.pool import Failure, Pool

_BOX = re.compile(r'\\(?:boxed|fbox)\s*(?:\{|(-?\d+(?:\.\d+)?))')
_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)  # an escaped brace is a character of the answer, not a bracket

_SPACE = re.compile(r'\\[,;:! ]|\\quad|\\qquad|~|\s+')
_WORDS = re.compile(r'\\(?:text|mathrm|textbf|mathbf|mbox|textit)\s*\{([^{}]*)\}')
_FRACTION = re.compile(r'\\[dtc]frac(?![a-zA-Z])')
_SIZES = re.compile(r'\\(?:left|right|displaystyle)(?![a-zA-Z])')
_DEGREES = re.compile(r'\s*(?:\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|°)')

_UNSIGNED = r'(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+'
_NUMBER = re.compile(rf'\s*([+-]?)\s*({_UNSIGNED})\s*')
_RATIO = re.compile(rf'\s*([+-]?)\s*({_UNSIGNED})\s*/\s*([+-]?)\s*({_UNSIGNED})\s*')
_FRAC = re.compile(
  rf'\s*([+-]?)\s*\\frac\s*(?:\{{\s*([+-]?)\s*({_UNSIGNED})\s*\}}|()(\d))'
  rf'\s*(?:\{{\s*([+-]?)\s*({_UNSIGNED})\s*\}}|()(\d))\s*'
)
_CHOICE = re.compile(r'[(\[]?([A-J])[)\]]?(?:[.:)]\s.*)?', re.DOTALL)
_CHOICES = 'ABCDEFGHIJ'
_NESTING = 20  # brackets within brackets
_DIGITS = 1000  # longer numbers are nobody's answer, and turning text into an int is quadratic


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a grader says of one response.

  score: 1 right, 0 wrong. extracted: the answer or program found, None if there was none.
  reason: a few words.
  """

  score: int
  extracted: str | None
  reason: str


def after_thinking(text: str) -> str:
  """What follows the last `</think>`; the whole text where there is none."""
  return text.rpartition('</think>')[2]


def extract_boxed(text: str) -> str | None:
  r"""The content of the last `\boxed{...}`, `\fbox{...}` or `\boxed 7` after the thinking, stripped.

  None if there is no box or the last one never closes.
  """
  text = after_thinking(text)
  # A response is long and its last box is near its end: searching backwards reads little of it.
  end = len(text)
  while (end := text.rfind('box', 0, end)) >= 0:
    if box := _BOX.match(text, end - 1) or _BOX.match(text, end - 2):
      break
  else:
    return None
  if box.group(1):
    return box.group(1)
  end = _closing(text, box.end())
  return None if end is None else text[box.end() : end].strip()


def _closing(text: str, begin: int) -> int | None:
  """Where the brace opened before `begin` is closed, None if it never is."""
  depth = 1
  for brace in _BRACE.finditer(text, begin):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return brace.start()
  return None


def _plain(text: str) -> str:
  """LaTeX without degree signs and what only concerns looks. Single spaces stay: numbers may be grouped by them."""
  text = text.strip()
  for left, right in (('$$', '$$'), ('$', '$'), ('\\(', '\\)'), ('\\[', '\\]')):
    if text.startswith(left) and text.endswith(right) and len(text) >= len(left + right):
      text = text[len(left) : len(text) - len(right)].strip()
  text = text.replace('{,}', ',').replace(',\\!', ',').replace('\\$', '').replace('−', '-')
  text = _SIZES.sub('', _FRACTION.sub(r'\\frac', _WORDS.sub(r'\1', text)))
  text = _SPACE.sub(' ', _DEGREES.sub('', text.replace('\\!', '')))
  text = re.sub(r' +', ' ', text).strip().removesuffix('.').strip()
  return text[1:-1].strip() if text.startswith('{') and _closing(text, 1) == len(text) - 1 else text


def _tight(text: str) -> str:
  """A plain text with every space gone that does not keep two digits apart."""
  return re.sub(r'(?<!\d) | (?!\d)', '', text)


def _unsigned(text: str) -> Fraction:
  text = text.replace(',', '').replace(' ', '')
  whole, _, part = text.partition('.')
  return Fraction(int(whole + part or '0'), 10 ** len(part))


def number(text: str) -> Fraction | None:
  r"""The exact value of an integer, a decimal or a simple fraction, None for anything else.

  Read are `1,000`, `1{,}000`, `-.5`, `3/4`, `\frac{3}{4}` and their like.
  """
  return _number(_plain(text))


def _number(plain: str) -> Fraction | None:
  if len(plain) > _DIGITS:
    return None
  if plain.startswith('(') and plain.endswith(')') and ',' not in plain:
    plain = plain[1:-1]
  if match := _NUMBER.fullmatch(plain):
    sign, value = match.groups()
    return -_unsigned(value) if sign == '-' else _unsigned(value)
  if match := _RATIO.fullmatch(plain):
    parts = ('', *match.groups())
  elif match := _FRAC.fullmatch(plain):
    sign, *rest = match.groups()
    parts = (sign, *(part for part in rest if part is not None))
  else:
    return None
  outer, top_sign, top, bottom_sign, bottom = parts
  below = _unsigned(bottom)
  if not below:
    return None
  value = _unsigned(top) / below
  return -value if (outer, top_sign, bottom_sign).count('-') % 2 else value


def _bare(plain: str) -> str:
  """A plain text without a percent sign at its end: whether one is asked for, the question says."""
  return plain.removesuffix('%').removesuffix('\\').rstrip()


def _numbers(plain: str) -> tuple[str, list[Fraction], str] | None:
  """A bracketed list of plain numbers: its brackets and its values."""
  if len(plain) < 2 or plain[0] not in '([' or plain[-1] not in ')]' or ',' not in plain:
    return None
  values = [_number(part) for part in plain[1:-1].split(',')]
  return None if None in values else (plain[0], values, plain[-1])


def _choice(plain: str) -> str | None:
  """The letter of `A`, `(A)`, `A.`, `A: text`, `(A) text`, None for anything else."""
  match = _CHOICE.fullmatch(plain.replace(') ', '). ', 1) if plain.startswith('(') else plain)
  return match[1] if match else None


def same_vote(answer: str) -> str:
  """A text that two answers share when they count as one in a vote: the value of a number, else the tidied text."""
  plain = _plain(answer)
  value = _number(plain)
  return _tight(plain) if value is None else str(value)


def accepted_texts(answer: str | Sequence[str]) -> tuple[str, ...]:
  """The accepted answers as a tuple. Raises TypeError or ValueError for anything but a text or texts."""
  if not isinstance(answer, str | list | tuple):
    raise TypeError(f'an answer must be a text or a sequence of texts, not {answer!r}')
  golds = (answer,) if isinstance(answer, str) else tuple(answer)
  if not golds:
    raise ValueError('an answer needs at least one accepted text')
  for gold in golds:
    if not isinstance(gold, str):
      raise TypeError(f'an accepted answer must be a text, not {gold!r}')
  # Data sets give golds bare or as they stood in a solution; a model's box is compared with what is inside.
  return tuple(gold if (inner := extract_boxed(gold)) is None else inner for gold in golds)


def _alike(gold: str, plain: str) -> bool:
  """Whether plain texts are the same to the eye, as choices, as numbers or percentages, or as lists of numbers."""
  if _tight(gold) == _tight(plain) or (len(gold) == 1 and gold in _CHOICES and _choice(plain) == gold):
    return True
  one, other = _number(_bare(gold)), _number(_bare(plain))
  if one is None or other is None:
    one, other = _numbers(gold), _numbers(plain)
  return one is not None and one == other


def _excess(answer: str, golds: Sequence[str]) -> str | None:
  """Why an answer is not looked at, None if it is: parsers of formulas are worse than linear, some exponential.

  A right answer is about as long as the accepted ones, and about as deeply nested.
  """
  if len(answer) > _DIGITS + 4 * max(map(len, golds)):
    return 'answer too long'
  return 'answer nested too deeply' if _depth(answer) > _NESTING + max(map(_depth, golds)) else None


def _depth(text: str) -> int:
  """How many brackets of any kind are open at a time at most."""
  opened = deepest = 0
  for bracket in re.findall(r'[{(\[\])}]', text):
    opened += 1 if bracket in '{([' else -1
    deepest = max(deepest, opened)
  return deepest


def judge_exactly(response: str, answer: str | Sequence[str]) -> Verdict | None:
  """The verdict where text and exact arithmetic decide it, None where it takes algebra."""
  golds = accepted_texts(answer)
  extracted = extract_boxed(response)
  if not extracted:
    return Verdict(0, extracted, 'no boxed answer')
  if (excess := _excess(extracted, golds)) is not None:
    return Verdict(0, extracted, excess)
  plain, undecided = _plain(extracted), False
  for gold in map(_plain, golds):
    if _alike(gold, plain):
      return Verdict(1, extracted, 'exact')
    # two numbers that differ will not be made equal by any algebra
    undecided |= _number(gold) is None or _number(plain) is None
  return None if undecided else Verdict(0, extracted, 'wrong')


def _boxed(text: str) -> str:
  return f'\\boxed{{{text}}}'


def judge_many(pairs: Sequence[tuple[str, str | Sequence[str]]], pool: Pool, deadline_s: float) -> list[Verdict]:
  """Verdicts for (response, answer) pairs, in order.

  `pool` runs `symbolic.command()`; it is touched only if needed. `deadline_s`: seconds each answer's algebra may take.
  """
  verdicts = [judge_exactly(response, answer) for response, answer in pairs]
  asked = {
    i: (accepted_texts(answer), (extract_boxed(response) or '').removesuffix('.'))
    for i, (response, answer) in enumerate(pairs)
    if verdicts[i] is None
  }
  job = lambda golds, pred: symbolic.same_job([_boxed(gold) for gold in golds], _boxed(pred))
  return _ask(verdicts, asked, job, 'math_verify', pool, deadline_s)


def judge_many_strictly(
  pairs: Sequence[tuple[str, str | Sequence[str]]], pool: Pool, deadline_s: float
) -> list[Verdict]:
  """`judge_many` by the published grader's rules: no answer without `</think>`, and none that only algebra finds."""
  answers = [official.extract(response) for response, _ in pairs]
  verdicts: list[Verdict | None] = [None] * len(pairs)
  asked = {}
  for i, (answer, (_, gold)) in enumerate(zip(answers, pairs)):
    if answer is None:
      verdicts[i] = Verdict(0, None, 'no boxed answer after </think>')
    else:  # of any length and nesting: the published grader knows no limit, and a worker that hangs is killed
      asked[i] = tuple(official.golds(gold)), answer
  return _ask(
    verdicts, asked, lambda golds, pred: symbolic.official_job(list(golds), pred), 'official', pool, deadline_s
  )


def _ask(verdicts: list, asked: dict[int, tuple], job, reason: str, pool: Pool, deadline_s: float) -> list[Verdict]:
  """`verdicts` with those of the rows `asked` filled in.

  Equal questions are asked once: the responses of one group often agree.
  """
  questions: dict[tuple, list[int]] = {}
  for i, question in asked.items():
    questions.setdefault(question, []).append(i)
  answers = symbolic.ask(pool, [job(*question) for question in questions], deadline_s)
  for ((_, pred), rows), same in zip(questions.items(), answers, strict=True):
    if isinstance(same, Failure):
      verdict = Verdict(0, pred, same.reason)
    else:
      verdict = Verdict(1, pred, reason) if same else Verdict(0, pred, 'wrong')
    for i in rows:
      verdicts[i] = verdict
  return verdicts


def judge_answer(response: str, answer: str | tuple[str, ...], deadline_s: float = 10.0) -> Verdict:
  """The verdict for one response. Algebra starts a worker, which takes seconds: use a Grader for many.

  Args:
    response: the model's whole text.
    answer: the right answer, or a tuple of accepted ones.
    deadline_s: seconds the algebra may take before the answer counts as wrong.
  """
  with Pool(1, symbolic.command()) as pool:
    return judge_many([(response, answer)], pool, deadline_s)[0]
