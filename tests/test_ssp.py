"""The whole pipeline on a small random model: every stage, the files it leaves, interruption, refusals."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_run import DATA, ROOT, TWO, small_settings, with_

from vibethinker_jax import reproduce
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data.splits import load_sets
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.errors import BadInput
from vibethinker_jax.lock import held
from vibethinker_jax.model import hf
from vibethinker_jax.ssp import Pipeline


@pytest.fixture(scope='module')
def settings():
  return small_settings()


@pytest.fixture(scope='module')
def whole(settings, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, Pipeline(settings, workdir, TWO).run()


def digest(workdir) -> str:
  return hashlib.sha256((workdir / 'final' / 'model.safetensors').read_bytes()).hexdigest()


def test_every_stage_leaves_its_files(whole):
  workdir, summary = whole
  assert summary == json.loads((workdir / 'summary.json').read_text())
  assert (workdir / 'report.html').stat().st_size > 10_000
  domains = {'algebra', 'geometry', 'calculus', 'statistics'}
  names = {'base', 'last', 'uniform', 'fused', 'rl', *(f'expert_{d}' for d in domains)}
  assert set(summary['models']) == names
  for row in summary['models'].values():
    assert set(row) == {*domains, 'code', 'math'}
    for cell in row.values():
      assert {'n_problems', 'n_samples', 'pass@1', 'pass@1_ci', 'pass@2'} <= set(cell)
  assert set(summary['experts']) == domains
  for expert in summary['experts'].values():
    assert expert['steps'] == [2, 4, 6] and expert['selected_step'] in expert['steps']
    assert {'pass_at_k', 'k', 'held_out'} <= set(expert)
  assert [stage['name'] for stage in summary['mgpo']['stages']] == ['math_short', 'math_long', 'code']
  assert all(summary['tokens'][stage] > 0 for stage in ('sft', 'probe', 'rl', 'evaluate'))
  assert all(summary['seconds'][stage] > 0 for stage in ('sft', 'probe', 'fuse', 'rl', 'evaluate'))


def test_fused_is_the_mean_of_the_selected(whole, settings):
  workdir, summary = whole
  pipeline = Pipeline(settings, workdir, TWO)
  chosen = [(e['run'], e['selected_step']) for e in summary['experts'].values()]
  with pipeline.claimed():
    experts = [hf.tensors(pipeline.experts.mean_of([one])) for one in chosen]
  fused = hf.tensors(hf.load(workdir / 'fused'))
  for name, value in fused.items():
    np.testing.assert_allclose(value, np.mean([e[name].astype(np.float64) for e in experts], 0), atol=1e-6)


def test_final_loads_in_transformers_and_says_the_same(whole, settings):
  """final/ in AutoModelForCausalLM and AutoTokenizer: the same ids, and the same greedy text."""
  torch = pytest.importorskip('torch', reason='parity with transformers needs torch: pip install -e .[test]')
  from transformers import AutoModelForCausalLM, AutoTokenizer

  workdir, _ = whole
  theirs = AutoModelForCausalLM.from_pretrained(workdir / 'final', dtype=torch.float32)
  tokenizer = AutoTokenizer.from_pretrained(workdir / 'final')
  ours, text = hf.load(workdir / 'final'), load_chat_tokenizer(workdir / 'final')
  engine = Engine(ours.config, text.stop_ids, rows=4, block=8)
  for problem in load_sets(settings.data, settings.seed).test['algebra'][:3]:
    prompt = tokenizer.apply_chat_template(
      [{'role': 'user', 'content': problem.prompt}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(prompt, return_tensors='pt', add_special_tokens=False)
    assert ids['input_ids'][0].tolist() == text.prompt(problem)
    said = theirs.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids['input_ids'].shape[1] :].tolist()
    (mine,) = engine.generate(
      ours, [Request(tuple(text.prompt(problem)), 12, sampling=SamplingParams(temperature=0.0))]
    )
    assert mine.tokens.tolist() == said
    assert text.decode(mine.tokens) == tokenizer.decode(said, skip_special_tokens=True)


def test_the_own_stop_ids_of_the_base_stop_and_are_kept(settings, make_model, tmp_path):
  """Those of its generation_config.json, beside the tokenizer's: of every rollout, and of final/."""
  hf.save(make_model(V=512), tmp_path / 'base', TINY_BASE, eos_ids=(7, 300))
  start = dataclasses.replace(settings.model, random=None, path=str(tmp_path / 'base'), tokenizer='')
  pipeline = Pipeline(dataclasses.replace(settings, model=start), tmp_path / 'run', TWO)
  with pipeline.claimed():
    assert pipeline.engine.stop_ids == (0, 2, 7, 300)
    pipeline.save(pipeline.base(), tmp_path / 'final')
  for name in ('generation_config.json', 'config.json'):
    assert json.loads((tmp_path / 'final' / name).read_text())['eos_token_id'] == [0, 2, 7, 300]


