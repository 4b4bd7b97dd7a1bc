"""Fields that this server does not support: accepted where they ask for nothing, otherwise refused by their names."""

import httpx
import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import (
  ChatCompletionAssistantMessageParam,
  ChatCompletionContentPartTextParam,
  ChatCompletionMessage,
  ChatCompletionStreamOptionsParam,
)
from openai.types.chat import completion_create_params as chat_params
from pydantic import ValidationError

from vibethinker_jax.engine.engine import Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.serve.messages import Message, Part
from vibethinker_jax.serve.schema import ChatRequest, CompletionRequest, StreamOptions

ASK = [{'role': 'user', 'content': 'Solve 7x + 12 = 61.'}]

# field: what asks for nothing (beside null, and leaving it out), what asks for something
BOTH = {
  'frequency_penalty': ([0, 0.0], [0.5, -1]),
  'presence_penalty': ([0, 0.0], [0.5]),
  'logit_bias': ([{}], [{'5': 1}]),
  'service_tier': (['auto', 'default'], ['flex', 'priority']),
  'add_special_tokens': ([False], [True]),
  'allowed_token_ids': ([], [[1, 2]]),
  'bad_words': ([[]], [['x']]),
  'guided_json': ([], [{'type': 'object'}]),
  'guided_regex': ([], ['a+']),
  'guided_choice': ([], [['a', 'b']]),
  'guided_grammar': ([], ['root ::= "a"']),
  'structured_outputs': ([], [{'json': {}}]),
  'ignore_eos': ([False], [True]),
  'include_stop_str_in_output': ([False], [True]),
  'length_penalty': ([1, 1.0], [2.0]),
  'logits_processors': ([[]], [['x']]),
  'min_tokens': ([0], [3]),
  'priority': ([0], [1]),
  'prompt_logprobs': ([], [1]),
  'skip_special_tokens': ([True], [False]),
  'truncate_prompt_tokens': ([], [10]),
  'use_beam_search': ([False], [True]),
}
CHAT = {
  'tools': ([[]], [[{'type': 'function', 'function': {'name': 'f'}}]]),
  'tool_choice': (['none', 'auto'], ['required', {'type': 'function', 'function': {'name': 'f'}}]),
  'functions': ([[]], [[{'name': 'f'}]]),
  'function_call': (['none', 'auto'], [{'name': 'f'}]),
  'modalities': ([['text']], [['text', 'audio'], ['audio']]),
  'audio': ([], [{'voice': 'alloy', 'format': 'wav'}]),
  'prediction': ([], [{'type': 'content', 'content': 'x'}]),
  'store': ([False], [True]),
  'reasoning_effort': (['medium'], ['low', 'high', 'none']),
  'verbosity': (['medium'], ['low']),
  'web_search_options': ([], [{}]),
  'moderation': ([], [{'model': 'x'}]),
  'chat_template': ([], ['{{ messages }}']),
  'chat_template_kwargs': ([{}], [{'enable_thinking': False}]),
  'add_generation_prompt': ([True], [False]),
  'continue_final_message': ([False], [True]),
  'documents': ([[]], [[{'text': 'x'}]]),
  'echo': ([False], [True]),
  'stream_options': ([{}, {'include_usage': False}, {'include_obfuscation': False}], [{'include_usage': True}]),
}
COMPLETION = {'suffix': ([''], ['x']), 'best_of': ([1], [2])}
# fields that no answer depends on
UNUSED = {
  'user': ['me', ''],
  'metadata': [{}, {'a': 'b'}],
  'safety_identifier': ['me'],
  'prompt_cache_key': ['key'],
  'prompt_cache_retention': ['24h', 'in_memory'],
  'parallel_tool_calls': [True, False],
}
NULLS = ['n', 'seed', 'stop', 'stream', 'temperature', 'top_p', 'top_k', 'min_p', 'max_tokens', 'logprobs', 'model']
NULLS += ['repetition_penalty', 'stop_token_ids', 'stream_options', 'user', 'preset', 'a_field_of_tomorrow']


@pytest.mark.parametrize(
  'kind, base, fields',
  [
    (ChatRequest, {'messages': ASK}, BOTH | CHAT),
    (CompletionRequest, {'prompt': 'x'}, BOTH | COMPLETION),
  ],
)
def test_a_field_that_asks_for_nothing_is_taken_and_a_use_is_refused(kind, base, fields):
  for name, (neutral, uses) in fields.items():
    for value in (None, *neutral):
      kind.model_validate(base | {name: value})
    for value in uses:
      with pytest.raises(ValidationError) as refused:
        kind.model_validate(base | {name: value})
      (error,) = refused.value.errors()
      assert error['type'] == 'fault' and name in (*error['loc'], error['ctx']['param']), name
  for name in NULLS:
    kind.model_validate(base | {name: None})


