"""Runs a finished workdir again and compares: the same bits, or what differs, and how the two runs were made."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

import jax

from vibethinker_jax import provenance
from vibethinker_jax.config import RunConfig
from vibethinker_jax.config_io import freeze
from vibethinker_jax.distributed import cpu_devices
from vibethinker_jax.errors import BadInput
from vibethinker_jax.shared_files import read_json
from vibethinker_jax.ssp import STAGES, Pipeline

TIMES = ('seconds_rollout', 'seconds_grade', 'seconds_update', 'tokens_per_s')
SURROUNDINGS = ('commit', 'changed', 'versions', 'device', 'processes', 'cpu', 'xla_flags', 'matmul_precision')


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The result of a comparison, in lines; the bits are identical where `differences` is empty."""

  same: tuple[str, ...]
  differences: tuple[str, ...]
  surroundings: tuple[str, ...]  # recorded differences in how the two runs were made: versions, devices, ...

  def __str__(self) -> str:
    lines = [f'same       {line}' for line in self.same] + [f'DIFFERENT  {line}' for line in self.differences]
    lines += [f'made with  {line}' for line in self.surroundings]
    verdict = 'identical bits' if not self.differences else f'{len(self.differences)} of them differ'
    return '\n'.join([*lines, f'{len(self.same) + len(self.differences)} things compared: {verdict}'])


def reproduce(directory: pathlib.Path, again: pathlib.Path, devices: Sequence[jax.Device] | None = None) -> Comparison:
  """Run the stages of a finished run again, in another workdir, and compare both.

  Args:
    directory: the workdir of the finished run.
    again: the other workdir; where an earlier call was interrupted, it continues.
    devices: of the mesh; None: all.

  Raises:
    BadInput: `directory` holds no finished run. Stopped: SIGTERM came.
  """
  settings, stages = _run_of(directory)
  if devices is None:
    cpu_devices(settings.mesh.size)
  Pipeline(settings, again, devices).run(stages)
  return compare(directory, again)


def compare(directory: pathlib.Path, again: pathlib.Path) -> Comparison:
  """Compare two workdirs of the same config."""
  same, differences = [], []

  def judge(what: str, a, b, where: str = '') -> None:
    (same if a == b else differences).append(what if a == b or not where else f'{what}: {where}')

  for name in sorted({str(p.relative_to(d)) for d in (directory, again) for p in d.glob('f*/*.safetensors')}):
    a, b = (_sha256(d / name) if (d / name).exists() else 'missing' for d in (directory, again))
    judge(f'{name} {a[:16]}', a, b, f'sha256 {b[:16]} when run again')
  whole = (directory / 'summary.json').exists()
  folders = ('probe', 'evaluate') if whole else ('probe',)
  for path in sorted(p for folder in folders for p in (directory / folder).rglob('*.json')):
    name = path.relative_to(directory)
    judge(str(name), read_json(path), read_json(again / name), 'other verdicts')
  if (directory / 'experts.json').exists():
    judge(
      'experts.json',
      read_json(directory / 'experts.json'),
      read_json(again / 'experts.json'),
      'other checkpoints chosen',
    )
  if whole:
    for key in ('models', 'experts', 'mgpo', 'tokens'):
      a, b = (read_json(d / 'summary.json')[key] for d in (directory, again))
      judge(f'summary.json, {key}', a, b, 'see the files above')
  a, b = (_metrics(d / 'metrics.jsonl') for d in (directory, again))
  judge(f'metrics.jsonl, {len(a)} rows without their times', a, b, _first_difference(a, b))
  return Comparison(tuple(same), tuple(differences), tuple(_unlike(directory, again)))


def _run_of(directory: pathlib.Path) -> tuple[RunConfig, tuple[str, ...]]:
  """The config of a finished run, and the stages that it has finished."""
  for name in ('config.json', 'seconds.json', 'metrics.jsonl'):
    if not (directory / name).exists():
      raise BadInput(f'{directory / name}: not found, expected the workdir of a run of experiments/ssp.py')
  seconds = read_json(directory / 'seconds.json')
  # without a summary only single models were evaluated, as in the start of a sweep
  whole = (directory / 'summary.json').exists()
  stages = tuple(stage for stage in STAGES if stage in seconds and (stage != 'evaluate' or whole))
  if 'rl' in stages and not (directory / 'final').exists():
    raise BadInput(f'{directory / "final"}: not found, expected a finished run')
  if 'sft' not in stages:
    raise BadInput(f'{directory}: starts from a model of another workdir (a point of a sweep); run the sweep again')
  return freeze(RunConfig, read_json(directory / 'config.json'), str(directory / 'config.json')), stages


def _unlike(directory: pathlib.Path, again: pathlib.Path) -> list[str]:
  """Differences in how two runs were made. Of several sessions of a run, the first and the last are compared."""
  first, second = provenance.sessions(directory), provenance.sessions(again)
  if not first:
    return ['the first run has no record of it']
  lines = []
  for key in SURROUNDINGS:
    values = [session.get(key) for session in (first[0], first[-1], second[-1])]
    if values[0] != values[2] or values[1] != values[2]:
      was = values[0] if values[0] != values[2] else values[1]
      lines.append(f'{key}: {_short(was)}, run again with {_short(values[2])}')
  return lines


def _short(value: object) -> str:
  text = json.dumps(value)
  return text if len(text) < 300 else f'{text[:297]}...'


def _first_difference(a: list[dict], b: list[dict]) -> str:
  for x, y in zip(a, b):
    for key in [*x, *y]:
      if x.get(key) != y.get(key):
        return f'first at {x["stage"]}, step {x["step"]}: {key} was {x.get(key)}, is {y.get(key)}'
  return f'{len(b)} rows when run again'


def _metrics(path: pathlib.Path) -> list[dict]:
  rows = [json.loads(line) for line in path.read_text().split('\n')[:-1]]
  return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
