"""A run's directory: which run it holds, who may continue it, and how long its stages have taken.

config.json holds the config of the run. A stage binds the fields that it reads as soon as it has left a file in the
directory: `probe`, `fusion`, `mgpo` and `rl`, and `evaluate` are read by the stages of those names, all other fields by
every stage. A bound field cannot be changed any more; a field that only later stages read still can. Fields that say
how a run is computed, and not what it computes (`_HOW`), are never bound.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Collection, Iterator, Mapping

import jax
from tqdm import tqdm

from vibethinker_jax import provenance
from vibethinker_jax.disk import writing
from vibethinker_jax.distributed import Stopped, gather
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import flat
from vibethinker_jax.lock import held
from vibethinker_jax.shared_files import read_json, write_json

# fields that say how a run is computed: a run may be continued with other values
_HOW = (
  *('prune', 'mesh', 'engine', 'grader', 'cost', 'plan', 'rl.micro_rows', 'rl.share', 'rl.save_every'),
  *('model.attention', 'model.remat', 'model.unroll', 'model.logit_chunk'),
)
_READ_BY = {'probe': ('probe',), 'fuse': ('fusion',), 'rl': ('mgpo', 'rl'), 'evaluate': ('evaluate',)}
_LEFT_BY = {
  'sft': ('sft',),
  'probe': ('probe', 'experts.json'),
  'fuse': ('fused',),
  'rl': ('rl', 'final'),
  'evaluate': ('evaluate', 'summary.json'),
}


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config: Mapping, data: dict[str, str]) -> Iterator[None]:
  """No other run works in `workdir` within the block, and the workdir holds the run of `config`.

  `data`: the fingerprints of the data by source. Raises BadInput where another run is at work, where the workdir holds
  another run, or where its data has changed; CannotWrite.
  """
  with held(workdir), writing(workdir):
    provenance.check_data(workdir, data)
    claim(workdir, config)
    provenance.record(workdir, data)
    yield


def check_claim(workdir: pathlib.Path, config: Mapping) -> None:
  """Raises BadInput where `workdir` holds a run that cannot be continued with `config`."""
  path = workdir / 'config.json'
  if path.exists():
    compare(path, read_json(path), _plain(config), _bound(workdir))


def claim(workdir: pathlib.Path, config: Mapping) -> None:
  """Write `config` as the config of the workdir, or continue the run that is there.

  The caller holds the lock (lock.py). Raises BadInput.
  """
  path, mine = workdir / 'config.json', _plain(config)
  # the first process looks for all of them: it may have begun a stage before another process has looked
  seen = (path.exists() and read_json(path), _bound(workdir)) if jax.process_index() == 0 else None
  was, bound = gather(seen)[0]
  if not was:
    write_json(path, mine)
    return
  how, free = compare(path, was, mine, bound)
  if how:
    tqdm.write(f'continued with other values of {", ".join(how)}: the same run, up to the rounding of sums')
  if free:
    tqdm.write(f'continued with other values of {", ".join(free)}: no stage that reads them has begun')
    write_json(path, was | {name: mine[name] for name in {field.split('.')[0] for field in free}})


def compare(path: pathlib.Path, was: Mapping, now: Mapping, bound: Collection[str]) -> tuple[list[str], list[str]]:
  """The fields that differ between two configs of a run, and that may.

  Args:
    path: the file of the config `was`, for the message.
    was, now: the configs, as JSON.
    bound: the stages that have begun.

  Returns:
    The differing fields of `_HOW`, and the differing fields that no stage of `bound` reads.

  Raises:
    BadInput: another field differs.
  """
  was, now = flat(was), flat(now)
  differing = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
  part = lambda name: name.split('.')[0]
  how = [name for name in differing if name in _HOW or part(name) in _HOW]
  own = {field: stage for stage, fields in _READ_BY.items() for field in fields}
  free = [n for n in differing if n not in how and (own[part(n)] not in bound if part(n) in own else not bound)]
  if what := sorted({*differing} - {*how, *free}):
    raise BadInput(f'{path}: holds a run with another config ({", ".join(what)} differ); use a new directory')
  return how, free


@contextlib.contextmanager
def timed(workdir: pathlib.Path, stage: str) -> Iterator[None]:
  """Add the time of the block to `stage` in seconds.json, also where the block is stopped or interrupted.

  Any other error passes at once: writing waits for the other processes, and they may have failed too.
  """
  began = time.perf_counter()

  def add() -> None:
    seconds = seconds_of(workdir)
    write_json(workdir / 'seconds.json', {**seconds, stage: seconds.get(stage, 0.0) + time.perf_counter() - began})

  try:
    yield
  except (Stopped, KeyboardInterrupt):
    add()
    raise
  add()


def seconds_of(workdir: pathlib.Path) -> dict[str, float]:
  """Seconds by stage, over all sessions of the run."""
  path = workdir / 'seconds.json'
  return read_json(path) if path.exists() else {}


def _bound(workdir: pathlib.Path) -> set[str]:
  """The stages that have begun."""
  return {stage for stage, left in _LEFT_BY.items() if any((workdir / name).exists() for name in left)}


def _plain(config: Mapping) -> dict:
  """The config as JSON returns it."""
  return json.loads(json.dumps(config))
