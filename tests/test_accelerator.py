"""experiments/accelerator.py on a CPU: every part has its entry, and what goes wrong in one stays in it."""

import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.engine.cache import KVCache
from vibethinker_jax.engine.decode import cast
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.plan import device
from vibethinker_jax.plan.formulas import work
from vibethinker_jax.plan.machine import CHIPS
from vibethinker_jax.plan.parts import Accelerator, Figure, check, parts_of
from vibethinker_jax.plan.stage import StagePlan

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / 'configs' / 'accelerator.py'

# kernels as a CPU has them, parts that fail in three ways, and no time
SCRIPT = """
import dataclasses, os, pathlib, time
import accelerator
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.plan.parts import Accelerator, Figure, Part, parts_of

def raises(s):
  raise KeyError('one line\\nand another')

def hangs(s):
  time.sleep(600)

fine = lambda s: {'step': Figure(3.0, 's', 'plan', 2.0)}
s = freeze(Accelerator, load_config('CONFIG:tiny'))
kernels = [dataclasses.replace(part, needs=()) for part in parts_of(s) if 'attention' in part.name]
odd = [Part('raises', raises), Part('ends', lambda s: os._exit(7)), Part('fine', fine)]
odd.append(Part('other', fine, fallback='fine'))
accelerator.measured(s, kernels + odd, 600, pathlib.Path('whole.json'))
accelerator.measured(s, [Part('hangs', hangs), Part('fine', fine)], 12, pathlib.Path('short.json'))
accelerator.measured(s, odd, 0, pathlib.Path('none.json'))
"""


