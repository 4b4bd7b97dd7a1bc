import asyncio
import json
import threading

import httpx
import jax
import openai
import pytest

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.serve.server import memory

ASK = [{'role': 'user', 'content': 'Solve 7x + 12 = 61.'}]
ROWS, LONGEST = 8, 256  # as conftest.py has them
ENDLESS = dict(prompt=[5, 6, 7] * 5, temperature=2.0, max_tokens=240, seed=3)  # this seed meets no stop token


@pytest.fixture(scope='module')
def client(live):
  return live.client()


def chat(client, **more):
  return client.chat.completions.create(model='vibethinker', messages=ASK, **more)


def streamed(client, **more) -> tuple[dict[int, str], dict[int, str], list]:
  """Text and finish of every choice of a stream, and its chunks."""
  chunks = list(chat(client, stream=True, **more))
  texts, finishes = {}, {}
  for chunk in chunks:
    for choice in chunk.choices:
      texts[choice.index] = texts.get(choice.index, '') + (choice.delta.content or '')
      if choice.finish_reason:
        finishes[choice.index] = choice.finish_reason
  return texts, finishes, chunks


def test_models(client):
  assert [m.id for m in client.models.list()] == ['vibethinker']
  assert client.models.retrieve('vibethinker').object == 'model'


def test_greedy_equals_generate(client, tmp_path):
  (tmp_path / 'in.jsonl').write_text(json.dumps({'id': 0, 'messages': ASK}) + '\n')
  arguments = ['--model', str(TINY_BASE), '--in', str(tmp_path / 'in.jsonl'), '--out', str(tmp_path / 'out.jsonl')]
  assert main(['generate', *arguments, '--temperature', '0', '--max-tokens', '60', '--rows', '1']) == 0
  row = json.loads((tmp_path / 'out.jsonl').read_text())
  whole = chat(client, temperature=0, max_tokens=60, logprobs=True)
  choice = whole.choices[0]
  assert choice.message.content == row['text'] and choice.finish_reason == row['finish_reason'] == 'stop'
  assert whole.usage.completion_tokens == len(row['tokens'])
  told = choice.logprobs.content
  assert ''.join(t.token for t in told) == row['text'], 'the end of the turn is no text'
  assert bytes(b for t in told for b in t.bytes).decode() == row['text']
  assert [t.logprob for t in told] == pytest.approx(row['logprobs'][:-1], abs=1e-4)


def test_a_seed_draws_the_same_streamed_or_whole(client):
  more = dict(n=4, seed=2**40 + 7, temperature=1.0, max_tokens=60)
  whole = chat(client, **more)
  texts = {c.index: c.message.content for c in whole.choices}
  assert len(set(texts.values())) > 1, 'four samples, not one four times'
  again, finishes, chunks = streamed(client, **more, stream_options={'include_usage': True})
  assert again == texts
  assert finishes == {c.index: c.finish_reason for c in whole.choices}
  assert chunks[-1].usage == whole.usage and not chunks[-1].choices
  assert {c.index: c.message.content for c in chat(client, **{**more, 'seed': 7}).choices} != texts


def test_completions_number_choices_through_prompts(client):
  more = dict(model='vibethinker', seed=1, max_tokens=12, temperature=0)
  both = client.completions.create(prompt=['Solve ', 'Find '], n=2, logprobs=0, **more)
  assert [c.index for c in both.choices] == [0, 1, 2, 3]
  single = client.completions.create(prompt='Find ', **more).choices[0].text
  assert both.choices[2].text == both.choices[3].text == single != both.choices[0].text
  logprobs = both.choices[2].logprobs
  assert ''.join(logprobs.tokens) == f'{single}<|im_end|>', 'the token that ends it is told'
  assert [single[at : at + 1] for at in logprobs.text_offset] == [*(token[:1] for token in logprobs.tokens[:-1]), '']


