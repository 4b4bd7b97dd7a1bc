"""What a page says of a run's models: the effect of each stage, paired differences, and names that are one model."""

import json

import numpy as np
import pytest
from run_page import MATH, Page, render, section, write_workdir

from vibethinker_jax.evaluate import report
from vibethinker_jax.evaluate.paired import difference
from vibethinker_jax.evaluate.scores import scores
from vibethinker_jax.evaluate.summary import same_models, score_of


def test_headline_credits_each_stage_with_what_it_changed(page):
  text = Page(section(page, 'Headline')).text
  assert 'SFT moved Pass@8 on math from 40.0% to 55.0% (+15.0 points, 95% intervals disjoint).' in text
  assert (
    'The fused model has 66.0% Pass@8 on math: +11.0 points, 95% intervals disjoint to the 55.0% of the last '
    'checkpoint; +8.0 points, 95% intervals disjoint to the 58.0% of the best single one (expert algebra).'
  ) in text
  assert 'Fusion moved' not in text
  assert 'MGPO moved Pass@1 on math from 35.0% to 52.0% (+17.0 points, 95% intervals disjoint).' in text
  assert 'MGPO moved Pass@1 on code from 27.0% to 44.0%' in text


def test_headline_does_not_call_overlapping_intervals_disjoint(tmp_path, small):
  summary = small
  summary['models']['rl']['math'] |= {'pass@1': 0.36, 'pass@1_ci': [0.33, 0.40]}
  text = Page(section(render(write_workdir(tmp_path, summary, [], [])), 'Headline')).text
  assert 'from 35.0% to 36.0% (+1.0 points, 95% intervals overlap)' in text


def test_headline_says_what_got_worse(tmp_path, small):
  small['models']['rl']['math'] |= {'pass@8': 0.5, 'pass@8_ci': [0.46, 0.54]}
  small['models']['rl']['algebra'] |= {'pass@8': 0.6, 'pass@8_ci': [0.4, 0.8]}
  small['models']['fused']['algebra'] |= {'pass@8': 0.65, 'pass@8_ci': [0.45, 0.85]}
  text = Page(section(render(write_workdir(tmp_path, small, [], [])), 'Headline')).text
  assert 'What got worse: Pass@8 on math after RL, 66.0% to 50.0% (-16.0 points, 95% intervals disjoint).' in text
  assert 'chance may do: Pass@8 on algebra after RL, 65.0% to 60.0% (-5.0 points, 95% intervals overlap).' in text


def write_verdicts(workdir, **models):
  """evaluate/<model>.json, one domain."""
  (workdir / 'evaluate').mkdir(parents=True)
  for name, verdicts in models.items():
    (workdir / 'evaluate' / f'{name}.json').write_text(json.dumps({'correct': {'algebra': verdicts}}))


def of_verdicts(**models):
  """A summary of one domain whose scores are those of the verdicts."""
  return {'models': {m: {'algebra': scores(np.array(v, bool), len(v[0]))} for m, v in models.items()}}


def test_differences_are_paired_where_the_verdicts_are_there(tmp_path):
  """8 problems that both models solve and 6 that one does: the scores' intervals overlap, the paired one is above 0."""
  easy = [[1, 1]] * 8 + [[0, 0]] * 12
  fused, rl = easy + [[0, 0]] * 20, easy + [[1, 1]] * 6 + [[0, 0]] * 14
  summary = of_verdicts(fused=fused, rl=rl)
  alone = Page(section(render(write_workdir(tmp_path / 'a', summary, [], [])), 'Headline')).text
  assert 'MGPO moved Pass@1 on algebra from 20.0% to 35.0% (+15.0 points, 95% intervals overlap).' in alone
  write_verdicts(tmp_path / 'b', fused=fused, rl=rl)
  text = Page(section(render(write_workdir(tmp_path / 'b', summary, [], [])), 'Headline')).text
  d = difference(100 * np.array(rl).mean(1)[None], 100 * np.array(fused).mean(1)[None])
  assert d.low > 0
  assert f'from 20.0% to 35.0% (+15.0 points, 95% [{d.low:+.1f}, {d.high:+.1f}]).' in text
  (tmp_path / 'b' / 'evaluate' / 'rl.json').write_text('{"correct": [1]}')
  with pytest.raises(ValueError, match=r'rl\.json: expected the verdicts'):
    report.write_report(tmp_path / 'b')


def test_scores_that_are_all_alike_get_wilsons_interval(tmp_path):
  verdicts = dict(fused=[[0, 0]] * 20, rl=[[1, 1]] * 20)
  text = Page(render(write_workdir(tmp_path, of_verdicts(**verdicts), [], []))).text
  assert '0.0% [0.0, 16.1]' in text and '100.0% [83.9, 100.0]' in text
  stored = {'n_problems': 20, 'n_samples': 2, 'pass@1': 1.0, 'pass@1_ci': [1.0, 1.0]}  # as older runs have it
  assert str(score_of({'models': {'rl': {'code': stored}}}, 'rl', 'code', 1)).endswith('[83.9, 100.0]</small>')


def one_checkpoint(summary):
  """All domains choose the last checkpoint of the one run, and fusing it with itself changes nothing."""
  for expert in summary['experts'].values():
    expert |= {'run': 'all', 'selected_step': 600}
  for name in ('fused', *(f'expert_{d}' for d in MATH)):
    summary['models'][name] = summary['models']['last']
  return summary


def test_one_model_with_several_names_is_shown_once(tmp_path, parts):
  page = render(write_workdir(tmp_path, one_checkpoint(parts[0]), [], []))
  name = 'last checkpoint = fused = experts algebra, geometry, calculus, statistics'
  assert Page(section(page, 'The pipeline')).text.count(name) == 2  # Pass@1 and Pass@8
  assert section(page, 'The pipeline').count('<tr><th scope="row">') == 2 * 4
  headline = Page(section(page, 'Headline')).text
  assert 'Fusion changed nothing: all domains chose the last checkpoint, and the fused model is that one.' in headline
  assert 'The fused model has' not in headline


def test_names_are_one_model_only_where_checkpoints_and_scores_are(parts):
  summary = one_checkpoint(parts[0])
  assert [len(group) for group in same_models(summary)] == [1, 6, 1, 1]
  summary['experts']['algebra']['selected_step'] = 300  # another checkpoint that happens to score the same
  alone = [group for group in same_models(summary) if 'expert_algebra' in group or 'fused' in group]
  assert sorted(alone) == [('expert_algebra',), ('fused',)]
  assert ('last', 'expert_geometry', 'expert_calculus', 'expert_statistics', 'fused') in same_models(
    summary, [0.0, 0.5, 0.25, 0.25]
  )
  summary['models']['fused'] = summary['models']['rl']  # evaluated as another: then it is another
  assert ('fused',) in same_models(summary, [0.0, 0.5, 0.25, 0.25])
  for expert in summary['experts'].values():
    del expert['run']
  assert all(len(group) == 1 for group in same_models(summary))
