"""Several runs on one page."""

import json

import pytest

from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import compare
from vibethinker_jax.evaluate.compare import write_compared


def run(folder, lam, score):
  """A workdir with a little of everything."""
  folder.mkdir(parents=True)
  cell = {'n_problems': 4, 'n_samples': 2, 'pass@1': score, 'pass@1_ci': [score - 0.1, score + 0.1]}
  summary = {'models': {'base': {'math': cell}, 'rl': {'math': cell}}, 'seconds': {'rl': 90}, 'cost': {'dollars': 2}}
  (folder / 'summary.json').write_text(json.dumps(summary))
  (folder / 'config.json').write_text(json.dumps({'seed': 0, 'mgpo': {'lam': lam, 'p0': 0.5}}))
  rows = [{'stage': 'rl/math', 'step': step, 'reward': score, 'entropy': 1.0} for step in (1, 2, 3)]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return folder


def test_runs_side_by_side(tmp_path):
  runs = [run(tmp_path / name / 'w', lam, score) for name, lam, score in (('a', 0.0, 0.25), ('b', 2.0, 0.5))]
  text = write_compared(runs, tmp_path / 'page.html').read_text()
  assert '<h1>a/w, b/w</h1>' in text and 'fused + RL' in text
  assert '>mgpo.lam<' in text and 'mgpo.p0' not in text and '>seed<' not in text  # what is the same is left out
  assert '25.0%' in text and '50.0%' in text and '1 min 30 s' in text and '$2.00' in text
  assert text.count('<figcaption>') == 3  # the scores, reward, entropy


def test_runs_that_have_nothing_yet_and_folders_that_are_none(tmp_path):
  (tmp_path / 'empty').mkdir()
  text = write_compared([run(tmp_path / 'a', 0.0, 0.5), tmp_path / 'empty'], tmp_path / 'page.html').read_text()
  assert 'empty' in text
  with pytest.raises(FileNotFoundError, match='nowhere'):
    write_compared([tmp_path / 'a', tmp_path / 'nowhere'], tmp_path / 'page.html')


@pytest.fixture
def drawn(monkeypatch):
  """The figures of the page, by title, once it is written."""
  figures = {}
  real = compare.plots_of
  monkeypatch.setattr(
    compare, 'plots_of', lambda pairs, tag: figures.update({(tag, t): f for t, f in pairs}) or real(pairs, tag)
  )
  return figures


def test_a_run_named_twice_is_refused(tmp_path):
  a = run(tmp_path / 'a', 0.0, 0.5)
  b = run(tmp_path / 'b', 0.0, 0.5)
  (tmp_path / 'link').symlink_to(a)
  for again, says in (
    (a, 'a: this run is named twice; expected'),
    (tmp_path / 'link', 'link: this run is named twice, first as '),
  ):
    with pytest.raises(BadInput, match=says):
      write_compared([a, b, again], tmp_path / 'page.html')
  assert not (tmp_path / 'page.html').exists()


def test_panels_share_their_axes(tmp_path, drawn):
  runs = [run(tmp_path / name, 0.0, score) for name, score in (('a', 0.2), ('b', 0.8))]
  for folder, steps in zip(runs, (3, 30)):
    summary = json.loads((folder / 'summary.json').read_text())
    summary['models']['rl']['code'] = {'n_problems': 4, 'pass@1': 0.4, 'pass@1_ci': [0.3, 0.5]}
    (folder / 'summary.json').write_text(json.dumps(summary))
    rows = [{'stage': 'rl/math', 'step': s, 'reward': 0.1 * s, 'entropy': 1.0} for s in range(1, steps)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  write_compared(runs, tmp_path / 'page.html')
  assert drawn['scores', 'math'].axes[0].get_xlim() == drawn['scores', 'code'].axes[0].get_xlim()
  assert drawn['curves', 'Reward'].axes[0].get_xlim() == drawn['curves', 'Entropy'].axes[0].get_xlim()
  assert drawn['curves', 'Entropy'].axes[0].get_ylim() == pytest.approx((0, 1.1))


def test_the_best_of_a_column_is_marked_also_where_it_is_tied(tmp_path):
  runs = [run(tmp_path / name, 0.0, score) for name, score in (('a', 0.5), ('b', 0.5), ('c', 0.25))]
  text = write_compared(runs, tmp_path / 'page.html').read_text()
  assert text.count('<b>50.0%') == 2 and '<b>25.0%' not in text
