"""Sampling from a model: `draw` is the one loop that draws samples, for RL, for probing and for evaluation.

With several processes each draws the samples of its share of the problems, on its own devices, and grades its share of
the responses, with its own workers. Then the results are gathered, and every process has all of them. The random
numbers of a sample belong to its problem and to its place among the problem's samples, so they are the same whichever
process draws it.

RL keeps its samples in memory (`sample`, `judge`); probing and evaluation keep theirs in a file (evaluate/samples.py).
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence

import jax
import numpy as np

from vibethinker_jax import runtime
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.distributed import Stopped, gather, share_work
from vibethinker_jax.engine.engine import Completion, Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.model.mesh import local
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.grader import Grader


@dataclasses.dataclass(frozen=True)
class Rollout:
  """G samples of each of P problems, graded: what an RL step learns from."""

  problems: Sequence[Problem]
  prompts: list[list[int]]  # [P] token ids
  completions: list[list[Completion]]  # [P][G]
  responses: list[list[str]]  # [P][G]
  verdicts: list[list[Verdict]]  # [P][G], in the order of the completions

  @property
  def correct(self) -> np.ndarray:
    """bool [P,G]: the raw verdicts."""
    return np.array([[v.score == 1 for v in row] for row in self.verdicts])

  @property
  def lengths(self) -> np.ndarray:
    """int [P,G]: tokens of each response, the stop token included."""
    return np.array([[len(c.tokens) for c in row] for row in self.completions])

  @property
  def truncated(self) -> np.ndarray:
    """bool [P,G]: whether a response was ended by its limit of tokens."""
    return np.array([[c.finish == 'length' for c in row] for row in self.completions])

  def select(self, which: Sequence[int]) -> 'Rollout':
    """The rollout of the problems at the places `which`, in that order."""
    take = lambda rows: [rows[i] for i in which]
    return Rollout(*map(take, (self.problems, self.prompts, self.completions, self.responses, self.verdicts)))

  def concat(self, other: 'Rollout') -> 'Rollout':
    """This rollout, followed by `other`."""
    return Rollout(
      [*self.problems, *other.problems],
      self.prompts + other.prompts,
      self.completions + other.completions,
      self.responses + other.responses,
      self.verdicts + other.verdicts,
    )


def draw(
  engine: Engine,
  model: Qwen2,
  requests: Sequence[Request],
  have: Collection[tuple[int, int]] = (),
  what: str = '',
  stop: Callable[[], bool] = lambda: False,
) -> Iterator[Completion]:
  """Draws this process's share of the samples and yields each one as soon as it is finished.

  With several processes all of them call this, and all exhaust the iterator.

  Args:
    engine: draws the tokens.
    model: the policy; it may be spread over the devices of all processes.
    requests: [P], one for each problem, all of them valid (`Engine.validate`).
    have: the samples that exist already, as (place in `requests`, number of the sample). They are not drawn again.
    what: the title of a progress bar; '' shows none.
    stop: it is asked between two blocks of tokens. Once it returns True, every sample that is not finished is yielded
      with the finish reason 'suspended', and the iterator ends.

  Yields:
    Completions whose `request` is the place in `requests`.
  """
  mine = range(jax.process_index(), len(requests), jax.process_count())
  kept = [
    Completion(at, sample, *[np.zeros(0)] * 3, 'kept')
    for at, i in enumerate(mine)
    for sample in range(requests[i].samples)
    if (i, sample) in have
  ]
  model = local(model, engine.mesh, model.config.dtype)
  total = sum(requests[i].samples for i in mine)
  with runtime.bar(total, what, 'sample', len(kept), leave=False, shown=bool(what)) as bar:
    for done in engine.generate(model, [requests[i] for i in mine], kept, stop):
      if done.finish != 'kept':
        yield dataclasses.replace(done, request=mine[done.request])
        bar.update()


def validate(engine: Engine, problems: Sequence[Problem], requests: Sequence[Request]) -> None:
  """Raises ValueError for the first of the requests [P] that the engine cannot serve; it names the problem."""
  for problem, request in zip(problems, requests, strict=True):
    if (why := engine.validate(request)) is not None:
      raise ValueError(f'problem {problem.id}: refused: {why}')


def sample(
  engine: Engine,
  model: Qwen2,
  tokenizer: ChatTokenizer,
  problems: Sequence[Problem],
  samples: int,
  sampling: SamplingParams,
  max_tokens: int,
  seed: int,
  numbers: Sequence[int],
  what: str = '',
  stop: Callable[[], bool] = lambda: False,
) -> tuple[list[list[int]], list[list[Completion]]]:
  """Draws samples of every problem, in memory.

  Args:
    engine, model, what, stop: as in `draw`.
    tokenizer: it makes a prompt of a problem.
    problems: [P].
    samples: G, of each problem.
    sampling: how a token is drawn.
    max_tokens: of a response.
    seed, numbers: the random stream of problem i is (seed, numbers[i]); numbers [P].

  Returns:
    The prompts [P] as token ids, and the completions [P][G], the same on all processes.

  Raises:
    Stopped: `stop` returned True on one of the processes before all samples were finished.
    ValueError: a problem does not fit the engine.
  """
  prompts = [tokenizer.prompt(problem) for problem in problems]
  requests = [Request(tuple(p), max_tokens, samples, sampling, seed, n) for p, n in zip(prompts, numbers)]
  validate(engine, problems, requests)
  drawn = {(c.request, c.sample): c for c in draw(engine, model, requests, what=what, stop=stop)}
  drawn = {key: c for part in gather(drawn) for key, c in part.items()}
  if any(c.finish == 'suspended' for c in drawn.values()):
    raise Stopped(f'{what}: stopped before all samples were drawn')
  return prompts, [[drawn[i, g] for g in range(samples)] for i in range(len(problems))]


def judge(
  tokenizer: ChatTokenizer,
  problems: Sequence[Problem],
  prompts: Sequence[Sequence[int]],
  completions: list[list[Completion]],
  grader: Grader,
) -> tuple[list[list[str]], list[list[Verdict]]]:
  """Texts [P][G] and verdicts [P][G] of the completions [P][G] of `problems` [P], whose prompts [P] are token ids."""
  responses = [[tokenizer.response(p, c.tokens) for c in row] for p, row in zip(prompts, completions)]
  return responses, grade(problems, responses, grader)


def grade(problems: Sequence[Problem], responses: Sequence[Sequence[str]], grader: Grader) -> list[list[Verdict]]:
  """Verdicts [P][G] of the responses [P][G] to problems [P]; each process grades its share."""
  rows = [(r, p.answer, p.tests) for p, row in zip(problems, responses) for r in row]
  flat = iter(share_work(rows, grader.grade))
  return [[next(flat) for _ in row] for row in responses]
