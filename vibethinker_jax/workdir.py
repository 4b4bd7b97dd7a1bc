"""Which run a workdir holds (config.json), and whether a config may go on with it.

A stage binds the fields that it reads, once it has left something in the workdir: `probe`, `fusion`, `mgpo` and `rl`,
and `evaluate` are read by the stages of those names, everything else by all of them. What is bound cannot be changed;
what only stages to come will read can. Fields that say how a run is carried out, not what it is, are never bound.
"""

import json
import pathlib
from collections.abc import Collection, Mapping

import jax
from tqdm import tqdm

from vibethinker_jax.distributed import gather
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import flat
from vibethinker_jax.train.metric_writer import read_json, write_json

# fields that say how a run is carried out, not what it is: whoever takes it up may have others
_HOW = (
  *('prune', 'mesh', 'engine', 'grader', 'cost', 'rl.micro_rows', 'rl.share', 'rl.save_every'),
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


def check_claim(workdir: pathlib.Path, config: Mapping) -> None:
  """Raises BadInput where `workdir` holds a run that `config` cannot go on with."""
  path = workdir / 'config.json'
  if path.exists():
    compare(path, read_json(path), _plain(config), _bound(workdir))


def claim(workdir: pathlib.Path, config: Mapping) -> None:
  """The workdir is this config's from now on. Whoever calls this holds the workdir (lock.py). Raises BadInput."""
  path, mine = workdir / 'config.json', _plain(config)
  # the first process looks for all of them: it may be in the first stage before another one has looked
  seen = (path.exists() and read_json(path), _bound(workdir)) if jax.process_index() == 0 else None
  was, bound = gather(seen)[0]
  if not was:
    write_json(path, mine)
    return
  how, free = compare(path, was, mine, bound)
  if how:
    tqdm.write(f'taken up with other values of {", ".join(how)}: the same run, but for the rounding of sums')
  if free:
    tqdm.write(f'taken up with other values of {", ".join(free)}: no stage that reads them has begun')
    write_json(path, was | {name: mine[name] for name in {field.split('.')[0] for field in free}})


def compare(path: pathlib.Path, was: Mapping, now: Mapping, bound: Collection[str]) -> tuple[list[str], list[str]]:
  """The fields in which a run of config `was` (the file at `path`) would go on otherwise with config `now`: those that
  say how, and those that no stage of `bound` reads. Raises BadInput for any other.
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


def _bound(workdir: pathlib.Path) -> set[str]:
  """The stages that have begun."""
  return {stage for stage, left in _LEFT_BY.items() if any((workdir / name).exists() for name in left)}


def _plain(config: Mapping) -> dict:
  """As JSON gives it back."""
  return json.loads(json.dumps(config))
