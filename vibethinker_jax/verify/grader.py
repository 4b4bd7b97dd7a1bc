"""The Grader: one object that grades the responses of training, probing and evaluation.

It owns two pools of workers, one for algebra and one for programs. The workers start when they are first needed and
stay up between batches.
"""

import warnings
from collections.abc import Sequence

from vibethinker_jax.verify import answer, code, symbolic, trace
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.pool import Pool

Row = tuple[str, str | Sequence[str] | None, Sequence[dict[str, str]] | dict | None]


class Grader:
  """Grades responses. A context manager, for use from one thread at a time.

  Args:
    workers: processes of each kind at most.
    deadline_s: seconds that the algebra or the program of one response may take; after that the response is wrong. A
      program with many tests has more time (`code.job`).
    strict: grades answers by the rules of the published grader (official.py).
  """

  def __init__(self, workers: int = 2, deadline_s: float = 10.0, strict: bool = False):
    if not 0 < deadline_s < float('inf'):
      raise ValueError(f'deadline_s must be positive and finite, not {deadline_s}')
    self.strict, self.deadline_s = strict, deadline_s
    self._judge_answers = answer.judge_many_strictly if strict else answer.judge_many
    self._algebra = Pool(workers, symbolic.command())
    self._programs = code.make_pool(workers)

  def __enter__(self) -> 'Grader':
    return self

  def __exit__(self, *exc) -> None:
    self.close()

  def close(self) -> None:
    """Ends every worker."""
    self._algebra.close()
    self._programs.close()

  def pids(self) -> list[int]:
    """The process ids of the workers that are up."""
    return self._algebra.pids() + self._programs.pids()

  def grade(self, rows: Sequence[Row]) -> list[Verdict]:
    """Verdicts for rows (response, answer, tests), in order; exactly one of answer and tests is not None.

    Args:
      rows: response is the whole text of the model; answer the right answer, or a sequence of accepted ones; tests as
        code.py has them.

    Raises:
      ValueError, TypeError: a row has another form; the message names it.
      RuntimeError: no worker starts, or the sandbox fails.
    """
    for i, (_, gold, tests) in enumerate(rows):
      if (gold is None) == (tests is None):
        raise ValueError(f'row {i}: exactly one of answer and tests must be given')
      try:
        if tests is None:
          answer.accepted_texts(gold)
        else:
          code.check_tests(tests)
      except (TypeError, ValueError) as error:
        raise type(error)(f'row {i}: {error}') from error
    math_rows = [i for i, row in enumerate(rows) if row[2] is None]
    code_rows = [i for i, row in enumerate(rows) if row[1] is None]
    verdicts: list[Verdict | None] = [None] * len(rows)
    judged = self._judge_answers([rows[i][:2] for i in math_rows], self._algebra, self.deadline_s)
    for i, verdict in zip(math_rows, judged, strict=True):
      verdicts[i] = verdict
    judged = code.judge_many([(rows[i][0], rows[i][2]) for i in code_rows], self._programs, self.deadline_s)
    for i, verdict in zip(code_rows, judged, strict=True):
      verdicts[i] = verdict
    for level in self._programs.greetings():
      if str(level).startswith('no namespaces'):
        warnings.warn(
          f'programs of the model are hardly isolated from this machine and its files: {level}. Allow unprivileged '
          'user namespaces, or run in a container made for this purpose.',
          RuntimeWarning,
          stacklevel=2,
        )
        break
    return verdicts

  def vote_keys(self, answers: Sequence[str]) -> list[str]:
    """A text for each answer (the content of a box); equal answers have the same text."""
    return answer.vote_keys(answers, self._algebra, self.deadline_s)

  def check_traces(self, rows: Sequence[Row]) -> list[trace.Trace]:
    """Checks the equalities in the steps of responses, in order (trace.py). The `share` that holds is not a verdict.

    rows: as in `grade`. A program makes no claims: an assignment does not say that two sides are equal.
    """
    texts = [response if tests is None else '' for response, _, tests in rows]
    return trace.check(texts, self._algebra, self.deadline_s)

  def steps(self, rows: Sequence[Row]) -> list[float | None]:
    """Only the shares of `check_traces`; None for a response without a claim that could be settled."""
    return [checked.share for checked in self.check_traces(rows)]
