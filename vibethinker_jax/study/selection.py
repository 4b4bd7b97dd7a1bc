"""A test of the report's claim: does RL end higher when its start has a higher Pass@K (a wider spectrum)?

There is one SFT run, whose checkpoints are probed once. Three rules choose the start of RL: the last checkpoint; the
mean of the experts chosen by Pass@1; and the mean of the experts chosen by Pass@K. Rules that choose the same
checkpoints share their points.
"""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from vibethinker_jax.config import RunConfig
from vibethinker_jax.evaluate import samples
from vibethinker_jax.evaluate.html import note, percent, table
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.spectrum.passk import mean_pass_at_k
from vibethinker_jax.ssp import Pipeline
from vibethinker_jax.study import sweep
from vibethinker_jax.study.comparison import write_comparison
from vibethinker_jax.train.rl import Seed

RULES = ('last', 'Pass@1', 'Pass@K')  # the first is the reference


@dataclasses.dataclass(frozen=True)
class Selection:
  """The RL runs from each rule's start.

  seeds: the seeds of RL, one or more, each once.
  """

  seeds: tuple[Seed, ...]


def read(values: Mapping) -> tuple[RunConfig, Selection]:
  """The config in its two parts: the fields of experiments/ssp.py, and `selection`. Raises BadInput."""
  s, selection = sweep.read(values, 'selection', Selection)
  sweep.check_seeds(selection.seeds, 'config.selection.seeds')
  return s, selection


def run(
  values: Mapping,
  directory: pathlib.Path,
  which: Sequence[int] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> pathlib.Path:
  """As ablation.run."""
  s, selection = read(values)
  every = {(rule, seed): _name(rule, seed) for seed in selection.seeds for rule in RULES}
  names = sweep.chosen([*every.values()], which)
  sweep.claim(directory, 'selection', values, s, devices)
  if not which:
    sweep.make_start(directory, s, devices)
    _choose(directory, s, devices)
  if names:
    chosen = _read(directory)
    points = [
      sweep.Point(name, dataclasses.replace(s, rl=dataclasses.replace(s.rl, seed=seed)), directory / 'begin' / rule)
      for (rule, seed), name in every.items()
      if name in names and _first(chosen, rule) == rule  # else this start belongs to another number
    ]
    sweep.run_points(directory, points, devices)
  return write_report(directory)


def write_report(directory: pathlib.Path) -> pathlib.Path:
  """Write the page with the results so far; returns its path."""
  s, selection = read(json.loads((directory / 'sweep.json').read_text())['config'])
  chosen = _read(directory)
  named = {rule: {seed: _name(_first(chosen, rule), seed) for seed in selection.seeds} for rule in RULES}
  rows = []
  for rule, row in chosen.items():
    same = _first(chosen, rule)
    text = ', '.join(f'{run} {step}' for run, step in row['checkpoints']) + (f' (as {same})' if same != rule else '')
    rows.append([html.escape(rule), html.escape(text), *(percent(100 * x) for x in row['pass_at'])])
  head = ['', 'checkpoints', 'Pass@1 of the start', f'Pass@{s.probe.k} of the start']
  facts = table(head, rows) + note('Starts are scored on the held-out probing half, which was not used to choose them.')
  subtitle = 'The same RL from starts chosen by Pass@1, by Pass@K, and from the last checkpoint.'
  return write_comparison(directory, s.name, subtitle, s, named, facts)


def _choose(directory: pathlib.Path, s: RunConfig, devices) -> None:
  """Write starts.json, and for each rule a model directory below begin/."""
  path = directory / 'starts.json'
  if path.exists():
    return
  pipeline, k = Pipeline(s, directory / 'start', devices), s.probe.k
  starts, kept = {}, {}
  with pipeline.claimed():
    for rule, checkpoints in (
      ('last', pipeline.experts.last()),
      ('Pass@1', list(pipeline.chosen_by(1).values())),
      ('Pass@K', list(pipeline.chosen_by(k).values())),
    ):
      model = pipeline.experts.mean_of(checkpoints)
      pipeline.save(model, directory / 'begin' / rule)
      kept[rule] = directory / 'begin' / f'{rule}.json'
      asked = pipeline.sample_and_grade(s.probe, model, pipeline.sets.probe_b, f'probe {rule}', kept[rule])
      correct = np.concatenate([rolled.correct for rolled in asked.values()])
      starts[rule] = {'checkpoints': checkpoints, 'pass_at': [mean_pass_at_k(correct, j) for j in (1, k)]}
  write_json(path, starts)
  for result in kept.values():
    samples.discard(result)


def _read(directory: pathlib.Path) -> dict:
  sweep.check_made(directory / 'starts.json')
  return json.loads((directory / 'starts.json').read_text())


def _first(chosen: Mapping, rule: str) -> str:
  """The first rule that has chosen the same checkpoints in the same proportions."""
  mixture = lambda r: sorted(map(tuple, chosen[r]['checkpoints']))
  return next(r for r in RULES if _weights(mixture(r)) == _weights(mixture(rule)))


def _weights(mixture: list) -> dict:
  return {one: mixture.count(one) / len(mixture) for one in mixture}


def _name(rule: str, seed: int) -> str:
  return f'{rule}-seed{seed}'
