"""Plans: the formulas against what a compiler reports, and the answers of the command."""

import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.cli.plan import NO_TPU
from vibethinker_jax.config import EngineConfig, RunConfig, check_mesh
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.mesh import MeshShape, make_mesh
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.plan.collectives import sent_bytes
from vibethinker_jax.plan.fit import fitted
from vibethinker_jax.plan.formulas import memory, traffic
from vibethinker_jax.plan.machine import machine
from vibethinker_jax.plan.plan import plan
from vibethinker_jax.plan.program import check_lowered, lower
from vibethinker_jax.plan.stage import StagePlan, model_of, stages_of

CONFIG, TINY = (str(pathlib.Path(__file__).parents[1] / 'configs' / name) for name in ('ssp_1p5b.py', 'tiny.py'))
SMALL = Config(V=384, D=64, L=3, K=2, G=2, H=18, F=128, remat='full', logit_chunk=8)


def settings(preset='v5p-64') -> RunConfig:
  return freeze(RunConfig, load_config(f'{CONFIG}:{preset}'))


def presets() -> dict:
  spec = importlib.util.spec_from_file_location('ssp_1p5b', CONFIG)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.PRESETS


def program(stage: StagePlan) -> str:
  mesh = make_mesh(stage.mesh, jax.devices()[: math.prod(dataclasses.astuple(stage.mesh))])
  return lower(stage, settings(), mesh).lower().compile().as_text()


def largest(text: str, *sizes: int) -> int:
  """Elements of the largest array with these sizes among its axes that the program holds on one device."""
  shapes = [[int(n) for n in dims.split(',')] for dims in re.findall(r'\w\[([\d,]+)\]', text)]
  return max(math.prod(dims) for dims in shapes if {*sizes} <= {*dims})


@pytest.mark.parametrize('kind, sizes', [('sft', (1, 8, 1, 1)), ('rl', (1, 2, 4, 1))])
def test_compiled_training_step_agrees_with_the_formulas(kind, sizes):
  """It sends the bytes of the formula; logits exist for one chunk of positions at a time, whole keys for one layer."""
  stage = StagePlan('train', kind, SMALL, MeshShape(*sizes), rows=8, length=256)
  text = program(stage)
  assert sent_bytes(text) == pytest.approx(traffic(stage), rel=0.1)
  rows, positions = 8 // sizes[1], (256 if kind == 'sft' else 128) // sizes[2]  # half of an RL row's 256 are its prompt
  assert largest(text, SMALL.V) <= SMALL.V * max(rows * SMALL.logit_chunk, SMALL.D)
  if stage.mesh.seq > 1:  # queries stay sharded along the sequence, keys and values are gathered
    assert largest(text, stage.length, SMALL.H) == rows * SMALL.K * SMALL.H * stage.length
  whole = dataclasses.replace(stage, model=dataclasses.replace(SMALL, logit_chunk=positions))
  assert largest(program(whole), SMALL.V) >= SMALL.V * rows * positions


def test_memory_of_pages_agrees_with_the_compiler():
  """32 pages of 16 positions for 8 rows of 256 are a quarter of the positions; each device has one unused page more."""
  s = dataclasses.replace(settings(), engine=EngineConfig(rows=8, block=8, pages=32, page=16))
  *_, stage = stages_of(s, dataclasses.replace(SMALL, positions=256))
  stage = dataclasses.replace(stage, mesh=MeshShape(fsdp=8))
  kv, positions = 2 * SMALL.L * SMALL.K * SMALL.H * 4, dataclasses.replace(stage, cache_positions=0)
  assert memory(stage)['cache'] == 32 * 16 * kv / 8 == memory(positions)['cache'] / 4
  held = [lower(one, s, make_mesh(stage.mesh)).lower().compile().memory_analysis() for one in (stage, positions)]
  table = 256 // 16 * 4  # of the one row that a device has
  assert held[1].argument_size_in_bytes - held[0].argument_size_in_bytes == kv * (256 - 64 - 16) - table


