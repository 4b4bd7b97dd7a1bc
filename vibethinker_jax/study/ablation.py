"""The ablation of MGPO's weight: runs for each lambda and each seed from one start, with controls.

The reference is lambda = 0, which is GRPO.
"""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax

from vibethinker_jax.config import RunConfig, check, check_names
from vibethinker_jax.config_io import freeze
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.html import table
from vibethinker_jax.study import sweep
from vibethinker_jax.study.comparison import write_comparison
from vibethinker_jax.train.rl import MGPO, RL, Seed, Strength

REFERENCE = 'GRPO'


@dataclasses.dataclass(frozen=True)
class Variant:
  """A control.

  name: the name in the report and of the points' directories.
  mgpo: the fields that differ from config.mgpo.
  rl: the fields that differ from config.rl.
  """

  name: str
  mgpo: dict = dataclasses.field(default_factory=dict)
  rl: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ablation:
  """The points of the ablation: one for each variant and each seed. The variant lambda = 0 is always added.

  lambdas: values of mgpo.lam, each a variant.
  seeds: the seeds of RL, one or more, each once.
  controls: further variants.
  """

  lambdas: tuple[Strength, ...]
  seeds: tuple[Seed, ...]
  controls: tuple[Variant, ...] = ()


def read(values: Mapping) -> tuple[RunConfig, Ablation]:
  """The config in its two parts: the fields of experiments/ssp.py, and `ablation`. Raises BadInput."""
  s, a = sweep.read(values, 'ablation', Ablation)
  sweep.check_seeds(a.seeds, 'config.ablation.seeds')
  variants(s, a)
  return s, a


def variants(s: RunConfig, a: Ablation) -> dict[str, RunConfig]:
  """The run's config of each variant, the reference first. Raises BadInput."""
  ours = [Variant(REFERENCE, {'lam': 0.0})]
  ours += [Variant(f'lambda {lam:g}', {'lam': lam}) for lam in a.lambdas if lam != 0]
  check_names('config.ablation', [v.name.replace(' ', '_') for v in (*ours, *a.controls)])
  out = {}
  for v in (*ours, *a.controls):
    where = f'config.ablation, {v.name}'
    mgpo = freeze(MGPO, {**dataclasses.asdict(s.mgpo), **v.mgpo}, f'{where}: mgpo')
    loop = freeze(RL, {**dataclasses.asdict(s.rl), **v.rl}, f'{where}: rl')
    out[v.name] = dataclasses.replace(s, mgpo=mgpo, rl=loop)
    try:
      check(out[v.name])
    except BadInput as error:
      raise BadInput(f'{where}: {error}') from None
  return out


def points(directory: pathlib.Path, s: RunConfig, a: Ablation) -> list[sweep.Point]:
  """The points, seed by seed, so that the first finished points can be compared."""
  begin = directory / 'start' / 'fused'
  return [
    sweep.Point(_name(variant, seed), dataclasses.replace(own, rl=dataclasses.replace(own.rl, seed=seed)), begin)
    for seed in a.seeds
    for variant, own in variants(s, a).items()
  ]


def run(
  values: Mapping,
  directory: pathlib.Path,
  which: Sequence[int] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> pathlib.Path:
  """Run the points that are not finished, and write the page; returns its path.

  Args:
    values: the config.
    directory: of the sweep, new or to be continued.
    which: the numbers of the points to run; None: all; (): none, only what all points share.
    devices: of the runs; None: all.

  Raises:
    BadInput, Stopped; Diverged where SFT diverges, which all points share.
  """
  s, a = read(values)
  every = points(directory, s, a)
  names = sweep.chosen([p.name for p in every], which)
  sweep.claim(directory, 'ablation', values, s, devices)
  if not which:
    sweep.make_start(directory, s, devices)
  sweep.run_points(directory, [p for p in every if p.name in names], devices)
  return write_report(directory)


def write_report(directory: pathlib.Path) -> pathlib.Path:
  """Write the page with the results so far; returns its path."""
  s, a = read(json.loads((directory / 'sweep.json').read_text())['config'])
  own = variants(s, a)
  head = ['', 'lambda', 'weight', 'rescaled', 'std', 'aggregate', 'questions a step']
  rows = [
    [html.escape(name), f'{v.mgpo.lam:g}', v.mgpo.weight, v.mgpo.rescale, v.mgpo.std_normalize, v.mgpo.aggregate]
    + [f'{v.rl.prompts}' + (f', refilled {v.mgpo.refills}×' if v.mgpo.refills else '')]
    for name, v in own.items()
  ]
  named = {v: {seed: _name(v, seed) for seed in a.seeds} for v in own}
  facts = table(head, [[str(cell) for cell in row] for row in rows])
  subtitle = 'What the weight of MGPO does, beside GRPO and other weights: same start, same problems, same budget.'
  return write_comparison(directory, s.name, subtitle, s, named, facts)


def _name(variant: str, seed: int) -> str:
  return f'{variant.replace(" ", "_")}-seed{seed}'
