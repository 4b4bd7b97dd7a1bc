"""One self-contained page, report.html, from the files of a workdir.

The files are config.json, summary.json, metrics.jsonl and samples.jsonl. Each of them, and each part of them,
may be missing: a run that stopped early, or ran some stages only, still gets a page that says what it lacks.
"""

import html
import io
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_DOMAINS = ('algebra', 'geometry', 'calculus', 'statistics', 'math', 'code', 'all')
_MODELS = {'base': 0, 'last': 1, 'uniform': 2, 'fused': 4, 'rl': 5}  # the order of the road; experts are 3
_BLUE, _ORANGE, _RED, _GREY = '#2457c5', '#d9730d', '#b3263e', '#8a919c'
_STYLE = {
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
_SFT_PANELS = (  # title, y label, keys of the metrics
  ('SFT loss', 'cross-entropy (nats per token)', ['loss']),
  ('SFT gradient norm', 'gradient norm', ['grad_norm']),
  ('SFT learning rate', 'learning rate', ['learning_rate']),
)
_RL_PANELS = (
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
)
_SMOOTH_FROM, _WINDOW = 40, 9  # steps of a stage from which its curve gets a running mean, and of how many
_MAX_PROBLEMS, _MAX_CHARS = 8, 6000


@dataclass(frozen=True)
class _Score:
  """A score and its 95% interval in per cent; NaN where it was not measured."""

  value: float
  lo: float
  hi: float

  def __str__(self) -> str:
    interval = f' <small>[{self.lo:.1f}, {self.hi:.1f}]</small>' if math.isfinite(self.lo + self.hi) else ''
    return _percent(self.value) + interval


def _object(text: str, where: str) -> dict:
  try:
    data = json.loads(text)
  except ValueError as error:
    raise ValueError(f'{where}: expected a JSON object: {error}') from error
  if not isinstance(data, dict):
    raise ValueError(f'{where}: expected a JSON object, got a {type(data).__name__}')
  return data


def _read(path: pathlib.Path) -> dict:
  return _object(path.read_text(encoding='utf-8'), str(path)) if path.exists() else {}


def _read_rows(path: pathlib.Path) -> list[dict]:
  # A last line without its newline is of a writer that was killed or is at work still; the others count.
  lines = path.read_text(encoding='utf-8').split('\n')[:-1] if path.exists() else []
  return [_object(line, f'{path}:{i}') for i, line in enumerate(lines, 1) if line.strip()]


def _number(value: object) -> float:
  return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _part(data: dict, *keys: str) -> dict:
  """A nested object, empty when it is missing or null."""
  for key in keys:
    data = data.get(key) or {}
  return data


def _models(summary: dict) -> list[str]:
  names = _part(summary, 'models')
  return sorted(names, key=lambda m: _MODELS[m] if m in _MODELS else 3 if m.startswith('expert_') else 6)


def _domains(names: Sequence[str]) -> list[str]:
  """Distinct names: the known domains in their order, then the others as they came."""
  return [d for d in _DOMAINS if d in names] + [d for d in dict.fromkeys(names) if d not in _DOMAINS]


def _measured(summary: dict) -> list[str]:
  return _domains([d for row in _part(summary, 'models').values() for d in row])


def _ks(summary: dict) -> list[int]:
  """[1, K], K the largest of the keys pass@K; [1] when there is no other."""
  keys = [key for row in _part(summary, 'models').values() for d in row for key in _part(row, d)]
  return sorted({1, max([int(key[5:]) for key in keys if re.fullmatch(r'pass@\d+', key)], default=1)})


def _score(summary: dict, model: str, domain: str, k: int) -> _Score:
  cell = _part(summary, 'models', model, domain)
  lo, hi = cell.get(f'pass@{k}_ci') or (None, None)
  return _Score(*(100 * _number(x) for x in (cell.get(f'pass@{k}'), lo, hi)))


def _headline_domains(summary: dict) -> list[str]:
  """Pooled mathematics (else everything, else the first domain that was measured), and code if measured."""
  domains = _measured(summary)
  main = [d for d in ('math', 'all') if d in domains] + domains
  return list(dict.fromkeys([*main[:1], *(['code'] if 'code' in domains else [])]))


def _label(model: str) -> str:
  if model.startswith('expert_'):
    return f'expert {model[7:]}'
  return {'last': 'last checkpoint', 'uniform': 'uniform mean', 'rl': 'fused + RL'}.get(model, model)


def _points(ax: Axes, rows: Sequence[str], series: Sequence[tuple[str, str, str, list[_Score]]]) -> None:
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


def _legend(ax: Axes, columns: int) -> None:
  """Above the plot, where it hides no point."""
  ax.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handletextpad=0.3)


