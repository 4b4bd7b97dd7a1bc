"""The page of a sweep over the simplex: the map, the confirmation of its winner, and what can be concluded."""

import html
import itertools
import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vibethinker_jax.config import RunConfig
from vibethinker_jax.evaluate.html import duration, missing, note, percent, plots_of, table, write_page
from vibethinker_jax.evaluate.paired import Difference, conclusion, difference, strict_level
from vibethinker_jax.evaluate.plots import AXIS, INK, ORANGE, STYLE
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.spectrum.passk import pass_at_k
from vibethinker_jax.study.sweep import spent

SETS = {'a': 'half A', 'b': 'half B', 'test': 'test'}
_HEIGHT = 3**0.5 / 2  # of a triangle with sides of 1
_MAP = 'viridis'
_CORNER = 12  # characters of a name at a corner in one line


def write(
  directory: pathlib.Path,
  s: RunConfig,
  score: str,
  points: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
  tried: Mapping[str, Sequence[float]],
  known: dict | None,
  lacking: Sequence[str],
) -> pathlib.Path:
  """Write report.html and results.json.

  Args:
    directory: of the sweep.
    s: the run's config.
    score: the score of the winner, 'pass@k' or 'pass@1'.
    points: verdicts [P,N] by point, set and domain.
    tried: the weights of the points of the simplex.
    known: the content of controls.json; None where it does not exist yet.
    lacking: the names of the points that are not finished.

  Returns:
    The path of the page.
  """
  k = s.probe.k
  with matplotlib.rc_context(STYLE):
    confirmed = _confirmed(points, known, s.evaluate.k) if known else {}
    said = _said(points, tried, known, confirmed, score, k, s.data.domains) if known else []
    sections = {
      'Conclusion': ''.join(f'<p class="lead">{html.escape(text)}</p>' for text in said)
      or missing('The winner has not been confirmed yet.'),
      'The map': _map(points, tried, s.data.domains, k),
      'Winner and controls': _controls(points, known, confirmed, k) if known else missing('Not evaluated yet.'),
      'By domain': _by_domain(points, tried, known, s.data.domains, k),
      'Noise': _noise(points, tried, k),
      'Time and cost': _cost(directory, s),
    }
  if lacking:
    mixtures = '; '.join(named(weights_in(name), s.data.domains) for name in lacking)
    sections['Conclusion'] += missing(f'Not finished yet: {html.escape(mixtures)}.')
  results = {'score': score, 'conclusion': said, 'winner': known and known['winner'], 'lacking': list(lacking)}
  write_json(directory / 'results.json', results)
  subtitle = 'Weights of the fused experts over their simplex: same experts, same problems, same noise of the samples.'
  return write_page(directory / 'report.html', s.name, subtitle, sections)


def weights_in(name: str) -> tuple[float, ...]:
  """The weights in the file name of a point, with a sum of 1 again."""
  numbers = [float(part) for part in name.removeprefix('w_').split('-')[0].split('_')]
  return tuple(w / sum(numbers) for w in numbers)


def named(weights: Sequence[float], domains: Sequence[str]) -> str:
  """Weights with the domains of their experts: 'algebra 0.50, code 0.50', without weights of 0."""
  return ', '.join(f'{domain} {w:.2f}' for domain, w in zip(domains, weights, strict=True) if w > 0)


def pooled(verdicts: Mapping[str, np.ndarray], k: int) -> np.ndarray:
  """Pass@k of each problem in per cent, [P], over all domains. `verdicts`: bool [P,N] by domain."""
  correct = np.concatenate(list(verdicts.values()))
  return 100 * pass_at_k(correct.shape[1], correct.sum(1), k)


