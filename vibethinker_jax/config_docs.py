"""docs/config.md: every field of every config, written from the declarations.

python -m vibethinker_jax.config_docs > docs/config.md
"""

import dataclasses
import typing
from collections.abc import Iterator

from vibethinker_jax import fields
from vibethinker_jax.config import RunConfig
from vibethinker_jax.plan.parts import Accelerator
from vibethinker_jax.study.ablation import Ablation
from vibethinker_jax.study.selection import Selection
from vibethinker_jax.study.simplex import Simplex
from vibethinker_jax.tasks import Benchmarking, Evaluation, Pretraining

HEAD = """# Every field of every config

Written from the declarations by `python -m vibethinker_jax.config_docs > docs/config.md`; a test compares both.

A config is a file with `get_config()`; configs/tiny.py shows every field of a run with its meaning. The command line of
every program can change any field: `--config.rl.stages[0].steps=10`, `--config.data.extra_domains=code,number_theory`.
A wrong value is refused in one line that names the field, with exit code 2, before a device or a file is touched. Whole
numbers are at most 2147483647 in size; other numbers are finite, and 1e-30 to 1e30 in size where they are not 0; True
and False are no numbers, and texts are Unicode without the character of code 0. The checks between fields are in
`_faults` of vibethinker_jax/config.py.

"Published" is what the report of VibeThinker-1.5B (arXiv 2511.06221) says; every other value is ours: a guess to start
from, and a field to ablate. A field without a default must be given.
"""

CONFIGS = (
  ('config', 'experiments/ssp.py', RunConfig),
  ('config.ablation', 'experiments/ablate_lambda.py, beside the fields of experiments/ssp.py', Ablation),
  ('config.simplex', 'experiments/sweep_fusion.py, beside the fields of experiments/ssp.py', Simplex),
  ('config.selection', 'experiments/study_selection.py, beside the fields of experiments/ssp.py', Selection),
  ('config', 'experiments/evaluate.py', Evaluation),
  ('config', 'experiments/pretrain_tiny.py', Pretraining),
  ('config', 'experiments/benchmark.py', Benchmarking),
  ('config', 'experiments/accelerator.py', Accelerator),
)


def document() -> str:
  """The page. A dataclass that several fields hold has one table, with the names of all these fields."""
  places: dict[type, list[str]] = {}
  for prefix, _, kind in CONFIGS:
    for name, own in _nested(prefix, kind):
      places.setdefault(own, []).append(name)
  parts, told = [HEAD], set()
  for prefix, program, kind in CONFIGS:
    parts.append(f'\n## {program}\n')
    for _, own in _nested(prefix, kind):
      if own not in told:
        told.add(own)
        parts.append(f'\n### {own.__name__}\n\n{", ".join(dict.fromkeys(f"`{n}`" for n in places[own]))}\n\n')
        parts += [f'{_purpose(own)}\n\n', *_table(own)]
  return ''.join(parts)


def _nested(name: str, kind: type) -> Iterator[tuple[str, type]]:
  """A dataclass and the dataclasses in its fields, with the names of the fields."""
  yield name, kind
  for field, own in fields.kinds(kind).items():
    several = '[i]' if typing.get_origin(own) is tuple else ''
    for inner in fields.dataclasses_in(own):
      yield from _nested(f'{name}.{field}{several}', inner)


def _purpose(kind: type) -> str:
  """The purpose of a dataclass: the first paragraph of its docstring."""
  return ' '.join(kind.__doc__.split('\n\n')[0].split())


def _table(kind: type) -> Iterator[str]:
  yield '| field | values | default | published | meaning |\n|---|---|---|---|---|\n'
  meanings, declared = fields.meanings(kind), {f.name: f for f in dataclasses.fields(kind)}
  for name, own in fields.kinds(kind).items():
    meaning, _, published = meanings[name].partition(' Published: ')
    told = published.removesuffix('.') or ('' if any(fields.dataclasses_in(own)) else 'ours')
    cells = (f'`{name}`', _expected(own), _default(declared[name]), told, meaning)
    yield f'| {" | ".join(cell.replace("|", "&#124;") for cell in cells)} |\n'


def _expected(own) -> str:
  """The values of a field in words; a dataclass has a table of its own, and is a link."""
  if not (inner := [*fields.dataclasses_in(own)]):
    return fields.words(own)
  several = 'a list, each ' if typing.get_origin(own) is tuple else ''
  none = ', or None' if type(None) in fields.union(own) else ''
  return several + ' or '.join(f'[{kind.__name__}](#{kind.__name__.lower()})' for kind in inner) + none


def _default(field: dataclasses.Field) -> str:
  if field.default is not dataclasses.MISSING:
    text = repr(field.default)
    return f'`{text}`' if len(text) <= 40 else f'{len(field.default)} of them'
  if field.default_factory is not dataclasses.MISSING:
    made = field.default_factory()
    return f'`{made!r}`' if isinstance(made, dict) else 'all defaults'
  return ''


if __name__ == '__main__':
  print(document(), end='')
