"""The page of a run, report.html, made of the files of its workdir (run_files.py).

Every file and every part of a file may be missing: a run that stopped early, or ran only some stages, still gets a
page, and the page says what is missing.
"""

import html
import json
import math
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np

from vibethinker_jax.evaluate.headline import headline
from vibethinker_jax.evaluate.html import duration, missing, note, percent, plots_of, table, value, write_page
from vibethinker_jax.evaluate.plots import (
  RL_PANELS,
  SFT_PANELS,
  SMOOTH_FROM,
  STYLE,
  WINDOW,
  before_after_figure,
  curves,
  expert_figure,
  expert_limits,
  expert_scores,
  fusion_figure,
  summary_limits,
  tracks_of,
)
from vibethinker_jax.evaluate.run_files import read_config, read_rows, read_summary
from vibethinker_jax.evaluate.summary import (
  MODELS,
  Change,
  Models,
  headline_domains,
  ks_of,
  label,
  measured,
  number,
  ordered,
  part,
  read_models,
  score_of,
)

_MAX_PROBLEMS, _MAX_CHARS = 8, 6000


def _pipeline(models: Models) -> str:
  summary, domains = models.summary, measured(models.summary)
  if not domains:
    return missing('No model was evaluated in this run.')
  heads = []
  for d in domains:
    cells = [part(summary, 'models', model, d) for model in part(summary, 'models')]
    sizes = [f'{c["n_problems"]} × {c.get("n_samples", "?")}' for c in cells if 'n_problems' in c]
    heads.append(f'{html.escape(d)}<small>{html.escape(", ".join(dict.fromkeys(sizes)))}</small>')
  parts = []
  for k in ks_of(summary):
    scores = [[score_of(summary, group[0], d, k) for d in domains] for group in models.groups]
    best = [max([percent(row[i].value) for row in scores], key=_rank) for i in range(len(domains))]
    rows = [
      [
        html.escape(label(*group)),
        *(f'<b>{s}</b>' if percent(s.value) == b else str(s) for s, b in zip(row, best)),
      ]
      for group, row in zip(models.groups, scores)
    ]
    parts.append(table([f'Pass@{k}', *heads], rows))
  several = any(len(group) > 1 for group in models.groups)
  return ''.join(parts) + note(
    'Share of problems solved, with its 95% interval. The best value of a column is bold; several are where they are '
    'equal. Under a domain: problems × samples of each.'
    + ' Names joined by = are one model: the same checkpoints with the same weights.' * several
    + ''.join(f' Left out: {html.escape(str(line))}.' for line in summary.get('left_out') or ())
  )


def _rank(percent: str) -> float:
  return -1 if percent == '–' else float(percent[:-1])


def _selection(summary: dict, metrics: Sequence[dict]) -> str:
  experts, track = part(summary, 'experts'), tracks_of(metrics, 'sft')
  text = missing('No checkpoint was probed in this run.')
  if experts:
    domains = ordered(list(experts))
    rows = []
    for d in domains:
      steps, scores, chosen, score, held_out = expert_scores(part(experts, d))
      tied = [value(step) for step, other in zip(steps, scores) if other == score and step != chosen]
      tied = f' <small>tied with {", ".join(tied)}</small>' if tied else ''
      rows.append([html.escape(d), value(chosen) + tied, percent(score), percent(held_out)])
    limits = expert_limits([part(experts, d) for d in domains])
    text = plots_of([(d, expert_figure(part(experts, d), limits)) for d in domains], 'expert')
    text += table(['domain', 'selected step', 'selection half', 'held-out half'], rows)
    text += note(
      'The best of several noisy scores is too high on average. The held-out half had no part in the choice.'
    )
    if untold := [html.escape(d) for d in domains if part(experts, d).get('signal') is False]:
      text += missing(f'No signal: all checkpoints have the same score on {", ".join(untold)}; the last one was taken.')
  return text + (curves(track, SFT_PANELS, 'sft') if track else '')


def _fusion(models: Models) -> str:
  summary, domains = models.summary, headline_domains(models.summary)
  absent = [m for m in MODELS if models.of(m) is None]
  limits = summary_limits(summary, domains)
  figures = [(f'All models on {d}', fusion_figure(summary, [d], models.groups, limits)) for d in domains]
  text = plots_of(figures, 'fusion') + _against(models, domains)
  return text + (missing(f'Not in this run: {", ".join(absent)}.') if absent else '')


