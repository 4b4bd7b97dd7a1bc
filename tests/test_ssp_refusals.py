"""What a run refuses before its first step, in one line, with nothing left behind; and the shipped configs."""

import dataclasses

import pytest
from shrunken import config, shrink
from small_run import TWO, small_settings, with_

from vibethinker_jax.config import RunConfig
from vibethinker_jax.config_io import freeze
from vibethinker_jax.data.splits import Data, load_sets
from vibethinker_jax.errors import BadInput
from vibethinker_jax.ssp import Pipeline


@pytest.fixture(scope='module')
def settings():
  return small_settings()


def test_a_tokenizer_with_more_ids_than_the_base_has_rows_is_refused(settings, tmp_path):
  small = dataclasses.replace(settings.model, random=dataclasses.replace(settings.model.random, V=500))
  with pytest.raises(BadInput, match='ids up to 511, the base model has an embedding of 500 rows'):
    Pipeline(dataclasses.replace(settings, model=small), tmp_path / 'run', TWO)
  assert not (tmp_path / 'run').exists()


def test_a_mesh_that_does_not_fit_is_refused(settings, tmp_path):
  with pytest.raises(BadInput, match='config.mesh: mesh .* wants 2 devices, there are 8'):
    Pipeline(settings, tmp_path)


def test_too_few_pages_are_refused(settings, tmp_path):
  few = dataclasses.replace(settings, engine=dataclasses.replace(settings.engine, pages=3, page=128))
  with pytest.raises(BadInput, match='config.engine.pages: 3, expected 0, or 8 or more of 128 positions: .* of 512'):
    Pipeline(few, tmp_path / 'w', TWO)
  assert not (tmp_path / 'w').exists()


NAMES = ['', '.', '..', '.x', '../../x', 'a/b', 'a\\b', 'a\nb', ' a', 'a ', 'a.', '-a', 'a:b', 'x' * 101]


@pytest.mark.parametrize('name', [*NAMES, 'math', 'Math', 'ALL'])
def test_domains_and_stages_have_plain_names(name, settings, tmp_path):
  domains = with_(settings, data=dict(domains=(name,), extra_domains=('code',)))
  stages = [dataclasses.replace(stage, domains=('code',)) for stage in settings.rl.stages]
  domains = with_(domains, rl=dict(stages=tuple(stages)))
  refused = [(domains, 'config.data.domains and extra_domains: the name')]
  if name.lower() not in ('math', 'all'):  # stages have rows of their own
    named = (dataclasses.replace(settings.rl.stages[0], name=name),)
    refused.append((with_(settings, rl=dict(stages=named)), 'config.rl.stages: the name'))
  for bad, why in refused:
    with pytest.raises(BadInput, match=why):
      Pipeline(bad, tmp_path / 'w', TWO)
  assert not (tmp_path / 'w').exists()


def test_names_are_unique_on_every_disk(settings, tmp_path):
  first, second, third = settings.rl.stages
  for pair in (('short', 'short'), ('short', 'SHORT'), ('é', 'e\u0301')):
    stages = tuple(dataclasses.replace(stage, name=name) for stage, name in zip((first, second), pair))
    with pytest.raises(BadInput, match='config.rl.stages: the names .* are one'):
      Pipeline(with_(settings, rl=dict(stages=stages)), tmp_path / 'w', TWO)
  with pytest.raises(BadInput, match="config.data.domains and extra_domains: the names 'code' and 'Code' are one"):
    Pipeline(with_(settings, data=dict(extra_domains=('code', 'Code'))), tmp_path / 'w', TWO)
  for domains in ((), ('code', 'code')):
    with pytest.raises(BadInput, match=r'config.rl.stages\[0\].domains: .*, expected one or more, each once'):
      Pipeline(with_(settings, rl=dict(stages=(dataclasses.replace(third, domains=domains),))), tmp_path / 'w', TWO)
  assert not (tmp_path / 'w').exists()