def test_a_loop_counts_once_for_every_iteration():
  text = """
%body (p: s32[]) -> s32[] {
  %gather = bf16[8,4] all-gather(%x), channel_id=1, replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}
  %again = bf16[8,4]{1,0} all-gather(%y), channel_id=1, replica_groups=mesh['a'=4,'b'=2] {'a'}
}
%condition (p: s32[]) -> pred[] {
  %n = s32[] constant(28)
}
ENTRY %main (p: s32[]) -> s32[] {
  %loop = s32[] while(%p), condition=%condition, body=%body
  %sum = (f32[10]{0}, bf16[10]{0}) all-reduce(%a, %b), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
  %part = f32[10]{0} reduce-scatter(%a), channel_id=3, replica_groups=[2,4]<=[8], to_apply=%add
}
%add (a: f32[], b: f32[]) -> f32[] {
}
"""
  assert sent_bytes(text) == 28 * 64 * 3 / 4 + 2 * 60 / 2 + 40 * 4 * 3 / 4


@pytest.mark.slow
def test_the_mesh_of_every_preset_can_be_made_on_its_slice():
  """The mesh is a part of the torus, and the data axis goes across slices. This needs libtpu, but no TPU."""
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip("needs libtpu: pip install -e '.[plan]'")
  shapes = [(p.topology, 1, (p.data, p.fsdp, p.seq)) for p in presets().values() if p.attention == 'splash']
  code = f"""
from jax.experimental import topologies
from vibethinker_jax.model.mesh import MeshShape, make_mesh

for name, slices, shape in {[*shapes, ('v5e:4x4', 2, (4, 8, 1))]}:
  devices = topologies.get_topology_desc(platform='tpu', topology_name=name, num_slices=slices).devices
  mesh = make_mesh(MeshShape(*shape), devices)
  assert mesh.devices.shape == (*shape, 1)
  if slices > 1:
    assert [{{d.slice_index for d in replica.ravel()}} for replica in mesh.devices] == [{{0}}, {{0}}, {{1}}, {{1}}]
"""
  env = {**os.environ, **NO_TPU, 'PYTHONPATH': str(pathlib.Path(__file__).parents[1])}
  subprocess.run([sys.executable, '-c', code], env=env, check=True)


@pytest.mark.parametrize('name', presets())
def test_every_preset_fits_its_machine(name):
  report = plan(settings(name), machine(presets()[name].topology), None)
  assert report['fits'] and not report['mesh_chosen'], report['limit']


def test_stages_are_lowered_for_gpus(monkeypatch):
  """The GPU kernel works on a mesh; a stage whose rows the mesh does not divide is refused."""
  on = dataclasses.replace(machine('a100:8'))
  c = dataclasses.replace(SMALL, attention='triton')
  stage = StagePlan('sft', 'sft', c, MeshShape(fsdp=4, tensor=2), rows=4, length=128)
  check_lowered(stage, settings(), on)
  with pytest.raises(BadInput, match='sft: '):
    check_lowered(dataclasses.replace(stage, rows=3), settings(), on)


def test_the_command(tmp_path, capsys):
  out = tmp_path / 'plan.json'
  run = lambda *more: main(['plan', f'--config={CONFIG}', '--estimate', f'--out={out}', *more])
  assert run('--topology=v5e:4x4') == 0
  report = json.loads(out.read_text())
  assert report['fits'] and report['mesh_chosen'] and report['devices'] == 16
  assert {'sft', 'rl/math_16k', 'rl/math_32k', 'rl/code', 'prefill', 'decode'} == set(report['stages'])
  for stage in report['stages'].values():
    assert stage['fits'] and stage['bytes_per_device'] < stage['hbm_per_device']
    assert stage['flops'] > 0 and stage['seconds'] > 0 and stage['bound'] in ('compute', 'memory', 'links')
  assert report['run']['dollars'] == pytest.approx(report['run']['device_hours']['all'] * 1.2)
  assert 'fits; the binding limit: memory, in' in capsys.readouterr().out

  assert run('--topology=v5e:2x2', '--set', 'sft.length=131072') == 1
  report, said = json.loads(out.read_text()), capsys.readouterr().out
  assert not report['stages']['sft']['fits'] and report['would_fit']['devices'] > 4
  assert 'DOES NOT FIT' in said and f'would fit: {report["would_fit"]["devices"]} devices' in said