def _against(models: Models, domains: Sequence[str]) -> str:
  """A table of the fused model against every other model that RL could have started from."""
  fused, ks = models.of('fused'), ks_of(models.summary)
  others = [group for group in models.groups if group != fused and not {'base', 'rl'} & set(group)]
  if fused is None or not others:
    return ''
  rows = [
    [html.escape(label(*group)), *(_points(models.change(group[0], 'fused', d, k)) for d in domains for k in ks)]
    for group in others
  ]
  head = ['fused, against', *(f'{html.escape(d)}<small>Pass@{k}, points</small>' for d in domains for k in ks)]
  return table(head, rows) + note(f'{_PAIRED} A difference is bold where its own interval does not contain 0.')


_PAIRED = 'Differences are paired by problem where the workdir has the verdicts of both models.'


def _points(change: Change) -> str:
  """A change as a cell."""
  if not math.isfinite(change.points):
    return '–'
  text = f'{change.points:+.1f} <small>{change.interval}</small>'
  return f'<b>{text}</b>' if change.is_clear else text


def _rl(summary: dict, metrics: Sequence[dict]) -> str:
  mgpo, track = part(summary, 'mgpo'), tracks_of(metrics, 'rl')
  facts = ', '.join(f'{html.escape(key)} = {value(v)}' for key, v in mgpo.items() if key != 'stages')
  text = f'<p>MGPO with {facts}.</p>' if facts else ''
  stages = mgpo.get('stages') or []
  if stages:
    keys = list(dict.fromkeys(key for stage in stages for key in stage))
    rows = [[value(stage[key]) if key in stage else '–' for key in keys] for stage in stages]
    text += table([html.escape(key.replace('_', ' ')) for key in keys], rows)
  if not track:
    return text + missing('No RL step was logged in this run.')
  return (
    text
    + curves(track, RL_PANELS, 'rl')
    + note(
      f'A dashed line is the border of two stages. In a stage of {SMOOTH_FROM} steps or more, the pale line shows '
      f'every step, and the strong line the mean of {WINDOW} steps.'
    )
  )


def _before_after(models: Models) -> str:
  if models.of('fused') is None or models.of('rl') is None:
    return missing('This part needs the fused model and the model after RL: they are not both in this run.')
  domains, ks = measured(models.summary), ks_of(models.summary)
  rows = []
  for d in domains:
    row = [html.escape(d)]
    for k in ks:
      change = models.change('fused', 'rl', d, k)
      row += [f'{percent(change.before.value)} → {percent(change.after.value)}', _points(change)]
    rows.append(row)
  figures = [(f'Pass@{k} before and after RL', before_after_figure(models.summary, domains, k)) for k in ks]
  head = [cell for k in ks for cell in (f'Pass@{k}', 'points')]
  return plots_of(figures, 'after') + table(['domain', *head], rows) + note(_PAIRED)


def _clip(value: object) -> str:
  """Escaped text. The middle of a long text is left out, because the end has the answer."""
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  if len(text) > _MAX_CHARS:
    text = f'{text[: _MAX_CHARS // 2]}\n… middle left out …\n{text[-_MAX_CHARS // 2 :]}'
  return html.escape(text)


def _sample(model: str, rows: Sequence[dict]) -> str:
  row, right = rows[0], [number(row.get('score')) >= 0.5 for row in rows]
  mark = '<span class="right">✓ right</span>' if right[0] else '<span class="wrong">✗ wrong</span>'
  more = f' <small>{sum(right)} of {len(rows)} samples right</small>' if len(rows) > 1 else ''
  read = 'No answer read' if row.get('extracted') is None else f'Read as <code>{_clip(row["extracted"])}</code>'
  reason = f' <small>{_clip(row["reason"])}</small>' if row.get('reason') else ''
  return (
    f'<div class="sample"><h4>{html.escape(label(model))} {mark}{more}</h4>'
    f'<pre>{_clip(row.get("response", ""))}</pre><p>{read}{reason}</p></div>'
  )


def _samples(rows: Sequence[dict]) -> str:
  problems: dict[tuple[str, str], dict[str, list[dict]]] = {}
  for row in rows:
    key = (str(row.get('domain', '')), str(row.get('id', '')))
    problems.setdefault(key, {}).setdefault(str(row.get('model', '')), []).append(row)
  if not problems:
    return missing('No sampled solution was kept in this run.')
  present = {model for tried in problems.values() for model in tried}
  # Three stages of the run; the experts would make it too much text to read.
  models = [m for m in ('base', 'fused', 'rl') if m in present] or sorted(present)
  # First the problems that most of these models tried, in the order of the file; the domains take turns. The verdicts
  # have no part in the choice.
  ranked = sorted(problems, key=lambda key: -len(problems[key].keys() & set(models)))
  turns = {d: [key for key in ranked if key[0] == d] for d in dict.fromkeys(key[0] for key in ranked)}
  shown = sorted(ranked, key=lambda key: turns[key[0]].index(key))[:_MAX_PROBLEMS]
  for model in models:
    if not any(model in problems[key] for key in shown):
      shown.append(next(key for key in ranked if model in problems[key]))
  text = note('The first problems of each domain that the models share; the verdicts had no part in the choice.')
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


