"""How likely tokens are: those of prompts, as `vibethinker score` has it, and the likeliest in place of those drawn;
and how many tokens an answer is said to have."""

import asyncio
import json

import httpx
import numpy as np
import pytest

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.engine.score import score
from vibethinker_jax.serve import scorer as module
from vibethinker_jax.serve.errors import Busy, Closing, EngineFailure
from vibethinker_jax.serve.scorer import Scorer

ASK = [{'role': 'user', 'content': 'Solve 7x + 12 = 61.'}]
TEXTS = ['Solve 7x + 12 = 61.', 'The slope is 7€.', 'x', 'a' * 90]


@pytest.fixture(scope='module')
def ask(live):
  def ask(prompt, **more) -> dict:
    answer = httpx.post(f'{live.url}/v1/completions', json={'prompt': prompt, **more}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()

  return ask


def encode(tiny, text: str) -> list[int]:
  return tiny[2].hf.encode(text, add_special_tokens=False)


@pytest.mark.parametrize('top', [0, 1, 5])
@pytest.mark.parametrize('kind', ['texts', 'ids'])
def test_a_prompt_is_scored_as_the_verb_scores_it(ask, tiny, tmp_path, kind, top):
  rows = [{'id': i, 'text': text} for i, text in enumerate(TEXTS)]
  (tmp_path / 'in.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  files = ['--in', str(tmp_path / 'in.jsonl'), '--out', str(tmp_path / 'out.jsonl')]
  assert main(['score', '--model', str(TINY_BASE), *files]) == 0
  scored = [json.loads(line)['logprobs'] for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
  prompts = TEXTS if kind == 'texts' else [encode(tiny, text) for text in TEXTS]
  answer = ask(prompts, echo=True, logprobs=top, max_tokens=0)
  assert [c['text'] for c in answer['choices']] == TEXTS
  assert {c['finish_reason'] for c in answer['choices']} == {'length'}
  count = sum(len(encode(tiny, text)) for text in TEXTS)
  assert answer['usage'] == {'prompt_tokens': count, 'completion_tokens': 0, 'total_tokens': count}
  for choice, text, expected in zip(answer['choices'], TEXTS, scored, strict=True):
    told = choice['logprobs']
    assert len(told['tokens']) == len(told['text_offset']) == len(encode(tiny, text))
    assert told['token_logprobs'][0] is None
    np.testing.assert_allclose(told['token_logprobs'][1:], expected, atol=1e-5)
    for at, token in zip(told['text_offset'], told['tokens']):
      assert text[at:].startswith(token) or token.startswith('bytes:\\x')
    if top == 0:
      assert told['top_logprobs'] is None
      continue
    assert told['top_logprobs'][0] is None
    for token, logp, likely in zip(told['tokens'][1:], told['token_logprobs'][1:], told['top_logprobs'][1:]):
      assert likely[token] == logp and top <= len(likely) <= top + 1


def test_half_characters_are_told_by_their_bytes(ask):
  told = ask('7€.', echo=True, logprobs=1, max_tokens=0)['choices'][0]['logprobs']
  at = told['tokens'].index('bytes:\\xe2')
  assert told['tokens'][at : at + 3] == ['bytes:\\xe2', 'bytes:\\x82', 'bytes:\\xac']
  assert told['text_offset'][at : at + 4] == [1, 1, 1, 2]


def test_the_likeliest_are_greedy(ask, tiny):
  """What lm-evaluation-harness reads off: a token is the greedy one where none beside it has a greater value."""
  prompt = encode(tiny, 'Solve 7x + 12 = 61.')
  drawn = ask(prompt, max_tokens=6, temperature=0, logprobs=0)['choices'][0]['logprobs']
  ids = [*prompt, *encode(tiny, ''.join(drawn['tokens']))]
  told = ask(ids, echo=True, logprobs=1, max_tokens=1)['choices'][0]['logprobs']
  assert len(told['tokens']) == len(ids) + 1, 'the one drawn is the last, whatever it is'
  greedy = [logp == max(top.values()) for logp, top in zip(told['token_logprobs'][1:], told['top_logprobs'][1:])]
  assert all(greedy[len(prompt) - 1 : -1]) and not all(greedy[: len(prompt) - 1])  # the last is drawn, not greedy
  np.testing.assert_allclose(told['token_logprobs'][len(prompt) : -1], drawn['token_logprobs'], atol=1e-4)


def test_echo_goes_before_what_is_drawn(ask, live):
  more = dict(n=2, max_tokens=8, seed=3, temperature=1)
  plain = ask(['Solve ', 'Find '], logprobs=2, **more)['choices']
  both = ask(['Solve ', 'Find '], logprobs=2, echo=True, **more)['choices']
  for i, (a, b) in enumerate(zip(plain, both, strict=True)):
    prompt = ('Solve ', 'Find ')[i // 2]
    assert b['text'] == prompt + a['text'] and b['finish_reason'] == a['finish_reason']
    n = len(b['logprobs']['tokens']) - len(a['logprobs']['tokens'])
    assert ''.join(b['logprobs']['tokens'][:n]) == prompt
    assert b['logprobs']['tokens'][n:] == a['logprobs']['tokens']
    assert b['logprobs']['token_logprobs'][n:] == a['logprobs']['token_logprobs']
    assert b['logprobs']['text_offset'][n:] == [len(prompt) + at for at in a['logprobs']['text_offset']]
  assert [c['text'] for c in ask(['Solve ', 'Find '], echo=True, **more)['choices']] == [c['text'] for c in both]
  silent = ask(['Solve ', 'Find '], echo=True, max_tokens=0)
  assert [(c['text'], c['logprobs']) for c in silent['choices']] == [('Solve ', None), ('Find ', None)]


def test_echo_streamed_is_echo(ask, live):
  for more in ({'max_tokens': 8, 'n': 2}, {'max_tokens': 0}):
    more |= {'echo': True, 'logprobs': 1, 'seed': 3}
    whole = ask(['Solve ', 'Find '], **more)
    texts, told = {}, {}
    body = {'model': 'vibethinker', 'prompt': ['Solve ', 'Find '], 'stream_options': {'include_usage': True}}
    for chunk in live.client().completions.create(stream=True, **body, **more):
      for choice in chunk.choices:
        texts[choice.index] = texts.get(choice.index, '') + choice.text
        told.setdefault(choice.index, []).extend(choice.logprobs.token_logprobs)
    assert texts == {c['index']: c['text'] for c in whole['choices']}
    assert told == {c['index']: c['logprobs']['token_logprobs'] for c in whole['choices']}
    assert chunk.usage.model_dump(exclude_none=True) == whole['usage']


def test_special_tokens_of_a_prompt_are_scored_and_shown(ask, tiny):
  prompt = tiny[2].chat(ASK)
  choice = ask(prompt, echo=True, logprobs=1, max_tokens=0)['choices'][0]
  assert choice['text'] == '<|im_start|>user\nSolve 7x + 12 = 61.<|im_end|>\n<|im_start|>assistant\n'
  assert ''.join(choice['logprobs']['tokens']) == choice['text'] and len(choice['logprobs']['tokens']) == len(prompt)


@pytest.mark.parametrize('top', [1, 20])
def test_top_logprobs_of_chats(live, tiny, top):
  create = live.client().chat.completions.create
  more = dict(model='vibethinker', messages=ASK, max_tokens=20, temperature=0)
  choice = create(logprobs=True, top_logprobs=top, **more).choices[0]
  assert choice.message.content == create(**more).choices[0].message.content, 'the same is drawn'
  _, model, tokenizer = tiny
  prompt, told = tokenizer.chat(ASK), choice.logprobs.content
  ids = [*prompt, *encode(tiny, choice.message.content)]
  ((_, scored),) = score(model, [ids], top=True)
  for n, token in enumerate(told):
    at = len(prompt) - 1 + n
    assert len(token.top_logprobs) == top
    np.testing.assert_allclose([t.logprob for t in token.top_logprobs], scored.top_logps[at, :top], atol=1e-4)
    assert token.top_logprobs[0].token == tokenizer.hf.decode([int(scored.top_ids[at, 0])])
    assert all(t.bytes for t in token.top_logprobs)
  chunks = create(logprobs=True, top_logprobs=top, stream=True, **more)
  assert [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content] == told


@pytest.mark.parametrize('stream', [False, True])
def test_tokens_are_counted_up_to_the_stop_not_to_the_end_of_the_block(live, tiny, stream):
  create = live.client().chat.completions.create
  more = dict(model='vibethinker', messages=ASK, max_tokens=60, temperature=0)
  tokens = [t.token for t in create(logprobs=True, **more).choices[0].logprobs.content]
  text = ''.join(tokens)
  usage_of = lambda **stop: (
    (
      list(create(stream=True, stream_options={'include_usage': True}, **stop, **more))[-1]
      if stream
      else create(**stop, **more)
    ).usage.completion_tokens
  )
  counts = []
  for begin in range(3, 12):
    stop = text[begin : begin + 4]
    counts.append(usage_of(stop=stop))
    assert counts[-1] == next(n for n in range(1, len(tokens) + 1) if stop in ''.join(tokens[:n]))
  assert len({n % 8 for n in counts}) > 2, "not the block's multiples"
  (last,) = encode(tiny, tokens[9])
  assert usage_of(extra_body={'stop_token_ids': [last]}) == tokens.index(tokens[9]) + 1
  assert live.idle()


def test_a_scorer_says_no_when_it_must(tiny, monkeypatch):
  _, model, _ = tiny

  async def main():
    scorer = Scorer(model, 3)
    first = asyncio.create_task(scorer.score([[1, 2], [3, 4, 5]], False))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
      await scorer.score([[1, 2], [3, 4]], False)
    assert [len(s.logps) for s in await first] == [1, 2] and scorer.open == 0
    monkeypatch.setattr(module, 'score', lambda *_: (1 / 0 for _ in range(1)))
    with pytest.raises(EngineFailure, match='ZeroDivisionError'):
      await scorer.score([[1, 2]], False)
    monkeypatch.setattr(module, 'score', score)
    given_up = asyncio.create_task(scorer.score([[1, 2], [3] * 40], False))
    await asyncio.sleep(0)
    scorer.close()
    with pytest.raises(Closing):
      await scorer.score([[1, 2]], False)
    scorer.give_up()
    with pytest.raises(Closing, match='before the answer was complete'):
      await given_up
    await scorer.stop()
    assert scorer.open == 0

  asyncio.run(main())
