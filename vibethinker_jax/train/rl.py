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
import jax.numpy as jnp
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
from vibethinker_jax.train.state import (
  Checkpoints,
  State,
  check_finite,
  gradient_adder,
  start,
  updater,
)
from vibethinker_jax.verify.grader import Grader

_APART = 1000  # between the seeds of two stages: an epoch's is the one before it plus 1
Seed = Annotated[int, Interval(ge=0, lt=100)]  # of RL: times ten thousand it stays below the seed of the next run
Strength = Annotated[float, Interval(ge=0, le=1000)]  # MGPO's lambda: 1000 already rules out all but p0


@dataclasses.dataclass(frozen=True)
class MGPO:
  """The algorithm.

  lam: strength of the max-entropy weight; 0 is GRPO. Published: no value.
  p0: pass rate of the questions that count most. Published: 0.5.
  weight: how a question counts by its pass rate: 'maxent' is MGPO, 'variance' is 4p(1-p), 'band' a hard cut.
    Published: 'maxent'.
  band: pass rates from which and up to which 'band' lets questions through, the lower one first.
  rescale: weights over their mean: MGPO without its shorter step.
  std_normalize: advantages over the deviation of their group; False is Dr. GRPO. Published: True.
  clip_low: how far below 1 a probability ratio counts.
  clip_high: how far above 1.
  aggregate: tokens are averaged by 'sequence', or all alike by 'token'. Published: 'sequence'.
  kl_coef: weight of the k3 divergence from the stage's first model. Published: no such term.
  refills: dynamic sampling: rollouts a step beyond the first, to replace groups all right or all wrong.
  overlong: tokens before the limit over which the reward falls by up to 1, at most each stage's max_tokens; 0 is off.
  step_penalty: reward lost where every equality of a response is false (verify/trace.py), by share; 0 is off.
  minibatches: updates a rollout batch, each on its share of the groups; at most rl.prompts.
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


@dataclasses.dataclass(frozen=True)
class RLStage:
  """A stretch of RL on some domains under one length limit.

  name: of its directory, its rows of metrics and its line of the report; each its own.
  domains: whose training problems are rolled out, each once.
  steps: rollout batches.
  max_tokens: of a response; a problem whose prompt leaves no room for them in the model's positions is left out.
    Published: 16K, then 32K for mathematics, then code.
  """

  name: str
  domains: tuple[str, ...]
  steps: PositiveInt
  max_tokens: PositiveInt


@dataclasses.dataclass(frozen=True)
class RL:
  """The loop. A step rolls out prompts x num_generations samples.

  prompts: problems of a step.
  num_generations: samples of each; of one alone nothing could be learnt.
  temperature: of sampling. There is no top-p: ratios would be wrong by what it cuts off.
  micro_rows: responses whose gradient is computed at a time, a multiple of `share`.
  share: responses to a prompt that are computed in one row, with the prompt once: 1 where responses are long.
  save_every: steps between two checkpoints, of which the last two are kept.
  optim: the optimizer; every stage begins it anew.
  stages: one after the other, each from the model of the one before.
  seed: another one: other samples and another order of the same problems.
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


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['prompts', 'lengths', 'tokens', 'targets', 'mask', 'old_logps', 'ref_logps', 'advantages'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Responses:
  """B responses; B / N neighbours at a time answer the same of N prompts.

  A prompt's last token is the first of its responses' `tokens`, so that every target has its hidden state.
  """

  prompts: np.ndarray  # int32 [N,S]: all but the last token
  lengths: np.ndarray  # int32 [N]: how many those are
  tokens: np.ndarray  # int32 [B,T]
  targets: np.ndarray  # int32 [B,T]: the tokens moved by one
  mask: np.ndarray  # float32 [B,T]: 1 where there is a target
  old_logps: np.ndarray  # float32 [B,T]: as the engine drew the targets
  ref_logps: np.ndarray  # float32 [B,T]: under the stage's first model; zeros where no divergence is asked for
  advantages: np.ndarray  # float32 [B]


def hidden_states(model: Qwen2, batch: Responses) -> jax.Array:
  """[B,T,D] of the responses."""
  N, (B, T) = len(batch.lengths), batch.tokens.shape
  return model.continued(batch.prompts, batch.lengths, batch.tokens.reshape(N, B // N, T)).reshape(B, T, -1)


def weights(m: MGPO, pass_rate: np.ndarray, advantages: jax.Array) -> jax.Array:
  """How much each question counts, [P], by its pass rate over the raw verdicts. `advantages` [P,G] are unweighted."""
  shapes = {
    'maxent': lambda p: mgpo.maxent_weight(p, m.lam, m.p0),
    'variance': mgpo.variance_weight,
    'band': lambda p: mgpo.band_weight(p, *m.band),
  }
  w = shapes[m.weight](pass_rate)
  return mgpo.rescaled(w, advantages) if m.rescale else w


def make_loss(m: MGPO, temperature: float) -> Callable:
  """loss(model, Responses) -> (sum, count, metrics), for state.gradient_adder."""

  def loss(model: Qwen2, batch: Responses):
    hidden = hidden_states(model, batch)
    logps, entropy = model.token_logps(hidden, batch.targets, temperature)  # of the law the tokens were drawn from
    total, count = mgpo.policy_loss(
      logps, batch.old_logps, batch.advantages, batch.mask, m.clip_low, m.clip_high, m.aggregate
    )
    log_ratio = jnp.where(batch.mask > 0, logps - batch.old_logps, 0.0)
    ratio = jnp.exp(log_ratio)
    drift = jnp.zeros_like(logps)
    if m.kl_coef:
      drift = mgpo.kl_k3(logps, batch.ref_logps)
      total = total + m.kl_coef * mgpo.reduce(drift, batch.mask, m.aggregate)[0]
    outside = (ratio < 1 - m.clip_low) | (ratio > 1 + m.clip_high)
    metrics = {
      'tokens': batch.mask.sum(),
      'entropy_sum': (entropy * batch.mask).sum(),
      'kl_sum': (drift * batch.mask).sum(),
      'clipped_sum': (outside * batch.mask).sum(),
      'gap_sum': jnp.abs(log_ratio).sum(),
      'ratio_min': ratio.min(),
      'ratio_max': ratio.max(),
    }
    return total, count, metrics

  return loss


@functools.cache
def _adder(m: MGPO, temperature: float) -> Callable:
  """Compiled once in a process, however many runs share it."""
  return gradient_adder(make_loss(m, temperature))


@functools.cache
def _updater(o: Optim, steps: int) -> Callable:
  return updater(optimizer(o, steps))


@jax.jit
def score(model: Qwen2, batch: Responses, temperature: float) -> jax.Array:
  """ln p of the targets [B,T] at `temperature`."""
  hidden = hidden_states(model, batch)
  return model.token_logps(hidden, batch.targets, temperature)[0]


class Trainer:
  """What all stages share: the compiled pieces, the engine, the grader and the tokenizer."""

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
    """`stop` is asked after every step and within rollouts; where it says so the run saves and raises Stopped.

    `profile` is called before every step.
    """
    self.r, self.m, self.stop, self.profile = r, m, stop or Stop(), profile
    self.tokenizer, self.engine, self.grader, self.writer, self.seed = tokenizer, engine, grader, writer, seed
    # the weight acts on the advantages alone: for the loss all its shapes are one
    in_loss = MGPO(0.0, clip_low=m.clip_low, clip_high=m.clip_high, aggregate=m.aggregate, kl_coef=m.kl_coef)
    self._add = _adder(in_loss, r.temperature)

  def run(self, number: int, model: Qwen2, problems: Sequence[Problem], workdir: pathlib.Path) -> State:
    """Train `model` through stage `number`, going on from `workdir` where it holds checkpoints.

    Raises Diverged, Stopped.
    """
    r, m, stage = self.r, self.m, self.r.stages[number]
    name = f'rl/{stage.name}'
    transform, rate = optimizer(r.optim, stage.steps * m.minibatches), schedule(r.optim, stage.steps * m.minibatches)
    update = _updater(r.optim, stage.steps * m.minibatches)
    if odd := remark(r.optim, stage.steps * m.minibatches):
      tqdm.write(f'{name}: {odd}')
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
      state, cursor = start(model, transform), 0
      reference = model if m.kl_coef else None
      del model  # its memory is wanted, where the caller does not hold it
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
          except Stopped:  # what has been drawn of this step will be drawn again, the same
            if int(state.step) not in checkpoints.steps():  # to write it again would be to delete it first
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
          told = f'reward {row["reward"]:.3f}, {row["mean_length"]:.0f} tokens, H {row["entropy"]:.2f}'
          bar.set_postfix_str(told, refresh=False)
          bar.update(1)
      self.profile.end()
    return state

  def _roll(self, number: int, model: Qwen2, problems, order, cursor: int):
    """Rollouts until there are enough groups with a signal (or refills are used up), and their advantages [P,G]."""
    r, m, stage = self.r, self.m, self.r.stages[number]
    seconds = {'seconds_rollout': 0.0, 'seconds_grade': 0.0}
    parts, informative = [], 0
    for _ in range(1 + m.refills):
      clock = time.perf_counter()
      numbers = range(cursor, cursor + r.prompts)
      chosen = [problems[order[i]] for i in numbers]
      cursor += r.prompts
      # each stage draws from its own seed, so that equal cursors do not mean equal noise
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
      responses, verdicts = rollout.judge(self.tokenizer, chosen, prompts, completions, self.grader)
      seconds['seconds_grade'] += time.perf_counter() - clock
      parts.append(Rollout(chosen, prompts, completions, responses, verdicts))
      rate = parts[-1].correct.mean(1)
      informative += int(((rate > 0) & (rate < 1)).sum())
      if informative >= r.prompts:
        break
    whole = Rollout(*(sum((list(getattr(p, f.name)) for p in parts), []) for f in dataclasses.fields(Rollout)))
    clock = time.perf_counter()
    steps = self._steps(whole) if m.step_penalty else None
    seconds['seconds_grade'] += time.perf_counter() - clock
    rewards = self._rewards(whole, stage.max_tokens, steps)
    row = self._health(whole, rewards) | seconds
    if steps is not None and not np.isnan(steps).all():
      row['steps_share'] = float(np.nanmean(steps))
    chosen = _informative(whole, r.prompts, m.minibatches) if m.refills else np.arange(len(whole.prompts))
    kept = Rollout(*([getattr(whole, f.name)[i] for i in chosen] for f in dataclasses.fields(Rollout)))
    advantages = mgpo.advantages(rewards[chosen], m.std_normalize)
    w = weights(m, kept.correct.mean(1), advantages)
    row['weight_mean'] = float(w.mean())
    return kept, np.asarray(w[:, None] * advantages), row, cursor

  def _steps(self, rolled: Rollout) -> np.ndarray:
    """float [P,G]: the share of a response's equalities that hold; NaN for programs and where there are none."""
    rows = [(r, p.answer, p.tests) for p, row in zip(rolled.problems, rolled.responses) for r in row]
    return np.array(share_work(rows, self.grader.steps), float).reshape(rolled.correct.shape)

  def _rewards(self, rolled: Rollout, limit: int, steps: np.ndarray | None) -> np.ndarray:
    rewards = rolled.correct.astype(np.float32)
    if steps is not None:
      # a loss for false steps, not a prize for true ones: those come cheap, as 1 + 1 = 2
      rewards = rewards - np.float32(self.m.step_penalty) * np.nan_to_num(1 - steps).astype(np.float32)
    if self.m.overlong:
      rewards = rewards + np.asarray(mgpo.overlong_penalty(rolled.lengths, limit, self.m.overlong))
    return rewards

  def _health(self, rolled: Rollout, rewards: np.ndarray) -> dict:
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
    """`updates` updates, each on its share of the groups.

    At the first the ratio is 1 up to rounding: to 1e-5 in float32, coarser where the engine and the trainer compute in
    bfloat16 by other kernels. `logp_gap` is how far the two ln p of a token are apart then, on average.
    """
    sums, rows, first = [], [], 0
    for share in np.array_split(np.arange(len(rolled.prompts)), self.m.minibatches):
      flat = [
        (rolled.prompts[p], completion, advantages[p, g])
        for p in share
        for g, completion in enumerate(rolled.completions[p])
      ]
      loud, silent = self._with_signal(flat)
      shares = sharing(loud, self.r.share)
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
      gradient = (gradient[0], gradient[1] + silent)
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
      # the worst of the updates
      **{
        name: (min if name == 'moved' else max)(float(row[name]) for row in rows) for name in rows[0] if name != 'count'
      },
    }

  def _with_signal(self, rows: list[tuple]) -> tuple[list[tuple], float]:
    """The rows that have a gradient, and how much the others add to the loss's count.

    Without a divergence term a row of advantage 0 moves nothing: its forward and backward pass need not be made. The
    entropy, the ratios and the clipped share are then those of the rows that have a signal.
    """
    loud = [row for row in rows if row[2] != 0]
    if self.m.kl_coef or not loud:
      return rows, 0.0
    silent = [row for row in rows if row[2] == 0]
    return loud, float(len(silent) if self.m.aggregate == 'sequence' else sum(len(row[1].tokens) for row in silent))


def sharing(rows: list[tuple], n: int) -> list[list[tuple]]:
  """Rows (prompt ids, Completion, advantage) in lists of at most n with one prompt, of like lengths: less padding."""
  by_prompt: dict[tuple, list[tuple]] = {}
  for row in rows:
    by_prompt.setdefault(tuple(row[0]), []).append(row)
  length = lambda row: len(row[1].tokens)
  lists = [sorted(group, key=length) for group in by_prompt.values()]
  shares = [group[i : i + n] for group in lists for i in range(0, len(group), n)]
  return sorted(shares, key=lambda share: length(share[-1]))


def responses(shares: list[list[tuple]], N: int, n: int, S: int, unit: int) -> Responses:
  """At most N lists of at most n rows (`sharing`), padded: S positions of prompts, and S + T a multiple of `unit`."""
  longest = max(len(completion.tokens) for share in shares for _, completion, _ in share)
  T = rounded_up(S + longest, unit) - S
  prompts, lengths = np.zeros((N, S), np.int32), np.zeros(N, np.int32)
  tokens, targets = np.zeros((N, n, T), np.int32), np.zeros((N, n, T), np.int32)
  mask, old_logps = np.zeros((N, n, T), np.float32), np.zeros((N, n, T), np.float32)
  advantages = np.zeros((N, n), np.float32)
  for p, share in enumerate(shares):
    *prompt, last = share[0][0]
    prompts[p, : len(prompt)], lengths[p] = prompt, len(prompt)
    for g, (_, completion, advantage) in enumerate(share):
      m = len(completion.tokens)
      tokens[p, g, :m], targets[p, g, :m] = [last, *completion.tokens[:-1]], completion.tokens
      mask[p, g, :m], old_logps[p, g, :m] = 1, completion.sampler_logps
      advantages[p, g] = advantage
  flat = lambda x: x.reshape(N * n, *x.shape[2:])
  rows = [flat(x) for x in (tokens, targets, mask, old_logps, np.zeros_like(mask), advantages)]
  return Responses(prompts, lengths, *rows)


def rounded_up(n: int, unit: int) -> int:
  """The next multiple of `unit`, or of a power of two between n / 16 and n / 8 where that is more: few lengths are
  compiled.
  """
  step = -(-max(1 << n.bit_length() >> 4, 1) // unit) * unit
  return max(step, -(-n // step) * step)


def _informative(rolled: Rollout, most: int, least: int) -> np.ndarray:
  """Which are the first `most` groups that are neither all right nor all wrong.

  Where they are fewer than `least` (every update needs a group) the first of the others go with them, and where there
  are none, `most` of all.
  """
  rate = rolled.correct.mean(1)
  mixed = (rate > 0) & (rate < 1)
  chosen, others = np.flatnonzero(mixed)[:most], np.flatnonzero(~mixed)
  if len(chosen) == 0:
    return others[:most]
  return np.concatenate([chosen, others[: max(0, least - len(chosen))]])
