"""The page of a sweep of RL runs: variants compared with a reference, paired by seed and by problem."""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vibethinker_jax.config import RunConfig
from vibethinker_jax.evaluate.html import duration, missing, note, percent, plots_of, table, write_page
from vibethinker_jax.evaluate.paired import Difference, conclusion, difference, strict_level
from vibethinker_jax.evaluate.plots import (
  COLOURS,
  RULE,
  STYLE,
  curve_limits,
  folded,
  height_of,
  legend_outside,
  running_mean,
)
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.spectrum.passk import pass_at_k
from vibethinker_jax.study.sweep import diverged, result, spent

_PANELS = (  # title, y label, key of the metrics
  ('Pass@1 of training problems', 'share of samples right (%)', 'pass_rate'),
  ('Solved in one of the group', 'share of questions (%)', 'solved'),
  ('Entropy', 'nats per token', 'entropy'),
  ('Response length', 'mean length (tokens)', 'mean_length'),
)
_SETTLED = 5  # the last steps over which entropy is averaged


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One finished point. P test problems."""

  passed: np.ndarray  # float [P]: share of samples right
  solved: np.ndarray  # float [P]: Pass@K
  lengths: np.ndarray  # float [P]: mean tokens of a response
  entropy: float  # of the last steps
  tokens: np.ndarray  # [steps]: sampled for RL up to each step
  curves: dict[str, np.ndarray]  # [steps] each


def outcome(workdir: pathlib.Path, domains: Sequence[str], k: int) -> Outcome | None:
  """The results of a point; None where it is not finished.

  `domains`: of the test problems that count; `k`: of Pass@k.
  """
  path = result(workdir, 'rl')
  if not path.exists():
    return None
  results = json.loads(path.read_text())
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  rows = [row for row in rows if row['stage'].startswith('rl/')]
  value = lambda key: np.array([row[key] for row in rows], float)
  curves = {key: value(key) for key in ('entropy', 'mean_length')}
  curves |= {'pass_rate': 100 * value('pass_rate'), 'solved': 100 * (1 - value('all_wrong'))}
  tokens = np.cumsum(value('tokens'))
  return Outcome(*_scores(results, domains, k), float(curves['entropy'][-_SETTLED:].mean()), tokens, curves)


def _scores(results: dict, domains: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each problem: the share of right samples, Pass@k, and the mean length; each [P]."""
  correct = np.concatenate([np.array(results['correct'][d]) for d in domains])
  lengths = np.concatenate([results['lengths'][d] for d in domains])
  return correct.mean(1), pass_at_k(correct.shape[1], correct.sum(1), k), lengths