def test_the_whole_schema_at_once(live):
  """Every neutral value: the requests are answered as if the fields were missing."""
  plain = {'messages': ASK, 'max_tokens': 4, 'temperature': 0}
  ask = lambda path, body: httpx.post(f'{live.url}/v1/{path}', json=body, timeout=60)
  answer = ask('chat/completions', plain).json()['choices']
  nulls = {name: None for name in (*BOTH, *CHAT, *NULLS, *UNUSED, 'response_format') if name not in plain}
  fields = {name: values for name, (values, _) in (BOTH | CHAT).items()} | UNUSED
  firsts, lasts = ({name: v[i] for name, v in fields.items() if v} for i in (0, -1))
  more = {'response_format': {'type': 'text'}, 'n': 1, 'top_logprobs': 0, 'top_k': 0, 'min_p': 0, 'stop': []}
  more |= {'repetition_penalty': 1, 'stop_token_ids': [], 'max_completion_tokens': 4}
  for extra in (nulls, firsts | more, lasts | {'top_k': -1}):
    assert ask('chat/completions', plain | extra).json()['choices'] == answer
  plain = {'prompt': 'Solve', 'max_tokens': 4, 'temperature': 0}
  answer = ask('completions', plain).json()['choices']
  fields = {name: values[0] for name, (values, _) in (BOTH | COMPLETION).items() if values}
  for extra in ({name: None for name in (*BOTH, *COMPLETION, 'echo', 'logprobs')}, fields | {'echo': False}):
    assert ask('completions', plain | extra).json()['choices'] == answer


def test_a_refusal_is_one_sentence_with_its_param(live):
  uses = {name: uses[0] for name, (_, uses) in (BOTH | CHAT).items()}
  for name, value in uses.items():
    answer = httpx.post(f'{live.url}/v1/chat/completions', json={'messages': ASK, name: value})
    error = answer.json()['error']
    assert (answer.status_code, error['param'], error['type']) == (400, name, 'invalid_request_error')
    assert error['message'].startswith(f'{name}: ') and '\n' not in error['message']
  for kind in ('json_object', 'json_schema'):
    body = {'messages': ASK, 'response_format': {'type': kind}}
    error = httpx.post(f'{live.url}/v1/chat/completions', json=body).json()['error']
    assert error['message'] == 'response_format.type: not supported by this server, only "text" is taken'