def test_the_budget_of_a_stage_to_come_can_be_mended(whole, settings, tmp_path):
  """After RL, before the evaluation: the workdir takes the new value, and its config.json says so."""
  shutil.copytree(whole[0], tmp_path / 'w', ignore=shutil.ignore_patterns('evaluate', 'summary.json', 'report.html'))
  mended = with_(settings, evaluate=dict(max_tokens=6))
  pipeline = Pipeline(mended, tmp_path / 'w', TWO)
  with pipeline.claimed():
    assert json.loads((tmp_path / 'w' / 'config.json').read_text())['evaluate']['max_tokens'] == 6
  with pytest.raises(BadInput, match='another config .mgpo.lam differ'):
    Pipeline(with_(mended, mgpo=dict(lam=9.0)), tmp_path / 'w', TWO)
  with pytest.raises(BadInput, match='another config .evaluate.max_tokens differ'):
    Pipeline(mended, whole[0], TWO)


def test_another_run_at_work_is_refused_and_nothing_touched(whole, settings):
  workdir = whole[0]
  stamps = lambda: {p: p.stat().st_mtime_ns for p in workdir.rglob('*') if p.name != '.lock' and p.is_file()}
  before = stamps()
  with held(workdir), pytest.raises(BadInput, match=f'another run is at work here .*process {os.getpid()}'):
    Pipeline(settings, workdir, TWO).run()
  assert stamps() == before


def test_run_again_does_nothing_anew(whole, settings):
  workdir, summary = whole
  before = digest(workdir), (workdir / 'metrics.jsonl').read_text()
  again = Pipeline(settings, workdir, TWO).run()
  assert (digest(workdir), (workdir / 'metrics.jsonl').read_text()) == before
  assert again['models'] == summary['models']


def test_reproduced_bit_for_bit(whole, tmp_path):
  """A finished run once more; and what is said of one that was tampered with."""
  workdir, _ = whole
  compared = reproduce.reproduce(workdir, tmp_path / 'again', TWO)
  assert compared.differences == () and compared.surroundings == ()
  assert 'identical bits' in str(compared) and 'final/model.safetensors' in str(compared)
  metrics = tmp_path / 'again' / 'metrics.jsonl'
  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  rows[7]['loss'] += 1e-7
  metrics.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  session = json.loads((tmp_path / 'again' / 'provenance.jsonl').read_text())
  session['versions']['jax'] = '0'
  (tmp_path / 'again' / 'provenance.jsonl').write_text(json.dumps(session) + '\n')
  compared = reproduce.compare(workdir, tmp_path / 'again')
  (found,) = compared.differences
  assert f'first at {rows[7]["stage"]}, step {rows[7]["step"]}: loss was' in found
  assert len(compared.surroundings) == 1 and compared.surroundings[0].startswith('versions: ')


def test_what_cannot_be_reproduced_is_refused(tmp_path):
  with pytest.raises(BadInput, match=r'config.json: not found'):
    reproduce.reproduce(tmp_path, tmp_path / 'again')


def test_pruned_it_still_ends_the_same(whole, settings, tmp_path):
  """What fusion and evaluation read is left, and a run that goes on from there has the same models."""
  workdir, summary = whole
  shutil.copytree(workdir, tmp_path / 'again', ignore=shutil.ignore_patterns('fused', 'evaluate'))
  kept = tmp_path / 'again' / 'sft' / 'all'
  shutil.copytree(kept / '4', kept / '3')  # all others of so short a run are read
  again = Pipeline(dataclasses.replace(settings, prune=True), tmp_path / 'again', TWO).run()
  assert {path.name for path in kept.iterdir()} == {'2', '4', '6'}
  assert again['models'] == summary['models']


def test_another_config_is_refused(whole, settings):
  with pytest.raises(BadInput, match='another config .mgpo.lam differ'):
    Pipeline(dataclasses.replace(settings, mgpo=dataclasses.replace(settings.mgpo, lam=9.0)), whole[0], TWO)


def test_a_run_is_taken_up_with_another_mesh_and_engine(whole, settings, tmp_path, capsys):
  shutil.copytree(whole[0], tmp_path / 'w')
  how = dict(
    mesh=dataclasses.replace(settings.mesh, data=1),
    engine=dataclasses.replace(settings.engine, rows=8),
    rl=dataclasses.replace(settings.rl, micro_rows=4),
    model=dataclasses.replace(settings.model, remat='full'),
  )
  summary = Pipeline(dataclasses.replace(settings, **how), tmp_path / 'w', TWO[:1]).run()
  assert summary['models'] == whole[1]['models']
  assert 'other values of engine.rows, mesh.data, model.remat, rl.micro_rows' in capsys.readouterr().out


