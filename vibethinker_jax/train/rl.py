"""The reinforcement learning loop: roll out, judge, weigh by uncertainty (mgpo.py), update."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import grain
import jax
import numpy as np
from annotated_types import Interval
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from tqdm import tqdm

from vibethinker_jax import rollout, runtime
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.distributed import Stop, Stopped, share_work
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.model import attention
from vibethinker_jax.model.mesh import spread_rows
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.rollout import Rollout
from vibethinker_jax.train import mgpo
from vibethinker_jax.train.alarm import Alarm
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.optim import Optim, optimizer, remark, schedule
from vibethinker_jax.train.profile import Profile
from vibethinker_jax.train.rl_batches import Row, informative, responses, rounded_up, sharing
from vibethinker_jax.train.rl_loss import LossConfig, make_loss, score
from vibethinker_jax.train.state import Checkpoints, State, check_finite, gradient_adder, start, updater
from vibethinker_jax.verify.grader import Grader

_APART = 1000  # between the seeds of two stages: each epoch of a stage adds 1 to its seed
Seed = Annotated[
  int, Interval(ge=0, lt=100)
]  # of RL: 10,000 times this is added to the run's seed, and must stay below the distance of run seeds
Strength = Annotated[float, Interval(ge=0, le=1000)]  # lambda of MGPO: at 1000 only questions with p = p0 count


@dataclasses.dataclass(frozen=True)
class MGPO:
  """The RL algorithm.

  lam: strength of the max-entropy weight; 0 is GRPO. Published: no value.
  p0: the pass rate of the questions that count most. Published: 0.5.
  weight: the weight of a question as a function of its pass rate p: 'maxent' is MGPO, 'variance' is 4p(1-p), 'band' is
    1 within `band`, else 0. Published: 'maxent'.
  band: the lowest and the highest pass rate of weight 'band'.
  rescale: divide the weights by their mean, so that they do not shorten the step.
  std_normalize: divide advantages by the standard deviation of their group; False is Dr. GRPO. Published: True.
  clip_low: probability ratios are clipped at 1 - clip_low.
  clip_high: and at 1 + clip_high.
  aggregate: the mean over the tokens of each response, then over responses ('sequence'), or the mean over all tokens
    ('token'). Published: 'sequence'.
  kl_coef: coefficient of the k3 divergence from the stage's first model. Published: no such term.
  refills: dynamic sampling: the number of further rollout batches in a step, at most, which replace groups that are all
    right or all wrong.
  overlong: the reward falls linearly by 1 over so many tokens before max_tokens, at most each stage's max_tokens; 0 is
    off.
  step_penalty: this times the share of false equalities in a response (verify/trace.py) is taken off its reward; 0 is
    off.
  minibatches: updates for each rollout batch, each on a part of the groups; at most rl.prompts.
  """

  lam: Strength
  p0: Annotated[float, Interval(ge=0.01, le=0.99)] = 0.5
  weight: Literal['maxent', 'variance', 'band'] = 'maxent'
  band: tuple[Annotated[float, Interval(ge=0, le=1)], Annotated[float, Interval(ge=0, le=1)]] = (0.2, 0.8)
  rescale: bool = False
  std_normalize: bool = True
  clip_low: Annotated[float, Interval(gt=0, lt=1)] = 0.2
  clip_high: Annotated[float, Interval(gt=0, le=100)] = 0.2
  aggregate: Literal['sequence', 'token'] = 'sequence'
  kl_coef: NonNegativeFloat = 0.0
  refills: Annotated[int, Interval(ge=0, le=1000)] = 0
  overlong: NonNegativeInt = 0
  step_penalty: Annotated[float, Interval(ge=0, le=1)] = 0.0
  minibatches: PositiveInt = 1

  @property
  def loss(self) -> LossConfig:
    """The fields that are compiled into the loss."""
    return LossConfig(self.clip_low, self.clip_high, self.aggregate, self.kl_coef)


@dataclasses.dataclass(frozen=True)
class RLStage:
  """A stage of RL: some domains, and one limit of length.

  name: the name of its directory, its rows of metrics and its row of the report; all names differ.
  domains: the domains whose training problems are used, each once.
  steps: rollout batches.
  max_tokens: the limit of a response, in tokens; a problem whose prompt leaves no room for so many in the model's
    positions is left out. Published: 16K, then 32K for mathematics, then code.
  """

  name: str
  domains: tuple[str, ...]
  steps: PositiveInt
  max_tokens: PositiveInt


@dataclasses.dataclass(frozen=True)
class RL:
  """The RL loop. A step samples prompts x num_generations responses.

  prompts: problems in a step.
  num_generations: responses to each problem; a group needs two or more.
  temperature: the temperature of sampling. There is no top-p: the ratios would be wrong by the mass that it cuts off.
  micro_rows: responses whose gradient is computed at the same time, a multiple of `share`.
  share: responses to one prompt that are computed in one row, with the prompt once; 1 where responses are long.
  save_every: steps between two checkpoints, of which the last two are kept.
  optim: the optimizer; each stage starts it anew.
  stages: the stages in their order; each starts from the model of the one before.
  seed: another seed gives other samples and another order of the same problems.
  """

  prompts: Annotated[int, Interval(ge=1, le=1 << 20)]
  num_generations: Annotated[int, Interval(ge=2, le=1 << 16)]
  temperature: Annotated[float, Interval(ge=0.01, le=100)]
  micro_rows: Annotated[int, Interval(ge=1, le=1 << 20)]
  share: PositiveInt
  save_every: PositiveInt
  optim: Optim
  stages: tuple[RLStage, ...]
  seed: Seed = 0


def weights(m: MGPO, pass_rate: np.ndarray, advantages: jax.Array) -> jax.Array:
  """The weight of each question, [P].

  Args:
    m: which weight.
    pass_rate: [P], the share of right samples of each question, by the raw verdicts.
    advantages: [P,G], before they are weighted.
  """
  shapes = {
    'maxent': lambda p: mgpo.maxent_weight(p, m.lam, m.p0),
    'variance': mgpo.variance_weight,
    'band': lambda p: mgpo.band_weight(p, *m.band),
  }
  w = shapes[m.weight](pass_rate)
  return mgpo.rescaled(w, advantages) if m.rescale else w


@functools.cache
def _adder(c: LossConfig, temperature: float) -> Callable:
  """Compiled once in a process, however many runs use it."""
  return gradient_adder(make_loss(c, temperature))


@functools.cache
def _updater(o: Optim, steps: int) -> Callable:
  return updater(optimizer(o, steps))


class Trainer:
  """Runs the stages of RL."""

  def __init__(
    self,
    r: RL,
    m: MGPO,
    tokenizer: ChatTokenizer,
    engine: Engine,
    grader: Grader,
    writer: MetricWriter,
    seed: int,
    stop: Stop | None = None,
    profile: Profile = Profile(),  # noqa: B008
  ):
    """All stages share these.

    Args:
      r: the loop.
      m: the algorithm.
      tokenizer: of the model.
      engine: samples the responses.
      grader: judges them.
      writer: gets a row for each step.
      seed: of the samples, and of the order of the problems.
      stop: asked after each step and during rollouts; where it says True, the run saves and raises Stopped.
      profile: called before each step.
    """
    self.r, self.m, self.stop, self.profile = r, m, stop or Stop(), profile
    self.tokenizer, self.engine, self.grader, self.writer, self.seed = tokenizer, engine, grader, writer, seed
    self._add = _adder(m.loss, r.temperature)

  def run(self, number: int, model: Qwen2, problems: Sequence[Problem], workdir: pathlib.Path) -> State:
    """Train through one stage, and return its last state.

    Args:
      number: of the stage in config.rl.stages.
      model: the model at the start of the stage.
      problems: the stage's problems.
      workdir: holds the stage's checkpoints; where there are some, the stage continues from the last one.

    Raises:
      Diverged, Stopped, CannotWrite.
    """
    r, m, stage = self.r, self.m, self.r.stages[number]
    name, updates = f'rl/{stage.name}', stage.steps * m.minibatches
    transform, rate, update = optimizer(r.optim, updates), schedule(r.optim, updates), _updater(r.optim, updates)
    if odd := remark(r.optim, updates):
      tqdm.write(f'{name}: {odd}')
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
      state, cursor = start(model, transform), 0
      reference = model if m.kl_coef else None
      del model  # frees its memory where the caller holds no reference either
      if (saved := checkpoints.restore(state)) is not None:
        state, position = saved
        cursor = position['cursor']
      done = int(state.step) // m.minibatches
      self.writer.rewind(name, done)
      order = grain.MapDataset.range(len(problems)).shuffle(seed=self.seed + _APART * number).repeat()
      alarm = Alarm(name)

      with runtime.bar(stage.steps, name, 'step', done) as bar:
        for step in range(done + 1, stage.steps + 1):
          self.profile(name, step)
          try:
            rolled, advantages, row, cursor = self._roll(number, state.model, problems, order, cursor)
          except Stopped:  # the samples of this step are thrown away; the next session samples the same ones
            if int(state.step) not in checkpoints.steps():  # saving it again would delete it first
              checkpoints.begin_save(state, {'cursor': cursor})
            raise Stopped(f'{name}: saved after step {step - 1} of {stage.steps}') from None
          clock = time.perf_counter()
          state, learned = self._learn(update, state, reference, rolled, advantages)
          learned['seconds_update'] = time.perf_counter() - clock
          learned['learning_rate'] = float(rate(int(state.step) - 1))
          row |= learned
          check_finite(name, step, row)
          self.writer.write(name, step, row)
          alarm.look_at_rollouts(row)
          alarm.look_at_update(row)
          leaving = self.stop()
          if leaving or step % r.save_every == 0 or step == stage.steps:
            checkpoints.begin_save(state, {'cursor': cursor})
          if leaving and step < stage.steps:
            raise Stopped(f'{name}: saved after step {step} of {stage.steps}')
          shown = f'reward {row["reward"]:.3f}, {row["mean_length"]:.0f} tokens, H {row["entropy"]:.2f}'
          bar.set_postfix_str(shown, refresh=False)
          bar.update(1)
      self.profile.end()
    return state

  def _roll(self, number: int, model: Qwen2, problems, order, cursor: int):
    """One step's rollout: batches until there are `prompts` groups with a signal, or the refills are used up.

    Returns the Rollout to learn from, its weighted advantages [P,G], the metrics, and the next place in `order`.
    """
    r, m, stage = self.r, self.m, self.r.stages[number]
    seconds = {'seconds_rollout': 0.0, 'seconds_grade': 0.0}
    whole, with_signal = None, 0
    for _ in range(1 + m.refills):
      clock = time.perf_counter()
      numbers = range(cursor, cursor + r.prompts)
      chosen = [problems[order[i]] for i in numbers]
      cursor += r.prompts
      # each stage has a seed of its own, so that equal cursors of two stages do not sample with equal noise
      prompts, completions = rollout.sample(
        self.engine,
        model,
        self.tokenizer,
        chosen,
        r.num_generations,
        SamplingParams(r.temperature),
        stage.max_tokens,
        self.seed + 1 + _APART * number,
        numbers,
        stop=self.stop.asked,
      )
      seconds['seconds_rollout'] += time.perf_counter() - clock
      clock = time.perf_counter()
      texts, verdicts = rollout.judge(self.tokenizer, chosen, prompts, completions, self.grader)
      seconds['seconds_grade'] += time.perf_counter() - clock
      part = Rollout(chosen, prompts, completions, texts, verdicts)
      whole = part if whole is None else whole.concat(part)
      rate = part.correct.mean(1)
      with_signal += int(((rate > 0) & (rate < 1)).sum())
      if with_signal >= r.prompts:
        break
    clock = time.perf_counter()
    steps = self._steps(whole) if m.step_penalty else None
    seconds['seconds_grade'] += time.perf_counter() - clock
    rewards = self._rewards(whole, stage.max_tokens, steps)
    row = self._health(whole, rewards) | seconds
    if steps is not None and not np.isnan(steps).all():
      row['steps_share'] = float(np.nanmean(steps))
    rate = whole.correct.mean(1)
    chosen = informative(rate, r.prompts, m.minibatches) if m.refills else np.arange(len(rate))
    kept = whole.select(chosen)
    advantages = mgpo.advantages(rewards[chosen], m.std_normalize)
    w = weights(m, kept.correct.mean(1), advantages)
    row['weight_mean'] = float(w.mean())
    return kept, np.asarray(w[:, None] * advantages), row, cursor

  def _steps(self, rolled: Rollout) -> np.ndarray:
    """The share of true equalities in each response, float [P,G]; NaN where there are none, and for programs."""
    rows = [(r, p.answer, p.tests) for p, row in zip(rolled.problems, rolled.responses) for r in row]
    return np.array(share_work(rows, self.grader.steps), float).reshape(rolled.correct.shape)

  def _rewards(self, rolled: Rollout, limit: int, steps: np.ndarray | None) -> np.ndarray:
    """The rewards, float [P,G]. `limit`: the stage's max_tokens; `steps`: as `_steps`, None where they do not count."""
    rewards = rolled.correct.astype(np.float32)
    if steps is not None:
      # a loss for false steps and no prize for true ones: true ones such as 1 + 1 = 2 are easy to add
      rewards = rewards - np.float32(self.m.step_penalty) * np.nan_to_num(1 - steps).astype(np.float32)
    if self.m.overlong:
      rewards = rewards + np.asarray(mgpo.overlong_penalty(rolled.lengths, limit, self.m.overlong))
    return rewards

  def _health(self, rolled: Rollout, rewards: np.ndarray) -> dict:
    """The metrics of a rollout."""
    rate = rolled.correct.mean(1)
    return {
      'reward': float(rewards.mean()),
      'pass_rate': float(rate.mean()),
      'all_right': float((rate == 1).mean()),
      'all_wrong': float((rate == 0).mean()),
      'truncated': float(rolled.truncated.mean()),
      'mean_length': float(rolled.lengths.mean()),
      'tokens': int(rolled.lengths.sum()),
      'groups': len(rate),
    }

  def _learn(self, update, state: State, reference: Qwen2 | None, rolled: Rollout, advantages: np.ndarray):
    """`minibatches` updates, each on a part of the groups. Returns the state and the metrics.

    At the first update the ratio is 1 up to rounding: to 1e-5 in float32; less precisely where engine and trainer
    compute in bfloat16 with different kernels. `logp_gap` is the mean distance of the two ln p of a token there.
    """
    sums, rows, first = [], [], 0
    for share in np.array_split(np.arange(len(rolled.prompts)), self.m.minibatches):
      flat = [
        (rolled.prompts[p], completion, advantages[p, g])
        for p in share
        for g, completion in enumerate(rolled.completions[p])
      ]
      learnt, uncounted = self._with_signal(flat)
      shares = sharing(learnt, self.r.share)
      mesh = jax.sharding.get_mesh()
      unit = attention.unit(state.model.config.attention, 1 if mesh.empty else mesh.shape['seq'])
      S = rounded_up(max(len(share[0][0]) for share in shares) - 1, unit)
      gradient, N = None, self.r.micro_rows // self.r.share
      for i in range(0, len(shares), N):
        batch = spread_rows(responses(shares[i : i + N], N, self.r.share, S, unit))
        if reference is not None:
          batch = dataclasses.replace(batch, ref_logps=score(reference, batch, self.r.temperature))
        gradient, metrics = self._add(gradient, state.model, batch)
        sums.append(metrics)
      gradient = (gradient[0], gradient[1] + uncounted)
      state, norms = update(state, gradient)
      rows.append(norms)
      first = first or len(sums)
    sums, rows = jax.device_get((sums, rows))
    total = {k: sum(float(s[k]) for s in sums) for k in ('loss_sum', 'tokens', 'entropy_sum', 'kl_sum', 'clipped_sum')}
    tokens, at_first = max(total['tokens'], 1.0), lambda name: sum(float(s[name]) for s in sums[:first])
    return state, {
      'loss': total['loss_sum'] / max(sum(float(row['count']) for row in rows), 1.0),
      'entropy': total['entropy_sum'] / tokens,
      'kl': total['kl_sum'] / tokens,
      'clip_fraction': total['clipped_sum'] / tokens,
      'logp_gap': at_first('gap_sum') / max(at_first('tokens'), 1.0),
      'ratio_min': min(float(s['ratio_min']) for s in sums),
      'ratio_max': max(float(s['ratio_max']) for s in sums),
      # of several updates, the worst value
      **{
        name: (min if name == 'moved' else max)(float(row[name]) for row in rows) for name in rows[0] if name != 'count'
      },
    }

  def _with_signal(self, rows: list[Row]) -> tuple[list[Row], float]:
    """The rows that have a gradient, and how much the other rows add to the denominator of the loss.

    Without a divergence term a row with advantage 0 has no gradient, and is not computed. Entropy, ratios and the
    clipped share are then those of the rows that are computed.
    """
    with_gradient = [row for row in rows if row[2] != 0]
    if self.m.kl_coef or not with_gradient:
      return rows, 0.0
    others = [row for row in rows if row[2] == 0]
    count = len(others) if self.m.aggregate == 'sequence' else sum(len(row[1].tokens) for row in others)
    return with_gradient, float(count)