def write_comparison(
  directory: pathlib.Path,
  name: str,
  subtitle: str,
  settings: RunConfig,
  variants: Mapping[str, Mapping[int, str]],
  facts: str,
) -> pathlib.Path:
  """Write report.html and results.json from the finished points of a sweep.

  Args:
    directory: of the sweep.
    name: the heading of the page.
    subtitle: the line below it.
    settings: the run's config.
    variants: the names of the points, by variant and seed; the first variant is the reference.
    facts: HTML about the variants.

  Returns:
    The path of the page.
  """
  k = settings.evaluate.k
  domains = [d for d in dict.fromkeys(d for stage in settings.rl.stages for d in stage.domains)]
  found = {
    variant: {seed: outcome(directory / 'points' / point, domains, k) for seed, point in points.items()}
    for variant, points in variants.items()
  }
  done = {v: {seed: o for seed, o in by_seed.items() if o is not None} for v, by_seed in found.items()}
  lacking = [variants[v][seed] for v, by_seed in found.items() for seed, o in by_seed.items() if o is None]
  gone = [point for point in lacking if diverged(directory / 'points' / point).exists()]
  lacking = [point for point in lacking if point not in gone]
  reference = next(iter(variants))
  alike = {v: same for v, same in _alike(variants).items() if v in done}
  compared = compare({v: by_seed for v, by_seed in done.items() if v not in alike}, reference, k)
  begin = result(directory / 'start', 'fused')
  begin = _scores(json.loads(begin.read_text()), domains, k) if begin.exists() else None
  problems = max((len(o.passed) for by_seed in done.values() for o in by_seed.values()), default=0)
  n = len(_scored(k)) * len(compared)
  seeds = min((len(done[v].keys() & done[reference].keys()) for v in compared), default=0)
  said = [
    conclusion(what, reference, {v: row[what] for v, row in compared.items()}, n, seeds, problems)
    for what in _scored(k)
    if compared
  ]
  said += [f'{v} has the same points as {same}: there is nothing to compare.' for v, same in alike.items()]
  done = {v: by_seed for v, by_seed in done.items() if by_seed}
  with matplotlib.rc_context(STYLE):
    sections = {
      'Conclusion': _conclusion(said, lacking, gone),
      f'Differences to {html.escape(reference)}': _differences(compared, done, reference, k),
      'Against tokens spent': _against_tokens(done),
      'Scores': _scores_table(done, begin, k),
      'How': _how(settings, variants, problems) + facts,
      'Time and cost': _cost(directory, settings),
    }
  values = {
    v: {what: [dataclasses.asdict(d) for d in pair] for what, pair in row.items()} for v, row in compared.items()
  }
  results = {'reference': reference, 'conclusion': said, 'differences': values, 'lacking': lacking, 'diverged': gone}
  write_json(directory / 'results.json', results)
  return write_page(directory / 'report.html', name, subtitle, sections)


def _scored(k: int) -> list[str]:
  """The scores by which models are compared."""
  return ['Pass@1'] + [f'Pass@{k}'] * (k > 1)


def _alike(variants: Mapping[str, Mapping[int, str]]) -> dict[str, str]:
  """Variants with the same points as an earlier variant: the name of that one by their names."""
  first: dict[tuple, str] = {}
  names = {v: tuple(points.values()) for v, points in variants.items()}
  return {v: first[points] for v, points in names.items() if first.setdefault(points, v) != v}


def compare(
  done: Mapping[str, Mapping[int, Outcome]], reference: str, k: int
) -> dict[str, dict[str, tuple[Difference, Difference]]]:
  """The difference of each variant from the reference, over the seeds that both have.

  Args:
    done: the finished points, by variant and seed.
    reference: the variant to compare with.
    k: of Pass@k.

  Returns:
    By variant and quantity two intervals: at 95%, and at the strict level of all comparisons together. The quantities
    are 'Pass@1' and 'Pass@<k>' in percentage points, 'length' in tokens, and 'entropy' in nats (over seeds only).
  """
  shared = {v: sorted(by_seed.keys() & done[reference].keys()) for v, by_seed in done.items() if v != reference}
  shared = {v: seeds for v, seeds in shared.items() if seeds}
  levels = (0.95, strict_level(max(len(_scored(k)) * len(shared), 1)))
  out = {}
  for v, seeds in shared.items():
    tables = lambda read: [
      np.array([np.atleast_1d(read(done[name][seed])) for seed in seeds])  # noqa: B023
      for name in (v, reference)  # noqa: B023
    ]
    out[v] = {
      what: tuple(difference(*tables(read), level) for level in levels)
      for what, read in (
        ('Pass@1', lambda o: 100 * o.passed),
        (f'Pass@{k}', lambda o: 100 * o.solved),
        ('length', lambda o: o.lengths),
      )
    }
    if len(seeds) > 1:
      out[v]['entropy'] = tuple(difference(*tables(lambda o: o.entropy), level) for level in levels)
  return out


def _conclusion(said: Sequence[str], lacking: Sequence[str], gone: Sequence[str]) -> str:
  text = ''.join(f'<p class="lead">{html.escape(sentence)}</p>' for sentence in said)
  if not said:
    text = missing('No variant and the reference share a finished seed yet.')
  if lacking:
    text += missing(f'Not finished yet: {html.escape(", ".join(lacking))}.')
  if gone:
    text += missing(f'Diverged, and in none of the means: {html.escape(", ".join(gone))}.')
  return text