def run(*command: str, folder: pathlib.Path) -> str:
  paths = os.pathsep.join([str(ROOT), str(ROOT / 'experiments')])
  env = {**os.environ, 'PYTHONPATH': paths, 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
  done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def settings(**changes) -> Accelerator:
  return freeze(Accelerator, load_config(f'{CONFIG}:tiny', {k.replace('__', '.'): v for k, v in changes.items()}))


def test_the_whole_command_on_a_cpu(tmp_path):
  said = run(str(ROOT / 'experiments' / 'accelerator.py'), f'--config={CONFIG}:tiny', '--out=o/a.json', folder=tmp_path)
  result, table = json.loads((tmp_path / 'o' / 'a.json').read_text()), (tmp_path / 'o' / 'a.md').read_text()
  parts = parts_of(settings())
  assert [*result['parts']] == [part.name for part in parts] and table in said
  assert result['device']['platform'] == 'cpu' and result['config']['lengths'] == [128]
  for part in parts:
    found = result['parts'][part.name]
    assert f'| {part.name} |' in table and f'] {part.name}: ' in said
    if part.needs:
      assert (found['state'], found['why']) == ('left out', 'needs a gpu or tpu')
      continue
    assert found['state'] == 'measured', found
    assert found['figures'], part.name
    for name, figure in found['figures'].items():
      assert figure['value'] is None if name == 'peak memory' else figure['value'] > 0, (part.name, name)
      assert figure['unit'] and (figure['reference'] is None) == (figure['against'] == ''), (part.name, name)
  assert result['parts']['decode_paged_4']['figures']['step, by decode_contiguous_4']['reference'] > 0


def test_the_parts_of_the_real_size():
  wanted = """
    rates attention_8192 sft_8192 rl_8192 decode_contiguous_64 decode_contiguous_256 decode_paged_64 decode_paged_256
    paged_attention sft_16384 rl_16384 decode_int8_64 decode_int8_256 attention_16384 int8_error sft_8192_plain
    decode_int8_cache_64 decode_int8_cache_256 decode_int8_weights_64 decode_int8_weights_256"""
  assert [part.name for part in parts_of(freeze(Accelerator, load_config(CONFIG)))] == wanted.split()


@pytest.mark.slow
def test_what_fails_stays_in_its_part(tmp_path):
  (tmp_path / 'script.py').write_text(SCRIPT.replace('CONFIG', str(CONFIG)))
  run('script.py', folder=tmp_path)
  whole, short, none = (json.loads((tmp_path / f'{n}.json').read_text())['parts'] for n in ('whole', 'short', 'none'))
  for name in ('attention_128', 'paged_attention'):  # the plain form beside itself
    figures = whole[name]['figures']
    errors = [f for title, f in figures.items() if title.endswith('error')]
    assert errors and all(f['value'] == f['reference'] for f in errors), name
  assert (whole['raises']['state'], whole['raises']['why']) == ('failed', "KeyError: 'one line\\nand another'")
  assert (whole['ends']['state'], whole['ends']['why']) == ('failed', 'its process ended with exit code 7')
  assert whole['fine']['figures']['step']['ratio'] == 1.5
  assert whole['other']['figures']['step, by fine']['ratio'] == 1
  assert (short['hangs']['state'], short['hangs']['why']) == ('failed', 'stopped after 4 s')
  assert short['fine']['state'] == 'measured'
  assert {(found['state'], found['why']) for found in none.values()} == {('left out', 'no time')} and len(none) == 4
  assert '| raises | failed: KeyError' in (tmp_path / 'whole.md').read_text()
  assert sorted(path.name for path in tmp_path.glob('*.*')) == sorted(
    ['script.py', *(f'{n}.{kind}' for n in ('whole', 'short', 'none') for kind in ('json', 'md'))]
  )


def test_operations_of_training_are_those_of_the_plan():
  """It counts a token to see half the row, and a prompt to have a loss."""
  c = freeze(Accelerator, load_config(CONFIG)).model
  for length in (8192, 16384):
    planned = work(StagePlan('sft', 'sft', c, MeshShape(), 4, length))[0]
    assert device.training_flops(c, 4, length, length) == pytest.approx(planned, rel=1e-4)
  assert device.training_flops(c, 4, 8192, 8192) - device.training_flops(c, 4, 8192, 7168) == 4 * 6 * 1024 * c.V * c.D


def test_a_decode_step_reads_weights_and_live_cache(make_model):
  model = cast(make_model())
  c, cache = model.config, KVCache.empty(model.config, 4, 64, jnp.float32)
  held = sum(x.size for x in jax.tree.leaves(model))
  _, read = device.decode_work(model, cache, 4 * 64, 4, 32.5)
  assert read == 4 * (held + 4 * 32.5 * 2 * c.L * c.K * c.H)
  assert device.decode_work(cast(make_model(tied=False)), cache, 4 * 64, 4, 32.5)[1] == read


def test_a_data_sheet_is_for_its_own_device_only():
  assert device.chip(types.SimpleNamespace(device_kind='NVIDIA H200'), 'bfloat16') == (
    CHIPS['h200'],
    'data sheet of h200',
  )
  assert {*device.KINDS.values()} <= {*CHIPS}
  for kind in ('NVIDIA H100 PCIe', 'NVIDIA H100 80GB HBM3 MIG 1g.10gb', 'cpu'):
    on, source = device.chip(types.SimpleNamespace(device_kind=kind), 'float32')
    assert source.startswith('measured') and on.flops > 0 and on.bandwidth > 0


def test_a_figure_is_compared_where_there_is_something_to_compare():
  assert Figure(3.0, 's', 'plan', 2.0).row()['ratio'] == 1.5
  assert [Figure(*v).row()['ratio'] for v in ((3.0, 's'), (None, 's', 'plan', 2.0), (3.0, '', 'fallback', 0.0))] == [
    None
  ] * 3


@pytest.mark.parametrize(
  'name, value, expected',
  [
    ('lengths', (), 'expected one or more, each once'),
    ('lengths', (128, 128), 'expected one or more, each once'),
    ('lengths', (100,), 'config.lengths: 100, expected a multiple of 128'),
    ('lengths', (1024,), 'expected a multiple of 128, at most model.positions, 512'),
    ('prompt', 128, 'expected less than the shortest of lengths, 128'),
    ('decode__rows', (4, 4), 'config.decode.rows: .*expected one or more, each once'),
    ('decode__positions', 1024, 'expected at most model.positions, 512'),
    ('decode__block', 128, 'expected less than decode.positions, 128'),
    ('mesh', dict(data=8), 'config.decode.rows: 4, expected a multiple of the devices of the mesh, 8'),
    ('sft_rows', 0, 'config.sft_rows: 0, expected a whole number of 1 or more'),
  ],
)
def test_settings_are_refused_by_name(name, value, expected):
  with pytest.raises(BadInput, match=expected):
    check(settings(**{name: value}))
  check(settings())
  check(freeze(Accelerator, load_config(CONFIG)))
