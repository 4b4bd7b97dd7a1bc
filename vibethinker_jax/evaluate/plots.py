"""The report's plots, and how it reads the numbers they show out of summary.json and metrics.jsonl."""

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_DOMAINS = ('algebra', 'geometry', 'calculus', 'statistics', 'math', 'code', 'all')
MODELS = {'base': 0, 'last': 1, 'uniform': 2, 'fused': 4, 'rl': 5}  # the order of the road; experts are 3
BLUE, ORANGE, RED, GREY = '#2457c5', '#d9730d', '#b3263e', '#8a919c'
COLOURS = ('#5b6472', BLUE, ORANGE, RED, '#20845a', '#7b4bb8', '#a8790a', '#0f8b9d', '#c9408f')  # of runs side by side
STYLE = {
  'font.family': 'DejaVu Sans',
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.edgecolor': '#9aa1ad',
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': '#e6e9ee',
  'legend.frameon': False,
  'legend.fontsize': 9,
}
SFT_PANELS = (  # title, y label, keys of the metrics
  ('SFT loss', 'cross-entropy (nats per token)', ['loss']),
  ('SFT gradient norm', 'gradient norm', ['grad_norm']),
  ('SFT learning rate', 'learning rate', ['learning_rate']),
)
RL_PANELS = (
  ('Reward', 'mean over rollouts', ['reward', 'pass_rate']),
  ('Entropy', 'entropy (nats per token)', ['entropy']),
  ('Response length', 'mean length (tokens)', ['mean_length']),
  ('Truncated responses', 'share of responses (%)', ['truncated']),
  ('Groups without a signal', 'share of groups (%)', ['all_right', 'all_wrong']),
  ('Gradient norm', 'gradient norm', ['grad_norm']),
  ('MGPO weight', 'mean max-entropy weight', ['weight_mean']),
  ('Probability ratio', 'policy / rollout policy', ['ratio_min', 'ratio_max']),
  ('Clipped tokens', 'share of tokens (%)', ['clip_fraction']),
  ('Divergence', 'KL (nats per token)', ['kl']),
  ('Steps that hold', 'share of equalities (%)', ['steps_share']),
)
SMOOTH_FROM, WINDOW = 40, 9  # steps of a stage from which its curve gets a running mean, and of how many


@dataclass(frozen=True)
class Score:
  """A score and its 95% interval in per cent; NaN where it was not measured."""

  value: float
  lo: float
  hi: float

  def __str__(self) -> str:
    interval = f' <small>[{self.lo:.1f}, {self.hi:.1f}]</small>' if math.isfinite(self.lo + self.hi) else ''
    return percent(self.value) + interval


def number(value: object) -> float:
  """A finite number, or nan for whatever else stands in a summary."""
  return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def part(data: dict, *keys: str) -> dict:
  """A nested object, empty when it is missing or null."""
  for key in keys:
    data = data.get(key) or {}
  return data


def models_of(summary: dict) -> list[str]:
  """The models in the order of the pipeline: MODELS, the experts among them, then others as they came."""
  names = part(summary, 'models')
  return sorted(names, key=lambda m: MODELS[m] if m in MODELS else 3 if m.startswith('expert_') else 6)


def ordered(names: Sequence[str]) -> list[str]:
  """Distinct names: the known domains in their order, then the others as they came."""
  return [d for d in _DOMAINS if d in names] + [d for d in dict.fromkeys(names) if d not in _DOMAINS]


def measured(summary: dict) -> list[str]:
  """Domains that any model was evaluated on."""
  return ordered([d for row in part(summary, 'models').values() for d in row])


def ks_of(summary: dict) -> list[int]:
  """[1, K], K the largest of the keys pass@K; [1] when there is no other."""
  keys = [key for row in part(summary, 'models').values() for d in row for key in part(row, d)]
  return sorted({1, max([int(key[5:]) for key in keys if re.fullmatch(r'pass@\d+', key)], default=1)})


def score_of(summary: dict, model: str, domain: str, k: int) -> Score:
  """Pass@k in per cent; nan where the summary has none."""
  cell = part(summary, 'models', model, domain)
  lo, hi = cell.get(f'pass@{k}_ci') or (None, None)
  return Score(*(100 * number(x) for x in (cell.get(f'pass@{k}'), lo, hi)))


def headline_domains(summary: dict) -> list[str]:
  """Pooled mathematics (else everything, else the first domain that was measured), and code if measured."""
  domains = measured(summary)
  main = [d for d in ('math', 'all') if d in domains] + domains
  return list(dict.fromkeys([*main[:1], *(['code'] if 'code' in domains else [])]))