def _fusion_figure(summary: dict, domains: Sequence[str]) -> Figure:
  models, looks = _models(summary), ((_BLUE, 'o'), (_ORANGE, 'D'))
  figure = Figure((1.4 + 3.2 * len(domains), 1.1 + 0.42 * len(models)), layout='constrained')
  axes = figure.subplots(1, len(domains), sharey=True, squeeze=False)[0]
  for ax, domain in zip(axes, domains):
    series = [
      (f'Pass@{k}', *look, [_score(summary, m, domain, k) for m in models]) for k, look in zip(_ks(summary), looks)
    ]
    _points(ax, [_label(m) for m in models], series)
    ax.set_xlabel(f'problems solved, {domain} (%), 95% interval')
  _legend(axes[0], 2)
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
  domains = _headline_domains(summary)
  if not domains:
    raise ValueError('the summary has no model to compare')
  with matplotlib.rc_context(_STYLE):
    return _fusion_figure(summary, domains)


def _before_after_figure(summary: dict, domains: Sequence[str], k: int) -> Figure:
  looks = (('base', _GREY, 'v'), ('fused', _BLUE, 'o'), ('rl', _RED, 's'))
  looks = [look for look in looks if look[0] in _part(summary, 'models')]
  figure = Figure((4.6, 1.1 + 0.46 * len(domains)), layout='constrained')
  ax = figure.subplots()
  series = [(_label(m), colour, mark, [_score(summary, m, d, k) for d in domains]) for m, colour, mark in looks]
  _points(ax, domains, series)
  ax.set_xlabel(f'Pass@{k} (%), 95% interval')
  _legend(ax, 3)
  return figure


def _expert_scores(expert: dict) -> tuple[list[float], list[float], float, float, float]:
  """Steps, their Pass@K, the selected step, Pass@K of its selection and held-out half (per cent)."""
  pairs = list(zip(expert.get('steps') or [], expert.get('pass_at_k') or []))
  steps, scores = [_number(s) for s, _ in pairs], [100 * _number(p) for _, p in pairs]
  chosen = _number(expert.get('selected_step'))
  score = scores[steps.index(chosen)] if chosen in steps else math.nan
  return steps, scores, chosen, score, 100 * _number(expert.get('held_out'))


def _expert_figure(expert: dict) -> Figure:
  steps, scores, chosen, score, held_out = _expert_scores(expert)
  figure = Figure((4.4, 2.9), layout='constrained')
  ax = figure.subplots()
  ax.plot(steps, scores, color=_BLUE, marker='o', ms=4, label='selection half')
  if math.isfinite(score):
    ax.plot(chosen, score, '*', color=_ORANGE, ms=16, mec='white', label='selected', zorder=4)
  if math.isfinite(chosen + held_out):
    ax.plot(chosen, held_out, 'D', color=_RED, ms=6, mfc='white', mew=1.8, label='held-out half')
  ax.set_xlabel('SFT step')
  ax.set_ylabel(f'Pass@{expert.get("k", "K")} (%)')
  ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  ax.margins(y=0.15)
  _legend(ax, 3)
  return figure


def _track(metrics: Sequence[dict], family: str) -> list[tuple[str, np.ndarray, list[dict]]]:
  """(stage, x [R], its R rows): stages one after the other, whether their steps go on or start anew."""
  stages: dict[str, dict[float, dict]] = {}
  for row in metrics:
    stage, step = str(row.get('stage')), _number(row.get('step'))
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


def _running_mean(y: np.ndarray) -> np.ndarray:
  """Centred mean [R] over a window that shrinks at the ends and skips NaN."""
  total, count = (np.convolve(a, np.ones(_WINDOW), 'same') for a in (np.nan_to_num(y), np.isfinite(y)))
  return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def _curve_figure(track: Sequence[tuple], y_label: str, keys: Sequence[str]) -> Figure:
  figure = Figure((4.4, 2.9), layout='constrained')
  ax = figure.subplots()
  scale = 100 if '%' in y_label else 1
  for key, colour in zip(keys, (_BLUE, _ORANGE)):
    label = key.replace('_', ' ')
    for _, x, rows in track:
      y = scale * np.array([_number(row.get(key)) for row in rows])
      # A schedule has no noise, and a mean would bend it.
      strong = _running_mean(y) if len(y) >= _SMOOTH_FROM and key != 'learning_rate' else y
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


