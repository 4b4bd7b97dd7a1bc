"""Kinds of request fields: fields that are used, and fields that are accepted only with a value that asks for nothing.

A null counts as a missing field, at every depth: clients write null for what their users did not set.
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
  """An error with a sentence about a field. param: the field, where the check of a whole object raises the error."""
  return PydanticCustomError('fault', '{sentence}', {'sentence': sentence, 'param': param})


def neutral(*values: Any) -> Any:
  """The type of a field that this server does not support: null and `values`, which ask for nothing, are accepted."""
  taken = ' or '.join(map(json.dumps, values)) or 'null'

  def check(value: Any) -> None:
    if value not in values:
      raise fault(f'not supported by this server, only {taken} is taken')

  kind = Field(description=f'Not supported: only {taken}', json_schema_extra={'enum': [*values, None]})
  return Annotated[Any, AfterValidator(check), kind]


def one_of(pick: Callable[[Any], str | None], what: str, **kinds: Any) -> Any:
  """A union type of which one branch is checked, so that errors concern that branch only.

  pick: the name of the branch for a value, None for none. what: the expected value in words. kinds: the branches.
  """
  # a tag becomes part of the place of an error; the brackets distinguish it from the name of a field
  tagged = tuple(Annotated[kind, Tag(f'<{name}>')] for name, kind in kinds.items())
  tag = lambda value: None if (name := pick(value)) is None else f'<{name}>'
  return Annotated[Union[tagged], Discriminator(tag, 'fault', f'expected {what}')]  # noqa: UP007
