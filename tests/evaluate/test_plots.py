"""The plots: axes, names, colours."""

import math
import re

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vibethinker_jax.evaluate import html as html_kit
from vibethinker_jax.evaluate import plots
from vibethinker_jax.evaluate.summary import Score


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


@pytest.mark.parametrize('restarts', [True, False])
def test_stages_follow_each_other_on_one_axis(restarts):
  rows = [{'stage': 'rl/a', 'step': s, 'reward': s} for s in (1, 2, 3)]
  rows += [{'stage': 'rl/b', 'step': s if restarts else s + 3, 'reward': s} for s in (1, 2)]
  rows += [{'stage': 'rl/a', 'step': 3, 'reward': 30}, {'stage': 'sft', 'step': 9}, {'stage': 'rl/a'}]
  track = plots.tracks_of(rows, 'rl')
  assert [(name, x.tolist()) for name, x, _ in track] == [('a', [1, 2, 3]), ('b', [4, 5])]
  assert [row['reward'] for row in track[0][2]] == [1, 2, 30]


def test_main_figure_has_a_panel_for_mathematics_and_one_for_code(parts):
  figure = plots.main_figure(parts[0])
  assert [ax.get_xlabel().split(', ')[1].split(' (')[0] for ax in figure.axes] == ['math', 'code']
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-2:] == ['fused', 'fused + RL']
  with pytest.raises(ValueError, match='no model'):
    plots.main_figure({})
