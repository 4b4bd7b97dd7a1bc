"""The RL loop on a small random model: exact ratios, everything moves, resumed = uninterrupted, dynamic sampling."""

import dataclasses

import jax
import numpy as np
import pytest

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.config_io import freeze
from vibethinker_jax.data import synthetic
from vibethinker_jax.distributed import Stop, Stopped
from vibethinker_jax.engine.engine import Completion, Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model import hf
from vibethinker_jax.model.mesh import MeshShape, make_mesh, place, spread_rows
from vibethinker_jax.train import mgpo, rl
from vibethinker_jax.train.alarm import Alarm
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.optim import Optim, optimizer
from vibethinker_jax.train.rl_batches import informative, responses, rounded_up, sharing
from vibethinker_jax.train.rl_loss import LossConfig, hidden_states, make_loss, score
from vibethinker_jax.train.state import gradient_adder, start
from vibethinker_jax.verify.answer import Verdict

STAGE = rl.RLStage('short', ('algebra',), steps=4, max_tokens=12)
LOOP = rl.RL(2, 4, 1.0, 4, 2, 2, Optim(1e-2, warmup=1, end=1.0), (STAGE,))


class CoinGrader:
  """Right or wrong by the letters of the response: a signal that does not need a model that can do anything."""

  def grade(self, rows):
    return [Verdict(sum(map(ord, response)) % 2, None, 'coin') for response, _, _ in rows]

  def steps(self, rows):
    return [None if len(response) % 3 == 0 else (len(response) % 3) / 2 for response, _, _ in rows]


def trainer(tokenizer, small, folder, loop=LOOP, algorithm=rl.MGPO(lam=1.0), writer=MetricWriter, stop=None):  # noqa: B008
  engine = Engine(small.config, tokenizer.stop_ids, rows=8, block=8)
  return rl.Trainer(loop, algorithm, tokenizer, engine, CoinGrader(), writer(folder / 'm.jsonl'), 0, stop)


def same(a, b) -> bool:
  return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_ratio_is_one_at_the_first_update_and_everything_moves(tokenizer, small, algebra, tmp_path):
  for temperature in (1.0, 0.7):
    folder = tmp_path / str(temperature)
    loop = dataclasses.replace(LOOP, temperature=temperature)
    state = trainer(tokenizer, small, folder, loop).run(0, small, algebra, folder / 'rl')
    rows = MetricWriter(folder / 'm.jsonl').rows('rl/short')
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    for row in rows:
      assert abs(row['ratio_min'] - 1) < 1e-4 and abs(row['ratio_max'] - 1) < 1e-4
      assert row['logp_gap'] < 1e-4 and row['moved'] > 0.9
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), small, state.model)
    assert all(jax.tree.leaves(moved))


def test_how_far_engine_and_trainer_are_apart_in_bfloat16(tokenizer, small, algebra, tmp_path, capsys):
  """It is a number of every step, at the first of its updates only, and beyond a bound it is told."""
  rough = jax.tree.map(lambda x: 4 * x, small)
  rough.config = dataclasses.replace(small.config, dtype='bfloat16')
  algorithm = rl.MGPO(lam=1.0, minibatches=2)
  loop = dataclasses.replace(LOOP, temperature=0.7, stages=(dataclasses.replace(STAGE, steps=1),))
  trainer(tokenizer, rough, tmp_path, loop, algorithm).run(0, rough, algebra, tmp_path / 'rl')
  (row,) = MetricWriter(tmp_path / 'm.jsonl').rows('rl/short')
  assert row['logp_gap'] > 1e-4 and row['logp_gap'] < np.log(row['ratio_max'] / row['ratio_min'])
  alarm = Alarm('rl/x')
  capsys.readouterr()
  for gap in (0.003, 0.03, 0.04):
    alarm.look_at_rollouts({**row, 'truncated': 0, 'all_right': 0, 'all_wrong': 0, 'ratio_max': 1, 'logp_gap': gap})
  assert capsys.readouterr().out.count('WARNING') == 1


