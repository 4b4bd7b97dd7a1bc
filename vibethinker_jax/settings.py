"""The door for configs: an ml_collections ConfigDict stops here and becomes frozen dataclasses."""

import dataclasses
import types
import typing
from collections.abc import Mapping

from vibethinker_jax.errors import BadInput


def freeze(kind: type, values: Mapping, where: str = 'config'):
  """An instance of the dataclass `kind` from a mapping that names every field without a default and no other.

  Fields that are dataclasses are frozen in turn, tuples of dataclasses element by element. Raises BadInput naming the
  field, for example "config.sft: unknown field 'step', expected one of steps, rows, ...".
  """
  fields = {f.name: f for f in dataclasses.fields(kind)}
  for name in values:
    if name not in fields:
      raise BadInput(f'{where}: unknown field {name!r}, expected one of {", ".join(fields)}')
  kinds = typing.get_type_hints(kind)
  made = {}
  for name, field in fields.items():
    if name in values:
      made[name] = _convert(kinds[name], values[name], f'{where}.{name}')
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise BadInput(f'{where}: field {name!r} is missing')
  return kind(**made)


def _convert(kind, value, where: str):
  if typing.get_origin(kind) is types.UnionType:  # X | None, the only union used
    kind = next(k for k in typing.get_args(kind) if k is not type(None))
    return None if value is None else _convert(kind, value, where)
  if dataclasses.is_dataclass(kind):
    return freeze(kind, value, where)
  if typing.get_origin(kind) is tuple:
    element = typing.get_args(kind)[0]
    return tuple(_convert(element, v, f'{where}[{i}]') for i, v in enumerate(value))
  if kind is dict:
    return dict(value)
  if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
    return float(value)
  if type(value) is not kind:
    wanted = {float: 'a number', int: 'a whole number', str: 'a text', bool: 'true or false'}[kind]
    raise BadInput(f'{where}: expected {wanted}, found {value!r}')
  return value
