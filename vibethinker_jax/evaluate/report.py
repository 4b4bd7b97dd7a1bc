"""One self-contained page, report.html, from the files of a workdir.

The files are config.json, summary.json, metrics.jsonl and samples.jsonl. Each of them, and each part of them,
may be missing: a run that stopped early, or ran some stages only, still gets a page that says what it lacks.
"""

import html
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from vibethinker_jax import disk
from vibethinker_jax.evaluate.plots import (
  MODELS,
  RL_PANELS,
  SFT_PANELS,
  SMOOTH_FROM,
  STYLE,
  WINDOW,
  Score,
  before_after_figure,
  curves,
  expert_figure,
  expert_scores,
  fusion_figure,
  headline_domains,
  ks_of,
  label,
  measured,
  models_of,
  number,
  ordered,
  part,
  percent,
  plots_of,
  score_of,
  tracks_of,
)

_MAX_PROBLEMS, _MAX_CHARS = 8, 6000


def _object(text: bytes, where: str) -> dict:
  try:
    data = json.loads(text.decode('utf-8'))
  except ValueError as error:
    raise ValueError(f'{where}: expected a JSON object: {error}') from error
  if not isinstance(data, dict):
    raise ValueError(f'{where}: expected a JSON object, got a {type(data).__name__}')
  return data


def read_object(path: pathlib.Path) -> dict:
  """The JSON object of a file, {} where there is none. Raises ValueError."""
  return _object(path.read_bytes(), str(path)) if path.exists() else {}


def read_rows(path: pathlib.Path) -> list[dict]:
  """The objects of a JSON Lines file, none where there is no file. Raises ValueError."""
  # A last line without its newline is of a writer that was killed or is at work still; the others count.
  lines = path.read_bytes().split(b'\n')[:-1] if path.exists() else []
  return [_object(line, f'{path}:{i}') for i, line in enumerate(lines, 1) if line.strip()]


def missing(text: str) -> str:
  """What the page has nothing to show of."""
  return f'<p class="missing">{text}</p>'


def note(text: str) -> str:
  """Small print."""
  return f'<p class="note">{text}</p>'


