"""The page of a run."""

import html
import math
import re

import numpy as np
import pytest
from run_page import MATH, Page, make_samples, make_summary, render, section, write_workdir

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.evaluate import report

SECTIONS = (
  'Headline',
  'The pipeline',
  'Pass@K of checkpoints',
  'Fusion',
  'RL curves',
  'Before and after RL',
  'Sampled solutions',
  'Time and tokens',
  'Cost',
  'Config',
)


def test_sections_stand_in_order_and_tags_nest(page):
  Page(page)
  assert tuple(re.findall('<h2>(.*?)</h2>', page)) == SECTIONS
  assert 'class="missing"' not in page


def test_needs_nothing_from_outside(page):
  parsed = Page(page)
  assert 'http' not in page and 'url(data' not in page and '@import' not in page
  assert not {'script', 'link', 'img', 'iframe', 'object'} & set(parsed.tags)
  for _, key, value in parsed.attributes:
    if key in ('href', 'src', 'xlink:href'):
      assert value.startswith('#')


def test_every_reference_has_its_own_target(page):
  attributes = Page(page).attributes
  ids = [value for _, key, value in attributes if key == 'id']
  assert len(ids) == len(set(ids))
  wanted = {value[1:] for _, key, value in attributes if key == 'href'} | set(re.findall(r'url\(#(.*?)\)', page))
  assert wanted and wanted <= set(ids)


def test_every_number_of_the_table_is_there(page, whole):
  text = Page(section(page, 'The pipeline')).text
  for row in whole[0]['models'].values():
    for cell in row.values():
      for k in (1, 8):
        lo, hi = cell[f'pass@{k}_ci']
        assert f'{100 * cell[f"pass@{k}"]:.1f}% [{100 * lo:.1f}, {100 * hi:.1f}]' in text
  assert '240 × 16' in text and '60 × 16' in text


def test_tied_checkpoints_are_said(tmp_path, small):
  small['experts']['algebra'] |= {'pass_at_k': [0.1, 0.5, 0.2, 0.5, 0.3, 0.5], 'selected_step': 400}
  text = Page(section(render(write_workdir(tmp_path, small, [], [])), 'Pass@K of checkpoints')).text
  assert 'algebra 400 tied with 200, 600 50.0%' in text


def test_experts_show_the_selected_step_and_its_held_out_score(page, whole):
  text = Page(section(page, 'Pass@K of checkpoints')).text
  for domain, expert in whole[0]['experts'].items():
    best = 100 * max(expert['pass_at_k'])
    assert f'{domain} {expert["selected_step"]} {best:.1f}% {100 * expert["held_out"]:.1f}%' in text


def test_curves_of_what_was_logged(page):
  text = section(page, 'RL curves')
  names = re.findall('<figcaption>(.*?)</figcaption>', text)
  assert 'Clipped tokens' not in names  # all its values are null
  assert {'Reward', 'Entropy', 'Response length', 'Truncated responses', 'Groups without a signal'} <= set(names)
  assert {'Gradient norm', 'MGPO weight'} <= set(names)
  assert 'lambda = 2, p0 = 0.5' in text and 'a &lt; b' in text


def test_samples_are_escaped_side_by_side_and_marked(page):
  text = section(page, 'Sampled solutions')
  assert '&lt;script&gt;' in text and 'x &lt; 5 &amp; x &gt; 3' in text
  articles = text.split('<article>')[1:]
  assert {domain for domain in (*MATH, 'code') if any(f'>{domain} ' in a for a in articles)} == {
    *MATH,
    'code',
  }
  assert len(articles) == 8
  for article in articles:
    words = Page(f'<article>{article}').text
    assert words.index('base ✗ wrong') < words.index('fused ✓' if 'fused ✓' in words else 'fused ✗ wrong')
    assert 'fused + RL ✓ right' in words
  assert 'expert' not in text


def test_a_model_that_tried_other_problems_is_still_shown(tmp_path):
  alone = {'model': 'rl', 'domain': 'code', 'id': 'z', 'prompt': 'p', 'response': 'only', 'score': 1}
  samples = [row for row in make_samples() if row['model'] != 'rl'] + [alone]
  text = section(render(write_workdir(tmp_path, {}, [], samples)), 'Sampled solutions')
  assert text.count('fused + RL') == 1


def test_a_long_response_keeps_its_end():
  text = report._clip('start' + 'x' * 10**5 + 'the answer')
  assert len(text) < 7000 and text.startswith('start') and text.endswith('the answer')


def test_time_and_cost(page):
  text = Page(section(page, 'Time and tokens')).text
  assert 'sft 5 min 12 s 1,234,567 3,952' in text and 'rl/math_short 1 h 10 min 7,654,321 1,818' in text
  assert 'fuse 1.2 s – –' in text
  assert '1.25 device hours at $2.00 an hour = $2.50' in Page(section(page, 'Cost')).text


def test_name_and_config(page):
  assert '<h1>tiny &lt;run&gt;</h1>' in page
  assert '"learning_rate": 0.001' in html.unescape(section(page, 'Config').split('<details>')[1])


def test_same_files_same_bytes(tmp_path, page, whole):
  assert render(write_workdir(tmp_path, *whole)) == page
  assert not (tmp_path / 'report.html.tmp').exists()


def test_k_is_read_from_the_keys(tmp_path):
  summary = make_summary(np.random.default_rng(1), k=16)
  text = Page(render(write_workdir(tmp_path, summary, [], []))).text
  assert 'Pass@16 on math' in text and 'Pass@8' not in text


def test_an_empty_workdir_gets_a_page_that_says_so(tmp_path):
  workdir = tmp_path / 'night'
  workdir.mkdir()
  page = render(workdir)
  Page(page)
  assert '<h1>night</h1>' in page
  assert all('class="missing"' in section(page, title) for title in SECTIONS)


