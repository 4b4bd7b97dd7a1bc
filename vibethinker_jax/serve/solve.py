"""Analyses solutions: the answer, the key steps and whether they hold; and the spectrum of many solutions.

The spectrum of several solutions is which answers they reach, and how many reach each. The graders of verify/ decide
everything, so the verdicts are those of training and evaluation.
"""

import ast
import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Collection, Sequence

from vibethinker_jax.boxes import answer_part, extract_boxed
from vibethinker_jax.verify.answer import Verdict, vote_key
from vibethinker_jax.verify.code import extract_code
from vibethinker_jax.verify.grader import Grader

_FENCE = re.compile(r'^\s*```')
_DISPLAY = (('\\[', '\\]'), ('$$', '$$'))
_EQUALITY = re.compile(r'[^=<>!:]=[^=]|\\approx|≈')
_LINE = 400  # characters of a key step at most; a longer line is prose
_STEPS = 200  # key steps of one solution at most
_PROGRAM = 20_000  # characters; a longer program is compared as text
_COMPARED = 24  # different answers that are compared with each other by algebra


@dataclasses.dataclass(frozen=True)
class KeyStep:
  """A key step of a solution.

  begin, end: its place in the text of the solution. kind: 'equation', or 'result' for the line with the answer. holds:
  whether its equalities hold, None if none of them could be settled.
  """

  begin: int
  end: int
  kind: str
  text: str
  holds: bool | None


