"""What may be asked over HTTP, field by field, as OpenAI documents it; /v1/solve is ours.

A field that this engine cannot honour is taken only where it says nothing (`frequency_penalty: 0`); anything else is
answered with 400 and the field's name, never ignored.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vibethinker_jax.engine.sampling import Sampling
from vibethinker_jax.serve.presets import PRESETS, Preset

MOST = 128  # samples of a request, and stop strings' characters: as OpenAI has them
LONGEST = 2_000_000  # characters of a text; more than any context holds

Words = Annotated[str, Field(max_length=LONGEST)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
PresetName = Literal['math', 'code', 'explore', 'evaluate']


class _Strict(BaseModel):
  model_config = ConfigDict(extra='forbid', allow_inf_nan=False, strict=True)


class _Asked(_Strict):
  """What all three endpoints take."""

  model: Annotated[str, Field(description='As /v1/models has it', max_length=512)] | None = None
  preset: Annotated[PresetName, Field(description='Values for what is not given here')] | None = None
  temperature: Annotated[float, Field(ge=0, le=2, description='0 is greedy')] | None = None
  top_p: Annotated[float, Field(gt=0, le=1)] | None = None
  top_k: Annotated[int, Field(ge=-1, lt=2**31, description='-1 is off; not in the API of OpenAI')] | None = None
  min_p: Annotated[float, Field(ge=0, le=1, description='0 is off; not in the API of OpenAI')] | None = None
  max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
  n: Annotated[int, Field(ge=1, le=MOST)] | None = None
  seed: Annotated[Seed, Field(description='The same request with the same seed gives the same tokens')] | None = None

  @field_validator('top_k')
  @classmethod
  def _top_k(cls, value: int | None) -> int | None:
    if value == 0:
      raise ValueError('expected -1 (off) or at least 1')
    return value

  def kind(self) -> Preset | None:
    """The preset named, if any."""
    return PRESETS.get(self.preset)

  def sampling(self, default: Preset) -> Sampling:
    """How to draw: what is given, else the preset's, else `default`'s."""
    kind = self.kind() or default
    given = lambda value, otherwise: otherwise if value is None else value
    return Sampling(
      float(given(self.temperature, kind.temperature)),
      given(self.top_k, kind.top_k),
      float(given(self.top_p, kind.top_p)),
      float(given(self.min_p, 0.0)),
    )


class StreamOptions(_Strict):
  include_usage: bool | None = None


class _OpenAI(_Asked):
  """What chats and completions share."""

  stream: bool | None = None
  stream_options: StreamOptions | None = None
  stop: (
    Annotated[str, Field(min_length=1, max_length=MOST)]
    | Annotated[list[Annotated[str, Field(min_length=1, max_length=MOST)]], Field(max_length=4)]
    | None
  ) = None
  frequency_penalty: Annotated[float, Field(ge=0, le=0, description='Only 0')] | None = None
  presence_penalty: Annotated[float, Field(ge=0, le=0, description='Only 0')] | None = None
  logit_bias: Annotated[dict[str, float], Field(max_length=0, description='Only empty')] | None = None
  user: Annotated[str, Field(max_length=512, description='Not used')] | None = None

  @property
  def stops(self) -> list[str]:
    """The stop strings."""
    return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

  @model_validator(mode='after')
  def _usage_of_streams(self) -> Self:
    if self.stream_options is not None and not self.stream:
      raise ValueError('stream_options goes with stream: true')
    return self


class TextPart(_Strict):
  type: Literal['text']
  text: Words


class Message(_Strict):
  role: Literal['system', 'developer', 'user', 'assistant']
  content: Words | Annotated[list[TextPart], Field(max_length=1000)]
  name: Annotated[str, Field(max_length=64, description='Not used')] | None = None

  def plain(self) -> dict[str, str]:
    """As chat templates take it."""
    content = self.content if isinstance(self.content, str) else ''.join(part.text for part in self.content)
    return {'role': 'system' if self.role == 'developer' else self.role, 'content': content}


class ResponseFormat(_Strict):
  type: Literal['text']


class ChatRequest(_OpenAI):
  """POST /v1/chat/completions."""

  messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
  max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
  logprobs: bool | None = None
  top_logprobs: Annotated[int, Field(ge=0, le=0, description='Only 0: the token drawn, and no others')] | None = None
  response_format: ResponseFormat | None = None
  store: Annotated[Literal[False], Field(description='Only false')] | None = None
  metadata: Annotated[dict[str, str], Field(max_length=16, description='Not used')] | None = None

  @property
  def limit(self) -> int | None:
    """Most new tokens, under either of its names."""
    return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=LONGEST)]


class CompletionRequest(_OpenAI):
  """POST /v1/completions. `prompt` is a text, texts, token ids, or lists of token ids."""

  prompt: (
    Words
    | Annotated[list[Words], Field(min_length=1, max_length=MOST)]
    | Ids
    | Annotated[list[Ids], Field(min_length=1, max_length=MOST)]
  )
  logprobs: Annotated[int, Field(ge=0, le=0, description='Only 0: the token drawn, and no others')] | None = None
  echo: Annotated[Literal[False], Field(description='Only false')] | None = None
  best_of: Annotated[int, Field(ge=1, le=1, description='Only 1')] | None = None
  suffix: Annotated[str, Field(max_length=0, description='Only empty')] | None = None

  @property
  def limit(self) -> int:
    """Most new tokens; OpenAI's default."""
    return 16 if self.max_tokens is None else self.max_tokens

  @property
  def prompts(self) -> list[str | list[int]]:
    """One or more prompts, each a text or token ids."""
    several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
    return self.prompt if several else [self.prompt]


class Example(_Strict):
  input: Words
  output: Words


class Asserts(_Strict):
  entry_point: Annotated[str, Field(max_length=200)] | None
  setup: Words
  asserts: Annotated[list[Words], Field(min_length=1, max_length=1000)]


class SolveRequest(_Asked):
  """POST /v1/solve: a problem, and what it may be judged by."""

  problem: Annotated[str, Field(min_length=1, max_length=LONGEST)]
  answer: (
    Annotated[
      Annotated[str, Field(max_length=10_000)]
      | Annotated[list[Annotated[str, Field(max_length=10_000)]], Field(min_length=1, max_length=MOST)],
      Field(description='The right answer or accepted ones: then every solution gets a verdict'),
    ]
    | None
  ) = None
  tests: (
    Annotated[
      Annotated[list[Example], Field(min_length=1, max_length=1000)] | Asserts,
      Field(description="Tests of the program asked for: then every solution's last block gets a verdict"),
    ]
    | None
  ) = None

  @model_validator(mode='after')
  def _one_judge(self) -> Self:
    if self.answer is not None and self.tests is not None:
      raise ValueError('expected at most one of answer and tests')
    return self

  def examples(self) -> list[dict] | dict | None:
    """The tests in the form of verify/code.py."""
    if self.tests is None:
      return None
    if isinstance(self.tests, Asserts):
      return self.tests.model_dump()
    return [example.model_dump() for example in self.tests]