def _differences(compared: Mapping, done: Mapping, reference: str, k: int) -> str:
  if not compared:
    return missing('Nothing to compare yet.')
  whats = _scored(k)
  pairs = {what: {v: row[what] for v, row in compared.items()} for what in whats}
  ends = [x for pair in pairs.values() for _, strict in pair.values() for x in (strict.low, strict.high, 0.0)]
  spare = 0.05 * (max(ends) - min(ends)) or 1.0
  limits = min(ends) - spare, max(ends) + spare  # one axis for all: what is wider looks wider
  figures = [(what, difference_figure(pair, what, limits)) for what, pair in pairs.items()]
  rows = []
  for v, row in compared.items():
    cells = [_interval(row[what][0], 1) for what in (*whats, 'length')]
    cells.append(_interval(row['entropy'][0], 3) if 'entropy' in row else '–')
    spent = [100 * (done[v][s].tokens[-1] / done[reference][s].tokens[-1] - 1) for s in done[v] if s in done[reference]]
    rows.append([html.escape(v), *cells, f'{np.mean(spent):+.1f}%'])
  head = ['', 'Pass@1 <small>points</small>', f'Pass@{k} <small>points</small>']
  head += ['length <small>tokens</small>', f'entropy <small>nats, last {_SETTLED} steps</small>', 'RL tokens']
  of_seeds = (
    'The intervals of scores and lengths hold for other seeds and other problems, both drawn at random and paired; '
    'those of entropy hold for other seeds.'
  )
  of_one = 'A comparison with one seed says nothing about other seeds: its interval holds for other problems only.'
  several = all('entropy' in row for row in compared.values())
  return (
    plots_of(figures, 'difference')
    + table(head, rows)
    + note(
      'Thick lines: the 95% interval of each difference. Thin lines: intervals that hold for all differences of both '
      f'plots together with 95% (Bonferroni). {of_seeds if several else of_one}'
    )
  )


def _interval(d: Difference, digits: int) -> str:
  text = f'{d.mean:+.{digits}f} <small>[{d.low:+.{digits}f}, {d.high:+.{digits}f}]</small>'
  return f'<b>{text}</b>' if d.is_clear else text


def difference_figure(
  differences: Mapping[str, tuple[Difference, Difference]], what: str, limits: tuple[float, float] | None = None
) -> Figure:
  """Each variant's difference to the reference in points, with both of its intervals; `limits` of the axis."""
  figure = Figure((4.6, 1.0 + height_of(list(differences))), layout='constrained')
  ax = figure.subplots()
  ax.axvline(0, color=RULE, lw=1)
  for y, (one, strict) in enumerate(differences.values()):
    colour = COLOURS[1 + y % (len(COLOURS) - 1)]
    ax.plot([strict.low, strict.high], [y, y], color=colour, lw=1.2)
    ax.plot([one.low, one.high], [y, y], color=colour, lw=3.4, solid_capstyle='butt')
    ax.plot(one.mean, y, 'o', color=colour, ms=7, mec='white')
  ax.set_yticks(range(len(differences)), folded(list(differences)))
  ax.set_ylim(len(differences) - 0.5, -0.5)
  ax.set_xlim(limits)
  ax.grid(False, axis='y')
  ax.locator_params(axis='x', nbins=5)
  ax.set_xlabel(f'{what}: difference (points)')
  return figure


def _against_tokens(done: Mapping[str, Mapping[int, Outcome]]) -> str:
  if not done:
    return missing('No point is finished yet.')
  figures = [(title, curve_figure(done, label, key)) for title, label, key in _PANELS]
  return plots_of(figures, 'tokens') + note(
    'Running means over nine steps; dark lines: the mean of the seeds, pale lines: each seed. The first two plots are '
    'scores of the policy during training, on training problems, whose solutions SFT has seen. Entropy is that of '
    'the responses with an advantage.'
  )


