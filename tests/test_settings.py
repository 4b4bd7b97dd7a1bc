"""What a user may get wrong in a config is named, with the nearest name that is right; what is right arrives."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from vibethinker_jax.errors import BadInput
from vibethinker_jax.settings import freeze, load_config

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


@pytest.mark.parametrize(
  'values, message',
  [
    ({'steps': 1, 'mgpo': {'lamb': 1.0}}, "config.mgpo: unknown field 'lamb', did you mean 'lam'"),
    ({'steps': 1, 'mpgo': {'lam': 1.0}}, "config: unknown field 'mpgo', did you mean 'mgpo'"),
    ({'steps': 1, 'mgpo': {'lam': 1, 'cliplow': 1}}, "did you mean 'clip_low'"),
    ({'steps': 1, 'mgpo': 3}, 'config.mgpo: expected the fields lam, clip_low'),
    ({'steps': 1.5, 'mgpo': {'lam': 1}}, 'config.steps: expected a whole number, found 1.5'),
    ({'steps': True, 'mgpo': {'lam': 1}}, 'config.steps: expected a whole number'),
    ({'steps': 1, 'mgpo': {'lam': 'two'}}, 'config.mgpo.lam: expected a number'),
    ({'steps': 1, 'mgpo': {'lam': 1, 'table': 5}}, 'config.mgpo.table: expected names with values'),
    ({'steps': 1, 'mgpo': {'lam': 1}, 'weights': 'abc'}, "config.weights: expected a list, found 'abc'"),
    ({'steps': 1, 'mgpo': {'lam': 1}, 'weights': (1, 'a')}, r'config.weights\[1\]: expected a number'),
  ],
)
def test_refusals(values, message):
  for given in (values, ConfigDict(values)):
    with pytest.raises(BadInput, match=message):
      freeze(Outer, given)


def test_changes_of_a_file_arrive_wherever_they_stand():
  values = load_config(ROOT / 'configs' / 'tiny.py', {'mgpo.lam': 3.0, 'data.decontaminate.n': 9})
  assert values['mgpo']['lam'] == 3.0 and values['data']['decontaminate'] == {'n': 9}
  with pytest.raises(BadInput, match='config.seed.x: seed is a value'):
    load_config(ROOT / 'configs' / 'tiny.py', {'seed.x': 1})
  with pytest.raises(BadInput, match='nowhere.py: no config'):
    load_config('nowhere.py')


def test_the_command_line_ends_in_one_line():
  """Flags of fields the file leaves out arrive; names that do not exist are refused in one line, exit code 2."""
  code = (
    'from vibethinker_jax.settings import config_flag, run_app, freeze\n'
    'from tests.test_settings import Outer\n'
    'C = config_flag()\n'
    'run_app(lambda argv: print(freeze(Outer, C.value)))\n'
  )
  file = 'from ml_collections import ConfigDict\nget_config = lambda: ConfigDict(dict(steps=1, mgpo=dict(lam=1.0)))\n'
  run = lambda *argv: subprocess.run(
    [sys.executable, '-c', code, '--config=/dev/stdin', *argv], cwd=ROOT, input=file, capture_output=True, text=True
  )
  right = run('--config.mgpo.lam=2', '--config.mgpo.clip_low=0.5', '--config.weights=(0.5,0.5)')
  assert right.stdout == 'Outer(steps=1, mgpo=Inner(lam=2.0, clip_low=0.5, table={}), weights=(0.5, 0.5))\n'
  for flag, expected in (
    ('--config.mgpo.lamb=2', "did you mean 'lam'?"),
    ('--config.mgpo.lambda=2', "(lambda is called 'lam')"),
    ('--config.mpgo.lam=2', 'Did you mean "mgpo"'),
    ('--config.mgpo.lam=two', "--config.mgpo.lam=two: could not convert string to float: 'two'"),
  ):
    wrong = run(flag)
    assert wrong.returncode == 2 and expected in wrong.stderr and wrong.stderr.count('\n') == 1
