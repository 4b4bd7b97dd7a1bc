"""Every field of every config has a range: a wrong value is one line that names it, and nothing is written."""

import math
import os
import re
import subprocess
import sys

import jax
import pytest
from small_config import ONE, ROOT, problem_files, small

from vibethinker_jax import config_docs, distributed, fields
from vibethinker_jax.config import RunConfig, base_seed
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.run_data import load_run_data
from vibethinker_jax.ssp import Pipeline
from vibethinker_jax.study import ablation, selection, simplex
from vibethinker_jax.tasks import (
  Benchmarking,
  Evaluation,
  Pretraining,
  check_benchmarking,
  check_evaluation,
  check_pretraining,
)

# ---- values that were met

WHOLE, FINITE = 'expected a whole number of 1 or more$', 'that is finite$'
CASES = [
  ('sft.save_every', 0, WHOLE),
  ('sft.length', 3, 'expected [0-9]+ or more: the shortest solution of sft/all'),
  ('sft.accumulation', 0, WHOLE),
  ('sft.steps', -3, WHOLE),
  ('sft.rows', 0, 'expected a whole number of 1 to 1048576$'),
  ('sft.optim.learning_rate', -1e-3, 'expected a number of more than 0$'),
  ('sft.optim.learning_rate', math.nan, FINITE),
  ('sft.optim.b1', 2.0, 'expected a number of 0 or more, and less than 1$'),
  ('sft.optim.clip', math.inf, FINITE),
  ('rl.optim.eps', 0.0, 'expected a number of more than 0$'),
  ('rl.micro_rows', 0, 'expected a whole number of 1 to'),
  ('rl.micro_rows', 6, 'expected a multiple of rl.share, 4$'),
  ('rl.temperature', 0, 'expected a number of 0.01 to 100$'),
  ('rl.share', 0, WHOLE),
  ('rl.num_generations', 1, 'expected a whole number of 2 to'),
  ('rl.seed', 100, 'expected a whole number of 0 to 99$'),
  ('rl.stages[0].steps', 0, WHOLE),
  ('rl.stages[1].max_tokens', 5000, 'expected at most [0-9]+: no prompt of rl/code, code, leaves more of the 512'),
  ('rl.stages[0].name', '../../x', 'is no plain one'),
  ('rl.stages[1].name', 'math', 'are one on some disks'),
  ('mgpo.minibatches', 0, WHOLE),
  ('mgpo.minibatches', 3, 'expected at most rl.prompts, 2$'),
  ('mgpo.refills', -1, 'expected a whole number of 0 to 1000$'),
  ('mgpo.lam', math.inf, FINITE),
  ('mgpo.clip_low', 2.0, 'expected a number of more than 0 and less than 1$'),
  ('mgpo.kl_coef', -1.0, 'expected a number of 0 or more$'),
  ('mgpo.overlong', -3, 'expected a whole number of 0 or more$'),
  ('mgpo.overlong', 9, "expected at most max_tokens of stage 'math', 8$"),
  ('mgpo.band', (0.8, 0.2), 'expected two rates, the lower one first$'),
  ('mgpo.band', (0.2,), 'expected a list of 2 numbers$'),
  ('mgpo.p0', 1.0, 'expected a number of 0.01 to 0.99$'),
  ('mgpo.weight', 'entropy', "expected 'maxent' or 'variance' or 'band'$"),
  ('probe.max_tokens', 5000, 'expected at most [0-9]+: no prompt of probe_a, algebra, leaves more of the 512'),
  ('probe.top_p', 2.0, 'expected a number of more than 0, at most 1$'),
  ('probe.top_k', 0, 'expected -1, or a whole number of 1 or more$'),
  ('probe.k', 3, 'expected at most probe.samples, 2$'),
  ('evaluate.temperature', 0, 'samples: 2, expected 1 with evaluate.temperature 0'),
  ('engine.block', 0, 'expected a whole number of 1 to'),
  ('engine.rows', -4, 'expected a whole number of 1 to'),
  ('engine.pages', 3, 'expected 0, or 4 or more of 128 positions'),
  ('model.dtype', 'float99', "expected 'float32' or 'bfloat16'$"),
  ('model.attention', 'splash', "expected 'xla' on a cpu"),
  ('model.path', 'somewhere', 'expected no path beside model.random'),
  ('model.random.H', 3, 'expected a whole number of 2 to 65536, a multiple of 2$'),
  ('model.random.dtype', 'bfloat16', 'expected the default here: config.model.dtype counts'),
  ('data.probe', 0, WHOLE),
  ('data.train', 100_000, 'expected fewer'),
  ('data.source', 'web', "expected 'synthetic' or 'files'$"),
  ('data.source', 'files', "train_files: .*expected one source or more with data.source 'files'$"),
  ('data.domains', ('algebra', 'algebra'), 'are one on some disks'),
  ('data.extra_domains', ('algebra', 'code'), 'are one on some disks'),
  ('data.domains', ('algebra', 'x\0'), 'expected a text of Unicode characters'),
  ('experts', 'both', "expected 'one_run' or 'per_domain'$"),
  ('fusion.weights', (0.5, 0.5), 'expected one for each of data.domains, with a sum of 1'),
  ('grader.workers', 0, 'expected a whole number of 1 to 1024$'),
  ('grader.deadline_s', math.inf, FINITE),
  ('mesh.data', 0, 'expected -1, or a whole number of 1 to'),
  ('mesh.data', 3, 'wants 3 devices, there are 1'),
  ('cost.price_per_hour', -1.0, 'expected a number of 0 or more$'),
  ('seed', -1, 'expected a whole number of 0 or more$'),
  ('seed', True, 'True, expected a whole number'),
  ('seed', 10**5000, 'expected a whole number of at most 2147483647 in size$'),
  ('sft.steps', 10**12, 'expected a whole number of at most 2147483647 in size$'),
  ('sft.steps', '3', "'3', expected a whole number of 1 or more$"),
  ('sft.steps', 3.0, '3.0, expected a whole number of 1 or more$'),
]