def _confirmed(points: Mapping, known: dict, k: int) -> dict[str, dict[str, tuple[Difference, Difference]]]:
  """Differences from the plain mean on the test problems: intervals over problems, at both levels."""
  plain = points[known['points']['plain mean']]['test']
  others: dict[str, str] = {}
  for said, name in known['points'].items():  # the winner may also be the soup, or a single expert
    if name not in (known['points']['plain mean'], *others.values()):
      others[said] = name
  levels = (0.95, strict_level(max(len(others), 1)))
  return {
    said: {
      f'Pass@{j}': tuple(
        difference(pooled(points[name]['test'], j)[None], pooled(plain, j)[None], level) for level in levels
      )
      for j in (1, k)
    }
    for said, name in others.items()
  }


def _said(
  points: Mapping, tried: Mapping, known: dict, confirmed: Mapping, score: str, k: int, domains: Sequence[str]
) -> list[str]:
  k = k if score == 'pass@k' else 1
  on = lambda said, half: float(pooled(points[known['points'][said]][half], k).mean())
  what = f'Pass@{k}'
  level = lambda name: float(pooled(points[name]['a'], k).mean())
  tied = sum(level(name) == on('winner', 'a') for name in tried if 'a' in points[name]) - 1
  others = f'{tied} other mixture{"s" if tied > 1 else ""}'
  also = f'{others} had the same score on half A: of equals the nearest to the plain mean is the winner.'
  if known['points']['winner'] == known['points']['plain mean']:
    said = [
      f'The plain mean won on half A with {what} {on("winner", "a"):.1f}%: no other weights did better. It has '
      f'{on("winner", "b"):.1f}% on half B and {on("winner", "test"):.1f}% on test.'
    ]
  else:
    said = [
      f'The weights {named(known["winner"], domains)} won on half A with {what} {on("winner", "a"):.1f}%, against '
      f'{on("plain mean", "a"):.1f}% of the plain mean. On half B, which was not used for the choice, it is '
      f'{on("winner", "b"):.1f}% against {on("plain mean", "b"):.1f}%, on test {on("winner", "test"):.1f}% against '
      f'{on("plain mean", "test"):.1f}%.'
    ]
  said += [also] * (tied > 0)
  rows = {name: row[what] for name, row in confirmed.items() if what in row}
  if rows:
    problems = len(pooled(points[known['points']['winner']]['test'], 1))
    said.append(conclusion(f'{what} on test', 'the plain mean', rows, len(rows), 1, problems))
    said.append('All of this holds for one set of experts: another training run would give another map.')
  return said


def _map(points: Mapping, tried: Mapping, domains: Sequence[str], k: int) -> str:
  have = {name: w for name, w in tried.items() if 'a' in points[name]}
  if not have:
    return missing('No point has been evaluated yet.')
  weights = np.array(list(have.values()))
  figures = []
  for j in (k, 1):
    values = np.array([pooled(points[name]['a'], j).mean() for name in have])
    figures.append((f'Pass@{j} on half A', simplex_figure(weights, values, domains, f'Pass@{j} (%)')))
  x, y = (np.array([pooled(points[name]['a'], j).mean() for name in have]) for j in (1, k))
  figures.append((f'Pass@1 and Pass@{k} of every point', _scatter(x, y, weights, k)))
  return plots_of(figures, 'map') + note(
    'A star marks the best point, or each of several with equal scores; a ring marks the plain mean. A corner is one '
    'expert alone.'
    + (
      ' The triangles are the faces of the tetrahedron, on each of which one expert has weight 0. The plain mean lies '
      'inside, and is drawn on each face; other points inside are not drawn.' * (len(domains) == 4)
    )
  )