@pytest.mark.parametrize('key', ['models', 'experts', 'mgpo', 'seconds', 'tokens', 'cost', 'device', 'versions'])
def test_any_part_of_the_summary_may_be_missing_or_null(tmp_path, small, key):
  absent = render(write_workdir(tmp_path, {k: v for k, v in small.items() if k != key}, [], []))
  Page(absent)
  assert absent == render(write_workdir(tmp_path, small | {key: None}, [], []))


@pytest.mark.parametrize('kept', [['base'], ['base', 'last'], ['fused', 'rl'], ['rl']])
def test_any_model_may_be_missing(tmp_path, small, kept):
  summary, samples = small, make_samples()
  summary['models'] = {name: summary['models'][name] for name in kept}
  page = render(write_workdir(tmp_path, summary, [], [row for row in samples if row['model'] in kept]))
  Page(page)
  assert 'Not in this run' in section(page, 'Fusion')
  assert ('not in this run' in section(page, 'Headline')) or len(kept) == 2


def test_ragged_and_unknown_scores(tmp_path, parts):
  summary = parts[0]
  del summary['models']['last']['code'], summary['models']['rl']['math']['pass@1_ci']
  summary['models']['base']['math']['pass@8'] = math.nan
  summary['models']['fused']['algebra']['pass@1'] = None
  summary['experts']['algebra'] |= {'held_out': None, 'pass_at_k': [0.1, None, 0.2]}
  summary['experts']['geometry'] = {}
  summary['experts']['calculus'] = summary['models']['last']['math'] = None
  summary['device']['memory'] = math.nan
  page = render(write_workdir(tmp_path, summary, [], []))
  assert 'nan' not in Page(page).text.lower()


def test_an_unfinished_last_line_is_left_out_but_a_broken_one_is_named(tmp_path):
  rows = [{'stage': 'rl/code', 'step': s, 'reward': s / 9} for s in range(5)]
  whole = render(write_workdir(tmp_path, {}, rows, []))
  path = tmp_path / 'metrics.jsonl'
  text = path.read_text()
  path.write_text(text + '{"stage": "rl/code", "st')
  assert render(tmp_path) == whole
  path.write_text('{"stage": "sft"\n' + text)
  with pytest.raises(ValueError, match=r'metrics\.jsonl:1: expected a JSON object'):
    report.write_report(tmp_path)
  assert (tmp_path / 'report.html').read_text(encoding='utf-8') == whole


def test_errors_name_what_is_wrong(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    report.write_report(tmp_path / 'nowhere')
  (tmp_path / 'summary.json').write_text('[]')
  with pytest.raises(ValueError, match=r'summary\.json: expected a JSON object, got a list'):
    report.write_report(tmp_path)


WRONG = [
  ({'models': []}, 'models: expected an object, found []'),
  ({'models': {'rl': 3}}, 'models.rl: expected an object, found 3'),
  ({'models': {'rl': {'math': [1]}}}, 'models.rl.math: expected an object, found [1]'),
  ({'models': {'rl': {'math': {'pass@1': '0.5'}}}}, 'models.rl.math.pass@1: expected a number, found "0.5"'),
  ({'models': {'rl': {'math': {'pass@1_ci': [0.5]}}}}, 'models.rl.math.pass@1_ci: expected a list of two numbers'),
  ({'models': {'rl': {'math': {'n_problems': {}}}}}, 'models.rl.math.n_problems: expected a number, found {}'),
  ({'experts': 'algebra'}, 'experts: expected an object, found "algebra"'),
  ({'experts': {'code': {'steps': [1, None]}}}, 'experts.code.steps: expected a list of numbers, found [1, null]'),
  ({'experts': {'code': {'pass_at_k': 0.5}}}, 'experts.code.pass_at_k: expected a list of numbers, found 0.5'),
  ({'experts': {'code': {'run': ['all']}}}, 'experts.code.run: expected a text, found ["all"]'),
  ({'mgpo': {'stages': 3}}, 'mgpo.stages: expected a list of objects, found 3'),
  ({'mgpo': {'stages': ['a']}}, 'mgpo.stages: expected a list of objects, found ["a"]'),
  ({'seconds': {'sft': 'long'}}, 'seconds.sft: expected a number, found "long"'),
  ({'tokens': 7}, 'tokens: expected an object, found 7'),
  ({'cost': {'dollars': []}}, 'cost.dollars: expected a number, found []'),
  ({'left_out': 1}, 'left_out: expected a list, found 1'),
  ({'versions': 'new'}, 'versions: expected an object, found "new"'),
]


@pytest.mark.parametrize(('summary', 'line'), WRONG)
def test_a_value_of_the_wrong_type_is_one_line(tmp_path, capsys, summary, line):
  write_workdir(tmp_path, summary, [], [])
  assert main(['report', str(tmp_path)]) == 2
  said = capsys.readouterr().err
  assert f'{tmp_path / "summary.json"}: {line}' in said and said.count('\n') == 1
  assert not (tmp_path / 'report.html').exists()


def test_wrong_fusion_weights_are_one_line(tmp_path, capsys):
  write_workdir(tmp_path, {}, [], [])
  (tmp_path / 'config.json').write_text('{"fusion": {"weights": "even"}}')
  assert main(['report', str(tmp_path)]) == 2
  assert 'config.json: fusion.weights: expected a list of numbers, found "even"' in capsys.readouterr().err


def test_a_model_without_scores_has_a_page(tmp_path):
  assert 'nan' not in Page(render(write_workdir(tmp_path, {'models': {'rl': None}}, [], []))).text.lower()