@dataclasses.dataclass(frozen=True)
class SampledSolution:
  """One sample, analysed.

  answer: the content of the last box, or the last code block if a program was asked for. format_ok: it ended by itself,
  its thinking is closed, and it has an answer. steps_share: the share that holds of the settled equalities of the whole
  text. code: the last code block.
  """

  text: str
  finish_reason: str
  answer: str | None
  format_ok: bool
  key_steps: tuple[KeyStep, ...]
  steps_share: float | None
  code: str | None
  verdict: Verdict | None


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Equal answers. answer: one of them. members: the indices of their solutions."""

  answer: str
  members: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SolutionSpectrum:
  """The answers of several solutions.

  clusters: of equal answers, the largest first; clusters of equal size in the order of their first solutions.
  unanswered: the indices of solutions without an answer.
  """

  clusters: tuple[Cluster, ...]
  unanswered: tuple[int, ...]

  @property
  def leaders(self) -> tuple[Cluster, ...]:
    """The largest cluster, and all others of the same size: more than one is a tie."""
    return tuple(c for c in self.clusters if len(c.members) == len(self.clusters[0].members))

  @property
  def majority(self) -> str | None:
    """The answer of the largest cluster, in a tie of the first; None without answers."""
    return self.clusters[0].answer if self.clusters else None

  @property
  def agreement(self) -> float:
    """The share of all solutions that is in the largest cluster."""
    total = len(self.unanswered) + sum(len(c.members) for c in self.clusters)
    return len(self.clusters[0].members) / total if self.clusters else 0.0


class GraderPool:
  """A few graders, each for one caller at a time."""

  def __init__(self, count: int = 2, deadline_s: float = 10.0):
    self._graders = [Grader(1, deadline_s) for _ in range(count)]
    self._free: asyncio.Queue[Grader] = asyncio.Queue()
    for grader in self._graders:
      self._free.put_nowait(grader)

  @contextlib.asynccontextmanager
  async def one(self) -> AsyncIterator[Grader]:
    """A context with a grader that nobody else uses meanwhile."""
    grader = await self._free.get()
    try:
      yield grader
    finally:
      self._free.put_nowait(grader)

  def close(self) -> None:
    """Ends their workers."""
    for grader in self._graders:
      grader.close()


async def take_apart(
  graders: GraderPool,
  texts: Sequence[str],
  finishes: Sequence[str],
  answer: str | Sequence[str] | None = None,
  tests: Sequence[dict] | dict | None = None,
) -> tuple[list[SampledSolution], SolutionSpectrum]:
  """The solutions and their spectrum.

  Args:
    graders: one of them is used.
    texts: the samples.
    finishes: how each of them ended, 'stop' or 'length'.
    answer, tests: what the samples are graded by, as in Grader.grade; None for both gives no verdicts.

  Raises:
    RuntimeError: the sandbox failed.
  """
  async with graders.one() as grader:
    # a thread cannot be stopped, and the grader is busy until it ends: a caller that is cancelled waits for it
    work = asyncio.get_running_loop().run_in_executor(None, _take_apart, grader, texts, finishes, answer, tests)
    try:
      return await asyncio.shield(work)
    finally:
      if not work.done():
        await asyncio.wait([work])


def _take_apart(grader: Grader, texts, finishes, answer, tests) -> tuple[list[SampledSolution], SolutionSpectrum]:
  verdicts: list[Verdict | None] = [None] * len(texts)
  if answer is not None or tests is not None:
    verdicts = list(grader.grade([(text, answer, tests) for text in texts]))
  marked = [mark_steps(text) for text in texts]
  # whole texts for the share, and each step alone for its own mark
  pieces = [*texts, *(text[b:e] for text, steps in zip(texts, marked) for b, e, _ in steps)]
  traces = grader.check_traces([(piece, answer, tests) for piece in pieces])
  whole, single = traces[: len(texts)], iter(traces[len(texts) :])
  solutions = []
  for text, finish, steps, trace, verdict in zip(texts, finishes, marked, whole, verdicts):
    kept = tuple(KeyStep(b, e, kind, text[b:e], _holds(next(single).holds)) for b, e, kind in steps)
    box, code = extract_boxed(text) or None, extract_code(text) or None
    found = code if tests is not None or box is None else box
    well = finish == 'stop' and found is not None and text.count('<think>') <= text.count('</think>')
    solutions.append(SampledSolution(text, finish, found, well, kept, trace.share, code, verdict))
  programs = [i for i, solution in enumerate(solutions) if solution.answer == solution.code]
  return solutions, cluster(grader, [solution.answer for solution in solutions], programs)


def _holds(settled: Sequence[bool | None]) -> bool | None:
  known = [holds for holds in settled if holds is not None]
  return all(known) if known else None


def cluster(grader: Grader, answers: Sequence[str | None], programs: Collection[int] = ()) -> SolutionSpectrum:
  """The spectrum of some answers.

  Args:
    grader: compares the most frequent answers; those that it calls equal are in one cluster.
    answers: of each solution, None for none. Those that are equal as texts or numbers are in one cluster.
    programs: the indices of answers that are Python programs. These are equal if Python parses them to the same tree;
      the grader does not compare them.
  """
  exact: dict[tuple[bool, str], list[int]] = {}
  for i, answer in enumerate(answers):
    if answer:
      key = (True, program_key(answer)) if i in programs else (False, vote_key(answer))
      exact.setdefault(key, []).append(i)
  keys = sorted(exact, key=lambda key: len(exact[key]), reverse=True)
  groups = [exact[key] for key in keys]
  first = [answers[members[0]] for members in groups]
  asked = [i for i, (is_program, _) in enumerate(keys) if not is_program][:_COMPARED]
  pairs = [(i, j) for j in asked for i in asked if i < j]
  verdicts = grader.grade([(f'\\boxed{{{first[j]}}}', first[i], None) for i, j in pairs])
  same = {pair for pair, verdict in zip(pairs, verdicts) if verdict.score}
  merged: list[list[int]] = []
  leaders: list[int] = []
  for j, members in enumerate(groups):
    home = next((n for n, i in enumerate(leaders) if (i, j) in same), None)
    if home is None:
      leaders.append(j)
      merged.append(list(members))
    else:
      merged[home] += members
  merged = [sorted(members) for members in merged]
  merged.sort(key=lambda members: (-len(members), members[0]))
  clusters = tuple(Cluster(answers[members[0]], tuple(members)) for members in merged)
  return SolutionSpectrum(clusters, tuple(i for i, answer in enumerate(answers) if not answer))


def program_key(code: str) -> str:
  """A text that two programs share if Python parses them to the same tree: comments and layout do not count."""
  if len(code) <= _PROGRAM:
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
      return ast.dump(ast.parse(code))
  return '\n'.join(line.rstrip() for line in code.strip().split('\n'))


def mark_steps(text: str) -> list[tuple[int, int, str]]:
  """(begin, end, kind) of the key steps of a solution.

  Key steps are lines and displayed formulas with an equality, and the line with the answer; code is left out.
  """
  steps, at, fenced, opened = [], 0, False, None
  for line in text.splitlines(keepends=True):
    begin, at = at, at + len(line)
    body = line.strip()
    if _FENCE.match(line):
      fenced = not fenced
      continue
    if fenced or not body:
      continue
    if opened is None:
      opens = next(((o, c) for o, c in _DISPLAY if body.startswith(o) and c not in body[len(o) :]), None)
      if opens is not None:
        opened = begin, opens[1]
        continue
      span = begin + line.index(body), begin + line.index(body) + len(body)
    elif opened[1] in body:
      span, opened = (opened[0], begin + line.rindex(opened[1]) + len(opened[1])), None
    else:
      continue
    whole = text[span[0] : span[1]]
    if len(whole) <= _LINE and ('\\boxed' in whole or _EQUALITY.search(whole)):
      steps.append((*span, 'result' if '\\boxed' in whole else 'equation'))
  return steps[:_STEPS]


def parts(text: str) -> tuple[str, str]:
  """(thinking, rest) of a response. Without thinking the first is ''; thinking that is not closed goes to the end."""
  if '</think>' in text:
    thinking = text[: text.rindex('</think>')]
    return thinking.replace('<think>', '', 1).replace('</think>', '').strip(), (answer_part(text) or '').lstrip()
  if '<think>' in text:
    before, _, thinking = text.partition('<think>')
    return thinking.strip(), before
  return '', text
