"""Thinking is separated from the answer, whole and streamed, however the text is cut into pieces."""

import dataclasses

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibethinker_jax.engine.engine import TokenChunk
from vibethinker_jax.serve import worker as module
from vibethinker_jax.serve.reasoning import ReasoningParser

ASK = [{'role': 'user', 'content': 'x'}]


def parsed(pieces, opened: bool = False) -> tuple[str, str]:
  parser = ReasoningParser(opened)
  parts = [*map(parser.feed, pieces), parser.end()]
  return tuple(''.join(column) for column in zip(*parts))


@pytest.mark.parametrize(
  'text, opened, reasoning, content',
  [
    ('<think>2 + 2 = 4</think>4', False, '2 + 2 = 4', '4'),
    ('\n <think>\na  b\n</think>\n\nIt is 4.\n', False, 'a  b', 'It is 4.\n'),
    ('a  b\n</think>\n4', True, 'a  b', '4'),
    ('no thought', False, '', 'no thought'),
    ('  <thin', False, '', '  <thin'),
    ('', False, '', ''),
    ('   ', False, '', '   '),
    ('<think></think>4', False, '', '4'),
    ('<think>not closed <b> </thi', False, 'not closed <b> </thi', ''),
    ('not closed', True, 'not closed', ''),
    ('see <think>a</think>', False, '', 'see <think>a</think>'),
    ('<think>a</think>b</think>c<think>', False, 'a', 'b</think>c<think>'),
    ('4</think>', False, '', '4</think>'),
  ],
)
def test_the_two_parts(text, opened, reasoning, content):
  assert parsed([text], opened) == (reasoning, content)
  assert parsed(list(text), opened) == (reasoning, content)


@settings(max_examples=300, deadline=None)
@given(
  tokens=st.lists(st.sampled_from(['<think>', '</think>', '<', 'think>', '</', ' ', '\n', 'a', 'b<']), max_size=12),
  cuts=st.lists(st.integers(1, 9), max_size=30),
  opened=st.booleans(),
)
def test_pieces_give_the_parts_of_the_whole(tokens, cuts, opened):
  text, pieces, at = ''.join(tokens), [], 0
  for n in [*cuts, len(text)]:
    pieces.append(text[at : at + n])
    at += n
  reasoning, content = parsed(pieces, opened)
  assert (reasoning, content) == parsed([text], opened)
  assert reasoning == reasoning.strip()


class Scripted:
  """Takes the place of the engine's Scheduler: every sample is the text of the script, five tokens in each step."""

  script: tuple[int, ...] = ()

  def __init__(self, engine, model):
    self._at = {}
    self.live = self.queued = 0

  def add(self, request_id, request, sample):
    self._at[request_id, sample] = 0

  def cancel(self, request_id, sample=None):
    self._at = {k: at for k, at in self._at.items() if k[0] != request_id or sample not in (None, k[1])}

  @property
  def busy(self) -> bool:
    return bool(self._at)

  def step(self):
    out = []
    for (request_id, sample), at in list(self._at.items()):
      tokens = np.array(self.script[at : at + 5], np.int32)
      self._at[request_id, sample] = at + 5
      over = at + 5 >= len(self.script)
      if over:
        del self._at[request_id, sample]
      out.append(TokenChunk(request_id, sample, tokens, -tokens - 1.0, -tokens - 1.0, 'stop' if over else ''))
    return out


@pytest.fixture
def says(monkeypatch, make_service, served):
  """says(text, service): a live server whose model says this text and ends its turn."""

  def start(text: str, service=None):
    service = service or make_service()
    encode = service.tokenizer.hf.encode
    monkeypatch.setattr(Scripted, 'script', (*encode(text, add_special_tokens=False), *service.tokenizer.stop_ids[-1:]))
    monkeypatch.setattr(module, 'Scheduler', Scripted)
    return served(service)

  return start


def whole(live, **more) -> dict:
  body = {'messages': ASK, **more}
  return httpx.post(f'{live.url}/v1/chat/completions', json=body, timeout=60).json()['choices'][0]


def streamed(live, **more) -> dict:
  chunks = live.client().chat.completions.create(model='vibethinker', messages=ASK, stream=True, **more)
  out = {}
  for delta in (chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks):
    for name in ('reasoning_content', 'content'):
      if delta.get(name):
        assert not (name == 'reasoning_content' and 'content' in out), 'thinking comes first'
        out[name] = out.get(name, '') + delta[name]
  return out


def test_reasoning_content(says):
  text = '<think>\n7x = 49, so x = 7.\n</think>\n\nIt is 7.'
  with says(text) as live:
    choice = whole(live, logprobs=True)
    assert choice['message'] == {
      'role': 'assistant',
      'content': 'It is 7.',
      'refusal': None,
      'reasoning_content': '7x = 49, so x = 7.',
    }
    assert ''.join(t['token'] for t in choice['logprobs']['content']) == text, 'the tokens are those of all of it'
    assert streamed(live) == {'reasoning_content': '7x = 49, so x = 7.', 'content': 'It is 7.'}
    assert streamed(live, n=1, stop=[' 7.\n']) == {'reasoning_content': '7x = 49, so x ='}
    for more in ({'separate_reasoning': False}, {'separate_reasoning': False, 'include_reasoning': True}):
      assert whole(live, **more)['message'] == {'role': 'assistant', 'content': text, 'refusal': None}
      assert streamed(live, extra_body=more) == {'content': text}
    silent = {'role': 'assistant', 'content': 'It is 7.', 'refusal': None}
    assert whole(live, include_reasoning=False)['message'] == silent
    assert streamed(live, extra_body={'include_reasoning': False}) == {'content': 'It is 7.'}


def test_thinking_that_the_template_opens(says, make_service):
  service = make_service()
  plain = service.tokenizer.hf.chat_template
  opens = plain.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}")
  assert opens != plain
  tokenizer = type(service.tokenizer.hf)(tokenizer_object=service.tokenizer.hf.backend_tokenizer)
  tokenizer.chat_template = opens
  service = dataclasses.replace(service, tokenizer=dataclasses.replace(service.tokenizer, hf=tokenizer))
  with says('7x = 49</think>\n7', service) as live:
    assert whole(live)['message']['reasoning_content'] == '7x = 49'
    assert streamed(live) == {'reasoning_content': '7x = 49', 'content': '7'}


def test_a_server_may_leave_it_in_the_content(says, make_service):
  with says('<think>a</think>b', dataclasses.replace(make_service(), separate=False)) as live:
    assert whole(live)['message']['content'] == '<think>a</think>b'
    assert whole(live, separate_reasoning=True)['message']['reasoning_content'] == 'a'