@pytest.mark.parametrize('length', [1, 3, 9])
def test_stop_strings_end_the_text_where_they_begin(client, live, length):
  text = chat(client, temperature=0, max_tokens=60).choices[0].message.content
  stop = text[11 : 11 + length]  # wherever the tokens' borders are
  expected = text[: text.find(stop)]
  choice = chat(client, temperature=0, max_tokens=60, stop=[stop, 'never there'], logprobs=True).choices[0]
  assert (choice.message.content, choice.finish_reason) == (expected, 'stop')
  assert ''.join(t.token for t in choice.logprobs.content).startswith(expected)
  texts, finishes, _ = streamed(client, temperature=0, max_tokens=60, stop=stop)
  assert (texts, finishes) == ({0: expected}, {0: 'stop'})
  assert live.idle()


def test_a_stop_string_ends_one_sample_of_several(client, live):
  plain = chat(client, n=4, seed=5, max_tokens=60)
  stop = plain.choices[0].message.content[5:20]
  stopped = chat(client, n=4, seed=5, max_tokens=60, stop=stop)
  for before, after in zip(plain.choices, stopped.choices, strict=True):
    text = before.message.content
    assert after.message.content == (text[: text.find(stop)] if stop in text else text)
  assert live.idle()


def test_a_client_that_leaves_frees_its_row(client, live):
  metrics = live.service.worker.metrics
  before, gone = metrics.tokens._value.get(), metrics.gone._value.get()
  with client.completions.create(model='vibethinker', stream=True, n=2, **ENDLESS) as stream:
    next(iter(stream))
  assert live.idle()
  with httpx.Client() as http, pytest.raises(httpx.ReadTimeout):
    http.post(f'{live.url}/v1/completions', json={**ENDLESS, 'n': 2}, timeout=0.02)
  assert live.idle()
  assert metrics.gone._value.get() == gone + 2
  assert metrics.tokens._value.get() - before < 2 * 2 * 240, 'they were not drawn to their end'


def test_a_full_queue_says_when_to_come_back(client, live):
  with client.completions.create(model='vibethinker', stream=True, n=16, **ENDLESS) as stream:
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as refused:
      chat(client, n=16)
    assert int(refused.value.response.headers['retry-after']) >= 1
    assert refused.value.body['type'] == 'rate_limit_error'
  assert live.idle()
  assert chat(client, max_tokens=1).choices[0].finish_reason == 'length'


@pytest.mark.parametrize(
  'change, says',
  [
    ({'model': 'gpt'}, 'gpt'),
    ({'max_tokens': 250}, '256 tokens in all'),
    ({'messages': [{'role': 'user', 'content': '12 ' * 300}]}, '256 tokens in all'),
    ({'messages': []}, 'messages'),
    ({'messages': [{'role': 'tool', 'content': 'x'}]}, 'messages.0.role'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]}, 'messages.0.content'),
    ({'messages': 'hello'}, 'list'),
    ({'temperature': -1}, 'temperature'),
    ({'temperature': 'hot'}, 'temperature'),
    ({'temperature': None, 'tempurature': 1}, 'Unrecognized request argument supplied: tempurature'),
    ({'top_p': 0}, 'top_p'),
    ({'top_k': -2}, 'top_k'),
    ({'n': 0}, 'n:'),
    ({'n': 100}, 'at most 16 samples'),
    ({'seed': 2**63}, 'seed'),
    ({'stop': ''}, 'stop'),
    ({'top_logprobs': 3}, 'top_logprobs: goes with logprobs'),
    ({'logprobs': True, 'top_logprobs': 21}, 'top_logprobs'),
    ({'stream_options': {'include_usage': True}}, 'stream'),
    ({'preset': 'poetry'}, 'preset'),
  ],
)
def test_what_is_wrong_is_named(live, change, says):
  answer = httpx.post(f'{live.url}/v1/chat/completions', json={'messages': ASK, **change})
  error = answer.json()['error']
  assert answer.status_code == (404 if 'model' in change else 400)
  assert set(error) == {'message', 'type', 'param', 'code'} and error['type'] == 'invalid_request_error'
  assert says in error['message']