@pytest.mark.parametrize('topology', ['cpu:1', 'cpu:3', 'cpu:7', 'a100:1', 'a100:100', 'v5e:1x1', 'v5p:2x2x1'])
def test_a_fitted_config_can_run_on_its_machine(topology):
  """configs/tiny.py has 8 responses in a row, and rows of 112 tokens, a length that only the plain form takes."""
  s, on = freeze(RunConfig, load_config(TINY)), machine(topology)
  better = fitted(s, model_of(s), on)
  check_mesh(better, model_of(s))
  m, rows = better.mesh, better.sft.rows
  assert m.size == on.devices and better.model.attention == 'xla' and rows * better.sft.accumulation >= 28
  assert better.rl.micro_rows % (8 * m.data * m.fsdp) == 0 and better.engine.rows % on.devices == 0
  report = plan(s, on, None)
  assert report['fits'] and report['mesh_chosen'] and report['devices'] == on.devices


def test_if_nothing_fits_the_smallest_plan_is_shown():
  """The 1.5B on 7 devices: 7 does not divide the width of 1536, so every device has the whole model."""
  report = plan(settings('smoke'), machine('cpu:1'), None)
  assert report['fits']
  report = plan(settings('h100-8'), machine('cpu:7'), None)
  assert not report['fits'] and report['mesh'] == {'data': 7, 'fsdp': 1, 'seq': 1, 'tensor': 1}
  assert report['would_fit']['mesh']['fsdp'] > 1


def test_bad_input_is_one_line(capsys):
  def refuses(match: str, *more):
    assert main(['plan', *more]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and re.search(match, said), said

  config, topology = f'--config={CONFIG}', '--topology=v5e:4x4'
  refuses('--topology v4:2x2: expected', config, '--topology=v4:2x2')
  refuses('--topology v5e:4x0: expected', config, '--topology=v5e:4x0')
  refuses('unknown preset .*v5p-64', f'{config}:tpu', topology)
  refuses('--config nowhere.py: not found .*configs/ and experiments/ are in', '--config=nowhere.py', topology)
  refuses("config.sft: unknown field 'row', did you mean 'rows'", config, topology, '--set', 'sft.row=3')
  refuses('--set sft.rows: expected NAME=VALUE', config, topology, '--set', 'sft.rows')
  refuses(
    'tensor is 4, .* kv heads, 2',
    config,
    topology,
    '--set',
    'mesh.tensor=4',
    '--set',
    'mesh.seq=1',
    '--set',
    'mesh.data=1',
    '--set',
    'mesh.fsdp=4',
  )


def test_fields_are_changed_as_experiments_change_them(tmp_path):
  """--config.NAME=VALUE is --set NAME=VALUE; -1 is what the machine has left."""
  tiny = str(pathlib.Path(CONFIG).parent / 'tiny.py')
  reports = []
  for flags in (['--set=sft.rows=32', '--set=mesh.data=4'], ['--config.sft.rows=32', '--config.mesh.data', '-1']):
    out = tmp_path / f'{len(reports)}.json'
    assert main(['plan', f'--config={tiny}', '--topology=cpu:4', '--estimate', f'--out={out}', *flags]) == 0
    reports.append(json.loads(out.read_text()))
  assert reports[0] == reports[1] and reports[1]['mesh']['data'] == 4 and not reports[1]['mesh_chosen']


def test_meshes_that_do_not_divide_the_model_or_the_batch():
  c = Config(V=384, D=64, L=1, K=2, G=2, H=16, F=128)
  mesh = lambda **sizes: dataclasses.replace(settings(), mesh=MeshShape(**sizes))
  check_mesh(mesh(data=2, fsdp=8, tensor=2), c)
  for sizes, what in (
    (dict(tensor=4), 'config.mesh: tensor is 4, which does not divide the number of kv heads, 2'),
    (dict(fsdp=3), 'config.mesh: fsdp is 3, which does not divide the model width, 64'),
    (dict(data=5), 'config.mesh: data x fsdp is 5, which does not divide sft.rows, 32'),
    (dict(seq=3), 'config.mesh: seq is 3, which does not divide sft.length, 32768'),
  ):
    with pytest.raises(BadInput, match=re.escape(what)):
      check_mesh(mesh(**sizes), c)
