"""The messages of a chat, as OpenAI's clients send them, also those that were this server's own answers. Text only.

The thinking of an earlier turn (`reasoning_content`) is accepted, but the model does not see it again: that is how the
authors of reasoning models want it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vibethinker_jax.serve.fields import Strict, fault, neutral, one_of

LONGEST = 2_000_000  # characters of a text; more than any context holds
_OTHERS = {'image': 'images are', 'audio': 'audio is', 'file': 'files are', 'video': 'videos are'}
_TEXTS = ('text', 'input_text', 'output_text')

Words = Annotated[str, Field(max_length=LONGEST)]
Unused = Annotated[Any, Field(description='Not used')]


class Part(Strict):
  """A part of a content: a text."""

  type: Literal['text', 'input_text', 'output_text']
  text: Words
  cache_control: Unused = None
  prompt_cache_breakpoint: Unused = None
  annotations: neutral([]) = None

  @model_validator(mode='before')
  @classmethod
  def _is_text(cls, data: Any) -> Any:
    kind = data.get('type') if isinstance(data, Mapping) else None
    if kind in _TEXTS:
      return data
    for word, these_are in _OTHERS.items():  # image_url, input_image, ...
      if isinstance(kind, str) and word in kind.split('_'):
        raise fault(f'{these_are} not supported, this model reads text')
    raise fault('expected a part {"type": "text", "text": ...}')


def _kind(value: Any) -> str | None:
  return 'text' if isinstance(value, str) else 'parts' if isinstance(value, list) else None


class Message(Strict):
  """One message. That of an assistant may have no content, which counts as empty."""

  role: Literal['system', 'developer', 'user', 'assistant']
  content: (
    one_of(_kind, 'a text or a list of texts', text=Words, parts=Annotated[list[Part], Field(max_length=1000)]) | None
  ) = None
  name: Annotated[str, Field(max_length=64, description='Not used')] | None = None
  # of assistants
  refusal: neutral('') = None
  reasoning_content: Annotated[Words, Field(description='Not used')] | None = None
  reasoning: Annotated[Words, Field(description='Not used')] | None = None
  tool_calls: neutral([]) = None
  function_call: neutral() = None
  audio: neutral() = None
  annotations: neutral([]) = None
  tool_call_id: neutral() = None
  # what LiteLLM's messages have
  provider_specific_fields: Unused = None
  thinking_blocks: Unused = None
  images: neutral([]) = None

  @field_validator('role', mode='before')
  @classmethod
  def _speaks(cls, role: Any) -> Any:
    if role in ('tool', 'function'):
      raise fault('tools are not supported, so none can have answered')
    return role

  @model_validator(mode='after')
  def _says_something(self) -> 'Message':
    if self.content is None and self.role != 'assistant':
      raise fault('expected a text or a list of texts', 'content')
    return self

  def plain(self) -> dict[str, str]:
    """The message as chat templates take it."""
    parts = self.content or ''
    content = parts if isinstance(parts, str) else ''.join(part.text for part in parts)
    return {'role': 'system' if self.role == 'developer' else self.role, 'content': content}