def curve_figure(done: Mapping[str, Mapping[int, Outcome]], label: str, key: str) -> Figure:
  """A metric of every variant over the sampled tokens. `label`: of its axis; `key`: of Outcome.curves."""
  figure = Figure((4.6, 3.3), layout='constrained')
  ax = figure.subplots()
  for i, (name, by_seed) in enumerate(done.items()):
    colour = COLOURS[i % len(COLOURS)]
    lines = [(o.tokens / 1000, running_mean(o.curves[key])) for o in by_seed.values()]
    for x, y in lines:
      ax.plot(x, y, color=colour, lw=0.7, alpha=0.25)
    ax.plot(*np.mean(lines, axis=0), color=colour, lw=1.9, label=name)
  ax.set_xlabel('tokens sampled for RL (thousands)')
  ax.set_ylabel(label)
  longest = max(o.tokens[-1] for by_seed in done.values() for o in by_seed.values()) / 1000
  ax.set_xlim(-0.02 * longest, 1.02 * longest)
  every = [o.curves[key] for by_seed in done.values() for o in by_seed.values()]
  if (limits := curve_limits(np.concatenate(every))) is not None:
    ax.set_ylim(limits)
  legend_outside(figure)
  return figure


def _scores_table(done: Mapping[str, Mapping[int, Outcome]], begin: tuple | None, k: int) -> str:
  rows = []
  level = lambda by_seed, read: percent(100 * float(np.mean([read(o).mean() for o in by_seed.values()])))
  passed, solved = (lambda o: o.passed), (lambda o: o.solved)
  highest = lambda read: max((level(own, read) for own in done.values()), key=lambda x: float(x[:-1]), default='')
  best = [highest(read) for read in (passed, solved)]
  marked = lambda by_seed, read, top: f'<b>{x}</b>' if (x := level(by_seed, read)) == top else x
  if begin is not None:
    one, many, lengths = (100 * begin[0].mean(), 100 * begin[1].mean(), begin[2].mean())
    rows.append(['before RL', percent(one), percent(many), f'{lengths:.1f}', '–', '–'])
  for name, by_seed in done.items():
    mean = lambda read: float(np.mean([read(o) for o in by_seed.values()]))  # noqa: B023
    each = ', '.join(f'{100 * o.passed.mean():.1f}' for o in by_seed.values())
    rows.append(
      [
        html.escape(name),
        f'{marked(by_seed, passed, best[0])} <small>{each}</small>',
        marked(by_seed, solved, best[1]),
        f'{mean(lambda o: o.lengths.mean()):.1f}',
        f'{mean(lambda o: o.entropy):.3f}',
        f'{mean(lambda o: o.tokens[-1]):,.0f}',
      ]
    )
  head = ['', 'Pass@1 <small>mean, and each seed</small>', f'Pass@{k}', 'length', 'entropy', 'RL tokens']
  return table(head, rows) + note(
    'The best value of each column is bold. The conclusion above says which differences are real.'
  )


def _how(settings: RunConfig, variants: Mapping[str, Mapping[int, str]], problems: int) -> str:
  r = settings.rl
  stages = ', '.join(f'{stage.steps} steps of at most {stage.max_tokens} tokens' for stage in r.stages)
  seeds = len(next(iter(variants.values())))
  return (
    f'<p>{len(variants)} variants, {seeds} seed{"s" if seeds > 1 else ""} of each. A seed decides the order of the '
    f'training problems and the noise of the samples, the same for all variants. A step samples {r.prompts} questions '
    f'× {r.num_generations} samples; {html.escape(stages)}. Every point is evaluated on the same {problems} test '
    f'problems, {settings.evaluate.samples} samples of each, with the same noise.</p>'
  )


def _cost(directory: pathlib.Path, settings: RunConfig) -> str:
  seconds, c = spent(directory), settings.cost
  hours = sum(seconds.values()) / 3600 * c.devices
  rows = [[html.escape(stage), duration(s)] for stage, s in seconds.items()]
  return table(['stage, all points together', 'time'], rows) + (
    f'<p>{hours:.3g} device hours at ${c.price_per_hour:,.2f} an hour = <b>${hours * c.price_per_hour:,.2f}</b></p>'
  )
