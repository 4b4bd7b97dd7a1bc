"""Kinds of request field: used, taken where it says nothing, or refused by a sentence that names it.

A null is read as a field left out, at every depth: so do clients write what they were not told.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
  """A JSON object with no fields but these."""

  model_config = ConfigDict(extra='forbid', allow_inf_nan=False, strict=True)

  @model_validator(mode='before')
  @classmethod
  def _without_nulls(cls, data: Any) -> Any:
    return {name: value for name, value in data.items() if value is not None} if isinstance(data, Mapping) else data


def fault(sentence: str, param: str = '') -> PydanticCustomError:
  """What is wrong with a field, as a sentence. `param` names the field where a check of the whole object raises it."""
  return PydanticCustomError('fault', '{sentence}', {'sentence': sentence, 'param': param})


def neutral(*values: Any) -> Any:
  """The type of a field that is not honoured: null and `values`, which ask for nothing, are taken, others refused."""
  taken = ' or '.join(map(json.dumps, values)) or 'null'

  def check(value: Any) -> None:
    if value not in values:
      raise fault(f'not supported by this server, only {taken} is taken')

  kind = Field(description=f'Not supported: only {taken}', json_schema_extra={'enum': [*values, None]})
  return Annotated[Any, AfterValidator(check), kind]


def one_of(pick: Callable[[Any], str | None], what: str, **kinds: Any) -> Any:
  """A union whose branch `pick` names, so that complaints are about that one only. `what` is expected in words."""
  # a tag becomes part of a complaint's place; the brackets tell it from a field's name
  tagged = tuple(Annotated[kind, Tag(f'<{name}>')] for name, kind in kinds.items())
  tag = lambda value: None if (name := pick(value)) is None else f'<{name}>'
  return Annotated[Union[tagged], Discriminator(tag, 'fault', f'expected {what}')]  # noqa: UP007