def _time(summary: dict) -> str:
  seconds = {stage: number(s) for stage, s in part(summary, 'seconds').items()}
  tokens = {stage: number(n) for stage, n in part(summary, 'tokens').items()}
  if not seconds and not tokens:
    return missing('No time was recorded in this run.')
  total, count, rows = np.nansum([*seconds.values()]), np.nansum([*tokens.values()]), []
  for stage in dict.fromkeys([*seconds, *tokens]):
    s, n = seconds.get(stage, math.nan), tokens.get(stage, math.nan)
    bar = f'<i class="bar" style="width:{6 * s / total:.2f}rem"></i>' if s > 0 else ''
    rate = f'{n / s:,.0f}' if s > 0 and math.isfinite(n) else '–'
    rows.append([html.escape(stage), duration(s), bar, f'{n:,.0f}' if math.isfinite(n) else '–', rate])
  rows.append(['<b>total</b>', f'<b>{duration(total)}</b>', '', f'<b>{count:,.0f}</b>', ''])
  return table(['stage', 'time', 'share of time', 'tokens', 'tokens per second'], rows)


def _cost(summary: dict) -> str:
  cost = part(summary, 'cost')
  hours, price, dollars = (number(cost.get(key)) for key in ('device_hours', 'price_per_hour', 'dollars'))
  if not math.isfinite(hours):
    return missing('No cost was recorded in this run.')
  rate = f' at ${price:,.2f} an hour' if math.isfinite(price) else ''
  return f'<p>{hours:,.3g} device hours{rate}' + (f' = <b>${dollars:,.2f}</b></p>' if dollars >= 0 else '</p>')


def _config(config: dict, summary: dict) -> str:
  text = ''
  for title in ('device', 'versions'):
    facts = ', '.join(f'{html.escape(k)} <code>{value(v)}</code>' for k, v in part(summary, title).items())
    text += f'<p>{title.capitalize()}: {facts}</p>' if facts else ''
  if not config:
    return text + missing('No config.json in this workdir.')
  dump = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
  return f'{text}<details><summary>The resolved config</summary><pre>{dump}</pre></details>'


def write_report(workdir: pathlib.Path) -> pathlib.Path:
  """Writes report.html: one page without scripts that needs no other file and no network.

  Args:
    workdir: a directory with some of config.json, summary.json, metrics.jsonl, samples.jsonl and evaluate/*.json.
      Scores and shares are in [0, 1] there; the page shows per cent.

  Returns:
    The path of report.html. The same files give the same bytes.

  Raises:
    FileNotFoundError: workdir is not a directory.
    ValueError: a file is not JSON, or a value in it has the wrong type; the message names the file, and the line or
      the field.
  """
  if not workdir.is_dir():
    raise FileNotFoundError(f'{workdir}: not a directory, expected the workdir of a run')
  config, summary = read_config(workdir), read_summary(workdir)
  metrics, samples = read_rows(workdir / 'metrics.jsonl'), read_rows(workdir / 'samples.jsonl')
  models = read_models(workdir, summary, config)
  with matplotlib.rc_context(STYLE):
    sections = {
      'Headline': headline(models),
      'The pipeline': _pipeline(models),
      'Pass@K of checkpoints': _selection(summary, metrics),
      'Fusion': _fusion(models),
      'RL curves': _rl(summary, metrics),
      'Before and after RL': _before_after(models),
      'Sampled solutions': _samples(samples),
      'Time and tokens': _time(summary),
      'Cost': _cost(summary),
      'Config': _config(config, summary),
    }
  name = str(config.get('name') or workdir.resolve().name)
  subtitle = 'Spectrum-to-Signal training: SFT with Pass@K probing, expert fusion, MGPO.'
  return write_page(workdir / 'report.html', name, subtitle, sections)


def framed(page: pathlib.Path, height: int = 600) -> str:
  """Markup that shows a page within another page, for example in a cell of a notebook; `height` in pixels.

  The styles of the two pages do not mix.
  """
  inner = html.escape(page.read_text(encoding='utf-8'))
  return f'<div><iframe srcdoc="{inner}" width="100%" height="{height}"></iframe></div>'