def simplex_figure(weights: np.ndarray, values: np.ndarray, names: Sequence[str], label: str) -> Figure:
  """Scores over the simplex: a triangle, the faces of a tetrahedron, or parallel coordinates.

  Args:
    weights: [points,N] of N experts.
    values: [points], their scores.
    names: of the experts.
    label: of the colour bar.
  """
  n = weights.shape[1]
  scale = matplotlib.colors.Normalize(values.min(), max(values.max(), values.min() + 1e-9))
  best, middle = np.flatnonzero(values == values.max()), int(np.abs(weights - 1 / n).sum(1).argmin())
  names = [textwrap.fill(name, _CORNER) for name in names]
  figure = Figure((5.2, 4.4 if n <= 4 else 3.4), layout='constrained')
  if n == 3:
    axes = [figure.subplots()]
    _triangle(axes[0], weights, values, names, scale, best, [middle])
  elif n == 4:
    axes = list(figure.subplots(2, 2).ravel())
    for ax, face in zip(axes, itertools.combinations(range(4), 3)):
      rest = next(i for i in range(4) if i not in face)
      on = np.flatnonzero((weights[:, rest] < 1e-9) | (np.arange(len(weights)) == middle))
      part = weights[np.ix_(on, face)]
      part = part / part.sum(1, keepdims=True)
      here = lambda wanted: np.flatnonzero(np.isin(on, wanted))  # noqa: B023
      _triangle(ax, part, values[on], [names[i] for i in face], scale, here(best), here(middle))
  else:
    axes = [figure.subplots()]
    _parallel(axes[0], weights, values, names, scale, best)
  bar = figure.colorbar(matplotlib.cm.ScalarMappable(scale, _MAP), ax=axes, shrink=0.7, pad=0.03)
  bar.set_label(label)
  return figure


def _triangle(
  ax: Axes, weights: np.ndarray, values: np.ndarray, names, scale, best: Sequence[int], middle: Sequence[int]
) -> None:
  """A triangle: three weights are a position, the score is a colour. `best` and `middle` are marked points."""
  corners = np.array([[0, 0], [1, 0], [0.5, _HEIGHT]])
  x, y = (weights @ corners).T
  ax.plot(*corners[[0, 1, 2, 0]].T, color=AXIS, lw=1)
  size = 90 if len(names) == 3 and len(values) < 60 else 40
  ax.scatter(x, y, c=values, cmap=_MAP, norm=scale, s=size, edgecolors=AXIS, linewidths=0.8, zorder=3)
  ax.scatter(x[middle], y[middle], s=size * 2.2, facecolors='none', edgecolors=INK, linewidths=1.2, zorder=4)
  ax.scatter(x[best], y[best], marker='*', s=size * 3, color=ORANGE, edgecolors=INK, linewidths=0.8, zorder=5)
  for (cx, cy), name, where in zip(corners, names, (('center', 'top'), ('center', 'top'), ('center', 'bottom'))):
    ax.text(cx, cy + (0.07 if cy else -0.07), name, ha=where[0], va=where[1], fontsize=8.5)
  ax.set_xlim(-0.1, 1.1)
  ax.set_ylim(-0.2, _HEIGHT + 0.2)
  ax.set_aspect('equal')
  ax.axis('off')


def _parallel(ax: Axes, weights: np.ndarray, values: np.ndarray, names, scale, best: Sequence[int]) -> None:
  """Parallel coordinates: each point is a line, each expert an axis; lines with higher scores are on top."""
  colours = matplotlib.colormaps[_MAP]
  for i in np.argsort(values):
    ax.plot(weights[i], color=colours(scale(values[i])), lw=1.3, alpha=0.8)
  ax.plot(weights[best].T, '*', color=ORANGE, ms=11, mec='white')
  ax.set_xticks(range(len(names)), names)
  ax.set_ylabel('weight')


def _scatter(x: np.ndarray, y: np.ndarray, weights: np.ndarray, k: int) -> Figure:
  figure = Figure((5.0, 4.0), layout='constrained')
  ax = figure.subplots()
  largest = weights.max(1)
  dots = ax.scatter(x, y, c=largest, cmap='cividis', s=42, edgecolors=AXIS, linewidths=0.8, zorder=3)
  middle = int(np.abs(weights - 1 / weights.shape[1]).sum(1).argmin())
  ax.scatter(x[middle], y[middle], s=130, facecolors='none', edgecolors=INK, linewidths=1.2, zorder=4)
  ax.set_xlabel('Pass@1 (%)')
  ax.set_ylabel(f'Pass@{k} (%)')
  figure.colorbar(dots, ax=ax, label='largest weight', shrink=0.8)
  return figure


