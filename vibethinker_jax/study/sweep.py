"""Sweeps: many runs from one config, the points, in one directory.

  sweep.json     the name of the study and its config: another one is refused
  start/         the workdir of what all points share: SFT, probing, fusion
  points/NAME/   the workdir of each point
  report.html    the results so far

A point is finished when its file of results is there. It is then never run again; a point that was interrupted
continues as any run does. In one process the points run one after the other and share what jax has compiled. On a
cluster each point can be a job of its own (`which`), and the job that ends last writes the page with all results.
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
from vibethinker_jax.run_data import load_run_data
from vibethinker_jax.shared_files import read_json, write_json, write_text
from vibethinker_jax.ssp import STAGES, Pipeline
from vibethinker_jax.train.state import Diverged
from vibethinker_jax.workdir import compare, timed

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Point:
  """A run of RL with `settings` from the model in the directory `begin`, and the evaluation of its result."""

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
  """Write sweep.json, or continue the sweep that is there.

  Args:
    directory: of the sweep.
    study: the name of the study.
    config: the values of its config file.
    settings: the part of the config that a run has.
    devices: of the runs; None: all.

  Raises:
    BadInput: the directory holds something else, or the runs cannot begin.
  """
  path, mine = directory / 'sweep.json', {'study': study, 'config': json.loads(json.dumps(config))}
  if path.exists():
    theirs = read_json(path)
    was, now = {'study': theirs['study'], **theirs['config']}, {'study': study, **mine['config']}
    how, _ = compare(path, was, now, STAGES)
    if how:
      tqdm.write(f'continued with other values of {", ".join(how)}: the same points, up to the rounding of sums')
    return
  if directory.exists() and not directory.is_dir():
    raise BadInput(f'{directory}: is a file, expected a directory')
  if directory.exists() and any(not one.name.startswith('.') for one in directory.iterdir()):
    raise BadInput(f'{directory}: expected a new directory or one of a sweep')
  load_run_data(settings, devices)
  write_json(path, mine)


def read(values: Mapping, study: str, kind: type[T]) -> tuple[RunConfig, T]:
  """A study's config in its two parts: the fields of experiments/ssp.py, and the field `study`, of type `kind`.

  Raises BadInput.
  """
  if study not in values:
    raise BadInput(f'config: field {study!r} is missing, expected {fields.words(kind)} in it')
  rest = {name: value for name, value in values.items() if name != study}
  settings, own = freeze(RunConfig, rest), freeze(kind, values[study], f'config.{study}')
  check(settings)
  if settings.prune:
    raise bad_value('config.prune', True, 'False: a study keeps the checkpoints of its start')
  return settings, own


def check_seeds(seeds: Sequence[int], where: str) -> None:
  """Raises BadInput where there is no seed, or one twice."""
  if not seeds or len({*seeds}) < len(seeds):
    raise bad_value(where, seeds, 'one or more, each once')


def make_start(directory: pathlib.Path, settings: RunConfig, devices: Sequence[jax.Device] | None = None) -> None:
  """Run what all points share: SFT, probing and fusion in start/, and the evaluation of the fused model.

  Raises BadInput.
  """
  workdir = directory / 'start'
  if result(workdir, 'fused').exists():
    return
  pipeline = Pipeline(settings, workdir, devices)
  pipeline.run(('sft', 'probe', 'fuse'))
  with pipeline.claimed(), timed(workdir, 'evaluate'):
    pipeline.evaluate_model('fused', lambda: pipeline.load(workdir / 'fused'))


def check_made(path: pathlib.Path) -> None:
  """Raises BadInput where `path`, a part of the start, does not exist yet."""
  if not path.exists():
    raise BadInput(f'{path}: not found; run --points= first, which computes what all points share')


def numbers(text: str | None) -> list[int] | None:
  """The numbers of --points: '0,3' -> [0, 3], '' -> []; None (all points) stays None. Raises BadInput."""
  if text is None:
    return None
  parts = [part for part in text.split(',') if part]
  if not all(part.isdecimal() for part in parts):
    raise BadInput(f'--points {text}: expected whole numbers with commas between them')
  return [int(part) for part in parts]


def chosen(names: Sequence[str], which: Sequence[int] | None) -> list[str]:
  """The names of the points with the numbers `which`; None: all. Raises BadInput."""
  for number in which or ():
    if not 0 <= number < len(names):
      raise BadInput(f'--points {number}: there are {len(names)} points, 0 to {len(names) - 1}')
  return [*names] if which is None else [names[i] for i in which]


def run_points(directory: pathlib.Path, points: Sequence[Point], devices: Sequence[jax.Device] | None = None) -> None:
  """Run each point that is not finished. After each one a line says how long the others will take.

  A point that diverges is finished too: that is a result, and its diverged.txt says so.
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
        with timed(workdir, 'rl'):
          pipeline.rl(point.begin)
        with timed(workdir, 'evaluate'):
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
  """The file of a model's evaluation: it exists when the model has been evaluated."""
  return workdir / 'evaluate' / f'{model}.json'


def diverged(workdir: pathlib.Path) -> pathlib.Path:
  """The file that exists when a point has diverged."""
  return workdir / 'diverged.txt'


def spent(directory: pathlib.Path) -> dict[str, float]:
  """Seconds by stage, summed over all workdirs of the sweep."""
  total: dict[str, float] = {}
  for path in sorted(directory.glob('**/seconds.json')):
    for stage, seconds in json.loads(path.read_text()).items():
      total[stage] = total.get(stage, 0.0) + seconds
  return total
