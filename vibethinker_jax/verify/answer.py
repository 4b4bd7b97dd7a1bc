"""Is the boxed answer of a response right?

The default grader is the reward of RL. Its rule: never accept a wrong answer, and refuse as few right ones as possible.
Nearly every answer of a training run is an integer, so whatever text, exact arithmetic and structure can decide
(compare.py) is decided here, in microseconds. Only formulas are left. math-verify compares them in workers that can be
killed (symbolic.py), and what it calls equal is checked there before it counts (algebra.py).

`judge_many` is the grader of training and evaluation. `judge_many_strictly` gives the verdicts of the published grader
(official.py), for scores that are compared with published ones.
"""

import dataclasses
import re
from collections.abc import Sequence

from vibethinker_jax.boxes import all_boxed, extract_boxed
from vibethinker_jax.verify import compare, latex, official, symbolic
from vibethinker_jax.verify.pool import Failure, Pool
from vibethinker_jax.verify.quantity import number, quantity

_NESTING = 20  # brackets within brackets, beyond those of the accepted answers
_LONG = 1000  # characters, beyond four times the longest accepted answer


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The result of grading one response.

  score: 1 right, 0 wrong. extracted: the answer or program that was found, or None. reason: a few words.
  """

  score: int
  extracted: str | None
  reason: str


def accepted_texts(answer: str | Sequence[str]) -> tuple[str, ...]:
  """The accepted answers as a tuple. Raises TypeError or ValueError for anything but a text, or one text or more."""
  if not isinstance(answer, str | list | tuple):
    raise TypeError(f'an answer must be a text or a sequence of texts, not {answer!r}')
  golds = (answer,) if isinstance(answer, str) else tuple(answer)
  if not golds:
    raise ValueError('an answer needs at least one accepted text')
  for gold in golds:
    if not isinstance(gold, str):
      raise TypeError(f'an accepted answer must be a text, not {gold!r}')
  return golds


def _unboxed(gold: str) -> str:
  """A reference without its boxes: some data sets give it as it stands in a solution.

  Several boxes are one answer with several values.
  """
  inner = all_boxed(gold) if 'box' in gold else []
  return ', '.join(inner) if inner else gold


def vote_key(answer: str) -> str:
  """A text that two answers share if they are equal as numbers, or equal as texts in one spelling."""
  tidied = latex.tidy(answer)
  taken = quantity(tidied)
  value = number(taken.value) if not taken.counting else None
  return latex.tight(tidied) if value is None else f'{value}{"%" if taken.percent else ""}'


def _excess(answer: str, golds: Sequence[str]) -> str | None:
  """Why an answer is refused without a look at its value; None if it is not.

  Parsers of formulas take more than linear time, some take exponential time. A right answer is about as long as the
  accepted ones, and about as deeply nested.
  """
  if len(answer) > _LONG + 4 * max(map(len, golds)):
    return 'answer too long'
  return 'answer nested too deeply' if _depth(answer) > _NESTING + max(map(_depth, golds)) else None


def _depth(text: str) -> int:
  """The largest number of brackets, of any kind, that are open at the same time."""
  opened = deepest = 0
  for bracket in re.findall(r'[{(\[\])}]', text):
    opened += 1 if bracket in '{([' else -1
    deepest = max(deepest, opened)
  return deepest


def judge_exactly(response: str, answer: str | Sequence[str]) -> Verdict | None:
  """The verdict if text, structure and exact arithmetic decide it; None if it takes algebra."""
  return _exactly(extract_boxed(response), tuple(map(_unboxed, accepted_texts(answer))))


def _exactly(extracted: str | None, golds: Sequence[str]) -> Verdict | None:
  if not extracted:
    return Verdict(0, extracted, 'no boxed answer')
  if (excess := _excess(extracted, golds)) is not None:
    return Verdict(0, extracted, excess)
  verdicts = [compare.same(gold, extracted) for gold in golds]
  if True in verdicts:
    return Verdict(1, extracted, 'exact')
  return None if None in verdicts else Verdict(0, extracted, 'wrong')


def judge_many(pairs: Sequence[tuple[str, str | Sequence[str]]], pool: Pool, deadline_s: float) -> list[Verdict]:
  """Verdicts for (response, answer) pairs, in order.

  Args:
    pairs: the text of a response, and the right answer or a sequence of accepted ones.
    pool: its workers run `symbolic.command()`; it is used only if algebra is needed.
    deadline_s: seconds that the algebra of one answer may take.
  """
  questions = [(tuple(map(_unboxed, accepted_texts(answer))), extract_boxed(response)) for response, answer in pairs]
  known = {question: _exactly(question[1], question[0]) for question in dict.fromkeys(questions)}
  verdicts = [known[question] for question in questions]
  asked = {i: question for i, question in enumerate(questions) if verdicts[i] is None}
  job = lambda golds, pred: symbolic.right_job(list(golds), pred)
  return _ask(verdicts, asked, job, 'math_verify', pool, deadline_s)


def judge_many_strictly(
  pairs: Sequence[tuple[str, str | Sequence[str]]], pool: Pool, deadline_s: float
) -> list[Verdict]:
  """Like `judge_many`, by the rules of the published grader: a response without `</think>` has no answer."""
  answers = [official.extract(response) for response, _ in pairs]
  verdicts: list[Verdict | None] = [None] * len(pairs)
  asked = {}
  for i, (answer, (_, gold)) in enumerate(zip(answers, pairs)):
    if answer is None:
      verdicts[i] = Verdict(0, None, 'no boxed answer after </think>')
    else:  # of any length and nesting: the published grader has no limits, and a worker that hangs is killed
      asked[i] = tuple(official.golds(gold)), answer
  return _ask(
    verdicts, asked, lambda golds, pred: symbolic.official_job(list(golds), pred), 'official', pool, deadline_s
  )


def _ask(verdicts: list, asked: dict[int, tuple], job, reason: str, pool: Pool, deadline_s: float) -> list[Verdict]:
  """`verdicts`, with those of the rows in `asked` filled in by algebra.

  Equal questions are asked once: the responses of one group often agree. job: makes a job of (golds, pred). reason: of
  a verdict that is right.
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


def vote_keys(answers: Sequence[str], pool: Pool, deadline_s: float) -> list[str]:
  r"""A text for each answer that equal answers share: `\pi/2` and `\frac{\pi}{2}` are one vote.

  Numbers and texts are compared here, other values without variables by algebra, to twelve digits. Arguments as in
  `judge_many`.
  """
  exact = {answer: vote_key(answer) for answer in dict.fromkeys(answers)}
  asked = [a for a, key in exact.items() if not _settled(key) and _excess(a, ('',)) is None]
  values = symbolic.ask(pool, [symbolic.key_job(answer) for answer in asked], deadline_s)
  for answer, value in zip(asked, values, strict=True):
    if isinstance(value, str):
      exact[answer] = value
  return [exact[answer] for answer in answers]


def _settled(key: str) -> bool:
  """Whether a key is a number or plain words, so that algebra cannot change it."""
  return re.fullmatch(r'-?\d+(?:/\d+)?%?|[\w\s.,-]*', key) is not None


def judge_answer(response: str, answer: str | tuple[str, ...], deadline_s: float = 10.0) -> Verdict:
  """The verdict for one response. If it takes algebra, a worker is started, which takes seconds: use a Grader for many.

  Args:
    response: the model's whole text.
    answer: the right answer, or a tuple of accepted ones.
    deadline_s: seconds the algebra may take before the answer counts as wrong.
  """
  with Pool(1, symbolic.command()) as pool:
    return judge_many([(response, answer)], pool, deadline_s)[0]