def _plots(figures: Sequence[tuple[str, Figure]], tag: str) -> str:
  cards = [
    f'<figure><figcaption>{html.escape(title)}</figcaption>{_svg(figure, f"{tag}{i}", title)}</figure>'
    for i, (title, figure) in enumerate(figures)
  ]
  return f'<div class="plots">{"".join(cards)}</div>'


def _curves(track: Sequence[tuple], panels: Sequence[tuple], tag: str) -> str:
  figures = []
  for title, y_label, keys in panels:
    rows = [row for _, _, rows in track for row in rows]
    keys = [key for key in keys if any(math.isfinite(_number(row.get(key))) for row in rows)]
    if keys:
      figures.append((title, _curve_figure(track, y_label, keys)))
  return _plots(figures, tag)


def _missing(text: str) -> str:
  return f'<p class="missing">{text}</p>'


def _note(text: str) -> str:
  return f'<p class="note">{text}</p>'


def _percent(value: float) -> str:
  return f'{value:.1f}%' if math.isfinite(value) else '–'


def _change(a: _Score, b: _Score) -> tuple[str, str]:
  """The change from a to b in points, and whether the intervals are disjoint (empty if one is unknown)."""
  points = f'{b.value - a.value:+.1f}' if math.isfinite(a.value + b.value) else '–'
  if not math.isfinite(a.lo + a.hi + b.lo + b.hi):
    return points, ''
  return points, 'intervals disjoint' if a.hi < b.lo or b.hi < a.lo else 'intervals overlap'


