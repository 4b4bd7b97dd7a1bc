"""docs/config.md: every field of every config, made of the declarations.

python -m vibethinker_jax.config_docs > docs/config.md
"""

import dataclasses
import typing
from collections.abc import Iterator

from vibethinker_jax import fields
from vibethinker_jax.config import RunConfig
from vibethinker_jax.study.ablation import Ablation
from vibethinker_jax.study.selection import Selection
from vibethinker_jax.study.simplex import Simplex
from vibethinker_jax.tasks import Benchmarking, Evaluation, Pretraining

HEAD = """# Every field of every config

Made of the declarations by `python -m vibethinker_jax.config_docs > docs/config.md`; a test holds it to them.

A config is a file with `get_config()`; any field can be changed on the command line, `--config.rl.stages[0].steps=10`.
A value that is out of its range, of another type or without its partner is refused in one line that names the field,
before a device or a file is touched, with exit code 2. Whole numbers are at most 2147483647 in size; other numbers are
finite, and 1e-30 to 1e30 in size where they are not 0; True and False are no numbers, and texts are Unicode without the
character of code 0. What has to go together beyond the ranges is in `_faults` of vibethinker_jax/config.py.

"Published" is what the report of VibeThinker-1.5B (arXiv 2511.06221) prints; every other value is ours, a guess to
start from and a field to ablate. A field without a default has to be given.
"""

CONFIGS = (
  ('config', 'experiments/ssp.py', RunConfig),
  ('config.ablation', 'experiments/ablate_lambda.py, beside the fields of experiments/ssp.py', Ablation),
  ('config.simplex', 'experiments/sweep_fusion.py, beside the fields of experiments/ssp.py', Simplex),
  ('config.selection', 'experiments/study_selection.py, beside the fields of experiments/ssp.py', Selection),
  ('config', 'experiments/evaluate.py', Evaluation),
  ('config', 'experiments/pretrain_tiny.py', Pretraining),
  ('config', 'experiments/benchmark.py', Benchmarking),
)


def document() -> str:
  """The page. Dataclasses that several fields hold have their tables once, under the names of all of them."""
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
  """A dataclass and those in its fields, by the fields' names."""
  yield name, kind
  for field, own in fields.kinds(kind).items():
    several = '[i]' if typing.get_origin(own) is tuple else ''
    for inner in fields.dataclasses_in(own):
      yield from _nested(f'{name}.{field}{several}', inner)


def _purpose(kind: type) -> str:
  """What a dataclass is for: the first paragraph of its docstring."""
  return ' '.join(kind.__doc__.split('\n\n')[0].split())


def _table(kind: type) -> Iterator[str]:
  yield '| field | what it may be | default | published | meaning |\n|---|---|---|---|---|\n'
  meanings, declared = fields.meanings(kind), {f.name: f for f in dataclasses.fields(kind)}
  for name, own in fields.kinds(kind).items():
    meaning, _, published = meanings[name].partition(' Published: ')
    told = published.removesuffix('.') or ('' if any(fields.dataclasses_in(own)) else 'ours')
    cells = (f'`{name}`', _expected(own), _default(declared[name]), told, meaning)
    yield f'| {" | ".join(cell.replace("|", "&#124;") for cell in cells)} |\n'


def _expected(own) -> str:
  """The words of a field's type; the fields of a dataclass have a table of their own."""
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
