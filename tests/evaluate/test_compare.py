"""Several runs on one page."""

import json

import pytest

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
