"""Several runs on one page: what differs in their configs, their scores, curves, time and cost."""

import html
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.html import duration, missing, note, percent, plots_of, table, write_page
from vibethinker_jax.evaluate.plots import (
  COLOURS,
  STYLE,
  curve_limits,
  height_of,
  legend_above,
  legend_outside,
  points,
  running_mean,
  score_limits,
  tracks_of,
)
from vibethinker_jax.evaluate.run_files import read_config, read_rows, read_summary
from vibethinker_jax.evaluate.summary import headline_domains, ks_of, label, models_of, number, part, score_of
from vibethinker_jax.fields import flat

_PANELS = (  # family of stages, title, y label, key
  ('rl', 'Reward', 'mean over rollouts', 'reward'),
  ('rl', 'Entropy', 'entropy (nats per token)', 'entropy'),
  ('rl', 'Response length', 'mean length (tokens)', 'mean_length'),
  ('rl', 'Gradient norm', 'gradient norm', 'grad_norm'),
  ('sft', 'SFT loss', 'cross-entropy (nats per token)', 'loss'),
)


def write_compared(directories: Sequence[pathlib.Path], out: pathlib.Path) -> pathlib.Path:
  """Writes one page about several runs.

  Args:
    directories: the workdirs of the runs.
    out: the page.

  Returns `out`.

  Raises:
    FileNotFoundError: one of them is not a directory.
    BadInput: one of them is named twice.
    ValueError: a file is not JSON, or a value in it has the wrong type.
  """
  first: dict[pathlib.Path, pathlib.Path] = {}
  for directory in directories:
    if not directory.is_dir():
      raise FileNotFoundError(f'{directory}: not a directory, expected the workdir of a run')
    place = directory.resolve()
    if place in first:
      also = '' if first[place] == directory else f', first as {first[place]}'
      raise BadInput(f'{directory}: this run is named twice{also}; expected runs that differ')
    first[place] = directory
  names = _names(directories)
  read = lambda one: {name: one(d) for name, d in zip(names, directories)}
  configs, summaries = read(read_config), read(read_summary)
  metrics = {name: read_rows(d / 'metrics.jsonl') for name, d in zip(names, directories)}
  made = {name: (read_rows(d / 'provenance.jsonl') or [{}])[0] for name, d in zip(names, directories)}
  with matplotlib.rc_context(STYLE):
    sections = {
      'Scores': _scores(summaries),
      'What differs in the configs': _differing(configs),
      'Curves': _curves(metrics),
      'Time and cost': _cost(summaries),
      'What differs in how they were made': _differing(
        {name: {k: v for k, v in row.items() if k not in ('started', 'command')} for name, row in made.items()}
      ),
    }
  return write_page(out, ', '.join(names), f'{len(names)} runs side by side.', sections)


def _names(directories: Sequence[pathlib.Path]) -> list[str]:
  """The end of each path, as long as is needed to tell the paths apart."""
  parts = [d.resolve().parts for d in directories]
  for n in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(p[-n:]) for p in parts]
    if len(set(names)) == len(names):
      return names
  return [str(d.resolve()) for d in directories]


def _last(summary: dict) -> str | None:
  """The model at the end of the road that was evaluated."""
  models = [m for m in models_of(summary) if not m.startswith('expert_')]
  return models[-1] if models else None