def test_what_a_later_stage_cannot_do_is_refused_before_the_first_step(settings, tmp_path):
  """Each of these ran for hours and ended in a traceback; nothing is left behind."""
  last = dataclasses.replace(settings.rl.stages[-1], max_tokens=500)
  budget = r'500, expected at most \d+: no prompt of .* leaves more of the 512 positions of the model'
  for bad, why in (
    (with_(settings, evaluate=dict(max_tokens=500)), f'config.evaluate.max_tokens: {budget}'),
    (with_(settings, probe=dict(max_tokens=500)), f'config.probe.max_tokens: {budget}'),
    (with_(settings, rl=dict(stages=(last,))), rf'config.rl.stages\[0\].max_tokens: {budget}'),
    (
      with_(settings, sft=dict(length=640)),
      'config.sft.length: 640, expected at most the positions',
    ),
    (with_(settings, mgpo=dict(minibatches=3)), 'config.mgpo.minibatches: 3, expected at most rl.prompts, 2'),
    (
      with_(settings, mesh=dict(data=2), sft=dict(rows=3)),
      'config.mesh: data x fsdp is 2, .* sft.rows',
    ),
    (
      with_(settings, data=dict(domains=('algebra', 'poetry'))),
      "config.data.domains and extra_domains: 'poetry', expected",
    ),
    (with_(settings, data=dict(paths=('shout',))), "config.data.paths: .*; 'shout' is none of these"),
    (with_(settings, data=dict(domains=())), 'config.data.domains: \\(\\), expected one or more'),
    (
      with_(settings, data=dict(spectrum=dataclasses.replace(settings.data.spectrum, error_rates='nowhere.jsonl'))),
      'nowhere.jsonl: cannot be read',
    ),
    (with_(settings, model=dict(random=None, path='nowhere')), 'nowhere'),
  ):
    if 'data.domains' in why:
      bad = with_(bad, rl=dict(stages=(dataclasses.replace(last, max_tokens=8),)))
    with pytest.raises(BadInput, match=why):
      Pipeline(bad, tmp_path / 'w', TWO)
  for asked in ('rl/nosuch:1', 'rl/code:4', 'sft/all:0'):
    with pytest.raises(BadInput, match='no such step, expected one of sft/all:1 to 6, rl/math_short:1 to 3'):
      Pipeline(settings, tmp_path / 'w', TWO, profile=asked)
  assert not (tmp_path / 'w').exists()


def test_unknown_fields_and_values_are_refused():
  raw = shrink(config('tiny')).to_dict()
  with pytest.raises(BadInput, match="config.mgpo: unknown field 'lamb'"):
    freeze(RunConfig, {**raw, 'mgpo': {'lamb': 1.0}})
  with pytest.raises(BadInput, match="config.sft: field 'steps' is missing"):
    freeze(RunConfig, {**raw, 'sft': {k: v for k, v in raw['sft'].items() if k != 'steps'}})
  with pytest.raises(BadInput, match="config.mgpo.lam: 'two', expected a number of 0 to 1000"):
    freeze(RunConfig, {**raw, 'mgpo': {'lam': 'two'}})


@pytest.mark.parametrize('name', ['tiny', 'smoke_gsm8k', 'ssp_1p5b'])
def test_shipped_configs_are_whole(name):
  c = config(name)
  settings = freeze(RunConfig, c.to_dict())
  assert settings.name == name and settings.rl.stages and settings.sft.steps > 0
  for broken in ('sft', 'rl', 'data'):  # every part is looked at
    with pytest.raises(BadInput, match=f'config.{broken}: unknown field'):
      freeze(RunConfig, {**c.to_dict(), broken: {**c[broken].to_dict(), 'surplus': 1}})


def test_sets_are_disjoint():
  c = config('tiny')
  sets = load_sets(freeze(Data, c.data), c.seed)
  for domain in c.data.domains:
    groups = [sets.train[domain], sets.probe_a[domain], sets.probe_b[domain], sets.test[domain]]
    ids = [{p.id for p in group} for group in groups]
    assert sum(map(len, ids)) == len(set.union(*ids)) == sum(map(len, groups))
