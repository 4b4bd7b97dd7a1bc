"""Sweeps over a small random model: what they leave, what they never do twice, and that a killed one ends the same."""

import json
import shutil

import jax
import numpy as np
import pytest

from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import html
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.study import ablation, selection, simplex, sweep
from vibethinker_jax.train import rl
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.state import Diverged
from vibethinker_jax.verify.answer import Verdict

ONE = jax.devices()[:1]  # the session has eight
FIELDS = {
  'ablation': dict(lambdas=(0.0, 2.0), seeds=(0, 1), controls=(dict(name='4p(1-p)', mgpo=dict(weight='variance')),))
}
NAMES = [f'{v}-seed{s}' for s in (0, 1) for v in ('GRPO', 'lambda_2', '4p(1-p)')]


class CoinGrader:
  """Right or wrong by the letters of the response: a signal that does not need a model that can do anything."""

  def __init__(self, workers, deadline_s):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def grade(self, rows):
    return [Verdict(sum(map(ord, response)) % 2, None, 'coin') for response, _, _ in rows]


@pytest.fixture(scope='module', autouse=True)
def coins():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('vibethinker_jax.ssp.Grader', CoinGrader)
    yield


@pytest.fixture(scope='module')
def values(small):
  return small('ablate_lambda', **FIELDS)


@pytest.fixture(scope='module')
def whole(values, tmp_path_factory):
  directory = tmp_path_factory.mktemp('sweep') / 'whole'
  ablation.run(values, directory, devices=ONE)
  return directory


def files(directory):
  """Contents of what results rest on: no times, no dates."""
  return {p.relative_to(directory): p.read_bytes() for p in directory.glob('points/*/evaluate/rl.json')} | {
    p.relative_to(directory): p.read_bytes() for p in directory.glob('points/*/final/model.safetensors')
  }


def page(directory):
  """The page without its times."""
  text = (directory / 'report.html').read_text()
  return text[: text.index('<h2>Time and cost</h2>')]


def test_an_ablation_leaves_its_points_and_a_page(whole):
  assert sorted(p.name for p in (whole / 'points').iterdir()) == sorted(NAMES)
  results = json.loads((whole / 'results.json').read_text())
  assert set(results['differences']) == {'lambda 2', '4p(1-p)'} and results['lacking'] == []
  assert len(results['conclusion']) == 2 and 'GRPO' in results['conclusion'][0]
  config = json.loads((whole / 'points' / 'lambda_2-seed1' / 'config.json').read_text())
  assert (config['mgpo']['lam'], config['rl']['seed'], config['seed']) == (2.0, 1, 0)


def test_variants_share_what_a_seed_is_and_seeds_do_not(whole):
  """The first step draws the same samples in all variants of a seed: same start, same problems, same noise."""
  first = {name: MetricWriter(whole / 'points' / name / 'metrics.jsonl').rows('rl/math')[0] for name in NAMES}
  drawn = lambda name: (first[name]['tokens'], first[name]['pass_rate'], first[name]['entropy'])
  for seed in ('seed0', 'seed1'):
    assert len({drawn(name) for name in NAMES if name.endswith(seed)}) == 1
  assert drawn('GRPO-seed0') != drawn('GRPO-seed1')


def test_killed_it_runs_what_is_missing_and_ends_with_the_same_page(whole, values, tmp_path, monkeypatch):
  directory = tmp_path / 'killed'
  directory.mkdir()
  shutil.copytree(whole / 'start', directory / 'start')
  shutil.copy(whole / 'sweep.json', directory / 'sweep.json')
  steps = []

  class Killed(Exception):
    pass

  class Dying(MetricWriter):
    def write(self, stage, step, row):
      super().write(stage, step, row)
      steps.append(step)
      if len(steps) == 4:  # within the second point
        raise Killed

  monkeypatch.setattr('vibethinker_jax.ssp.MetricWriter', Dying)
  with pytest.raises(Killed):
    ablation.run(values, directory, devices=ONE)
  assert len(list(directory.glob('points/*/evaluate/rl.json'))) == 1
  assert 'Not finished yet' in ablation.write_report(directory).read_text()
  monkeypatch.undo()
  ablation.run(values, directory, [0, 1, 2], ONE)
  assert len(list(directory.glob('points/*/evaluate/rl.json'))) == 3
  ablation.run(values, directory, devices=ONE)
  assert files(directory) == files(whole) and page(directory) == page(whole)