def _scores(summaries: Mapping[str, dict]) -> str:
  have = {name: s for name, s in summaries.items() if _last(s)}
  if not have:
    return missing('None of these runs has a summary.json, which its evaluation ends with.')
  domains = list(dict.fromkeys(d for s in have.values() for d in headline_domains(s)))
  ks = sorted({k for s in have.values() for k in ks_of(s)})
  shown = list(dict.fromkeys((ks[0], ks[-1])))
  table_of = {name: [[score_of(s, _last(s), d, k) for k in ks] for d in domains] for name, s in have.items()}
  limits = score_limits([score for cells in table_of.values() for row in cells for score in row])
  figures, rows = [], []
  for i, d in enumerate(domains):
    series = [
      (f'Pass@{k}', colour, marker, [cells[i][ks.index(k)] for cells in table_of.values()])
      for k, colour, marker in zip(shown, COLOURS[1:], 'oD')
    ]
    figure = Figure((4.8, 1.2 + height_of(list(have))), layout='constrained')
    ax = figure.subplots()
    points(ax, list(have), series, limits)
    ax.set_xlabel(f'problems solved, {d} (%)\n95% interval')
    legend_above(ax, 2)
    figures.append((d, figure))
  flat = {name: [score for row in cells for score in row] for name, cells in table_of.items()}
  known = lambda column: [s.value for s in column if math.isfinite(s.value)]
  best = [percent(max(known(column), default=math.nan)) for column in zip(*flat.values())]
  for name, s in have.items():
    cells = [f'<b>{x}</b>' if percent(x.value) == b != '–' else str(x) for x, b in zip(flat[name], best)]
    rows.append([html.escape(name), html.escape(label(_last(s))), *cells])
  head = ['', 'model', *(f'{html.escape(d)}<small>Pass@{k}</small>' for d in domains for k in ks)]
  return (
    plots_of(figures, 'scores')
    + table(head, rows)
    + note(
      'Each interval is over the test problems and is about this one run. To tell whether a setting is better than '
      'another, run several seeds of both (experiments/ablate_lambda.py). The best value of a column is bold; several '
      'are where they are equal.'
    )
  )


def _differing(objects: Mapping[str, Mapping]) -> str:
  """A table of the dotted fields, values as JSON, in which the objects differ. objects: by the name of a run."""
  texts = {run: {k: json.dumps(v, ensure_ascii=False) for k, v in flat(one).items()} for run, one in objects.items()}
  keys = list(dict.fromkeys(key for values in texts.values() for key in values))
  keys = [key for key in keys if len({values.get(key) for values in texts.values()}) > 1]
  if not keys:
    return missing('Nothing differs.')
  clip = lambda text: f'<span class="value">{html.escape(text if len(text) < 80 else f"{text[:77]}…")}</span>'
  rows = [[html.escape(key), *(clip(values.get(key, '–')) for values in texts.values())] for key in keys]
  return table(['', *(f'<span class="value">{html.escape(name)}</span>' for name in texts)], rows)


def _curves(metrics: Mapping[str, Sequence[dict]]) -> str:
  figures = []
  for family, title, y_label, key in _PANELS:
    lines = {name: _line(rows, family, key) for name, rows in metrics.items()}
    if any(np.isfinite(y).any() for _, y in lines.values()):
      figure = Figure((4.6, 3.3), layout='constrained')
      ax = figure.subplots()
      for colour, (name, (x, y)) in zip(COLOURS * len(lines), lines.items()):
        if not len(x):
          continue
        ax.plot(x, y, color=colour, lw=0.7, alpha=0.3)
        ax.plot(x, running_mean(y), color=colour, lw=1.8, label=name)
      if (limits := curve_limits(np.concatenate([y for _, y in lines.values()]))) is not None:
        ax.set_ylim(limits)
      longest = max(x[-1] for x, _ in lines.values() if len(x))
      ax.set_xlim(-0.02 * longest, 1.02 * longest)  # all panels of a family show the same steps
      ax.set_xlabel('step')
      ax.set_ylabel(y_label)
      legend_outside(figure)
      figures.append((title, figure))
  return plots_of(figures, 'curves') if figures else missing('No step was logged in these runs.')


def _line(rows: Sequence[dict], family: str, key: str) -> tuple[np.ndarray, np.ndarray]:
  """Steps [R] and values [R] of a metric over all stages of a family, one after the other."""
  track = tracks_of(rows, family)
  x = np.concatenate([np.zeros(0), *(x for _, x, _ in track)])
  return x, np.array([number(row.get(key)) for _, _, rows in track for row in rows])


def _cost(summaries: Mapping[str, dict]) -> str:
  stages = list(dict.fromkeys(stage for s in summaries.values() for stage in part(s, 'seconds')))
  if not stages:
    return missing('No time was recorded in these runs.')
  rows = []
  for name, s in summaries.items():
    seconds, cost = part(s, 'seconds'), part(s, 'cost')
    dollars = number(cost.get('dollars'))
    cells = [duration(number(seconds.get(stage))) for stage in stages]
    cells += [
      f'{number(cost.get("device_hours")):.3g}',
      f'${dollars:,.2f}' if math.isfinite(dollars) else '–',
    ]
    rows.append([html.escape(name), *cells])
  return table(['', *map(html.escape, stages), 'device hours', 'cost'], rows)
