"""The bodies of requests, field by field, as OpenAI and vLLM document them; /v1/solve is ours.

A field that this server does not support is accepted only with a value that asks for nothing (`frequency_penalty: 0`).
Any other value is answered with 400 and the name of the field; it is never ignored. Fields "Not used" are those on
which no answer depends.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vibethinker_jax.engine.sampling import TOP, SamplingParams
from vibethinker_jax.serve.fields import Strict, fault, neutral, one_of
from vibethinker_jax.serve.messages import LONGEST, Message, Unused, Words
from vibethinker_jax.serve.presets import PRESETS, Preset

MOST = 128  # samples of a prompt
PROMPTS = 2048  # of one request
STOPS = 1000  # stop strings, and characters of each

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
PresetName = Literal['math', 'code', 'explore', 'evaluate']
Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=LONGEST)]
Stop = Annotated[str, Field(min_length=1, max_length=STOPS)]
Answer = Annotated[str, Field(max_length=10_000)]
_OFF = 'not in the API of OpenAI'


class _Asked(Strict):
  """The fields of all three endpoints."""

  model: Annotated[str, Field(description='As /v1/models has it', max_length=512)] | None = None
  preset: Annotated[PresetName, Field(description='Values for what is not given here')] | None = None
  temperature: Annotated[float, Field(ge=0, le=2, description='0 is greedy')] | None = None
  top_p: Annotated[float, Field(gt=0, le=1)] | None = None
  top_k: Annotated[int, Field(ge=-1, lt=2**31, description=f'-1 or 0 is off; {_OFF}')] | None = None
  min_p: Annotated[float, Field(ge=0, le=1, description=f'0 is off; {_OFF}')] | None = None
  repetition_penalty: Annotated[float, Field(gt=0, le=100, description=f'1 is off; {_OFF}')] | None = None
  max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
  n: Annotated[int, Field(ge=1, le=MOST)] | None = None
  seed: Annotated[Seed, Field(description='The same request with the same seed gives the same tokens')] | None = None

  def kind(self) -> Preset | None:
    """The preset that the request names, None for none."""
    return PRESETS.get(self.preset)

  def sampling(self, default: Preset) -> SamplingParams:
    """The parameters of the sampling: those given, else those of the preset, else those of `default`."""
    kind = self.kind() or default
    given = lambda value, otherwise: otherwise if value is None else value
    return SamplingParams(
      float(given(self.temperature, kind.temperature)),
      given(self.top_k, kind.top_k) or -1,
      float(given(self.top_p, kind.top_p)),
      float(given(self.min_p, 0.0)),
      float(given(self.repetition_penalty, 1.0)),
    )


class StreamOptions(Strict):
  include_usage: bool | None = None
  include_obfuscation: neutral(False) = None
  continuous_usage_stats: neutral(False) = None


def _text(value: Any) -> str | None:
  return 'text' if isinstance(value, str) else 'texts' if isinstance(value, list) else None


class _OpenAI(_Asked):
  """The fields of chats and completions."""

  stream: bool | None = None
  stream_options: StreamOptions | None = None
  stop: one_of(_text, 'a text or texts', text=Stop, texts=Annotated[list[Stop], Field(max_length=STOPS)]) | None = None
  stop_token_ids: Annotated[list[Id], Field(max_length=STOPS, description=_OFF)] | None = None
  frequency_penalty: neutral(0) = None
  presence_penalty: neutral(0) = None
  logit_bias: neutral({}) = None
  user: Annotated[str, Field(max_length=512, description='Not used')] | None = None
  service_tier: neutral('auto', 'default') = None
  # of vLLM
  add_special_tokens: neutral(False) = None
  allowed_token_ids: neutral() = None
  bad_words: neutral([]) = None
  cache_salt: Unused = None
  guided_choice: neutral() = None
  guided_decoding_backend: neutral() = None
  guided_grammar: neutral() = None
  guided_json: neutral() = None
  guided_regex: neutral() = None
  guided_whitespace_pattern: neutral() = None
  ignore_eos: neutral(False) = None
  include_stop_str_in_output: neutral(False) = None
  kv_transfer_params: neutral() = None
  length_penalty: neutral(1) = None
  logits_processors: neutral([]) = None
  min_tokens: neutral(0) = None
  priority: neutral(0) = None
  prompt_logprobs: neutral() = None
  request_id: neutral() = None
  return_token_ids: neutral(False) = None
  return_tokens_as_token_ids: neutral(False) = None
  skip_special_tokens: neutral(True) = None
  spaces_between_special_tokens: Unused = None
  structural_tag: neutral() = None
  structured_outputs: neutral() = None
  truncate_prompt_tokens: neutral() = None
  use_beam_search: neutral(False) = None
  vllm_xargs: neutral({}) = None

  @property
  def stops(self) -> list[str]:
    """The stop strings."""
    return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

  @property
  def stop_ids(self) -> frozenset[int]:
    """Tokens that end an answer, besides those of the model."""
    return frozenset(self.stop_token_ids or ())

  @property
  def counted(self) -> bool:
    """Whether a stream ends with the numbers of its tokens."""
    return self.stream_options is not None and bool(self.stream_options.include_usage)

  @model_validator(mode='after')
  def _usage_of_streams(self) -> Self:
    if self.counted and not self.stream:
      raise fault('include_usage goes with stream: true', 'stream_options')
    return self


class ResponseFormat(Strict):
  type: neutral('text') = None
  json_schema: neutral() = None
  schema_: Annotated[neutral(), Field(alias='schema')] = None


class ChatRequest(_OpenAI):
  """POST /v1/chat/completions."""

  messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
  max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
  logprobs: bool | None = None
  top_logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
  separate_reasoning: (
    Annotated[bool, Field(description="Thinking in reasoning_content, apart from content (default: the server's)")]
    | None
  ) = None
  include_reasoning: Annotated[bool, Field(description='false leaves reasoning_content out')] | None = None
  response_format: ResponseFormat | None = None
  metadata: Annotated[dict[str, str], Field(max_length=16, description='Not used')] | None = None
  safety_identifier: Annotated[str, Field(max_length=512, description='Not used')] | None = None
  prompt_cache_key: Annotated[str, Field(max_length=512, description='Not used')] | None = None
  prompt_cache_options: Unused = None
  prompt_cache_retention: Annotated[str, Field(max_length=64, description='Not used')] | None = None
  audio: neutral() = None
  function_call: neutral('none', 'auto') = None
  functions: neutral([]) = None
  modalities: neutral(['text']) = None
  moderation: neutral() = None
  parallel_tool_calls: Annotated[bool, Field(description='Not used')] | None = None
  prediction: neutral() = None
  reasoning_effort: neutral('medium') = None
  store: neutral(False) = None
  tool_choice: neutral('none', 'auto') = None
  tools: neutral([]) = None
  verbosity: neutral('medium') = None
  web_search_options: neutral() = None
  # of vLLM and SGLang
  add_generation_prompt: neutral(True) = None
  chat_template: neutral() = None
  chat_template_kwargs: neutral({}) = None
  continue_final_message: neutral(False) = None
  documents: neutral([]) = None
  echo: neutral(False) = None
  mm_processor_kwargs: neutral({}) = None
  stream_reasoning: neutral(True) = None
  thinking_token_budget: neutral() = None

  @property
  def limit(self) -> int | None:
    """New tokens at most, given by either of two fields."""
    return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

  @property
  def top(self) -> int | None:
    """Likeliest tokens beside each token; None for no log-probabilities at all."""
    return (self.top_logprobs or 0) if self.logprobs else None

  @model_validator(mode='after')
  def _top_of_logprobs(self) -> Self:
    if self.top_logprobs and not self.logprobs:
      raise fault('goes with logprobs: true', 'top_logprobs')
    return self


def _prompt(value: Any) -> str | None:
  if isinstance(value, str):
    return 'text'
  if not isinstance(value, list):
    return None
  kinds = {str: 'texts', int: 'ids', list: 'lists'}
  return kinds.get(type(value[0])) if value else 'texts'


class CompletionRequest(_OpenAI):
  """POST /v1/completions."""

  prompt: one_of(
    _prompt,
    'a text, texts, token ids, or lists of token ids',
    text=Words,
    texts=Annotated[list[Words], Field(min_length=1, max_length=PROMPTS)],
    ids=Ids,
    lists=Annotated[list[Ids], Field(min_length=1, max_length=PROMPTS)],
  )
  max_tokens: Annotated[int, Field(ge=0, lt=2**31, description='0 goes well with echo and logprobs')] | None = None
  logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
  echo: Annotated[bool, Field(description='The prompt before its continuation, with logprobs both')] | None = None
  best_of: Annotated[int, Field(ge=1, le=MOST, description='Only n')] | None = None
  suffix: neutral('') = None
  prompt_embeds: neutral() = None
  response_format: ResponseFormat | None = None

  @property
  def limit(self) -> int:
    """New tokens at most; the default is OpenAI's."""
    return 16 if self.max_tokens is None else self.max_tokens

  @property
  def prompts(self) -> list[str | list[int]]:
    """One or more prompts, each a text or token ids."""
    several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
    return self.prompt if several else [self.prompt]

  @property
  def top(self) -> int | None:
    """See ChatRequest."""
    return self.logprobs

  @model_validator(mode='after')
  def _all_are_best(self) -> Self:
    if self.best_of not in (None, 1, self.n or 1):
      raise fault('not supported by this server, only n is taken', 'best_of')
    return self