def label(model: str) -> str:
  """A model's name as the page says it."""
  if model.startswith('expert_'):
    return f'expert {model[7:]}'
  return {'last': 'last checkpoint', 'uniform': 'uniform mean', 'rl': 'fused + RL'}.get(model, model)


def points(ax: Axes, rows: Sequence[str], series: Sequence[tuple[str, str, str, list[Score]]]) -> None:
  """Scores with 95% whiskers, a name per row of the y axis; series: label, colour, marker, score per row."""
  for i, (label, colour, marker, scores) in enumerate(series):
    y = np.arange(len(rows)) + (i - (len(series) - 1) / 2) * 0.22
    whiskers = np.array([[s.value - s.lo for s in scores], [s.hi - s.value for s in scores]])
    # A missing interval has no whisker, and rounding in the file must not make one negative.
    whiskers = np.maximum(np.nan_to_num(whiskers), 0)
    ax.errorbar([s.value for s in scores], y, xerr=whiskers, fmt=marker, color=colour, label=label, capsize=2.5)
  ax.set_yticks(range(len(rows)), rows)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  ax.grid(False, axis='y')
  for edge in range(1, len(rows)):
    ax.axhline(edge - 0.5, color='#eef0f4', lw=0.8, zorder=0)


def legend_above(ax: Axes, columns: int) -> None:
  """Above the plot, where it hides no point."""
  ax.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handletextpad=0.3)


def legend_outside(figure: Figure) -> None:
  """Above the axes of a figure with constrained layout, as wide as it needs to be."""
  figure.legend(loc='outside upper left', ncols=3, fontsize=8, handletextpad=0.4, columnspacing=1.0)


def fusion_figure(summary: dict, domains: Sequence[str]) -> Figure:
  """Pass@1 and Pass@K of every model, with intervals; one panel a domain."""
  models, looks = models_of(summary), ((BLUE, 'o'), (ORANGE, 'D'))
  figure = Figure((1.4 + 3.2 * len(domains), 1.1 + 0.42 * len(models)), layout='constrained')
  axes = figure.subplots(1, len(domains), sharey=True, squeeze=False)[0]
  for ax, domain in zip(axes, domains):
    series = [
      (f'Pass@{k}', *look, [score_of(summary, m, domain, k) for m in models]) for k, look in zip(ks_of(summary), looks)
    ]
    points(ax, [label(m) for m in models], series)
    ax.set_xlabel(f'problems solved, {domain} (%), 95% interval')
  legend_above(axes[0], 2)
  return figure


def main_figure(summary: dict) -> Figure:
  """The fusion comparison: Pass@1 and Pass@K with 95% intervals of every model, on mathematics and on code.

  Args:
    summary: the content of summary.json; scores are shares in [0, 1].

  Returns:
    A figure with a panel for mathematics (else the first domain measured) and one for code, if measured.

  Raises:
    ValueError: the summary has no score of any model.
  """
  domains = headline_domains(summary)
  if not domains:
    raise ValueError('the summary has no model to compare')
  with matplotlib.rc_context(STYLE):
    return fusion_figure(summary, domains)


def before_after_figure(summary: dict, domains: Sequence[str], k: int) -> Figure:
  """Pass@k of base, fused and RL model by domain, with intervals."""
  looks = (('base', GREY, 'v'), ('fused', BLUE, 'o'), ('rl', RED, 's'))
  looks = [look for look in looks if look[0] in part(summary, 'models')]
  figure = Figure((4.6, 1.1 + 0.46 * len(domains)), layout='constrained')
  ax = figure.subplots()
  series = [(label(m), colour, mark, [score_of(summary, m, d, k) for d in domains]) for m, colour, mark in looks]
  points(ax, domains, series)
  ax.set_xlabel(f'Pass@{k} (%), 95% interval')
  legend_above(ax, 3)
  return figure


def expert_scores(expert: dict) -> tuple[list[float], list[float], float, float, float]:
  """Steps, their Pass@K, the selected step, Pass@K of its selection and held-out half (per cent)."""
  pairs = list(zip(expert.get('steps') or [], expert.get('pass_at_k') or []))
  steps, scores = [number(s) for s, _ in pairs], [100 * number(p) for _, p in pairs]
  chosen = number(expert.get('selected_step'))
  score = scores[steps.index(chosen)] if chosen in steps else math.nan
  return steps, scores, chosen, score, 100 * number(expert.get('held_out'))


def expert_figure(expert: dict) -> Figure:
  """Pass@K of a domain's checkpoints over SFT steps, the selected one and its held-out score marked."""
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
  ax.margins(y=0.15)
  legend_above(ax, 3)
  return figure