@pytest.mark.parametrize('name, value, expected', CASES, ids=[name for name, *_ in CASES])
def test_odd_values_are_refused_by_name(name, value, expected):
  with pytest.raises(BadInput) as refused:
    load_run_data(freeze(RunConfig, small(**{name.replace('.', '__'): value})), ONE)
  line = str(refused.value)
  assert re.search(expected, line) and '\n' not in line and len(line) < 400, line
  assert line.startswith(f'config.{name.split("[")[0].split(".")[0]}'), line


def test_a_refusal_is_one_line_and_leaves_nothing(tmp_path):
  """By the command, as a user meets it: exit code 2."""
  command = [sys.executable, 'experiments/ssp.py', '--config=configs/tiny.py', f'--workdir={tmp_path / "w"}']
  env = {**os.environ, 'PYTHONPATH': str(ROOT)}
  for flag, expected in (
    ('--config.sft.save_every=0', 'error: config.sft.save_every: 0, expected a whole number of 1 or more\n'),
    ('--config.rl.temperature=1e999', 'error: config.rl.temperature: inf, expected a number of 0.01 to 100 that is f'),
  ):
    done = subprocess.run([*command, flag], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(expected) and done.stderr.count('\n') == 1, done.stderr
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
  'read, config, name, value, expected',
  [
    (ablation.read, 'ablate_lambda', 'ablation.lambdas', (-1.0,), r'lambdas\[0\]: -1.0, expected a number of 0 to'),
    (ablation.read, 'ablate_lambda', 'ablation.seeds', (), 'expected one or more, each once'),
    (ablation.read, 'ablate_lambda', 'ablation.seeds', (1, 1), 'expected one or more, each once'),
    (ablation.read, 'ablate_lambda', 'ablation.controls', (dict(name='../x'),), 'is no plain one'),
    (ablation.read, 'ablate_lambda', 'ablation.controls', (dict(name='GRPO'),), 'are one on some disks'),
    (
      ablation.read,
      'ablate_lambda',
      'ablation.controls',
      (dict(name='a', rl=dict(num_generations=1)),),
      'a: rl.num_generations: 1, exp',
    ),
    (
      ablation.read,
      'ablate_lambda',
      'ablation.controls',
      (dict(name='a', rl=dict(share=5)),),
      'a: .*rl.micro_rows: 64, ',
    ),
    (simplex.read, 'sweep_fusion', 'simplex.parts', 900, 'expected fewer: of 4 domains they make'),
    (simplex.read, 'sweep_fusion', 'simplex.search', 'guess', "expected 'grid' or 'dirichlet' or 'coordinate'"),
    (selection.read, 'study_selection', 'selection.seeds', (100,), r'seeds\[0\]: 100, expected a whole number of 0 to'),
  ],
)
def test_studies_refuse_by_name(read, config, name, value, expected):
  with pytest.raises(BadInput, match=expected):
    read(load_config(ROOT / 'configs' / f'{config}.py', {name: value}))