@pytest.mark.slow
@pytest.mark.parametrize('dtype, temperature', [('bfloat16', 1.0), ('bfloat16', 0.7), ('float32', 1.0)])
def test_the_figures_of_the_docs(tokenizer, dtype, temperature):
  """How far the two ln p of sampled tokens are apart on the tiny base (docs/performance.md)."""
  model = hf.load(TINY_BASE, 'float32')
  model.config = dataclasses.replace(model.config, dtype=dtype)
  problems = synthetic.problems('algebra', 'train', 64, seed=0)
  law = SamplingParams(temperature=temperature)
  requests = [Request(tuple(tokenizer.prompt(p)), 96, 8, law, number=i) for i, p in enumerate(problems)]
  engine = Engine(model.config, tokenizer.stop_ids, rows=256, block=32)
  rows = [(list(requests[c.request].prompt), c, 1.0) for c in engine.generate(model, requests)]
  shares, apart = sharing(rows, 8), []
  S = rounded_up(max(len(share[0][0]) for share in shares) - 1, 32)
  for i in range(0, len(shares), 8):
    batch = responses(shares[i : i + 8], 8, 8, S, 32)
    apart.append((np.asarray(score(model, batch, temperature)) - batch.old_logps)[batch.mask > 0])
  apart = np.concatenate(apart)
  ratio, mean = np.exp([apart.min(), apart.max()]), np.abs(apart).mean()
  clipped = (np.abs(np.exp(apart) - 1) > 0.2).sum()
  print(f'{dtype}, {temperature}: mean {mean:.4f}, largest {np.abs(apart).max():.4f}, ratio {ratio}, clipped {clipped}')
  assert mean < (0.003 if dtype == 'bfloat16' else 1e-5)


def test_resumed_equals_uninterrupted(tokenizer, small, algebra, tmp_path):
  whole = trainer(tokenizer, small, tmp_path / 'a').run(0, small, algebra, tmp_path / 'a' / 'rl')

  class Killed(Exception):
    pass

  class Dying(MetricWriter):
    def write(self, stage, step, values):
      if step == 4:
        raise Killed
      super().write(stage, step, values)

  cut = tmp_path / 'b'
  with pytest.raises(Killed):
    trainer(tokenizer, small, cut, writer=Dying).run(0, small, algebra, cut / 'rl')

  class InTheMiddle(Stop):
    looks = 0

    def asked(self):
      self.looks += 1
      return self.looks > 1

  with pytest.raises(Stopped, match='rl/short: saved after step 2 of 4'):
    trainer(tokenizer, small, cut, stop=InTheMiddle()).run(0, small, algebra, cut / 'rl')
  again = trainer(tokenizer, small, cut).run(0, small, algebra, cut / 'rl')
  assert same(whole, again)
  drop = lambda rows: [{k: v for k, v in row.items() if not k.startswith('seconds')} for row in rows]
  assert drop(MetricWriter(cut / 'm.jsonl').rows('rl/short')) == drop(
    MetricWriter(tmp_path / 'a' / 'm.jsonl').rows('rl/short')
  )


def test_the_weight_multiplies_the_advantage_by_the_raw_pass_rate(tokenizer, small, algebra, tmp_path):
  """Also under shaped rewards; lambda 0 is GRPO, and every shape has its name."""
  order = dict(enumerate(range(40)))
  roll = lambda name, **fields: trainer(
    tokenizer, small, tmp_path / name, algorithm=rl.MGPO(overlong=6, **fields)
  )._roll(0, small, algebra, order, 0)
  rolled, grpo, row, _ = roll('grpo', lam=0.0)
  assert row['weight_mean'] == 1.0
  p = rolled.correct.mean(1)
  assert p.min() > 0 and p.max() < 1
  for name, fields, w in (
    ('lam', dict(lam=2.0), np.asarray(mgpo.maxent_weight(p, 2.0))),
    ('variance', dict(lam=0.0, weight='variance'), 4 * p * (1 - p)),
    ('band', dict(lam=0.0, weight='band', band=(0.4, 0.6)), (p == 0.5).astype(float)),
  ):
    np.testing.assert_allclose(roll(name, **fields)[1], w[:, None] * grpo, rtol=1e-5)
  scaled = roll('scaled', lam=2.0, rescale=True)[1]
  assert np.abs(scaled).sum() == pytest.approx(np.abs(grpo).sum(), rel=1e-5)


def test_unknown_names_are_refused():
  for fields in (dict(weight='entropy'), dict(aggregate='mean'), dict(band=(0.1,))):
    with pytest.raises(BadInput, match='config.mgpo'):
      freeze(rl.MGPO, dict(lam=1.0, **fields), 'config.mgpo')