def test_finished_points_never_run_again(whole, values, monkeypatch):
  monkeypatch.setattr(rl.Trainer, 'run', lambda *_: pytest.fail('a finished point was run again'))
  before = page(whole)
  ablation.run(values, whole, devices=ONE)
  assert page(whole) == before


def test_refusals(whole, values, small, tmp_path):
  with pytest.raises(BadInput, match='another config .ablation.controls, ablation.lambdas'):
    ablation.run(small('ablate_lambda', **{'ablation.lambdas': (0.0, 9.0)}), whole, devices=ONE)
  with pytest.raises(BadInput, match='--points 6: there are 6 points'):
    ablation.run(values, tmp_path / 'x', [6], ONE)
  with pytest.raises(BadInput, match='run --points= first'):
    ablation.run(values, tmp_path / 'y', [0], ONE)
  with pytest.raises(BadInput, match="config.ablation, odd: mgpo: unknown field 'lamb', did you mean 'lam'"):
    ablation.run(small('ablate_lambda', **{'ablation.controls': (dict(name='odd', mgpo=dict(lamb=1.0)),)}), tmp_path)
  with pytest.raises(BadInput, match='config.prune: True, expected False'):
    ablation.run({**values, 'prune': True}, tmp_path / 'z', [], ONE)
  with pytest.raises(BadInput, match='--points 1,x: expected whole numbers'):
    sweep.numbers('1,x')
  assert sweep.numbers('') == [] and sweep.numbers('0,3') == [0, 3] and sweep.numbers(None) is None
  for change, match in (
    ({'simplex.search': 'guess'}, 'config.simplex.search'),
    ({'simplex.drop': 1.0}, 'config.simplex.drop: 1.0, expected a number of 0 or more, and less than 1'),
  ):
    with pytest.raises(BadInput, match=match):
      simplex.read(small('sweep_fusion', **change))
  with pytest.raises(BadInput, match='config.ablation.seeds'):
    ablation.read({**values, 'ablation': {**values['ablation'], 'seeds': (1, 1)}})


def test_a_refused_config_takes_no_directory(values, tmp_path):
  for part, change, match in (
    ('mesh', {'data': 3}, 'config.mesh'),
    ('evaluate', {'samples': 1}, 'config.evaluate.k: 2, expected at most evaluate.samples, 1'),
  ):
    with pytest.raises(BadInput, match=match):
      ablation.run({**values, part: {**values[part], **change}}, tmp_path / 'a', devices=ONE)
    assert not (tmp_path / 'a').exists()


def test_a_point_that_diverges_is_a_result(whole, values, tmp_path, monkeypatch):
  """The others go on, it is not tried again, and the page names it."""
  shutil.copytree(whole, tmp_path / 'w')
  shutil.rmtree(tmp_path / 'w' / 'points' / 'lambda_2-seed1')
  begun = []

  def away(self, *_):
    begun.append(1)
    raise Diverged('rl/math, step 1: loss is nan; stopped')

  monkeypatch.setattr(rl.Trainer, 'run', away)
  for _ in range(2):
    text = ablation.run(values, tmp_path / 'w', devices=ONE).read_text()
    assert 'Diverged, and in none of the means: lambda_2-seed1' in text
  assert len(begun) == 1