def test_another_lambda_from_the_same_experts(whole, settings, tmp_path):
  """As docs/clusters.md says: with the experts' files in it, a new workdir trains no experts."""
  for name in ('sft', 'probe', 'fused'):
    shutil.copytree(whole[0] / name, tmp_path / name)
  shutil.copy(whole[0] / 'experts.json', tmp_path)
  other = dataclasses.replace(settings, mgpo=dataclasses.replace(settings.mgpo, lam=9.0))
  Pipeline(other, tmp_path, TWO).run(('sft', 'probe', 'fuse'))
  assert not (tmp_path / 'metrics.jsonl').exists() or not (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads((tmp_path / 'experts.json').read_text()) == whole[1]['experts']


def test_the_base_is_measured_with_its_own_rope(settings, tmp_path):
  random = dataclasses.replace(settings.model.random, rope_theta=1e4)
  start = dataclasses.replace(settings.model, random=random, rope_theta=1e6)
  pipeline = Pipeline(dataclasses.replace(settings, model=start), tmp_path, TWO)
  assert pipeline.base().config.rope_theta == 1e6 and pipeline.native_base().config.rope_theta == 1e4


def test_spaced_checkpoints_where_they_are_few(settings, tmp_path):
  """At quarters of the run, each the next checkpoint there is."""
  for every, steps in ((3, [3, 3, 6, 6]), (2, [2, 4, 6, 6]), (1, [2, 3, 5, 6])):
    sft = dataclasses.replace(settings.sft, save_every=every)
    pipeline = Pipeline(dataclasses.replace(settings, sft=sft), tmp_path / str(every), TWO)
    assert pipeline.experts.spaced() == [('all', step) for step in steps]


@pytest.mark.slow
def test_per_domain_runs(settings, tmp_path):
  settings = dataclasses.replace(settings, experts='per_domain')
  summary = Pipeline(settings, tmp_path, TWO).run(('sft', 'probe', 'fuse'))
  assert summary == {}
  experts = json.loads((tmp_path / 'experts.json').read_text())
  assert {d: e['run'] for d, e in experts.items()} == {d: d for d in settings.data.domains}
  assert (tmp_path / 'fused' / 'model.safetensors').exists()


def test_killed_anywhere_it_ends_with_the_same_bits(whole, settings, tmp_path):
  """Killed with -9 again and again, at moments spread over the whole run, and started again each time."""
  script = tmp_path / 'run.py'
  workdir = tmp_path / 'w'
  raw = json.dumps(dataclasses.asdict(settings))
  script.write_text(
    'import json, jax\n'
    'from vibethinker_jax.config_io import freeze\n'
    'from vibethinker_jax.config import RunConfig\n'
    'from vibethinker_jax.ssp import Pipeline\n'
    f'settings = freeze(RunConfig, json.loads({raw!r}))\n'
    f'Pipeline(settings, {str(workdir)!r}, jax.devices()[:2]).run(("sft", "probe", "fuse", "rl"))\n'
  )
  # compiled once, for the restarts' sake
  cache = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1'}
  env = {**os.environ, 'PYTHONPATH': str(ROOT), **cache}
  marks = [('sft/all', 3), ('sft/all', 5), ('rl/math_short', 2), ('rl/math_long', 1), ('rl/code', 3)]
  for stage, step in marks:
    process = subprocess.Popen([sys.executable, script], env=env, stderr=subprocess.DEVNULL)
    metrics = workdir / 'metrics.jsonl'
    mark = json.dumps({'stage': stage, 'step': step})[:-1] + ','
    while process.poll() is None and not (metrics.exists() and mark in metrics.read_text()):
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
  subprocess.run([sys.executable, script], env=env, check=True, stderr=subprocess.DEVNULL)
  assert digest(workdir) == digest(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['smoke_gsm8k.py', 'ssp_1p5b.py:smoke'])
def test_smoke_runs_on_real_data(name, tmp_path):
  if not (DATA / 'gsm8k').exists():
    pytest.skip(f'{DATA}: no gsm8k folder; set VIBETHINKER_DATA')
  command = ['experiments/ssp.py', f'--config=configs/{name}', f'--workdir={tmp_path / "w"}']
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'VIBETHINKER_DATA': str(DATA)}
  subprocess.run([sys.executable, *command], cwd=ROOT, env=env, check=True)
  assert (tmp_path / 'w' / 'report.html').exists()