def test_micro_rows_do_not_change_the_gradient(tokenizer, small, algebra):
  rng = np.random.default_rng(0)
  rows = []
  for i in range(6):
    tokens = rng.integers(5, 200, rng.integers(3, 40)).astype(np.int32)
    logps = np.full(len(tokens), -5.0, np.float32)
    rows.append((tokenizer.prompt(algebra[i]), Completion(0, i, tokens, logps, logps, 'stop'), float(rng.normal())))
  add = gradient_adder(make_loss(LossConfig(10.0, 10.0, 'sequence', 0.0), 1.0))
  whole, _ = add(None, small, responses(sharing(rows, 2), 8, 2, 64, 32))
  parts = None
  for i in range(0, 6, 2):
    parts, _ = add(parts, small, responses(sharing(rows[i : i + 2], 1), 4, 1, 64, 32))
  for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4 * float(abs(x).max()) + 1e-7)


def test_dynamic_sampling_keeps_groups_with_a_signal(tokenizer, small, algebra, tmp_path):
  one = trainer(tokenizer, small, tmp_path, algorithm=rl.MGPO(lam=1.0, refills=3))
  order = {i: i % len(algebra) for i in range(100)}
  kept, advantages, row, cursor = one._roll(0, small, algebra, order, 0)
  rate = kept.correct.mean(1)
  assert ((rate > 0) & (rate < 1)).all() and len(rate) <= LOOP.prompts
  assert cursor == row['groups'] and cursor % LOOP.prompts == 0
  assert advantages.shape == kept.correct.shape and np.abs(advantages.sum(1)).max() < 1e-4


def test_every_update_has_a_group():
  rate = np.array([0, 0.5, 1, 0.5, 0.5])
  assert informative(rate, 2, 1).tolist() == [1, 3] and informative(rate, 8, 5).tolist() == [1, 3, 4, 0, 2]
  assert informative(np.ones(3), 2, 1).tolist() == [0, 1]


def test_kl_and_several_updates_are_reported(tokenizer, small, algebra, tmp_path):
  algorithm = rl.MGPO(lam=1.0, kl_coef=0.1, minibatches=2)
  state = trainer(tokenizer, small, tmp_path, algorithm=algorithm).run(0, small, algebra, tmp_path / 'rl')
  rows = MetricWriter(tmp_path / 'm.jsonl').rows('rl/short')
  assert int(state.step) == 2 * STAGE.steps
  assert rows[0]['ratio_max'] != pytest.approx(1, abs=1e-4), 'the second update sees a policy that has moved'
  assert rows[-1]['kl'] > 0


def test_overlong_shaping_leaves_the_pass_rate_alone(tokenizer, small, algebra, tmp_path):
  plain = trainer(tokenizer, small, tmp_path / 'a')._roll(0, small, algebra, dict(enumerate(range(40))), 0)
  shaped = trainer(tokenizer, small, tmp_path / 'b', algorithm=rl.MGPO(lam=1.0, overlong=6))
  shaped = shaped._roll(0, small, algebra, dict(enumerate(range(40))), 0)
  assert plain[2]['pass_rate'] == shaped[2]['pass_rate'] and shaped[2]['reward'] < plain[2]['reward']


def test_false_steps_cost_reward_and_leave_the_pass_rate_alone(tokenizer, small, algebra, tmp_path):
  order = dict(enumerate(range(40)))
  plain = trainer(tokenizer, small, tmp_path / 'a')._roll(0, small, algebra, order, 0)
  shaped = trainer(tokenizer, small, tmp_path / 'b', algorithm=rl.MGPO(lam=1.0, step_penalty=0.5))
  shaped = shaped._roll(0, small, algebra, order, 0)
  share = np.array(CoinGrader().steps([(r, '', None) for row in plain[0].responses for r in row]), float)
  lost = np.where(np.isnan(share), 0, 1 - share)
  assert lost.max() > 0 and shaped[2]['pass_rate'] == plain[2]['pass_rate']
  assert shaped[2]['reward'] == pytest.approx(plain[2]['reward'] - 0.5 * lost.mean())
  assert shaped[2]['steps_share'] == pytest.approx(np.nanmean(share)) and 'steps_share' not in plain[2]


def completion(tokens: list[int]) -> Completion:
  logps = -np.arange(1.0, 1 + len(tokens), dtype=np.float32)
  return Completion(0, 0, np.array(tokens, np.int32), logps, logps, 'stop')


