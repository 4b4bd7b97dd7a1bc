"""Problems to judged samples: the one way in which RL, probing and evaluation ask a model to solve something.

Of several processes each draws the samples of its share of the problems, with its own devices, and judges its share
of the responses, with its own workers; then all of them know everything. Random numbers belong to the problem and the
sample, so it does not matter who draws.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from vibethinker_jax import runtime
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.distributed import Stopped, share_work
from vibethinker_jax.engine.engine import Completion, Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.model.mesh import local
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.grader import Grader


@dataclasses.dataclass(frozen=True)
class Rollout:
  """G samples of each of P problems."""

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
    """bool [P,G]: which responses ran out of tokens."""
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
  """`samples` completions of every problem: prompts [P] and completions [P][G].

  `numbers` [P] name the problems' random streams under `seed`. With `what`, a progress bar of that name. Once `stop`
  says True, on whichever process, nothing more is drawn. Raises Stopped then; ValueError where a problem does not fit
  the engine.
  """
  prompts = [tokenizer.prompt(problem) for problem in problems]
  requests = [Request(tuple(p), max_tokens, samples, sampling, seed, n) for p, n in zip(prompts, numbers)]
  for problem, request in zip(problems, requests):
    if (why := engine.validate(request)) is not None:
      raise ValueError(f'problem {problem.id}: refused: {why}')
  model = local(model, engine.mesh, model.config.dtype)

  def draw(mine: list[Request]) -> list[list[Completion]]:
    out: list[list[Completion | None]] = [[None] * samples for _ in mine]
    with runtime.bar(len(mine) * samples, what, 'sample', leave=False, shown=bool(what)) as bar:
      for done in engine.generate(model, mine, stop=stop):
        out[done.request][done.sample] = done
        bar.update(1)
    return out

  completions = share_work(requests, draw)
  if any(c.finish == 'suspended' for row in completions for c in row):
    raise Stopped(f'{what}: cut short')
  return prompts, completions


def judge(
  tokenizer: ChatTokenizer,
  problems: Sequence[Problem],
  prompts: Sequence[Sequence[int]],
  completions: list[list[Completion]],
  grader: Grader,
) -> tuple[list[list[str]], list[list[Verdict]]]:
  """Texts and verdicts [P][G] of the completions of prompts [P]."""
  responses = [[tokenizer.response(p, c.tokens) for c in row] for p, row in zip(prompts, completions)]
  rows = [(r, p.answer, p.tests) for p, row in zip(problems, responses) for r in row]
  flat = iter(share_work(rows, grader.grade))
  return responses, [[next(flat) for _ in row] for row in responses]
