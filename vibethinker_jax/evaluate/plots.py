"""The plots of runs: the scores of models and of checkpoints, and curves over steps."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vibethinker_jax.evaluate.html import colour, plots_of
from vibethinker_jax.evaluate.summary import (
  Score,
  headline_domains,
  ks_of,
  label,
  number,
  part,
  same_models,
  score_of,
)

INK, LINE, AXIS, RULE, GREY = map(colour, ('ink', 'line', 'axis', 'rule', 'grey'))
BLUE, ORANGE, RED = map(colour, ('blue', 'orange', 'red'))
# one for each of several runs
COLOURS = tuple(map(colour, ('soft', 'blue', 'orange', 'red', 'green', 'purple', 'gold', 'teal', 'pink')))
STYLE = {
  'font.family': 'DejaVu Sans',
  'text.color': INK,
  'axes.labelcolor': INK,
  'xtick.color': INK,
  'ytick.color': INK,
  'axes.facecolor': 'none',
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.edgecolor': AXIS,
  'axes.formatter.useoffset': False,
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': LINE,
  'legend.frameon': False,
  'legend.fontsize': 9,
}


class Panel(NamedTuple):
  """A plot of metrics over steps."""

  title: str
  y_label: str
  keys: Sequence[str]
  origin: float = 0.0  # subtracted from every value before it is drawn


SFT_PANELS = (
  Panel('SFT loss', 'cross-entropy (nats per token)', ['loss']),
  Panel('SFT gradient norm', 'gradient norm', ['grad_norm']),
  Panel('SFT learning rate', 'learning rate', ['learning_rate']),
)
RL_PANELS = (
  Panel('Reward', 'mean over rollouts', ['reward', 'pass_rate']),
  Panel('Entropy', 'entropy (nats per token)', ['entropy']),
  Panel('Response length', 'mean length (tokens)', ['mean_length']),
  Panel('Truncated responses', 'share of responses (%)', ['truncated']),
  Panel('Groups without a signal', 'share of groups (%)', ['all_right', 'all_wrong']),
  Panel('Gradient norm', 'gradient norm', ['grad_norm']),
  Panel('MGPO weight', 'mean max-entropy weight', ['weight_mean']),
  # a ratio differs from 1 in the fifth digit: an axis can show only its distance from 1
  Panel('Probability ratio', 'policy / rollout policy − 1', ['ratio_min', 'ratio_max'], 1.0),
  Panel('Clipped tokens', 'share of tokens (%)', ['clip_fraction']),
  Panel('Divergence', 'KL (nats per token)', ['kl']),
  Panel('Steps that hold', 'share of equalities (%)', ['steps_share']),
)
SMOOTH_FROM, WINDOW = 40, 9  # a stage of so many steps gets a running mean, over so many steps
_NAME = 28  # characters in one line of a name beside a plot


def points(
  ax: Axes,
  rows: Sequence[str],
  series: Sequence[tuple[str, str, str, list[Score]]],
  limits: tuple[float, float] | None,
) -> None:
  """Draws scores with whiskers for their 95% intervals.

  Args:
    ax: is drawn into.
    rows: names on the y axis, [R].
    series: each a label, a colour, a marker, and the scores [R] in per cent.
    limits: of the x axis; `score_limits` gives those that several plots to be compared have in common.
  """
  for i, (name, shade, marker, scores) in enumerate(series):
    y = np.arange(len(rows)) + (i - (len(series) - 1) / 2) * 0.22
    whiskers = np.array([[s.value - s.lo for s in scores], [s.hi - s.value for s in scores]])
    # A missing interval has no whisker, and rounding in the file must not make a whisker negative.
    whiskers = np.maximum(np.nan_to_num(whiskers), 0)
    ax.errorbar([s.value for s in scores], y, xerr=whiskers, fmt=marker, color=shade, label=name, capsize=2.5)
  ax.set_yticks(range(len(rows)), folded(rows))
  ax.set_ylim(len(rows) - 0.5, -0.5)
  if limits is not None:
    ax.set_xlim(limits)
  ax.grid(False, axis='y')
  for edge in range(1, len(rows)):
    ax.axhline(edge - 0.5, color=LINE, lw=0.8, zorder=0)


def score_limits(scores: Sequence[Score]) -> tuple[float, float] | None:
  """The limits of an axis in per cent that shows the scores and their intervals; None where there are no scores.

  They are at least 10 points apart: with an axis of -0.06 to 0.06, scores that are all 0 would seem to differ.
  """
  ends = [x for s in scores for x in (s.value, s.lo, s.hi) if math.isfinite(x)]
  if not ends:
    return None
  low, high = min(ends), max(ends)
  spare = max(0.06 * (high - low), (10 - (high - low)) / 2, 1.0)
  low, high = low - spare, high + spare
  if low < -2:  # the axis is shifted, so that its width stays
    low, high = -2, high - 2 - low
  if high > 102:
    low, high = max(-2, low + 102 - high), 102
  return low, high


def summary_limits(summary: dict, domains: Sequence[str]) -> tuple[float, float] | None:
  """`score_limits` of all models on these domains."""
  every = itertools.product(part(summary, 'models'), domains, ks_of(summary))
  return score_limits([score_of(summary, model, domain, k) for model, domain, k in every])


def folded(names: Sequence[str]) -> list[str]:
  """The names, broken into lines that are short enough to stand beside a plot."""
  return [textwrap.fill(name, _NAME) for name in names]


def height_of(names: Sequence[str], each: float = 0.42) -> float:
  """The height in inches of rows with these names; `each`: of a row with a name of one line."""
  return sum(max(each, 0.08 + 0.17 * (name.count('\n') + 1)) for name in folded(names))


def legend_above(ax: Axes, columns: int) -> None:
  """Puts the legend above the plot, where it hides no point."""
  ax.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handletextpad=0.3)


def legend_outside(figure: Figure) -> None:
  """Puts the legend above the axes of a figure with constrained layout, in as many columns as fit.

  Long names are broken into lines, not cut. The figure grows by the lines of the legend.
  """
  handles, names = figure.axes[0].get_legend_handles_labels()
  width, height = figure.get_size_inches()
  names = [textwrap.fill(name, int((width - 0.7) / 0.075)) for name in names]
  longest = max((len(line) for name in names for line in name.split('\n')), default=1)
  columns = max(1, min(3, len(names), int(width / (0.075 * longest + 0.5))))
  rows = -(-len(names) // columns)
  lines = sum(max(name.count('\n') + 1 for name in names[i::rows]) for i in range(rows))
  figure.set_size_inches(width, height + 0.16 * (lines - 1))
  figure.legend(
    handles, names, loc='outside upper left', ncols=columns, fontsize=8, handletextpad=0.4, columnspacing=1.0
  )


def fusion_figure(
  summary: dict, domains: Sequence[str], groups: Sequence[tuple[str, ...]], limits: tuple[float, float] | None
) -> Figure:
  """Pass@1 and Pass@K of every model, with intervals: a panel for each domain, a row for each model.

  Args:
    summary: the content of summary.json.
    domains: of the panels.
    groups: the names of each model (summary.py:same_models).
    limits: of the x axis, in per cent.
  """
  looks = ((BLUE, 'o'), (ORANGE, 'D'))
  names = [label(*group) for group in groups]
  figure = Figure((2.2 + 3.2 * len(domains), 1.2 + height_of(names)), layout='constrained')
  axes = figure.subplots(1, len(domains), sharey=True, squeeze=False)[0]
  scores = lambda domain, k: [score_of(summary, group[0], domain, k) for group in groups]
  for ax, domain in zip(axes, domains):
    series = [(f'Pass@{k}', *look, scores(domain, k)) for k, look in zip(ks_of(summary), looks)]
    points(ax, names, series, limits)
    ax.set_xlabel(f'problems solved, {domain} (%)\n95% interval')
  legend_above(axes[0], 2)
  return figure


def main_figure(summary: dict) -> Figure:
  """The comparison of the fused model: Pass@1 and Pass@K with 95% intervals of every model, on mathematics and code.

  Args:
    summary: the content of summary.json; scores are shares in [0, 1].

  Returns:
    A figure with a panel for mathematics (or else the first domain that was measured) and one for code, if measured.

  Raises:
    ValueError: the summary has no score of any model.
  """
  domains = headline_domains(summary)
  if not domains:
    raise ValueError('the summary has no model to compare')
  with matplotlib.rc_context(STYLE):
    return fusion_figure(summary, domains, same_models(summary), summary_limits(summary, domains))


def before_after_figure(summary: dict, domains: Sequence[str], k: int) -> Figure:
  """Pass@k of the base, the fused and the RL model by domain, with intervals; every k has the same axis."""
  looks = (('base', GREY, 'v'), ('fused', BLUE, 'o'), ('rl', RED, 's'))
  looks = [look for look in looks if look[0] in part(summary, 'models')]
  figure = Figure((4.6, 1.1 + height_of(domains, 0.46)), layout='constrained')
  ax = figure.subplots()
  scores = lambda model, k: [score_of(summary, model, d, k) for d in domains]
  series = [(label(m), shade, mark, scores(m, k)) for m, shade, mark in looks]
  points(ax, domains, series, summary_limits(summary, domains))
  ax.set_xlabel(f'Pass@{k} (%), 95% interval')
  legend_above(ax, 3)
  return figure


def expert_scores(expert: dict) -> tuple[list[float], list[float], float, float, float]:
  """The steps of an expert, their Pass@K, the selected step, and its Pass@K on the selection and the held-out half.

  Pass@K is in per cent.
  """
  pairs = list(zip(expert.get('steps') or [], expert.get('pass_at_k') or []))
  steps, scores = [number(s) for s, _ in pairs], [100 * number(p) for _, p in pairs]
  chosen = number(expert.get('selected_step'))
  score = scores[steps.index(chosen)] if chosen in steps else math.nan
  return steps, scores, chosen, score, 100 * number(expert.get('held_out'))


def expert_limits(experts: Sequence[dict]) -> tuple[float, float] | None:
  """The limits of the axis of Pass@K that the plots of these experts have in common."""
  scores = [x for expert in experts for steps, own, _, _, held_out in [expert_scores(expert)] for x in (*own, held_out)]
  return score_limits([Score(x, math.nan, math.nan) for x in scores])


def expert_figure(expert: dict, limits: tuple[float, float] | None = None) -> Figure:
  """Pass@K of the checkpoints of a domain over SFT steps; the selected one and its held-out score are marked."""
  steps, scores, chosen, score, held_out = expert_scores(expert)
  figure = Figure((4.4, 2.9), layout='constrained')
  ax = figure.subplots()
  ax.plot(steps, scores, color=BLUE, marker='o', ms=4, label='selection half')
  if math.isfinite(score):
    ax.plot(chosen, score, '*', color=ORANGE, ms=16, mec='white', label='selected', zorder=4)
  if math.isfinite(chosen + held_out):
    ax.plot(chosen, held_out, 'D', color=RED, ms=6, mfc='white', mew=1.8, label='held-out half')
  ax.set_xlabel('SFT step')
  ax.set_ylabel(f'Pass@{expert.get("k", "K")} (%)')
  ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  limits = limits or expert_limits([expert])
  if limits is not None:
    ax.set_ylim(limits)
  legend_above(ax, 3)
  return figure


def tracks_of(metrics: Sequence[dict], family: str) -> list[tuple[str, np.ndarray, list[dict]]]:
  """(stage, x [R], rows [R]) for each stage of the family, one after the other on one axis.

  The steps of a stage may go on from those of the stage before, or start again at 1.
  """
  stages: dict[str, dict[float, dict]] = {}
  for row in metrics:
    stage, step = str(row.get('stage')), number(row.get('step'))
    if stage.split('/')[0] == family and math.isfinite(step):
      # A resumed run logs some steps twice: the run went on from the later row.
      stages.setdefault(stage, {})[step] = row
  track, end = [], -math.inf
  for stage, by_step in stages.items():
    steps = np.array(sorted(by_step))
    x = steps if steps[0] > end else steps - steps[0] + end + 1
    track.append((stage.split('/', 1)[-1], x, [by_step[step] for step in steps]))
    end = x[-1]
  return track


def running_mean(y: np.ndarray) -> np.ndarray:
  """The centred mean [R] of y [R]; the window is smaller at the ends, and NaN are skipped."""
  window = np.ones(min(WINDOW, len(y) - (len(y) % 2 == 0)))  # 'same' gives the length of the longer one
  total, count = (np.convolve(a, window, 'same') for a in (np.nan_to_num(y), np.isfinite(y)))
  return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def curve_limits(values: np.ndarray) -> tuple[float, float] | None:
  """The limits of the axis of a curve that is constant; None for any other curve, whose own range gives the axis."""
  values = values[np.isfinite(values)]
  if not len(values) or np.ptp(values) > 1e-9 * np.abs(values).max():
    return None
  level = float(values[0])
  return (-0.05, 1.0) if level == 0 else tuple(sorted((0.0, 1.1 * level)))


def _curve_figure(track: Sequence[tuple], panel: Panel, keys: Sequence[str]) -> Figure:
  figure = Figure((4.4, 2.9), layout='constrained')
  ax = figure.subplots()
  scale, drawn = 100 if '%' in panel.y_label else 1, []
  for key, shade in zip(keys, (BLUE, ORANGE)):
    label = key.replace('_', ' ')
    for _, x, rows in track:
      y = scale * (np.array([number(row.get(key)) for row in rows]) - panel.origin)
      drawn.append(y)
      # A schedule has no noise, and a running mean would change its shape.
      strong = running_mean(y) if len(y) >= SMOOTH_FROM and key != 'learning_rate' else y
      if strong is not y:
        ax.plot(x, y, color=shade, lw=1, alpha=0.3)
      # A line does not show a value between two missing ones; a point does.
      ax.plot(x, strong, color=shade, lw=1.8, marker='o' if len(y) < 15 else '', ms=3, label=label)
      label = None  # one entry in the legend for a curve, not for each stage
  for i, (name, x, _) in enumerate(track[1:] and track):
    ax.text(x[0], 1.02, name, transform=ax.get_xaxis_transform(), fontsize=8, color=RULE)
    if i:
      ax.axvline((track[i - 1][1][-1] + x[0]) / 2, color=RULE, lw=1, ls=(0, (4, 3)))
  ax.set_xlabel('step')
  ax.set_ylabel(panel.y_label)
  # a power of ten would be written above the axis, over the names of the stages
  ax.yaxis.set_major_formatter(lambda y, _: f'{y:.4g}'.replace('-', '−'))
  ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  ax.margins(x=0.02, y=0.12)
  if (limits := curve_limits(np.concatenate(drawn))) is not None:
    ax.set_ylim(limits)
  if len(keys) > 1:
    ax.legend()
  return figure


def curves(track: Sequence[tuple], panels: Sequence[Panel], tag: str) -> str:
  """The panels over the steps of a track (`tracks_of`), as markup; panels that were never logged are left out."""
  figures = []
  for panel in panels:
    rows = [row for _, _, rows in track for row in rows]
    keys = [key for key in panel.keys if any(math.isfinite(number(row.get(key))) for row in rows)]
    if keys:
      figures.append((panel.title, _curve_figure(track, panel, keys)))
  return plots_of(figures, tag)