def _controls(points: Mapping, known: dict, confirmed: Mapping, k: int) -> str:
  rows = []
  for said, name in known['points'].items():
    cells = [percent(float(pooled(points[name][half], j).mean())) for half in SETS for j in (1, k)]
    same = next((other for other in confirmed if known['points'][other] == name), None)
    for what in (key for key in next(iter(confirmed.values()), {})):
      d = confirmed[same][what][0] if same is not None else None
      text = '–' if d is None else f'{d.mean:+.1f} <small>[{d.low:+.1f}, {d.high:+.1f}]</small>'
      cells.append(f'<b>{text}</b>' if d is not None and d.is_clear else text)
    rows.append([html.escape(said), *cells])
  head = ['', *(f'{half}<small>Pass@{j}</small>' for half in SETS.values() for j in (1, k))]
  head += [f'test − mean<small>{what}, points</small>' for what in next(iter(confirmed.values()), {})]
  return table(head, rows) + note(
    'The choice was made on half A. The last columns are differences from the plain mean on test, with paired 95% '
    'intervals over problems; bold where the interval does not contain 0.'
  )


def _by_domain(points: Mapping, tried: Mapping, known: dict | None, domains: Sequence[str], k: int) -> str:
  n = len(domains)
  shown = {f'{d} alone': w for d, w in zip(domains, np.eye(n))} | {'plain mean': np.full(n, 1 / n)}
  if known:
    shown['winner'] = np.array(known['winner'])
  rows = []
  for said, w in shown.items():
    name = next((name for name, v in tried.items() if np.abs(np.array(v) - w).max() < 1e-3), None)
    if name is None or 'a' not in points[name]:
      continue
    cells = [percent(float(pooled({d: points[name]['a'][d]}, j).mean())) for d in domains for j in (1, k)]
    rows.append([html.escape(said), *cells])
  head = ['half A', *(f'{html.escape(d)}<small>Pass@{j}</small>' for d in domains for j in (1, k))]
  return table(head, rows) if rows else missing('Nothing has been evaluated yet.')


def _noise(points: Mapping, tried: Mapping, k: int) -> str:
  """How much of the map is more than noise: the range of its scores, and the interval of one paired difference."""
  have = [name for name in tried if 'a' in points[name]]
  if len(have) < 2:
    return missing('Needs two points.')
  n = len(next(iter(tried.values())))
  middle = min(have, key=lambda name: np.abs(np.array(tried[name]) - 1 / n).sum())
  rows = []
  for j in (1, k):
    scores = {name: pooled(points[name]['a'], j) for name in have}
    others = [name for name in have if name != middle]
    level = strict_level(len(others))
    gaps = [difference(scores[name][None], scores[middle][None]) for name in others]
    clear = sum(difference(scores[name][None], scores[middle][None], level).is_clear for name in others)
    means = [float(v.mean()) for v in scores.values()]
    half = float(np.median([(d.high - d.low) / 2 for d in gaps]))
    rows.append([f'Pass@{j}', f'{min(means):.1f} to {max(means):.1f}%', f'±{half:.1f}', f'{clear} of {len(others)}'])
  head = ['half A', 'scores on the map', 'points, 95% of one difference', 'differ from the point nearest the mean']
  return table(head, rows) + note(
    'The last column counts the points whose interval does not contain 0, at the level of all comparisons together. '
    'The rest of the map may be noise.'
  )


def _cost(directory: pathlib.Path, s: RunConfig) -> str:
  seconds = spent(directory)
  hours = sum(seconds.values()) / 3600 * s.cost.devices
  rows = [[html.escape(stage), duration(t)] for stage, t in seconds.items()]
  return table(['stage', 'time'], rows) + (
    f'<p>{hours:.3g} device hours at ${s.cost.price_per_hour:,.2f} an hour = '
    f'<b>${hours * s.cost.price_per_hour:,.2f}</b></p>'
  )
