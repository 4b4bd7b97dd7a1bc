import html
import html.parser
import json
import math
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vibethinker_jax.evaluate import html as html_kit
from vibethinker_jax.evaluate import plots, report
from vibethinker_jax.evaluate.paired import difference
from vibethinker_jax.evaluate.scores import scores
from vibethinker_jax.evaluate.summary import Score, same_models, score_of

MATH = ('algebra', 'geometry', 'calculus', 'statistics')
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
VOID = {'meta', 'br', 'hr', 'img', 'link', 'input'}


class Page(html.parser.HTMLParser):
  """Checks that tags nest, and keeps what the tests ask for."""

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.attributes, self.words = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.stack

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, key, value) for key, value in attrs]
    if tag not in VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, key, value) for key, value in attrs]

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    if self.stack and self.stack[-1] not in ('style', 'script'):
      self.words.append(data)

  @property
  def text(self):
    return ' '.join(' '.join(self.words).split())


def make_summary(rng, k=8):
  levels = {'base': (0.12, 0.40), 'last': (0.31, 0.55), 'uniform': (0.33, 0.60)}
  levels |= {f'expert_{d}': (0.32, 0.58) for d in MATH}
  levels |= {'fused': (0.35, 0.66), 'rl': (0.52, 0.68)}
  models = {}
  for model, (one, wide) in levels.items():
    models[model] = {}
    for domain in (*MATH, 'code', 'math'):
      shift = 0 if domain == 'math' else -0.08 if domain == 'code' else rng.normal(0, 0.04)
      problems = 240 if domain == 'math' else 60
      half = 0.3 / math.sqrt(problems) * 2
      cell = {'n_problems': problems, 'n_samples': 16}
      for key, level in ((1, one), (k, wide)):
        value = min(max(level + shift, 0.01), 0.99)
        cell[f'pass@{key}'] = value
        cell[f'pass@{key}_ci'] = [max(0, value - half), min(1, value + half)]
      models[model][domain] = cell
  steps = list(range(100, 700, 100))
  curves = {d: (0.45 + 0.15 * np.sin(np.arange(6) / 2 + i) + rng.normal(0, 0.02, 6)) for i, d in enumerate(MATH)}
  experts = {
    d: {
      'steps': steps,
      'pass_at_k': c.tolist(),
      'k': k,
      'selected_step': steps[int(c.argmax())],
      'held_out': float(c.max() - 0.03),
    }
    for d, c in curves.items()
  }
  stages = [
    {'name': 'math_short', 'steps': 60, 'max_tokens': 64},
    {'name': 'math_long', 'steps': 40, 'max_tokens': 128, 'note': 'a < b'},
    {'name': 'code', 'steps': 25, 'max_tokens': 128},
  ]
  return {
    'models': models,
    'experts': experts,
    'mgpo': {'lambda': 2.0, 'p0': 0.5, 'stages': stages},
    'seconds': {'sft': 312.4, 'probe': 48.0, 'fuse': 1.2, 'rl/math_short': 4210.0, 'rl/code': 95.0},
    'tokens': {'sft': 1_234_567, 'rl/math_short': 7_654_321},
    'cost': {'device_hours': 1.25, 'price_per_hour': 2.0, 'dollars': 2.5},
    'device': {'kind': 'cpu', 'count': 1},
    'versions': {'jax': '0.10.2'},
  }


def make_metrics(rng):
  rows = [
    {
      'stage': 'sft',
      'step': s,
      'loss': 2 * math.exp(-s / 150) + 0.4 + rng.normal(0, 0.03),
      'grad_norm': 1 + rng.random(),
      'learning_rate': 1e-3 * min(1, s / 50),
      'tokens_per_s': 1e4,
    }
    for s in range(10, 610, 10)
  ]
  total = 0
  for stage, count in (('rl/math_short', 60), ('rl/math_long', 40), ('rl/code', 25)):
    for s in range(1, count + 1):
      total += 1
      rate = 0.35 + 0.2 * total / 125 + rng.normal(0, 0.02)
      rows.append(
        {
          'stage': stage,
          'step': s,
          'reward': rate,
          'pass_rate': rate if s % 7 else math.nan,
          'all_right': 0.1 + 0.2 * total / 125,
          'all_wrong': 0.3 - 0.2 * total / 125,
          'truncated': abs(rng.normal(0.1, 0.03)),
          'mean_length': 40 + 0.2 * total + rng.normal(0, 2),
          'entropy': 0.9 * math.exp(-total / 100) + rng.normal(0, 0.02),
          'ratio_min': 0.9,
          'ratio_max': 1.1,
          'clip_fraction': None,
          'grad_norm': abs(rng.normal(0.5, 0.1)),
          'weight_mean': 0.8 + rng.normal(0, 0.02),
          'kl': 0.001 * total,
        }
      )
  return rows


