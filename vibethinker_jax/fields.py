"""Fields of configs: the values that a field may have are declared once, as its type in its dataclass.

  steps: PositiveInt                                     of pydantic, as NonNegativeInt, PositiveFloat, ...
  p0: Annotated[float, Interval(ge=0.01, le=0.99)]       of annotated_types
  remat: Literal['none', 'dots', 'full', 'offload']      one of these
  top_k: Literal[-1] | PositiveInt                       one or the other

The check of a value, the message that refuses it, and docs/config.md are made from this type. The meaning of a field is
its line "name: meaning" in the docstring of the dataclass; "Published: ..." at the end of it is what the report says.
"""

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from annotated_types import Ge, Gt, Interval, Le, Lt, MultipleOf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from vibethinker_jax.errors import BadInput

LARGEST = 2**31 - 1  # devices count in int32
_TINY, _HUGE = 1e-30, 1e30  # devices compute in float32: beyond, a number would become 0, or infinite


def checked(kind: Any, value: object, where: str):
  """`value`, checked against the type `kind` of a field, which holds no dataclass, list or mapping.

  A text is no number, and True and False are no numbers; a whole number is a number; infinity and NaN are refused.
  `where` is the dotted name of the field. Raises BadInput.
  """
  try:
    value = _adapter(kind).validate_python(value)
  except ValidationError:
    finite = not isinstance(value, float) or math.isfinite(value)
    raise bad_value(where, value, words(kind) + ('' if finite else ' that is finite')) from None
  if isinstance(value, str) and ('\0' in value or not _unicode(value)):
    raise bad_value(where, value, 'a text of Unicode characters, without the one of code 0')
  if type(value) is int and not -LARGEST <= value <= LARGEST:
    raise bad_value(where, value, f'a whole number of at most {LARGEST} in size')
  if type(value) is float and value and not _TINY <= abs(value) <= _HUGE:
    raise bad_value(where, value, f'a number of {_TINY:g} to {_HUGE:g} in size')
  return value


def bad_value(where: str, value: object, expected: str) -> BadInput:
  """The error for a wrong value: the field `where`, the value, and what was expected."""
  return BadInput(f'{where}: {shown(value)}, expected {expected}')


def shown(value: object) -> str:
  """A value in a message: one line of 80 characters at most."""
  try:
    text = repr(value)
  except ValueError:  # a whole number of thousands of digits
    text = f'{type(value).__name__} of thousands of digits'
  return text if len(text) <= 80 else f'{text[:77]}...'


def words(kind: Any) -> str:
  """The values of a field of type `kind`, in words that follow "expected"."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Literal:
    return ' or '.join(map(repr, arguments))
  if origin is typing.Annotated:
    return words(arguments[0]) + _range(arguments[0], arguments[1:])
  if branches := union(kind):
    return ', or '.join(words(branch) for branch in branches)
  if origin is tuple:
    return f'a list, each {words(arguments[0])}' if arguments[1:] == (...,) else f'a list of {len(arguments)} numbers'
  if origin is dict:
    return f'names, each with {words(arguments[1])}'
  plain = {
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    bool: 'True or False',
    dict: 'names with values',
    types.NoneType: 'None',
  }
  return plain[kind] if kind in plain else f'the fields {", ".join(f.name for f in dataclasses.fields(kind))}'


def union(kind: Any) -> tuple:
  """The alternatives of a union type; () for any other type."""
  return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()


def kinds(of: type) -> dict[str, Any]:
  """The type of each field of a dataclass, as declared."""
  hints = typing.get_type_hints(of, include_extras=True)
  return {field.name: hints[field.name] for field in dataclasses.fields(of)}


def meanings(of: type) -> dict[str, str]:
  """The meaning of each field of a dataclass, from its docstring."""
  names, found, name = kinds(of), {}, None
  for line in inspect.cleandoc(of.__doc__ or '').split('\n'):
    begins = re.match(r'(\w+): (.*)', line)
    if begins and begins[1] in names:
      name = begins[1]
      found[name] = begins[2]
    elif name is not None and line.strip():
      found[name] += f' {line.strip()}'
    else:
      name = None
  return found


def flat(values: Mapping, above: str = '') -> dict[str, Any]:
  """The values of nested dicts by their dotted names; an empty dict is a value."""
  out = {}
  for name, value in values.items():
    out |= flat(value, f'{above}{name}.') if isinstance(value, dict) and value else {f'{above}{name}': value}
  return out


def dataclasses_in(kind: Any) -> Iterator[type]:
  """The dataclasses in the type `kind` of a field."""
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    yield kind
  for part in typing.get_args(kind):
    yield from dataclasses_in(part)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
  return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _unicode(text: str) -> bool:
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _range(kind: type, constraints: tuple) -> str:
  flat = [c for one in constraints for c in (one if isinstance(one, Interval) else [one])]
  found = {type(c): dataclasses.astuple(c)[0] for c in flat}
  if kind is int:  # more than n is n + 1 or more
    for strict, other, step in ((Gt, Ge, 1), (Lt, Le, -1)):
      if strict in found:
        found[other] = found.pop(strict) + step
  said = ''
  if Ge in found and Le in found:
    said = f' of {found[Ge]} to {found[Le]}'
  elif Ge in found and Lt in found:
    said = f' of {found[Ge]} or more, and less than {found[Lt]}'
  elif Gt in found:
    above = [f', at most {found[Le]}'] if Le in found else [f' and less than {found[Lt]}'] if Lt in found else ['']
    said = f' of more than {found[Gt]}{above[0]}'
  elif Ge in found:
    said = f' of {found[Ge]} or more'
  return said + (f', a multiple of {found[MultipleOf]}' if MultipleOf in found else '')