def _change(a: Score, b: Score) -> tuple[str, str]:
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Cells are markup already; the first of each row is its heading."""
  top = ''.join(f'<th scope="col">{cell}</th>' for cell in head)
  body = ''.join(
    f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
  )
  return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _headline(summary: dict) -> str:
  k, domain = ks_of(summary)[-1], (headline_domains(summary) or ['math'])[0]
  cards, parts = [], []
  for name, before, after, where, at in (
    ('Fusion', 'base', 'fused', domain, k),
    ('MGPO', 'fused', 'rl', domain, 1),
    ('Code', 'fused', 'rl', 'code', 1),
  ):
    a, b, metric = (
      *(score_of(summary, m, where, at) for m in (before, after)),
      f'Pass@{at} on {html.escape(where)}',
    )
    points, verdict = _change(a, b)
    text = missing(f'Needs the models {before} and {after}: not in this run.')
    if points != '–':
      verdict = f'{points} points' + (f', 95% {verdict}' if verdict else '')
      text = f'<p class="big">{b}</p><p>{label(after)}, against {a} of {before}</p><p><b>{verdict}</b></p>'
      subject = 'Fusion' if name == 'Fusion' else 'MGPO'
      parts.append(f'{subject} moved {metric} from {percent(a.value)} to {percent(b.value)} ({verdict}).')
    cards.append(f'<div class="key"><h3>{name}: {metric}</h3>{text}</div>')
  lead = ' '.join(parts) or 'This run has no pair of stages to compare yet.'
  return f'<p class="lead">{lead}</p><div class="keys">{"".join(cards)}</div>'


def _pipeline(summary: dict) -> str:
  models, domains = models_of(summary), measured(summary)
  if not domains:
    return missing('No model was evaluated in this run.')
  heads = []
  for d in domains:
    cells = [part(row, d) for row in part(summary, 'models').values()]
    sizes = [f'{c["n_problems"]} × {c.get("n_samples", "?")}' for c in cells if 'n_problems' in c]
    heads.append(f'{html.escape(d)}<small>{html.escape(", ".join(dict.fromkeys(sizes)))}</small>')
  parts = []
  for k in ks_of(summary):
    scores = [[score_of(summary, m, d, k) for d in domains] for m in models]
    best = [max([percent(row[i].value) for row in scores], key=_rank) for i in range(len(domains))]
    rows = [
      [
        html.escape(label(m)),
        *(f'<b>{s}</b>' if percent(s.value) == b else str(s) for s, b in zip(row, best)),
      ]
      for m, row in zip(models, scores)
    ]
    parts.append(table([f'Pass@{k}', *heads], rows))
  return ''.join(parts) + note(
    'Share of problems solved and its 95% interval; the best of a column is bold. '
    'Under a domain: problems × samples of each.'
    + ''.join(f' Not asked: {html.escape(str(line))}.' for line in summary.get('left_out') or ())
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
      *_, chosen, score, held_out = expert_scores(part(experts, d))
      rows.append([html.escape(d), _value(chosen), percent(score), percent(held_out)])
    text = plots_of([(d, expert_figure(part(experts, d))) for d in domains], 'expert')
    text += table(['domain', 'selected step', 'selection half', 'held-out half'], rows)
    text += note('The best of several noisy scores is biased upwards; the held-out half had no part in the choice.')
    if untold := [html.escape(d) for d in domains if part(experts, d).get('signal') is False]:
      text += missing(f'No signal: all checkpoints score the same on {", ".join(untold)}, the last one was taken.')
  return text + (curves(track, SFT_PANELS, 'sft') if track else '')


def _fusion(summary: dict) -> str:
  domains = headline_domains(summary)
  absent = [m for m in MODELS if m not in models_of(summary)]
  figures = [(f'All models on {d}', fusion_figure(summary, [d])) for d in domains]
  return plots_of(figures, 'fusion') + (missing(f'Not in this run: {", ".join(absent)}.') if absent else '')


def _rl(summary: dict, metrics: Sequence[dict]) -> str:
  mgpo, track = part(summary, 'mgpo'), tracks_of(metrics, 'rl')
  facts = ', '.join(f'{html.escape(key)} = {_value(v)}' for key, v in mgpo.items() if key != 'stages')
  text = f'<p>MGPO with {facts}.</p>' if facts else ''
  stages = mgpo.get('stages') or []
  if stages:
    keys = list(dict.fromkeys(key for stage in stages for key in stage))
    rows = [[_value(stage[key]) if key in stage else '–' for key in keys] for stage in stages]
    text += table([html.escape(key.replace('_', ' ')) for key in keys], rows)
  if not track:
    return text + missing('No RL step was logged in this run.')
  return (
    text
    + curves(track, RL_PANELS, 'rl')
    + note(
      f'Dashed lines are borders of stages. In a stage of {SMOOTH_FROM} steps or more the pale line is each '
      f'step, the strong one the mean of {WINDOW}.'
    )
  )


def _before_after(summary: dict) -> str:
  if not {'fused', 'rl'} <= set(models_of(summary)):
    return missing('Needs the fused model and the one after RL: not both in this run.')
  domains, ks = measured(summary), ks_of(summary)
  rows = []
  for d in domains:
    row = [html.escape(d)]
    for k in ks:
      a, b = (score_of(summary, m, d, k) for m in ('fused', 'rl'))
      points, verdict = _change(a, b)
      row += [f'{percent(a.value)} → {percent(b.value)}', f'<b>{points}</b> <small>{verdict}</small>']
    rows.append(row)
  figures = [(f'Pass@{k} before and after RL', before_after_figure(summary, domains, k)) for k in ks]
  head = [cell for k in ks for cell in (f'Pass@{k}', 'points')]
  return plots_of(figures, 'after') + table(['domain', *head], rows)


def _clip(value: object) -> str:
  """Escaped text; of a long one the middle goes, since the end holds the answer."""
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
  # The road in three steps; every expert beside it would be a wall of text.
  models = [m for m in ('base', 'fused', 'rl') if m in present] or sorted(present)
  # Those that most of the models tried come first, then file order; round the domains, blind to the verdict.
  ranked = sorted(problems, key=lambda key: -len(problems[key].keys() & set(models)))
  turns = {d: [key for key in ranked if key[0] == d] for d in dict.fromkeys(key[0] for key in ranked)}
  shown = sorted(ranked, key=lambda key: turns[key[0]].index(key))[:_MAX_PROBLEMS]
  for model in models:
    if not any(model in problems[key] for key in shown):
      shown.append(next(key for key in ranked if model in problems[key]))
  text = note('The first problems of each domain that the models share, chosen without a look at the verdicts.')
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


def duration(seconds: float) -> str:
  """Seconds as a person says them."""
  if not seconds >= 60:
    return f'{seconds:.1f} s' if math.isfinite(seconds) else '–'
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02d} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


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
    facts = ', '.join(f'{html.escape(k)} <code>{_value(v)}</code>' for k, v in part(summary, title).items())
    text += f'<p>{title.capitalize()}: {facts}</p>' if facts else ''
  if not config:
    return text + missing('No config.json in this workdir.')
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
.value { display: inline-block; min-width: 7rem; white-space: normal; overflow-wrap: anywhere; }
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
  config, summary = read_object(workdir / 'config.json'), read_object(workdir / 'summary.json')
  metrics, samples = read_rows(workdir / 'metrics.jsonl'), read_rows(workdir / 'samples.jsonl')
  with matplotlib.rc_context(STYLE):
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
  name = str(config.get('name') or workdir.resolve().name)
  subtitle = 'Spectrum-to-Signal training: SFT with Pass@K probing, expert fusion, MGPO.'
  return write_page(workdir / 'report.html', name, subtitle, sections)


def framed(page: pathlib.Path, height: int = 600) -> str:
  """A page as markup to be shown within another one, a notebook's cell for example: its styles stay its own."""
  inner = html.escape(page.read_text(encoding='utf-8'))
  return f'<div><iframe srcdoc="{inner}" width="100%" height="{height}"></iframe></div>'


def write_page(path: pathlib.Path, name: str, subtitle: str, sections: Mapping[str, str]) -> pathlib.Path:
  """One page without outside resources or scripts; `sections`: markup by title. Returns `path`."""
  name = html.escape(name)
  links = ''.join(f'<a href="#s{i}">{title}</a> ' for i, title in enumerate(sections))
  body = '\n'.join(
    f'<section id="s{i}"><h2>{title}</h2>{text}</section>' for i, (title, text) in enumerate(sections.items())
  )
  page = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{name}: report</title><style>{_CSS}</style></head>\n'
    f'<body><main><h1>{name}</h1><p class="note">{html.escape(subtitle)}</p><nav>{links}</nav>\n{body}\n'
    '</main></body></html>\n'
  )
  # Whoever opens the page while a run renews it finds the old one or the new one, never half of one.
  with disk.whole(path) as half:
    half.write_text(page, encoding='utf-8')
  return path
