"""Pass@1, Pass@K and their intervals of a model on sets of problems."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval
from pydantic import PositiveInt

from vibethinker_jax import rollout
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.rollout import Rollout
from vibethinker_jax.spectrum.passk import interval, pass_at_k
from vibethinker_jax.verify.grader import Grader


@dataclasses.dataclass(frozen=True)
class Evaluate:
  """How a model is asked: n samples a problem, Pass@k from them.

  samples: of each problem; 1 where the temperature is 0, which makes them all one.
  k: of Pass@k, at most `samples`.
  max_tokens: of a response; a problem whose prompt leaves no room for them in the model's positions is left out.
  temperature: of sampling; 0 takes the likeliest token.
  top_p: probability of the likeliest tokens that are drawn from; 1 is off.
  top_k: how many of the likeliest tokens are drawn from; -1 is off.
  """

  samples: Annotated[int, Interval(ge=1, le=1 << 16)]
  k: PositiveInt
  max_tokens: PositiveInt
  temperature: Annotated[float, Interval(ge=0, le=100)] = 1.0
  top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0
  top_k: Literal[-1] | PositiveInt = -1


def evaluate(
  e: Evaluate,
  engine: Engine,
  model: Qwen2,
  tokenizer: ChatTokenizer,
  problems: Sequence[Problem],
  grader: Grader,
  seed: int,
  what: str,
  stop: Callable[[], bool],
) -> Rollout:
  """Every problem sampled and judged; the problem's place in the list names its random stream.

  Raises Stopped once `stop` says True (rollout.sample).
  """
  sampling = SamplingParams(e.temperature, e.top_k, e.top_p)
  prompts, completions = rollout.sample(
    engine, model, tokenizer, problems, e.samples, sampling, e.max_tokens, seed, range(len(problems)), what, stop
  )
  return Rollout(problems, prompts, completions, *rollout.judge(tokenizer, problems, prompts, completions, grader))


def scores(correct: np.ndarray, k: int) -> dict:
  """Pass@1 and Pass@k of verdicts [P,N] with 95% intervals over problems, in the form of summary.json."""
  P, N = correct.shape
  one, many = correct.mean(1), pass_at_k(N, correct.sum(1), k)
  return {
    'n_problems': P,
    'n_samples': N,
    'pass@1': float(one.mean()),
    'pass@1_ci': list(interval(one)),
    f'pass@{k}': float(many.mean()),
    f'pass@{k}_ci': list(interval(many)),
  }


def table(verdicts: Mapping[str, np.ndarray], k: int, pooled: Sequence[str]) -> dict:
  """scores() of every domain, and of the domains `pooled` together as 'math' where there are several."""
  out = {domain: scores(correct, k) for domain, correct in verdicts.items()}
  together = [verdicts[domain] for domain in pooled if domain in verdicts]
  if len(together) > 1:
    out['math'] = scores(np.concatenate(together), k)
  return out
