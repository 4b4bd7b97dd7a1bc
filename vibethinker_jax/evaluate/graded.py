"""A model on problems by domain, sampled and graded: what the pipeline's probes and evaluations ask for."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.evaluate.samples import beside, collect
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.rollout import grade
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.grader import Grader


@dataclasses.dataclass(frozen=True)
class Graded:
  """N graded samples of each of P problems."""

  problems: Sequence[Problem]
  responses: list[list[str]]  # [P][N]
  verdicts: list[list[Verdict]]  # [P][N]
  lengths: np.ndarray  # int [P,N]: tokens of each response, the stop token included
  truncated: np.ndarray  # bool [P,N]: whether a response was ended by its limit of tokens

  @property
  def correct(self) -> np.ndarray:
    """bool [P,N]: the verdicts."""
    return np.array([[v.score == 1 for v in row] for row in self.verdicts])


def sample_and_grade(
  protocol: Protocol,
  engine: Engine,
  model: Qwen2,
  tokenizer: ChatTokenizer,
  sets: Mapping[str, Sequence[Problem]],
  grader: Grader,
  seed: int,
  result: pathlib.Path | None,
  what: str,
  stop: Callable[[], bool],
) -> dict[str, Graded]:
  """Samples and grades the problems of every domain, all domains in one call of the engine.

  Args:
    protocol, engine, model, tokenizer, what, stop: as in samples.py:collect.
    sets: problems by domain. The random stream of a problem is (seed, its place among all problems).
    grader: gives the verdicts.
    seed: of the random streams.
    result: the file that the caller makes of the result. Beside it the samples are kept (samples.py:beside), and a
      program that was killed goes on with them. The caller deletes them (samples.py:discard) once `result` is written.
      None keeps nothing.

  Raises:
    Stopped, BadInput, CannotWrite: as samples.py:collect.
  """
  problems = [problem for own in sets.values() for problem in own]
  # two domains may each have a problem of the same id
  named = [dataclasses.replace(problem, id=f'{i}:{problem.id}') for i, problem in enumerate(problems)]
  numbers, path = range(len(problems)), None if result is None else beside(result)
  rows = collect(engine, model, tokenizer, named, protocol, seed, numbers, path, what, stop)
  N = protocol.samples
  groups = [rows[i * N : (i + 1) * N] for i in numbers]
  responses = [[row['response'] for row in group] for group in groups]
  verdicts = grade(problems, responses, grader)
  lengths = np.array([[row['tokens'] for row in group] for group in groups])
  truncated = np.array([[row['finish_reason'] == 'length' for row in group] for group in groups])
  out, first = {}, 0
  for domain, own in sets.items():
    part = slice(first, first + len(own))
    out[domain] = Graded(own, responses[part], verdicts[part], lengths[part], truncated[part])
    first += len(own)
  return out