def _value(value: object) -> str:
  """A value of a table: text as it is, numbers short, everything else as JSON has it."""
  if isinstance(value, float):
    return f'{value:,.4g}' if math.isfinite(value) else '–'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  return html.escape(value if isinstance(value, str) else json.dumps(value))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Cells are markup already; the first of each row is its heading."""
  top = ''.join(f'<th scope="col">{cell}</th>' for cell in head)
  body = ''.join(
    f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
  )
  return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _headline(summary: dict) -> str:
  k, domain = _ks(summary)[-1], (_headline_domains(summary) or ['math'])[0]
  cards, parts = [], []
  for name, before, after, where, at in (
    ('Fusion', 'base', 'fused', domain, k),
    ('MGPO', 'fused', 'rl', domain, 1),
    ('Code', 'fused', 'rl', 'code', 1),
  ):
    a, b, metric = (
      *(_score(summary, m, where, at) for m in (before, after)),
      f'Pass@{at} on {html.escape(where)}',
    )
    points, verdict = _change(a, b)
    text = _missing(f'Needs the models {before} and {after}: not in this run.')
    if points != '–':
      verdict = f'{points} points' + (f', 95% {verdict}' if verdict else '')
      text = f'<p class="big">{b}</p><p>{_label(after)}, against {a} of {before}</p><p><b>{verdict}</b></p>'
      subject = 'Fusion' if name == 'Fusion' else 'MGPO'
      parts.append(f'{subject} moved {metric} from {_percent(a.value)} to {_percent(b.value)} ({verdict}).')
    cards.append(f'<div class="key"><h3>{name}: {metric}</h3>{text}</div>')
  lead = ' '.join(parts) or 'This run has no pair of stages to compare yet.'
  return f'<p class="lead">{lead}</p><div class="keys">{"".join(cards)}</div>'


def _pipeline(summary: dict) -> str:
  models, domains = _models(summary), _measured(summary)
  if not domains:
    return _missing('No model was evaluated in this run.')
  heads = []
  for d in domains:
    cells = [_part(row, d) for row in _part(summary, 'models').values()]
    sizes = [f'{c["n_problems"]} × {c.get("n_samples", "?")}' for c in cells if 'n_problems' in c]
    heads.append(f'{html.escape(d)}<small>{html.escape(", ".join(dict.fromkeys(sizes)))}</small>')
  parts = []
  for k in _ks(summary):
    scores = [[_score(summary, m, d, k) for d in domains] for m in models]
    best = [max([_percent(row[i].value) for row in scores], key=_rank) for i in range(len(domains))]
    rows = [
      [
        html.escape(_label(m)),
        *(f'<b>{s}</b>' if _percent(s.value) == b else str(s) for s, b in zip(row, best)),
      ]
      for m, row in zip(models, scores)
    ]
    parts.append(_table([f'Pass@{k}', *heads], rows))
  return ''.join(parts) + _note(
    'Share of problems solved and its 95% interval; the best of a column is bold. '
    'Under a domain: problems × samples of each.'
  )


def _rank(percent: str) -> float:
  return -1 if percent == '–' else float(percent[:-1])


def _selection(summary: dict, metrics: Sequence[dict]) -> str:
  experts, track = _part(summary, 'experts'), _track(metrics, 'sft')
  text = _missing('No checkpoint was probed in this run.')
  if experts:
    domains = _domains(list(experts))
    rows = []
    for d in domains:
      *_, chosen, score, held_out = _expert_scores(_part(experts, d))
      rows.append([html.escape(d), _value(chosen), _percent(score), _percent(held_out)])
    text = _plots([(d, _expert_figure(_part(experts, d))) for d in domains], 'expert')
    text += _table(['domain', 'selected step', 'selection half', 'held-out half'], rows)
    text += _note('The best of several noisy scores is biased upwards; the held-out half had no part in the choice.')
  return text + (_curves(track, _SFT_PANELS, 'sft') if track else '')


def _fusion(summary: dict) -> str:
  domains = _headline_domains(summary)
  absent = [m for m in _MODELS if m not in _models(summary)]
  figures = [(f'All models on {d}', _fusion_figure(summary, [d])) for d in domains]
  return _plots(figures, 'fusion') + (_missing(f'Not in this run: {", ".join(absent)}.') if absent else '')


def _rl(summary: dict, metrics: Sequence[dict]) -> str:
  mgpo, track = _part(summary, 'mgpo'), _track(metrics, 'rl')
  facts = ', '.join(f'{html.escape(key)} = {_value(v)}' for key, v in mgpo.items() if key != 'stages')
  text = f'<p>MGPO with {facts}.</p>' if facts else ''
  stages = mgpo.get('stages') or []
  if stages:
    keys = list(dict.fromkeys(key for stage in stages for key in stage))
    rows = [[_value(stage[key]) if key in stage else '–' for key in keys] for stage in stages]
    text += _table([html.escape(key.replace('_', ' ')) for key in keys], rows)
  if not track:
    return text + _missing('No RL step was logged in this run.')
  return (
    text
    + _curves(track, _RL_PANELS, 'rl')
    + _note(
      f'Dashed lines are borders of stages. In a stage of {_SMOOTH_FROM} steps or more the pale line is each '
      f'step, the strong one the mean of {_WINDOW}.'
    )
  )


def _before_after(summary: dict) -> str:
  if not {'fused', 'rl'} <= set(_models(summary)):
    return _missing('Needs the fused model and the one after RL: not both in this run.')
  domains, ks = _measured(summary), _ks(summary)
  rows = []
  for d in domains:
    row = [html.escape(d)]
    for k in ks:
      a, b = (_score(summary, m, d, k) for m in ('fused', 'rl'))
      points, verdict = _change(a, b)
      row += [f'{_percent(a.value)} → {_percent(b.value)}', f'<b>{points}</b> <small>{verdict}</small>']
    rows.append(row)
  figures = [(f'Pass@{k} before and after RL', _before_after_figure(summary, domains, k)) for k in ks]
  head = [cell for k in ks for cell in (f'Pass@{k}', 'points')]
  return _plots(figures, 'after') + _table(['domain', *head], rows)


def _clip(value: object) -> str:
  """Escaped text; of a long one the middle goes, since the end holds the answer."""
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  if len(text) > _MAX_CHARS:
    text = f'{text[: _MAX_CHARS // 2]}\n… middle left out …\n{text[-_MAX_CHARS // 2 :]}'
  return html.escape(text)


def _sample(model: str, rows: Sequence[dict]) -> str:
  row, right = rows[0], [_number(row.get('score')) >= 0.5 for row in rows]
  mark = '<span class="right">✓ right</span>' if right[0] else '<span class="wrong">✗ wrong</span>'
  more = f' <small>{sum(right)} of {len(rows)} samples right</small>' if len(rows) > 1 else ''
  read = 'No answer read' if row.get('extracted') is None else f'Read as <code>{_clip(row["extracted"])}</code>'
  reason = f' <small>{_clip(row["reason"])}</small>' if row.get('reason') else ''
  return (
    f'<div class="sample"><h4>{html.escape(_label(model))} {mark}{more}</h4>'
    f'<pre>{_clip(row.get("response", ""))}</pre><p>{read}{reason}</p></div>'
  )


def _samples(rows: Sequence[dict]) -> str:
  problems: dict[tuple[str, str], dict[str, list[dict]]] = {}
  for row in rows:
    key = (str(row.get('domain', '')), str(row.get('id', '')))
    problems.setdefault(key, {}).setdefault(str(row.get('model', '')), []).append(row)
  if not problems:
    return _missing('No sampled solution was kept in this run.')
  present = {model for tried in problems.values() for model in tried}
  # The road in three steps; every expert beside it would be a wall of text.
  models = [m for m in ('base', 'fused', 'rl') if m in present] or sorted(present)
  # Those that most of the models tried come first, then file order; round the domains, blind to the verdict.
  ranked = sorted(problems, key=lambda key: -len(problems[key].keys() & set(models)))
  turns = {d: [key for key in ranked if key[0] == d] for d in dict.fromkeys(key[0] for key in ranked)}
  shown = sorted(ranked, key=lambda key: turns[key[0]].index(key))[:_MAX_PROBLEMS]
  for model in models:
    if not any(model in problems[key] for key in shown):
      shown.append(next(key for key in ranked if model in problems[key]))
  text = _note('The first problems of each domain that the models share, chosen without a look at the verdicts.')
  for key in shown:
    tried = {m: problems[key][m] for m in models if m in problems[key]}
    if tried:
      row = next(iter(tried.values()))[0]
      text += (
        f'<article><h3>{html.escape(key[0])} <small>{html.escape(key[1])}</small></h3>'
        f'<pre>{_clip(row.get("prompt", ""))}</pre><p>Expected <code>{_clip(row.get("answer"))}</code></p>'
        f'<div class="columns">{"".join(_sample(m, r) for m, r in tried.items())}</div></article>'
      )
  return text


def _duration(seconds: float) -> str:
  if not seconds >= 60:
    return f'{seconds:.1f} s' if math.isfinite(seconds) else '–'
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02d} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


def _time(summary: dict) -> str:
  seconds = {stage: _number(s) for stage, s in _part(summary, 'seconds').items()}
  tokens = {stage: _number(n) for stage, n in _part(summary, 'tokens').items()}
  if not seconds and not tokens:
    return _missing('No time was recorded in this run.')
  total, count, rows = np.nansum([*seconds.values()]), np.nansum([*tokens.values()]), []
  for stage in dict.fromkeys([*seconds, *tokens]):
    s, n = seconds.get(stage, math.nan), tokens.get(stage, math.nan)
    bar = f'<i class="bar" style="width:{6 * s / total:.2f}rem"></i>' if s > 0 else ''
    rate = f'{n / s:,.0f}' if s > 0 and math.isfinite(n) else '–'
    rows.append([html.escape(stage), _duration(s), bar, f'{n:,.0f}' if math.isfinite(n) else '–', rate])
  rows.append(['<b>total</b>', f'<b>{_duration(total)}</b>', '', f'<b>{count:,.0f}</b>', ''])
  return _table(['stage', 'time', 'share of time', 'tokens', 'tokens per second'], rows)


def _cost(summary: dict) -> str:
  cost = _part(summary, 'cost')
  hours, price, dollars = (_number(cost.get(key)) for key in ('device_hours', 'price_per_hour', 'dollars'))
  if not math.isfinite(hours):
    return _missing('No cost was recorded in this run.')
  rate = f' at ${price:,.2f} an hour' if math.isfinite(price) else ''
  return f'<p>{hours:,.3g} device hours{rate}' + (f' = <b>${dollars:,.2f}</b></p>' if dollars >= 0 else '</p>')


def _config(config: dict, summary: dict) -> str:
  text = ''
  for title in ('device', 'versions'):
    facts = ', '.join(f'{html.escape(k)} <code>{_value(v)}</code>' for k, v in _part(summary, title).items())
    text += f'<p>{title.capitalize()}: {facts}</p>' if facts else ''
  if not config:
    return text + _missing('No config.json in this workdir.')
  dump = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
  return f'{text}<details><summary>The resolved config</summary><pre>{dump}</pre></details>'


_CSS = """
:root { color-scheme: light; --soft: #5b6472; --line: #e3e7ed; --ground: #f6f7f9; --blue: #2457c5; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: #1c222b; line-height: 1.55;
  font-family: Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: .8rem; margin-top: 1.2rem;
  padding: clamp(.8rem, 3vw, 1.2rem); }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 0 0 .8rem; } h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