@pytest.mark.parametrize(
  'body, status',
  [
    (b'{"messages": [', 400),
    (b'', 400),
    (b'[]', 400),
    (b'\xff\xfe', 400),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b'9' * 5000 + b'}', 400),
    (b'[' * 100_000, 400),
    (b'{"messages": "' + b'x' * 10_000_000 + b'"}', 413),
  ],
)
def test_broken_bodies(live, body, status):
  for path in ('chat/completions', 'completions', 'solve'):
    answer = httpx.post(f'{live.url}/v1/{path}', content=body, headers={'content-type': 'application/json'})
    assert (answer.status_code, bool(answer.json()['error']['message'])) == (status, True)


def test_unknown_paths_and_methods(live):
  missing = httpx.post(f'{live.url}/v1/responses', json={}).json()['error']
  assert missing['type'] == 'invalid_request_error'
  assert missing['message'].startswith('/v1/responses: not found, this server has /health, ')
  assert '/v1/chat/completions' in missing['message']
  wrong = httpx.get(f'{live.url}/v1/completions')
  assert wrong.status_code == 405 and wrong.headers['allow'] == 'POST'
  assert wrong.json()['error']['message'] == '/v1/completions takes POST, not GET'


def test_a_failing_engine_answers_and_starts_anew(client, live, monkeypatch):
  from vibethinker_jax.engine.scheduler import Scheduler

  whole, worker = chat(client, temperature=0, max_tokens=60), live.service.worker
  step, restarts = Scheduler.step, worker.metrics.restarts._value.get()
  broken = threading.Event()
  broken.set()

  def fails(run):
    if broken.is_set() and run.live:
      broken.clear()
      raise RuntimeError('out of memory')
    return step(run)

  monkeypatch.setattr(Scheduler, 'step', fails)
  with pytest.raises(openai.InternalServerError) as failure:
    chat(client, temperature=0, max_tokens=60)
  assert failure.value.body['code'] == 'engine_failure'
  broken.set()
  with pytest.raises(openai.APIError, match='engine failed'):
    list(chat(client, stream=True, max_tokens=60))
  assert chat(client, temperature=0, max_tokens=60).choices == whole.choices
  assert worker.metrics.restarts._value.get() == restarts + 2 and live.idle()


def test_keys_metrics_and_closing(make_service, served):
  """One service of its own: what it says of itself, whom it lets in, and how it ends."""
  service = make_service(keys=('right', 'also'))
  with served(service) as live:
    with pytest.raises(openai.AuthenticationError):
      live.client('wrong').models.list()
    assert httpx.get(f'{live.url}/v1/models').json()['error']['code'] == 'invalid_api_key'
    assert chat(live.client('also'), max_tokens=3).usage.completion_tokens == 3
    assert httpx.get(f'{live.url}/health').json() == {'status': 'ok', 'model': 'vibethinker', 'warm': True}
    text = httpx.get(f'{live.url}/metrics').text
    for line in (
      'vibethinker_rows 8.0',
      'vibethinker_rows_in_use 0.0',
      'vibethinker_samples_waiting 0.0',
      'vibethinker_time_to_first_token_seconds_count 3.0',  # two of the start
      'vibethinker_requests_total{path="/v1/chat/completions",status="200"} 1.0',
      'vibethinker_requests_total{path="/v1/models",status="401"} 2.0',
    ):
      assert line in text.split('\n')
    with live.client('right').completions.create(model='vibethinker', stream=True, **ENDLESS) as stream:
      next(iter(stream))
      draining = asyncio.run_coroutine_threadsafe(service.worker.drain(0.0), live.loop)
      with pytest.raises(openai.APIError, match='shut down before'):
        list(stream)
    draining.result(10)
    with pytest.raises(openai.InternalServerError, match='shutting down'):
      chat(live.client('right'))
    assert httpx.get(f'{live.url}/health').status_code == 503
    assert live.idle()


def test_the_memory_printed_is_what_the_arrays_hold(tiny):
  engine, model, _ = tiny
  held = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
  weights, cache = memory(engine, model)
  assert f'weights: {held(model) / 2**20:.3g} MiB' == weights
  assert f'at most {held(engine.empty(ROWS, LONGEST)[1]) / 2**20:.3g} MiB ({ROWS} rows of {LONGEST} tokens)' in cache
