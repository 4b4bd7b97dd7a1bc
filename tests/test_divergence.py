"""A run that diverges ends in its one line (exit code 1) in every experiment, and what cannot be told is said."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from absl.flags import FLAGS
from small_config import ONE, ROOT, SMALL

from vibethinker_jax.config import TINY_BASE, RunConfig
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.errors import BadInput, Failure
from vibethinker_jax.model import hf
from vibethinker_jax.spectrum.select import has_signal
from vibethinker_jax.ssp import Pipeline
from vibethinker_jax.study import ablation, selection, simplex
from vibethinker_jax.tasks import Evaluation, Pretraining


def small(config: str, **changes) -> dict:
  """The values of configs/<config>.py, small, with its own stages of RL."""
  less = {name: value for name, value in SMALL.items() if name != 'rl.stages'}
  return load_config(ROOT / 'configs' / f'{config}.py', less | {k.replace('__', '.'): v for k, v in changes.items()})


@pytest.fixture
def experiment():
  """experiment(name): the module of experiments/<name>.py; its flags are taken back."""
  known = set(FLAGS)

  def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'experiments' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

  yield load
  for name in set(FLAGS) - known:
    delattr(FLAGS, name)


def one_line(run) -> str:
  with pytest.raises(Failure) as ended:
    run()
  assert '\n' not in str(ended.value)
  return str(ended.value)


def test_the_pipeline_in_sft(tmp_path):
  settings = freeze(RunConfig, small('tiny', sft__optim__learning_rate=1e10))
  line = one_line(lambda: Pipeline(settings, tmp_path, ONE).run())
  assert line.startswith('sft/all, step ') and 'The last checkpoint is sound' in line


@pytest.mark.slow
def test_the_pipeline_in_rl(tmp_path):
  """From a model that overflows: no reward tells anything, and the loss is not finite."""
  settings = freeze(RunConfig, small('tiny', mgpo__kl_coef=0.1))
  pipeline = Pipeline(settings, tmp_path, ONE)
  with pipeline.claimed():
    wild = jax.tree.map(lambda x: 1e10 * jnp.ones_like(x), pipeline.base())
    pipeline.save(wild, tmp_path / 'fused')
    line = one_line(lambda: pipeline.rl(tmp_path / 'fused'))
  assert line.startswith('rl/math_short, step ')


@pytest.mark.parametrize(
  'run, config',
  [
    (ablation.run, 'ablate_lambda'),
    pytest.param(simplex.run, 'sweep_fusion', marks=pytest.mark.slow),
    pytest.param(selection.run, 'study_selection', marks=pytest.mark.slow),
  ],
)
def test_the_start_of_a_study(run, config, tmp_path):
  values = small(config, sft__optim__learning_rate=1e30)
  assert one_line(lambda: run(values, tmp_path / 'w', devices=ONE)).startswith('sft/')


def test_pretraining(experiment, tmp_path):
  config = ROOT / 'configs' / 'pretrain_tiny.py'
  sizes = dict(V=512, D=16, L=1, K=1, G=2, H=8, F=32, positions=512)
  changes = {'model': sizes, 'corpus.n': 50, 'corpus.tokenizer_lines': 50, 'sft.rows': 2, 'sft.optim.warmup': 0}
  settings = freeze(Pretraining, load_config(config, changes | {'sft.optim.learning_rate': 1e30}))
  line = one_line(lambda: experiment('pretrain_tiny').pretrain(settings, tmp_path))
  assert line.startswith('pretrain, step 1: update_norm is inf')


def test_an_evaluation_of_broken_weights(experiment, make_model, tmp_path):
  """Nobody diverges there; the weights are what is wrong."""
  broken = jax.tree.map(lambda x: x * jnp.nan, make_model(V=512))
  hf.save(broken, tmp_path / 'm', TINY_BASE, eos_ids=(2,))
  (tmp_path / 'gsm8k').mkdir()
  (tmp_path / 'gsm8k' / 'test.jsonl').write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
  changes = dict(model=str(tmp_path / 'm'), dtype='float32', benchmarks=('gsm8k',), data=str(tmp_path), max_tokens=8)
  e = freeze(Evaluation, load_config(ROOT / 'configs' / 'evaluate.py', changes))
  with pytest.raises(BadInput, match='log-probabilities are not finite, the weights are broken'):
    experiment('evaluate').evaluate(e, tmp_path / 'w')


def test_what_tells_an_expert():
  assert has_signal([0.1, 0.2]) and has_signal([0.5])
  assert not any(map(has_signal, ([0.25, 0.25, 0.25], [0.0, 0.0], [0.0])))


@pytest.mark.slow
def test_an_expert_that_cannot_be_told_is_said(tmp_path, capsys):
  """A random model solves nothing: one line a domain, and so in experts.json and on the page."""
  pipeline = Pipeline(freeze(RunConfig, small('tiny', rl__stages=())), tmp_path, ONE)
  summary = pipeline.run()
  assert all(expert['signal'] is False for expert in summary['experts'].values())
  out = capsys.readouterr().out
  assert out.count('no signal, all 2 checkpoints have Pass@2 0.000; the last one is used') == 4
  assert 'No signal: all checkpoints have the same score on algebra' in (tmp_path / 'report.html').read_text()