def test_responses_put_the_mask_on_the_targets():
  rows = [([1, 2], completion([7, 8, 9]), 0.5), ([1, 3], completion([4]), 0.1), ([1, 2], completion([6]), -0.5)]
  batch = responses(sharing(rows, 2), N=3, n=2, S=32, unit=32)
  assert batch.prompts[:2, 0].tolist() == [1, 1] and batch.lengths.tolist() == [1, 1, 0]
  at = batch.mask > 0
  assert [t[a].tolist() for t, a in zip(batch.targets, at)] == [[4], [], [6], [7, 8, 9], [], []]
  assert [t[a].tolist() for t, a in zip(batch.tokens, at)] == [[3], [], [2], [2, 7, 8], [], []]
  assert batch.old_logps[3][at[3]].tolist() == [-1, -2, -3]
  np.testing.assert_allclose(batch.advantages, [0.1, 0, -0.5, 0.5, 0, 0])


def test_sharing_a_prompt_changes_no_hidden_state(small):
  """Prompts of different lengths, continuations padded: each as if it stood alone in a row."""
  rng = np.random.default_rng(0)
  prompts = [rng.integers(5, 200, n).tolist() for n in (1, 9, 20)]
  rows = [(p, completion(rng.integers(5, 200, n).tolist()), 1.0) for p in prompts for n in (3, 12, 30, 31)]
  batch = responses(sharing(rows, 4), N=3, n=4, S=32, unit=32)
  shared = jax.jit(hidden_states)(small, batch)
  T = 64
  tokens, where = np.zeros((12, T), np.int32), []
  for row, (prompt, c, _) in zip(tokens, (row for share in sharing(rows, 4) for row in share)):
    row[: len(prompt) + len(c.tokens)] = [*prompt, *c.tokens]
    where.append(slice(len(prompt) - 1, len(prompt) - 1 + len(c.tokens)))
  alone = jax.jit(small.__class__.__call__)(
    small, tokens, np.broadcast_to(np.arange(T), tokens.shape), np.ones_like(tokens)
  )
  for ours, at, whole, span in zip(shared, batch.mask > 0, alone, where, strict=True):
    np.testing.assert_allclose(ours[at], whole[span], atol=2e-5)


def test_a_mesh_changes_nothing_about_shared_prompts(small):
  """Rows over data and fsdp, heads over tensor; along seq every device has its rows whole."""
  rng = np.random.default_rng(0)
  prompts = [rng.integers(5, 200, n).tolist() for n in (1, 9, 20, 4)]
  rows = [(p, completion(rng.integers(5, 200, n).tolist()), 1.0) for p in prompts for n in (3, 30)]
  batch = responses(sharing(rows, 2), N=4, n=2, S=32, unit=32)
  gradient = jax.jit(jax.grad(lambda model, batch: make_loss(rl.MGPO(lam=1.0).loss, 0.9)(model, batch)[0]))
  expected = gradient(small, batch)
  mesh = make_mesh(MeshShape(data=2, seq=2, tensor=2))
  with jax.set_mesh(mesh):
    sharded = gradient(place(small, mesh), spread_rows(batch))
  for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5 * max(1.0, np.abs(b).max()))


def test_lengths_are_multiples_and_few():
  sizes = [rounded_up(n, 128) for n in range(1, 20_000)]
  assert all(s % 128 == 0 and n <= s <= max(128, 1.13 * n + 128) for n, s in enumerate(sizes, 1))
  assert len(set(sizes)) < 60 and rounded_up(0, 32) == 32


def test_rows_without_a_signal_are_left_out_and_counted(tokenizer, small, algebra, tmp_path):
  """The update with silent groups skipped is the update with everything computed."""
  for aggregate in ('sequence', 'token'):
    algorithm = rl.MGPO(lam=0.0, aggregate=aggregate)
    one = trainer(tokenizer, small, tmp_path / aggregate, algorithm=algorithm)
    rolled, _, _, _ = one._roll(0, small, algebra, dict(enumerate(range(40))), 0)
    advantages = np.array([[1.0, -1, 1, -1], [0, 0, 0, 0]], np.float32)
    seen = {}

    def update(state, sums, seen=seen):
      seen['sums'] = jax.device_get(sums)
      norm = np.float32(0)
      return state, {'grad_norm': norm, 'update_norm': norm, 'moved': norm, 'count': sums[1]}

    one._learn(update, start(small, optimizer(LOOP.optim, 4)), None, rolled, advantages)
    skipped = seen['sums']
    one._with_signal = lambda rows: (rows, 0.0)
    one._learn(update, start(small, optimizer(LOOP.optim, 4)), None, rolled, advantages)
    assert float(skipped[1]) == float(seen['sums'][1])
    for x, y in zip(jax.tree.leaves(skipped[0]), jax.tree.leaves(seen['sums'][0]), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * float(abs(y).max()) + 1e-8)
