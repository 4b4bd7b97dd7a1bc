"""Sweeps: many runs from one config, in a directory that says what is done.

  sweep.json     which study it is, and its config: another one is refused
  start/         the pipeline's workdir of what all points share (SFT, probing, fusion)
  points/NAME/   a workdir a point
  report.html    what has come out so far

A point is done once its file of results is there; it is never run again, and one cut short goes on by the pipeline's
own means. In one process the points follow each other and share what jax has compiled; on a cluster each is a job of
its own (`which`), and whoever comes last finds all results when it writes the page.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
from tqdm import tqdm

from vibethinker_jax import fields
from vibethinker_jax.config import RunConfig, check
from vibethinker_jax.config_io import freeze
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.html import duration
from vibethinker_jax.fields import bad_value
from vibethinker_jax.ssp import STAGES, Pipeline, ready
from vibethinker_jax.train.metric_writer import read_json, write_json, write_text
from vibethinker_jax.train.state import Diverged
from vibethinker_jax.workdir import compare

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Point:
  """RL with `settings` from the model in directory `begin`, and its evaluation."""

  name: str
  settings: RunConfig
  begin: pathlib.Path


def claim(
  directory: pathlib.Path,
  study: str,
  config: Mapping,
  settings: RunConfig,
  devices: Sequence[jax.Device] | None = None,
) -> None:
  """The directory is this sweep's from now on. Raises BadInput where it is another's, or could not begin."""
  path, mine = directory / 'sweep.json', {'study': study, 'config': json.loads(json.dumps(config))}
  if path.exists():
    theirs = read_json(path)
    was, now = {'study': theirs['study'], **theirs['config']}, {'study': study, **mine['config']}
    how, _ = compare(path, was, now, STAGES)
    if how:
      tqdm.write(f'taken up with other values of {", ".join(how)}: the same points, but for the rounding of sums')
    return
  if directory.exists() and not directory.is_dir():
    raise BadInput(f'{directory}: is a file, expected a directory')
  if directory.exists() and any(not one.name.startswith('.') for one in directory.iterdir()):
    raise BadInput(f'{directory}: expected a new directory or one of a sweep')
  ready(settings, devices)
  write_json(path, mine)


def read(values: Mapping, study: str, kind: type[T]) -> tuple[RunConfig, T]:
  """A config's parts: those of experiments/ssp.py, and its field `study`, a `kind`. Raises BadInput."""
  if study not in values:
    raise BadInput(f'config: field {study!r} is missing, expected {fields.words(kind)} in it')
  rest = {name: value for name, value in values.items() if name != study}
  settings, own = freeze(RunConfig, rest), freeze(kind, values[study], f'config.{study}')
  check(settings)
  if settings.prune:
    raise bad_value('config.prune', True, 'False: a study keeps the checkpoints of its start')
  return settings, own


def check_seeds(seeds: Sequence[int], where: str) -> None:
  """Raises BadInput for no seeds, or one that is there twice."""
  if not seeds or len({*seeds}) < len(seeds):
    raise bad_value(where, seeds, 'one or more, each once')


def make_start(directory: pathlib.Path, settings: RunConfig, devices: Sequence[jax.Device] | None = None) -> None:
  """What all points share: start/fused, its experts and its evaluation. Raises BadInput."""
  workdir = directory / 'start'
  if result(workdir, 'fused').exists():
    return
  pipeline = Pipeline(settings, workdir, devices)
  pipeline.run(('sft', 'probe', 'fuse'))
  with pipeline.claimed(), pipeline.timed('evaluate'):
    pipeline.evaluate_model('fused', lambda: pipeline.load(workdir / 'fused'))


def check_made(path: pathlib.Path) -> None:
  """Raises BadInput where this part of the start is not there yet."""
  if not path.exists():
    raise BadInput(f'{path}: not found; run --points= first, which makes what all points share')


def numbers(text: str | None) -> list[int] | None:
  """'0,3' -> [0, 3], '' -> []; None, which is all, stays None. Raises BadInput."""
  if text is None:
    return None
  parts = [part for part in text.split(',') if part]
  if not all(part.isdecimal() for part in parts):
    raise BadInput(f'--points {text}: expected whole numbers with commas between them')
  return [int(part) for part in parts]


def chosen(names: Sequence[str], which: Sequence[int] | None) -> list[str]:
  """The points of numbers `which`, all where it is None. Raises BadInput."""
  for number in which or ():
    if not 0 <= number < len(names):
      raise BadInput(f'--points {number}: there are {len(names)} points, 0 to {len(names) - 1}')
  return [*names] if which is None else [names[i] for i in which]


def run_points(directory: pathlib.Path, points: Sequence[Point], devices: Sequence[jax.Device] | None = None) -> None:
  """Each point that is not done. After the first one that had to run it is said what the others will take.

  One that diverges is done too, and says so in its diverged.txt: that is a result.
  """
  ended = lambda workdir: result(workdir, 'rl').exists() or diverged(workdir).exists()
  todo = [p for p in points if not ended(directory / 'points' / p.name)]
  began = time.perf_counter()
  for done, point in enumerate(todo):
    workdir = directory / 'points' / point.name
    check_made(point.begin)
    pipeline = Pipeline(point.settings, workdir, devices)
    with pipeline.claimed():
      try:
        with pipeline.timed('rl'):
          pipeline.rl(point.begin)
        with pipeline.timed('evaluate'):
          pipeline.evaluate_model('rl', lambda: pipeline.load(workdir / 'final'))  # noqa: B023
      except Diverged as error:
        tqdm.write(f'{point.name}: {error}')
        write_text(diverged(workdir), f'{error}\n')
      pipeline.pause(f'{point.name} is done')
    each = (time.perf_counter() - began) / (done + 1)
    cost = point.settings.cost
    hours = each * len(todo) / 3600 * cost.devices
    tqdm.write(
      f'{point.name}: done, {done + 1} of {len(todo)}; {duration(each * (len(todo) - done - 1))} to go; all of them '
      f'{hours:.2g} device hours, ${hours * cost.price_per_hour:.2f}'
    )


def result(workdir: pathlib.Path, model: str) -> pathlib.Path:
  """The file that is there once `model` of the workdir has been evaluated."""
  return workdir / 'evaluate' / f'{model}.json'


def diverged(workdir: pathlib.Path) -> pathlib.Path:
  """The file that is there once a point has diverged."""
  return workdir / 'diverged.txt'


def spent(directory: pathlib.Path) -> dict[str, float]:
  """Seconds by stage, of all workdirs of the sweep together."""
  total: dict[str, float] = {}
  for path in sorted(directory.glob('**/seconds.json')):
    for stage, seconds in json.loads(path.read_text()).items():
      total[stage] = total.get(stage, 0.0) + seconds
  return total