h4 { font-size: .92rem; margin: 0 0 .4rem; } p { margin: .4rem 0 .8rem; }
small { color: var(--soft); font-weight: 400; font-size: .82em; } .lead { font-size: 1.12rem; }
nav { font-size: .88rem; } nav a { color: var(--blue); margin-right: .9rem; white-space: nowrap; }
.note, .missing { color: var(--soft); font-size: .88rem; } .missing { font-style: italic; }
.keys, .columns, .plots { display: grid; gap: .9rem; margin: .6rem 0; }
.keys, .columns { grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.key, .sample { background: var(--ground); border-radius: .6rem; padding: .8rem 1rem; min-width: 0; }
.key h3 { margin: 0; font-size: .86rem; color: var(--soft); } .key p { margin: .2rem 0 0; font-size: .9rem; }
.key .big { font-size: 1.9rem; font-weight: 650; line-height: 1.3; } .big small { font-size: .9rem; }
figure { margin: 0; min-width: 0; } figure svg { display: block; width: 100%; height: auto; }
figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .2rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: right; padding: .4rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 550; } thead th { vertical-align: bottom; }
td small, thead small { display: block; line-height: 1.3; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
.bar { display: block; height: .6rem; min-width: 1px; border-radius: .2rem; background: var(--blue); }
article { border-top: 1px solid var(--line); } .sample p { margin: .5rem 0 0; font-size: .85rem; }
pre, .sample p { white-space: pre-wrap; overflow-wrap: anywhere; }
.sample pre { max-height: 20rem; overflow-y: auto; }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .82rem; }
pre { margin: 0; }
.right, .wrong { font-size: .8rem; font-weight: 650; border-radius: 1rem; padding: .1rem .55rem; }
.right { background: #dcf3ea; color: #08634c; } .wrong { background: #fbe3e6; color: #98203a; }
"""


def write_report(workdir: pathlib.Path) -> pathlib.Path:
  """Writes report.html, one page without outside resources or scripts, from what the workdir holds.

  Args:
    workdir: a directory with any of config.json, summary.json, metrics.jsonl, samples.jsonl. Scores and
      shares are in [0, 1] there; the page shows per cent.

  Returns:
    The path of report.html. The same files give the same bytes.

  Raises:
    FileNotFoundError: workdir is not a directory.
    ValueError: a file is not JSON; the message names the file and the line.
  """
  if not workdir.is_dir():
    raise FileNotFoundError(f'no workdir to report on: {workdir}')
  config, summary = _read(workdir / 'config.json'), _read(workdir / 'summary.json')
  metrics, samples = _read_rows(workdir / 'metrics.jsonl'), _read_rows(workdir / 'samples.jsonl')
  with matplotlib.rc_context(_STYLE):
    sections = {
      'Headline': _headline(summary),
      'The pipeline': _pipeline(summary),
      'Pass@K of checkpoints': _selection(summary, metrics),
      'Fusion': _fusion(summary),
      'RL curves': _rl(summary, metrics),
      'Before and after RL': _before_after(summary),
      'Sampled solutions': _samples(samples),
      'Time and tokens': _time(summary),
      'Cost': _cost(summary),
      'Config': _config(config, summary),
    }
  name = html.escape(str(config.get('name') or workdir.resolve().name))
  links = ''.join(f'<a href="#s{i}">{title}</a> ' for i, title in enumerate(sections))
  body = '\n'.join(
    f'<section id="s{i}"><h2>{title}</h2>{text}</section>' for i, (title, text) in enumerate(sections.items())
  )
  page = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{name}: report</title><style>{_CSS}</style></head>\n'
    f'<body><main><h1>{name}</h1><p class="note">Spectrum-to-Signal training: SFT with Pass@K probing, '
    f'expert fusion, MGPO.</p><nav>{links}</nav>\n{body}\n</main></body></html>\n'
  )
  path, half = workdir / 'report.html', workdir / 'report.html.tmp'
  half.write_text(page, encoding='utf-8')
  # Whoever opens the page while a run renews it finds the old one or the new one, never half of one.
  os.replace(half, path)
  return path