@pytest.mark.parametrize(
  'kind, look, config, name, value, expected',
  [
    (Evaluation, check_evaluation, 'evaluate', 'model', '', 'expected a Hugging Face directory'),
    (Evaluation, check_evaluation, 'evaluate', 'benchmarks', ('aime99',), "'aime99', expected some of aime24"),
    (Evaluation, check_evaluation, 'evaluate', 'benchmarks', ('aime24',) * 2, 'expected one or more, each once'),
    (Evaluation, check_evaluation, 'evaluate', 'deadline_s', 0.0, 'expected a number of more than 0, at most 86400'),
    (Pretraining, check_pretraining, 'pretrain_tiny', 'model.V', 100, 'expected 261 or more'),
    (Pretraining, check_pretraining, 'pretrain_tiny', 'sft.length', 9000, 'expected at most model.positions, 4096'),
    (Pretraining, check_pretraining, 'pretrain_tiny', 'corpus.path_weights', {'area': 1.0}, 'no weight to a path of'),
    (Benchmarking, check_benchmarking, 'benchmark', 'grpo_step.new_tokens', 5000, 'expected at most 4032 of 4096'),
    (Benchmarking, check_benchmarking, 'benchmark', 'grpo_step.micro_rows', 7, 'expected a multiple of grpo_step'),
    (Benchmarking, check_benchmarking, 'benchmark', 'mesh.fsdp', 3, 'config.mesh: fsdp is 3, which does not divide'),
  ],
)
def test_the_other_experiments_refuse_by_name(kind, look, config, name, value, expected):
  changes = {name: value} if kind is not Evaluation or name == 'model' else {'model': 'm', name: value}
  with pytest.raises(BadInput, match=expected):
    look(freeze(kind, load_config(ROOT / 'configs' / f'{config}.py', changes)))


# ---- problems that do not fit ----------------------------------------------------------------------------------------


def test_prompts_too_long_are_left_out_counted_and_named(tmp_path, capsys):
  pipeline = Pipeline(freeze(RunConfig, small(data__test=6, **problem_files(tmp_path, 22))), tmp_path / 'w', ONE)
  assert sorted(p.id for p in pipeline.sets.test['algebra']) == ['test22', 'test23', 'test24', 'test25']
  assert len(pipeline.rolled['math']) == 19 and 'train3' not in {p.id for p in pipeline.rolled['math']}
  test, stage = pipeline.left_out
  assert test.startswith('test: 2 of 6 problems left out') and test.endswith(('the first is test20', 'is test21'))
  assert stage.startswith('rl/math: 1 of 20 problems left out') and stage.endswith('the first is train3')
  assert capsys.readouterr().out.count('left out') == 2


def test_where_nothing_is_left_the_budget_is_refused(tmp_path):
  with pytest.raises(BadInput, match='config.evaluate.max_tokens: 8, expected at most 0: no prompt of test, algebra'):
    Pipeline(freeze(RunConfig, small(data__test=6, **problem_files(tmp_path, 26))), tmp_path / 'w', ONE)
  assert not (tmp_path / 'w').exists()


# ---- the page of all fields ------------------------------------------------------------------------------------------


def test_docs_are_made_of_the_declarations():
  """Every field has its line there, and a meaning. Else: python -m vibethinker_jax.config_docs > docs/config.md"""
  assert (ROOT / 'docs' / 'config.md').read_text() == config_docs.document()
  for _, _, kind in config_docs.CONFIGS:
    for one in {kind, *fields.dataclasses_in(tuple[tuple(fields.kinds(kind).values())])}:
      assert {*fields.meanings(one)} == {*fields.kinds(one)}, one