def tracks_of(metrics: Sequence[dict], family: str) -> list[tuple[str, np.ndarray, list[dict]]]:
  """(stage, x [R], its R rows): stages one after the other, whether their steps go on or start anew."""
  stages: dict[str, dict[float, dict]] = {}
  for row in metrics:
    stage, step = str(row.get('stage')), number(row.get('step'))
    if stage.split('/')[0] == family and math.isfinite(step):
      # A run that was resumed logs some steps twice: the later row is the one that led on.
      stages.setdefault(stage, {})[step] = row
  track, end = [], -math.inf
  for stage, by_step in stages.items():
    steps = np.array(sorted(by_step))
    x = steps if steps[0] > end else steps - steps[0] + end + 1
    track.append((stage.split('/', 1)[-1], x, [by_step[step] for step in steps]))
    end = x[-1]
  return track


def running_mean(y: np.ndarray) -> np.ndarray:
  """Centred mean [R] over a window that shrinks at the ends and skips NaN."""
  window = np.ones(min(WINDOW, len(y) - (len(y) % 2 == 0)))  # 'same' means the longer of the two
  total, count = (np.convolve(a, window, 'same') for a in (np.nan_to_num(y), np.isfinite(y)))
  return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def _curve_figure(track: Sequence[tuple], y_label: str, keys: Sequence[str]) -> Figure:
  figure = Figure((4.4, 2.9), layout='constrained')
  ax = figure.subplots()
  scale = 100 if '%' in y_label else 1
  for key, colour in zip(keys, (BLUE, ORANGE)):
    label = key.replace('_', ' ')
    for _, x, rows in track:
      y = scale * np.array([number(row.get(key)) for row in rows])
      # A schedule has no noise, and a mean would bend it.
      strong = running_mean(y) if len(y) >= SMOOTH_FROM and key != 'learning_rate' else y
      if strong is not y:
        ax.plot(x, y, color=colour, lw=1, alpha=0.3)
      # A line does not draw a value that stands alone between missing ones; a point does.
      ax.plot(x, strong, color=colour, lw=1.8, marker='o' if len(y) < 15 else '', ms=3, label=label)
      label = None  # one legend entry a curve, not one a stage
  for i, (name, x, _) in enumerate(track[1:] and track):
    ax.text(x[0], 1.02, name, transform=ax.get_xaxis_transform(), fontsize=8, color='#4a515c')
    if i:
      ax.axvline((track[i - 1][1][-1] + x[0]) / 2, color='#4a515c', lw=1, ls=(0, (4, 3)))
  ax.set_xlabel('step')
  ax.set_ylabel(y_label)
  ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  ax.margins(x=0.02, y=0.12)
  if len(keys) > 1:
    ax.legend()
  return figure


def _svg(figure: Figure, tag: str, alt: str) -> str:
  """Inline SVG; tag keeps its ids apart from those of the other plots of the page."""
  buffer = io.StringIO()
  with matplotlib.rc_context({'svg.fonttype': 'path', 'svg.hashsalt': tag}):
    figure.savefig(buffer, format='svg', metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
  text = buffer.getvalue()
  text = re.sub(r'<!--.*?-->|<metadata>.*?</metadata>|\s+xmlns(:\w+)?="[^"]*"', '', text, flags=re.DOTALL)
  text = text[text.index('<svg') :].replace(' id="', f' id="{tag}-').replace('url(#', f'url(#{tag}-')
  text = text.replace('xlink:href="#', f'href="#{tag}-')
  width = figure.get_size_inches()[0] * 96
  head = f'<svg role="img" aria-label="{html.escape(alt)}" style="max-width:{width:.0f}px"'
  return re.sub(r'<svg width="[^"]*" height="[^"]*"', head, text, count=1).strip()


def plots_of(figures: Sequence[tuple[str, Figure]], tag: str) -> str:
  """Figures with their titles as HTML; `tag` keeps their element ids apart from those of other groups."""
  cards = [
    f'<figure><figcaption>{html.escape(title)}</figcaption>{_svg(figure, f"{tag}{i}", title)}</figure>'
    for i, (title, figure) in enumerate(figures)
  ]
  return f'<div class="plots">{"".join(cards)}</div>'


def curves(track: Sequence[tuple], panels: Sequence[tuple], tag: str) -> str:
  """Plots (title, label of the y axis, keys of the metrics) over the steps of a track, without those never logged."""
  figures = []
  for title, y_label, keys in panels:
    rows = [row for _, _, rows in track for row in rows]
    keys = [key for key in keys if any(math.isfinite(number(row.get(key))) for row in rows)]
    if keys:
      figures.append((title, _curve_figure(track, y_label, keys)))
  return plots_of(figures, tag)


def percent(value: float) -> str:
  """One decimal, or a dash for nan."""
  return f'{value:.1f}%' if math.isfinite(value) else '–'
