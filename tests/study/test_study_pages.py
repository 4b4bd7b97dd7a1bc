"""What the pages of the studies say and draw, without a run."""

import matplotlib
import numpy as np
import pytest

from vibethinker_jax.evaluate.paired import Difference
from vibethinker_jax.evaluate.plots import STYLE
from vibethinker_jax.study import comparison, simplex_page

DOMAINS = ('algebra', 'geometry', 'code')
CORNERS = {
  'w_1.0000_0.0000_0.0000': (1, 0, 0),
  'w_0.0000_1.0000_0.0000': (0, 1, 0),
  'w_0.0000_0.0000_1.0000': (0, 0, 1),
}
MIDDLE = 'w_0.3333_0.3333_0.3333'


def verdicts(right):
  """Of 4 problems in all, `right` are solved."""
  table = np.arange(4)[:, None] < right
  return {half: {'algebra': table[:2], 'geometry': table[2:3], 'code': table[3:]} for half in ('a', 'b', 'test')}


def said(rights, winner):
  """The conclusion where the corners and the plain mean have these numbers of problems right."""
  tried = {**CORNERS, MIDDLE: (1 / 3,) * 3}
  points = {name: verdicts(right) for name, right in zip(tried, rights)}
  known = {'points': {'winner': winner, 'plain mean': MIDDLE}, 'winner': tried[winner]}
  confirmed = simplex_page._confirmed(points, known, 1)
  return simplex_page._said(points, tried, known, confirmed, 'pass@1', 1, DOMAINS)


def test_weights_carry_their_domains():
  assert simplex_page.named((0.5, 0.0, 0.5), DOMAINS) == 'algebra 0.50, code 0.50'
  first, *rest = said((4, 2, 2, 1), 'w_1.0000_0.0000_0.0000')
  assert first.startswith('The weights algebra 1.00 won on half A with Pass@1 100.0%, against 25.0% of the plain mean.')
  assert not any('tied' in sentence for sentence in rest)


def test_a_tied_winner_is_said():
  assert '2 other mixtures had the same score on half A' in said((4, 4, 4, 1), 'w_1.0000_0.0000_0.0000')[1]
  first, second, *_ = said((4, 2, 2, 4), MIDDLE)
  assert 'The plain mean won on half A' in first and '1 other mixture had the same score' in second


@pytest.mark.parametrize('experts', [3, 4, 5])
def test_every_tied_best_point_has_its_star(experts):
  weights = np.concatenate([np.eye(experts), np.full((1, experts), 1 / experts)])
  values = np.array([3.0, 3.0, *[1.0] * (experts - 1)])
  with matplotlib.rc_context(STYLE):
    figure = simplex_page.simplex_figure(weights, values, [f'domain {i}' for i in range(experts)], 'Pass@1 (%)')
  if experts == 5:
    stars = [line for ax in figure.axes for line in ax.lines if line.get_marker() == '*']
    assert len(stars) == 2
    return
  starred = {
    tuple(np.round(place, 6))
    for ax in figure.axes[:1]
    for c in ax.collections
    if c.get_sizes()[0] in (270, 120)
    for place in c.get_offsets()
  }
  assert starred == {(0.0, 0.0), (1.0, 0.0)}, 'both corners'


def test_differences_share_their_axis(monkeypatch):
  figures = {}
  monkeypatch.setattr(comparison, 'plots_of', lambda pairs, tag: figures.update(pairs) or '')
  pair = lambda half: (Difference(1, 1 - half, 1 + half), Difference(1, 1 - 2 * half, 1 + 2 * half))
  compared = {'lambda 2': {'Pass@1': pair(1), 'Pass@8': pair(10), 'length': pair(1)}}
  none = np.zeros(0)
  done = {0: comparison.Outcome(none, none, none, 0.0, np.ones(1), {})}
  comparison._differences(compared, {'lambda 2': done, 'GRPO': done}, 'GRPO', 8)
  assert figures['Pass@1'].axes[0].get_xlim() == figures['Pass@8'].axes[0].get_xlim() == pytest.approx((-21, 23))