@pytest.mark.parametrize('name', ['tiny', 'ssp_1p5b'])
def test_the_first_configs_show_every_field(name):
  """With a comment or beside one; docs/config.md has the ranges. Of a model's sizes only those that it needs."""

  def left_out(kind, values, above=''):
    for field, own in fields.kinds(kind).items():
      if field not in values:
        yield f'{above}{field}'
      elif isinstance(values[field], dict):
        for inner in fields.dataclasses_in(own):
          yield from left_out(inner, values[field], f'{above}{field}.') if inner is not Config else ()

  values = load_config(ROOT / 'configs' / f'{name}.py')
  assert [*left_out(RunConfig, values)] == []
  assert [*left_out(RunConfig, {**values, 'sft': {}})] != []


# ---- a mesh axis of -1 -----------------------------------------------------------------------------------------------


def test_an_axis_of_minus_one_takes_the_devices_that_are_left(tmp_path):
  assert MeshShape(data=-1, fsdp=2).on(8) == MeshShape(data=4, fsdp=2) and MeshShape(data=3).on(8).data == 3
  assert MeshShape(seq=-1).size is None and MeshShape(seq=-1).on(1).size == 1
  for shape, why in (
    (MeshShape(data=-1, seq=-1), 'data and seq are -1, expected -1 at one axis at most'),
    (MeshShape(data=-1, fsdp=3), 'data is -1, but the other axes have 3 devices, which do not divide 8'),
  ):
    with pytest.raises(ValueError, match=why):
      shape.on(8)
  two = jax.devices()[:2]
  pipeline = Pipeline(freeze(RunConfig, small(mesh__data=-1)), tmp_path / 'w', two)
  assert pipeline.s.mesh == MeshShape(data=2) and pipeline.mesh.shape['data'] == 2


def test_an_axis_of_minus_one_that_does_not_fit_is_refused():
  for changes, why in (
    (dict(mesh__data=-1, mesh__fsdp=-1), 'config.mesh: .*, expected -1 for one axis at most'),
    (dict(mesh__data=-1, mesh__fsdp=3), 'config.mesh: data is -1, but the other axes have 3 devices'),
    (dict(mesh__data=-1, sft__rows=7), 'config.mesh: data x fsdp is 8, which does not divide sft.rows, 7'),
    (dict(mesh__data=-2), 'config.mesh.data: -2, expected -1, or a whole number of 1 to 1048576'),
  ):
    with pytest.raises(BadInput, match=why):
      load_run_data(freeze(RunConfig, small(**changes)))


def test_a_cpu_counts_as_many_devices_as_the_mesh_has_or_as_there_are_cores(monkeypatch):
  asked = []
  monkeypatch.setattr(jax.config, 'update', lambda name, value: asked.append((name, value)))
  monkeypatch.setattr(distributed, '_cores', lambda: 6)
  for mesh in (MeshShape(data=2), MeshShape(data=-1), MeshShape(data=1000)):
    distributed.cpu_devices(mesh.size)
  assert asked == [('jax_num_cpu_devices', n) for n in (2, 6, 256)]


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_every_seed_has_a_base_of_its_own_in_32_bits():
  """Those up to 4000 keep the values they have always had."""
  assert [base_seed(seed) for seed in (0, 1, 7, 4000)] == [0, 1_000_000, 7_000_000, 4_000_000_000]
  large = [*range(4001, 60_000), *range(2**31 - 60_000, 2**31)]
  bases = {base_seed(seed) for seed in (*range(4001), *large)}
  assert len(bases) == 4001 + len(large) and max(bases) + 2**28 <= 2**32


def test_the_largest_seed_trains_and_samples(tmp_path):
  settings = freeze(RunConfig, small(seed=2**31 - 1, rl__seed=99))
  pipeline = Pipeline(settings, tmp_path / 'w', ONE)
  with pipeline.claimed():
    pipeline.sft()
    pipeline.save(pipeline.base(), tmp_path / 'base')
    pipeline.rl(tmp_path / 'base')
  assert (tmp_path / 'w' / 'final').exists()
  with pytest.raises(BadInput, match='config.seed: 2147483648, expected a whole number of at most 2147483647 in size'):
    freeze(RunConfig, small(seed=2**31))
