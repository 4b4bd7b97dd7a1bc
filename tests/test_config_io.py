"""What a user may get wrong in a config is named, with the nearest name that is right; what is right arrives."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import types
import typing

import pytest
from ml_collections import ConfigDict

from vibethinker_jax.config import RunConfig
from vibethinker_jax.config_io import ConfigFlag, freeze, load_config
from vibethinker_jax.errors import BadInput

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Inner:
  lam: float
  clip_low: float = 0.2
  table: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outer:
  steps: int
  mgpo: Inner
  weights: tuple[float, ...] = ()
  names: tuple[str, ...] = ()


@pytest.mark.parametrize(
  'values, message',
  [
    ({'steps': 1, 'mgpo': {'lamb': 1.0}}, "config.mgpo: unknown field 'lamb', did you mean 'lam'"),
    ({'steps': 1, 'mpgo': {'lam': 1.0}}, "config: unknown field 'mpgo', did you mean 'mgpo'"),
    ({'steps': 1, 'mgpo': {'lam': 1, 'cliplow': 1}}, "did you mean 'clip_low'"),
    ({'steps': 1, 'mgpo': 3}, 'config.mgpo: 3, expected the fields lam, clip_low'),
    ({'steps': 1.5, 'mgpo': {'lam': 1}}, 'config.steps: 1.5, expected a whole number'),
    ({'steps': True, 'mgpo': {'lam': 1}}, 'config.steps: True, expected a whole number'),
    ({'steps': 1, 'mgpo': {'lam': 'two'}}, "config.mgpo.lam: 'two', expected a number"),
    ({'steps': 1, 'mgpo': {'lam': 1, 'table': 5}}, 'config.mgpo.table: 5, expected names with values'),
    ({'steps': 1, 'mgpo': {'lam': 1}, 'weights': 'abc'}, "config.weights: 'abc', expected a list, each a number"),
    ({'steps': 1, 'mgpo': {'lam': 1}, 'weights': (1, 'a')}, r"config.weights\[1\]: 'a', expected a number"),
  ],
)
def test_refusals(values, message):
  for given in (values, ConfigDict(values)):
    with pytest.raises(BadInput, match=message):
      freeze(Outer, given)


def test_changes_of_a_file_arrive_wherever_they_stand():
  values = load_config(ROOT / 'configs' / 'tiny.py', {'mgpo.lam': 3.0, 'data.decontaminate.n': 9})
  assert values['mgpo']['lam'] == 3.0 and values['data']['decontaminate'] == {'n': 9}
  stages = load_config(ROOT / 'configs' / 'tiny.py', {'rl.stages[1].steps': 3})['rl']['stages']
  assert [stage['steps'] for stage in stages] == [22, 3, 6]
  for path, why in (
    ('seed.x', 'x would be a field of 0, which is a value'),
    ('rl.stages[3].steps', r'there is a list of 3, which has no \[3\]'),
    ('seed[0]', r'there is no list, which has no \[0\]'),
    ('rl..steps', 'no name of a field'),
  ):
    with pytest.raises(BadInput, match=f'config.{re.escape(path)}: {why}'):
      load_config(ROOT / 'configs' / 'tiny.py', {path: 1})
  with pytest.raises(BadInput, match='nowhere.py: no config'):
    load_config('nowhere.py')


def test_lists_on_the_command_line():
  """With commas, texts as numbers, also where the file leaves the field out."""
  read = lambda *texts: freeze(RunConfig, load_config(ROOT / 'configs' / 'tiny.py', texts=texts))
  s = read(('data.extra_domains', 'code,number_theory'), ('fusion.weights', '0.1,0.2,0.3,0.4'), ('data.paths', 'steps'))
  assert s.data.extra_domains == ('code', 'number_theory') and s.fusion.weights == (0.1, 0.2, 0.3, 0.4)
  assert s.data.paths == ('steps',)
  given = dict(steps=1, mgpo=dict(lam=1.0))
  assert (
    freeze(Outer, {**given, 'names': 'a,b'}).names == ('a', 'b') and freeze(Outer, {**given, 'names': ''}).names == ()
  )
  with pytest.raises(BadInput, match="config.weights: 'a,b', expected a list, each a number"):
    freeze(Outer, {**given, 'weights': 'a,b'})


def test_fields_that_have_moved_are_refused_with_their_new_places():
  for old, new in (('cost.sizes', 'plan.sizes'), ('cost.utilization', 'plan.utilization'), ('mgpo.kl', 'mgpo.kl_coef')):
    with pytest.raises(BadInput, match=f'config.{old}: this field was renamed, expected config.{new}'):
      freeze(RunConfig, load_config(ROOT / 'configs' / 'tiny.py', {old: 1}))


def test_a_config_imports_its_neighbours(tmp_path):
  for name, n in (('one', 1), ('two', 2)):  # a neighbour of the same name in each folder
    (tmp_path / name).mkdir()
    (tmp_path / name / 'near.py').write_text(f'N = {n}\n')
    text = 'from ml_collections import ConfigDict\nfrom near import N\nget_config = lambda: ConfigDict(dict(n=N))\n'
    (tmp_path / name / 'c.py').write_text(text)
    assert load_config(tmp_path / name / 'c.py') == {'n': n}
  assert 'near' not in sys.modules and str(tmp_path / 'two') not in sys.path


@pytest.mark.slow
def test_the_command_line_ends_in_one_line():
  """Flags of fields the file leaves out arrive; names that do not exist are refused in one line, exit code 2."""
  code = (
    'from vibethinker_jax.config_io import config_flag, run_app, freeze\n'
    'from tests.test_config_io import Outer\n'
    'C = config_flag()\n'
    'run_app(lambda argv: print(freeze(Outer, C.value)))\n'
  )
  file = 'from ml_collections import ConfigDict\nget_config = lambda: ConfigDict(dict(steps=1, mgpo=dict(lam=1.0)))\n'
  run = lambda *argv: subprocess.run(
    [sys.executable, '-c', code, '--config=/dev/stdin', *argv], cwd=ROOT, input=file, capture_output=True, text=True
  )
  right = run('--config.mgpo.lam=2', '--config.mgpo.clip_low=0.5', '--config.weights=(0.5,0.5)')
  assert right.stdout == 'Outer(steps=1, mgpo=Inner(lam=2.0, clip_low=0.5, table={}), weights=(0.5, 0.5), names=())\n'
  right = run('--config.mgpo.table.deep.x=3', '--config.weights=0.5,0.5', '--config.steps', '7')
  assert 'Outer(steps=7' in right.stdout and "table={'deep': {'x': 3}}), weights=(0.5, 0.5)" in right.stdout
  for flag, expected in (
    ('--config.mgpo.lamb=2', "did you mean 'lam'?"),
    ('--config.mgpo.lambda=2', "unknown field 'lambda', did you mean 'lam'?"),
    ('--config.mpgo.lam=2', "unknown field 'mpgo', did you mean 'mgpo'?"),
    ('--config.mgpo.lam=two', "config.mgpo.lam: 'two', expected a number"),
    ('--config.steps.x=1', 'config.steps.x: x would be a field of 1, which is a value'),
    ('--confg=x', "Unknown command line flag 'confg'"),
  ):
    wrong = run(flag)
    assert wrong.returncode == 2 and expected in wrong.stderr and wrong.stderr.count('\n') == 1


def test_a_full_memory_is_one_line():
  """A model that no machine has room for, as the compiler and as numpy say it."""
  for work in ('jax.numpy.zeros((1 << 24, 1 << 24)).block_until_ready()', 'numpy.ones(1 << 50)'):
    code = f'import jax, numpy; from vibethinker_jax.config_io import run_app; run_app(lambda argv: {work})'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert done.stderr.startswith('error: the memory is full (') and 'expected fewer rows' in done.stderr


def fields(kind, above=''):
  """Every field of a dataclass and of those in it, by its dotted name."""
  for name, inner in typing.get_type_hints(kind).items():
    if typing.get_origin(inner) is types.UnionType:
      inner = typing.get_args(inner)[0]
    if dataclasses.is_dataclass(inner):
      yield from fields(inner, f'{above}{name}.')
    yield f'{above}{name}'


def test_every_field_can_be_given_by_flag(monkeypatch):
  """Whether configs/tiny.py names it or not: config.grader.workers, config.data.spectrum.copies, ..."""
  names = [*fields(RunConfig)]
  assert {'grader.workers', 'data.spectrum.copies', 'data.decontaminate.n', 'model.system', 'rl.optim.b1'} <= {*names}
  flag = ConfigFlag.__new__(ConfigFlag)
  flag._where = types.SimpleNamespace(value=str(ROOT / 'configs' / 'tiny.py'))
  for name in names:
    monkeypatch.setattr(sys, 'argv', ['ssp.py', f'--config.{name}=7', '--workdir=w'])
    value = flag.value
    del flag.value  # it is kept
    for part in name.split('.'):
      value = value[part]
    assert value in (7, '7', (7,)), name
  monkeypatch.setattr(sys, 'argv', ['ssp.py', '--config.grader.workers=5', '--config.data.spectrum.copies=2'])
  settings = freeze(RunConfig, flag.value)
  assert settings.grader.workers == 5 and settings.data.spectrum.copies == 2


CONFIGS = {
  'syntax': 'def get_config(:\n',
  'raises': "def get_config():\n  raise RuntimeError('no such luck')\n",
  'none': 'def get_config():\n  return None\n',
  'leaves': 'import sys\nsys.exit(3)\n',
  'empty': '',
}


@pytest.mark.parametrize('name', [*CONFIGS])
def test_a_broken_config_is_one_line(name, tmp_path):
  (tmp_path / 'c.py').write_text(CONFIGS[name])
  with pytest.raises(BadInput, match=r'c.py: no config \('):
    load_config(tmp_path / 'c.py')


@pytest.mark.slow
@pytest.mark.parametrize(
  'program',
  ['ssp', 'ablate_lambda', 'sweep_fusion', 'study_selection', 'evaluate', 'pretrain_tiny', 'benchmark'],
)
def test_every_experiment_refuses_in_one_line(program, tmp_path):
  """Presets and files that are not there, and a config with an error: exit code 2, and nothing is left."""
  (tmp_path / 'c.py').write_text(CONFIGS['raises'])
  for config in ('configs/ssp_1p5b.py:nosuch', 'configs/nowhere.py', f'{tmp_path}/c.py', 'configs/tiny.py:preset'):
    command = [sys.executable, f'experiments/{program}.py', f'--config={config}', f'--workdir={tmp_path / "w"}']
    done = subprocess.run(
      command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert done.stderr.startswith(f'error: --config {config}: no config (') and not (tmp_path / 'w').exists()