@pytest.fixture(scope='module')
def begun(whole, values, small, tmp_path_factory):
  """begun(study config, name) -> values and a directory in which the start is the ablation's already."""
  parts = {name: value for name, value in values.items() if name != 'ablation'}

  def make(study, **fields):
    directory = tmp_path_factory.mktemp('sweep') / study
    shutil.copytree(whole / 'start', directory / 'start')
    config = {**parts, study: fields}
    write_json(directory / 'sweep.json', {'study': study, 'config': json.loads(json.dumps(config))})
    return config, directory

  return make


@pytest.mark.slow
def test_the_simplex_is_mapped_and_its_winner_confirmed(begun, monkeypatch):
  config, directory = begun('simplex', search='grid', parts=2, random=1)
  simplex.run(config, directory, [0], ONE)
  assert 'Not finished yet' in (directory / 'report.html').read_text()
  simplex.run(config, directory, devices=ONE)
  known = json.loads((directory / 'controls.json').read_text())
  names = {'winner', 'plain mean', 'best single', 'greedy soup', 'last checkpoint', 'equally spaced', 'EMA'}
  assert set(known['points']) == names | {'random checkpoints 1', 'SLERP', 'TIES', 'DARE'}
  assert all(
    (directory / 'points' / f'{n}-{half}.json').exists()
    for n in known['points'].values()
    for half in ('a', 'b', 'test')
  )
  text = (directory / 'report.html').read_text()
  assert 'won on half A' in text and text.count('<svg') == 3
  again = lambda *_: pytest.fail('a point was evaluated again')
  monkeypatch.setattr('vibethinker_jax.ssp.Pipeline.sample_and_grade', again)
  before = page(directory)
  simplex.run(config, directory, devices=ONE)
  assert page(directory) == before


def test_a_coordinate_search_never_ends_below_its_corners(begun):
  config, directory = begun('simplex', search='coordinate', steps=(0.5,), random=0, merges=False)
  simplex.run(config, directory, devices=ONE)
  s, x = simplex.read(config)
  here = simplex.Sweep(directory, s, x, ONE)
  tried = here.tried()
  assert len(tried) > len(simplex.weights_of(s, x))
  assert here.score(here.best(tried)) == max(map(here.score, tried))
  before = (directory / 'controls.json').read_text()
  simplex.run(config, directory, devices=ONE)  # what has been tried since does not lead it elsewhere
  assert here.tried() == tried and (directory / 'controls.json').read_text() == before
  with pytest.raises(BadInput, match='in one process'):
    simplex.run(config, directory, [0], ONE)


def test_dirichlet_weights_lie_on_the_simplex_and_names_tell_them(values):
  s, x = simplex.read(
    {k: v for k, v in values.items() if k != 'ablation'} | {'simplex': dict(search='dirichlet', draws=9)}
  )
  weights = simplex.weights_of(s, x)
  assert len(weights) == 9 + 3 + 1 and weights == simplex.weights_of(s, x)
  for w in weights:
    np.testing.assert_allclose(simplex.weights_in(simplex.name_of(w)), w, atol=1e-4)
    assert sum(w) == pytest.approx(1)


def test_selection_runs_equal_starts_once(begun, monkeypatch):
  config, directory = begun('selection', seeds=(0,))
  selection.run(config, directory, devices=ONE)
  starts = json.loads((directory / 'starts.json').read_text())
  assert set(starts) == {'last', 'Pass@1', 'Pass@K'}
  mixtures = {json.dumps(sorted(row['checkpoints'])) for row in starts.values()}
  assert len(list((directory / 'points').iterdir())) == len(mixtures)
  assert 'checkpoints' in (directory / 'report.html').read_text()


def test_the_page_of_any_sweep_is_made_again_from_its_files(whole):
  before = page(whole)
  (whole / 'report.html').unlink()
  report_path = ablation.write_report(whole)
  assert report_path == whole / 'report.html' and page(whole) == before
  assert html.duration(61) == '1 min 01 s'