class Example(Strict):
  input: Words
  output: Words


class Asserts(Strict):
  entry_point: Annotated[str, Field(max_length=200)] | None = None
  setup: Words
  asserts: Annotated[list[Words], Field(min_length=1, max_length=1000)]


class SolveRequest(_Asked):
  """POST /v1/solve: a problem, and what its solutions are graded by, if anything."""

  problem: Annotated[str, Field(min_length=1, max_length=LONGEST)]
  answer: (
    Annotated[
      one_of(
        _text, 'a text or texts', text=Answer, texts=Annotated[list[Answer], Field(min_length=1, max_length=MOST)]
      ),
      Field(description='The right answer or accepted ones: then every solution gets a verdict'),
    ]
    | None
  ) = None
  tests: (
    Annotated[
      one_of(
        lambda value: 'asserts' if isinstance(value, dict) else 'examples' if isinstance(value, list) else None,
        'a list of examples or an object with asserts',
        examples=Annotated[list[Example], Field(min_length=1, max_length=1000)],
        asserts=Asserts,
      ),
      Field(description="Tests of the program asked for: then every solution's last block gets a verdict"),
    ]
    | None
  ) = None

  @model_validator(mode='after')
  def _one_judge(self) -> Self:
    if self.answer is not None and self.tests is not None:
      raise fault('expected at most one of answer and tests')
    return self

  def examples(self) -> list[dict] | dict | None:
    """The tests in the form of verify/code.py."""
    if self.tests is None:
      return None
    if isinstance(self.tests, Asserts):
      return self.tests.model_dump()
    return [example.model_dump() for example in self.tests]