@pytest.mark.parametrize(
  'content, text',
  [
    ('a', 'a'),
    ('', ''),
    ([{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': ' b'}], 'a b'),
    ([{'type': 'text', 'text': 'a', 'cache_control': {'type': 'ephemeral'}}], 'a'),
    ([{'type': 'input_text', 'text': 'a', 'annotations': None}], 'a'),
    ([], ''),
  ],
)
@pytest.mark.parametrize('role', ['system', 'developer', 'user', 'assistant'])
def test_what_is_said_is_a_text_or_texts(role, content, text):
  said = Message.model_validate({'role': role, 'content': content, 'name': None}).plain()
  assert said == {'role': 'system' if role == 'developer' else role, 'content': text}


@pytest.mark.parametrize(
  'message, says',
  [
    ({'content': [{'type': 'text', 'text': 'a'}, {'type': 'image_url', 'image_url': {'url': 'x'}}]}, '1: images are'),
    ({'content': [{'type': 'input_image', 'image_url': 'x'}]}, '0: images are not supported'),
    ({'content': [{'type': 'input_audio', 'input_audio': {}}]}, '0: audio is not supported'),
    ({'content': [{'type': 'file', 'file': {}}]}, '0: files are not supported'),
    ({'content': [{'type': 'video_url', 'video_url': {}}]}, '0: videos are not supported'),
    ({'content': [{'type': 'poem'}]}, '0: expected a part {"type": "text"'),
    ({'content': ['a']}, '0: expected a part {"type": "text"'),
    ({'content': [{'type': 'text'}]}, 'content.0.text: Field required'),
    ({'content': 5}, 'content: expected a text or a list of texts'),
    ({'content': None}, 'content: expected a text or a list of texts'),
    ({}, 'content: expected a text or a list of texts'),
    ({'role': 'tool', 'content': 'x', 'tool_call_id': 'a'}, 'role: tools are not supported'),
    ({'role': 'assistant', 'tool_calls': [{'id': 'a', 'type': 'function'}]}, 'tool_calls: not supported'),
    ({'role': 'assistant', 'refusal': 'I will not'}, 'refusal: not supported'),
    ({'role': 'assistant', 'content': 'x', 'audio': {'id': 'a'}}, 'audio: not supported'),
    ({'content': 'x', 'mood': 'good'}, 'Unrecognized request argument supplied: messages.0.mood'),
  ],
)
def test_what_is_no_text_is_named_in_one_sentence(live, message, says):
  answer = httpx.post(f'{live.url}/v1/chat/completions', json={'messages': [{'role': 'user'} | message]})
  error = answer.json()['error']
  assert answer.status_code == 400 and says in error['message'] and ', or: ' not in error['message']
  assert error['param'].startswith('messages.0.')


def test_its_own_messages_come_back(live):
  """As the clients of several libraries keep them: with all that an answer has, and what they add."""
  client = live.client()
  first = client.chat.completions.create(model='vibethinker', messages=ASK, max_tokens=4).choices[0].message
  bare = {'role': 'assistant', 'content': first.content}
  nothing = {'refusal': None, 'audio': None, 'function_call': None, 'tool_calls': None, 'annotations': []}
  kept = [
    first.model_dump(),
    bare | nothing | {'reasoning_content': 'I thought.'},
    bare | {'provider_specific_fields': {'refusal': None}, 'tool_calls': []},
  ]
  answers = [
    client.chat.completions.create(model='vibethinker', messages=[*ASK, m, *ASK], max_tokens=8, temperature=0)
    for m in (bare, *kept)
  ]
  assert len({(a.choices[0].message.content, a.usage.prompt_tokens) for a in answers}) == 1
  silent = {'role': 'assistant', 'content': None}
  assert client.chat.completions.create(model='vibethinker', messages=[*ASK, silent, *ASK], max_tokens=1).choices


@pytest.mark.parametrize(
  'body, says',
  [
    ({'prompt': []}, 'prompt: List should have at least 1 item'),
    ({'prompt': 5}, 'prompt: expected a text, texts, token ids, or lists of token ids'),
    ({'prompt': [[1], ['x']]}, 'prompt.1.0: Input should be a valid integer'),
    ({'prompt': ['a', 5]}, 'prompt.1: Input should be a valid string'),
    ({'prompt': {}}, 'prompt: expected a text'),
    ({'prompt': ''}, 'the prompt is empty'),
    ({'prompt': [512]}, 'prompt ids must lie in 0..511'),
    ({'prompt': [-1]}, 'prompt.0: Input should be greater'),
    ({'prompt': 'x', 'stop': 5}, 'stop: expected a text or texts'),
    ({'prompt': 'x', 'stop': ['']}, 'stop.0: String should have at least 1'),
    ({'prompt': 'x', 'logprobs': 21}, 'logprobs'),
    ({'prompt': ['x'] * 9, 'n': 2}, '18 samples, this server takes at most 16'),
  ],
)
def test_prompts_are_named_too(live, body, says):
  answer = httpx.post(f'{live.url}/v1/completions', json=body)
  assert answer.status_code == 400 and says in answer.json()['error']['message']
  assert answer.json()['error']['param'].split('.')[0] in ('prompt', 'stop', 'logprobs')


def test_more_stop_strings_than_openai_takes(live):
  client = live.client()
  ask = lambda stop: client.chat.completions.create(
    model='vibethinker', messages=ASK, max_tokens=60, temperature=0, stop=stop
  )
  text = ask(None).choices[0].message.content
  assert (
    ask([f'never{i}' for i in range(40)] + [text[9:12]]).choices[0].message.content == text[: text.find(text[9:12])]
  )


@pytest.mark.parametrize(
  'ours, theirs',
  [
    (ChatRequest, chat_params.CompletionCreateParamsStreaming.__annotations__),
    (CompletionRequest, completion_params.CompletionCreateParamsStreaming.__annotations__),
    (Message, ChatCompletionAssistantMessageParam.__annotations__),
    (Message, ChatCompletionMessage.model_fields),
    (Part, ChatCompletionContentPartTextParam.__annotations__),
    (StreamOptions, ChatCompletionStreamOptionsParam.__annotations__),
  ],
)
def test_every_field_of_openai_is_known(ours, theirs):
  """As the installed client has them."""
  assert len(theirs) > 1 and set(theirs) <= set(ours.model_fields)


def test_a_repetition_penalty_is_the_engines(live, tiny):
  engine, model, tokenizer = tiny
  request = Request(tuple(tokenizer.chat(ASK)), 40, 1, SamplingParams(0.0, repetition_penalty=1.5))
  (drawn,) = engine.generate(model, [request])
  answer = lambda **more: live.client().chat.completions.create(
    model='vibethinker', messages=ASK, max_tokens=40, temperature=0, extra_body=more
  )
  said = answer(repetition_penalty=1.5).choices[0].message.content
  assert said == tokenizer.decode(drawn.tokens) != answer(repetition_penalty=1).choices[0].message.content