def make_samples():
  rows = []
  for domain in (*MATH, 'code'):
    for i in range(3):
      for model in ('base', 'fused', 'rl', 'expert_algebra'):
        right = model == 'rl' or (model == 'fused' and i == 0)
        rows.append(
          {
            'model': model,
            'domain': domain,
            'id': f'{domain}-{i}',
            'prompt': f'If x < {i + 5} & x > {i + 3} is a whole number, what is x?',
            'response': f'<script>alert(1)</script> x lies between, so x = \\boxed{{{i + 4}}}. ' * (2 if right else 6),
            'answer': str(i + 4),
            'score': int(right),
            'extracted': str(i + 4) if right else None,
            'reason': 'equal' if right else 'no boxed answer',
          }
        )
  return rows


def write_workdir(path, summary, metrics, samples):
  path.mkdir(parents=True, exist_ok=True)
  (path / 'config.json').write_text(json.dumps({'name': 'tiny <run>', 'seed': 0, 'sft': {'learning_rate': 1e-3}}))
  (path / 'summary.json').write_text(json.dumps(summary))
  for name, rows in (('metrics', metrics), ('samples', samples)):
    (path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


@pytest.fixture
def parts():
  rng = np.random.default_rng(0)
  return make_summary(rng), make_metrics(rng), make_samples()


def render(workdir):
  path = report.write_report(workdir)
  assert path == workdir / 'report.html'
  return path.read_text(encoding='utf-8')


def section(text, title):
  return text.split(f'<h2>{title}</h2>')[1].split('</section>')[0]


@pytest.fixture(scope='module')
def whole():
  """Parts that no test changes: the page of all of them takes seconds to draw."""
  rng = np.random.default_rng(0)
  return make_summary(rng), make_metrics(rng), make_samples()


@pytest.fixture(scope='module')
def page(tmp_path_factory, whole):
  return render(write_workdir(tmp_path_factory.mktemp('page'), *whole))


@pytest.fixture
def small(parts):
  """A summary of two domains and one expert."""
  summary = parts[0]
  for model, row in summary['models'].items():
    summary['models'][model] = {domain: row[domain] for domain in ('algebra', 'math')}
  summary['experts'] = {'algebra': summary['experts']['algebra']}
  return summary


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


def test_tied_checkpoints_are_said(tmp_path, small):
  small['experts']['algebra'] |= {'pass_at_k': [0.1, 0.5, 0.2, 0.5, 0.3, 0.5], 'selected_step': 400}
  text = Page(section(render(write_workdir(tmp_path, small, [], [])), 'Pass@K of checkpoints')).text
  assert 'algebra 400 tied with 200, 600 50.0%' in text


def figure_of(rows, key):
  panel = next(p for p in plots.RL_PANELS if key in p.keys)
  return plots._curve_figure(plots.tracks_of(rows, 'rl'), panel, [key])


def test_axes_say_what_can_be_read_off_them():
  rows = [{'stage': 'rl/a', 'step': s, 'truncated': 0.0, 'ratio_max': 1 + s * 1e-5, 'kl': 0.5} for s in range(1, 6)]
  (ax,) = figure_of(rows, 'truncated').axes
  assert ax.get_ylim() == (-0.05, 1.0)  # not 0.06 to either side of 0
  (ax,) = figure_of(rows, 'kl').axes
  assert ax.get_ylim() == pytest.approx((0.0, 0.55))
  (ax,) = figure_of(rows, 'ratio_max').axes
  assert ax.lines[0].get_ydata() == pytest.approx([s * 1e-5 for s in range(1, 6)])
  assert ax.get_ylabel().endswith('− 1') and ax.yaxis.get_major_formatter()(2e-5) == '2e−05'


@pytest.mark.parametrize(
  'values, wanted',
  [([0, 0], (-2, 8)), ([100, 100], (92, 102)), ([50], (45, 55)), ([0, 100], (-2, 102)), ([], None)],
)
def test_axes_of_scores(values, wanted):
  got = plots.score_limits([Score(v, math.nan, math.nan) for v in values])
  assert got == (wanted if wanted is None else pytest.approx(wanted))


def test_names_beside_a_plot_are_folded_not_cut(parts):
  names = ['last checkpoint = fused = experts algebra, geometry', 'a/' + 'b' * 60]
  folded = plots.folded(names)
  assert all(len(line) <= 28 for name in folded for line in name.split('\n'))
  assert [''.join(name.split()) for name in folded] == [''.join(name.split()) for name in names]


def fits(figure):
  """Whether everything that is drawn lies in the figure."""
  FigureCanvasAgg(figure).draw()
  box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
  return box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


LONG = ('a run whose name is a whole sentence with many words in it', 'runs/' + 'x' * 70, 'b')


@pytest.mark.parametrize('columns', [1, 5])
def test_long_names_do_not_stick_out(columns):
  scores = [Score(50, 40, 60)] * len(LONG)
  with matplotlib.rc_context(plots.STYLE):
    figure = Figure((4.8, 1.2 + plots.height_of(LONG)), layout='constrained')
    plots.points(figure.subplots(), LONG, [('Pass@1', plots.BLUE, 'o', scores)], (0, 100))
    assert fits(figure)
    figure = Figure((4.6, 3.3), layout='constrained')
    ax = figure.subplots()
    for name in LONG * columns:
      ax.plot([0, 1], [0, 1], label=name)
    plots.legend_outside(figure)
    assert fits(figure)
    assert ax.get_window_extent().height > 100, 'the legend takes none of the room for the curves'


def test_light_and_dark_have_every_colour_of_the_plots(page):
  light, dark = re.search(r':root \{ color-scheme: light dark;(.*?)\}\n.*?:root \{(.*?)\}', page, re.DOTALL).groups()
  names = lambda css: set(re.findall(r'--(\w+):', css))
  assert names(light) == names(dark)
  used = dict(re.findall(r'var\(--(\w+), (#\w{6})\)', page))
  assert {'ink', 'blue', 'orange', 'red', 'line', 'axis'} <= set(used) <= names(light)
  assert not re.search(r'(?:fill|stroke): #(?!f{6})', page)  # nothing of a plot keeps one colour on both


def luminance(colour):
  channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
  """Of WCAG 2, from 1 to 21."""
  dark, light = sorted(map(luminance, (a, b)))
  return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('scheme', [0, 1])
def test_contrast(scheme):
  paper, ground = (html_kit._PALETTE[name][scheme] for name in ('paper', 'ground'))
  for name in ('ink', 'soft', 'rule', 'blue', 'red'):  # of text
    assert min(contrast(html_kit._PALETTE[name][scheme], back) for back in (paper, ground)) >= 4.5, name
  for name in ('orange', 'green', 'purple', 'gold', 'teal', 'pink', 'grey'):  # of lines
    assert contrast(html_kit._PALETTE[name][scheme], paper) >= 3, name


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


@pytest.mark.parametrize('restarts', [True, False])
def test_stages_follow_each_other_on_one_axis(restarts):
  rows = [{'stage': 'rl/a', 'step': s, 'reward': s} for s in (1, 2, 3)]
  rows += [{'stage': 'rl/b', 'step': s if restarts else s + 3, 'reward': s} for s in (1, 2)]
  rows += [{'stage': 'rl/a', 'step': 3, 'reward': 30}, {'stage': 'sft', 'step': 9}, {'stage': 'rl/a'}]
  track = plots.tracks_of(rows, 'rl')
  assert [(name, x.tolist()) for name, x, _ in track] == [('a', [1, 2, 3]), ('b', [4, 5])]
  assert [row['reward'] for row in track[0][2]] == [1, 2, 30]


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


def test_main_figure_has_a_panel_for_mathematics_and_one_for_code(parts):
  figure = plots.main_figure(parts[0])
  assert [ax.get_xlabel().split(', ')[1].split(' (')[0] for ax in figure.axes] == ['math', 'code']
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-2:] == ['fused', 'fused + RL']
  with pytest.raises(ValueError, match='no model'):
    plots.main_figure({})
