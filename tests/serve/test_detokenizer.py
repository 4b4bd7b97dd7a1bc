import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.serve.detokenizer import Detokenizer, Wanted, special_ids, thinking_tags, token_of

TEXT = load_chat_tokenizer(TINY_BASE)
IDS = st.lists(st.integers(0, len(TEXT.hf) - 1), max_size=150)  # bytes of half characters, special tokens, all


def ids_of(words: str) -> list[int]:
  return TEXT.hf.encode(words, add_special_tokens=False)


def said(ids, sizes, stops=(), tokenwise=False) -> tuple[list[str], list]:
  """The parts sent when ids come in pieces of these sizes, in turn, and the tokens told."""
  detokenizer, parts, told, at = Detokenizer(TEXT, Wanted(stops, tokens=tokenwise)), [], [], 0
  for n in [*sizes, *[1] * len(ids)]:
    part, tokens = detokenizer.feed(ids[at : at + n], [0.5] * len(ids[at : at + n]))
    parts.append(part)
    told += tokens
    at += n
    if detokenizer.met:
      break
  part, tokens = detokenizer.end()
  parts.append(part)
  assert detokenizer.text == ''.join(parts)
  return parts, told + tokens


@settings(max_examples=150, deadline=None)
@given(ids=IDS, sizes=st.lists(st.integers(0, 40), max_size=8), tokenwise=st.booleans())
def test_pieces_make_the_whole_text(ids, sizes, tokenwise):
  parts, told = said(ids, sizes, (), tokenwise)
  assert ''.join(parts) == TEXT.decode(ids)
  assert TEXT.decode(list(special_ids(TEXT))) == '' and len(special_ids(TEXT)) == 5
  special = special_ids(TEXT)
  assert len(told) == (len([i for i in ids if i not in special]) if tokenwise else 0)


@settings(max_examples=60, deadline=None)
@given(words=st.text(st.sampled_from('añ€😀ß中 '), max_size=40), size=st.integers(1, 7))
def test_no_character_is_cut(words, size):
  ids = ids_of(words)
  parts, told = said(ids, [size] * len(ids), (), True)
  assert ''.join(parts) == TEXT.decode(ids) and '\ufffd' not in ''.join(parts)
  assert bytes(b for token in told for b in token.bytes).decode() == TEXT.decode(ids)


@pytest.mark.parametrize('before', range(4))
def test_nor_where_a_long_text_is_forgotten(before):
  ids = ids_of('a' * before + '€😀' * 60)
  assert ''.join(said(ids, [1])[0]) == TEXT.decode(ids)


@settings(max_examples=150, deadline=None)
@given(
  words=st.text(st.sampled_from('ab€ '), max_size=30),
  stop=st.text(st.sampled_from('ab€ '), min_size=1, max_size=4),
  sizes=st.lists(st.integers(0, 9), max_size=8),
)
def test_a_stop_string_is_found_wherever_tokens_end(words, stop, sizes):
  ids = ids_of(words)
  whole = TEXT.decode(ids)
  parts, told = said(ids, sizes, (stop, 'never'), True)
  assert ''.join(parts) == (whole[: whole.find(stop)] if stop in whole else whole)
  # tokens told: those that begin in what was sent
  last = ''.join(token.text for token in told[:-1])
  assert '\ufffd' in last or len(last) <= max(len(''.join(parts)) - 1, 0)
  assert bytes(b for token in told for b in token.bytes).startswith(''.join(parts).encode())


def test_the_first_of_several_stop_strings_counts():
  ids = ids_of('one two three')
  for stops in (('two', 'three'), ('three', 'two'), ('wo th', 'two')):
    assert ''.join(said(ids, [len(ids)], stops)[0]) in ('one ', 'one t')
  assert ''.join(said(ids, [3], ('three', 'two'))[0]) == 'one '


def test_what_may_become_a_stop_string_is_held_back():
  detokenizer = Detokenizer(TEXT, Wanted(['three']))
  assert detokenizer.feed(ids_of('one th'), [0.0] * 9)[0] == 'one '
  assert detokenizer.feed(ids_of('is'), [0.0] * 9)[0] == 'this'


@pytest.mark.parametrize('words', ['€', 'x', ' boxed'])
def test_a_token_knows_its_bytes(words):
  assert b''.join(bytes(token_of(TEXT, i, -1.0).bytes) for i in ids_of(words)) == words.encode()


def test_a_long_text_is_not_decoded_over_and_over(monkeypatch):
  from vibethinker_jax.data.tokenizer import ChatTokenizer

  decoded = []
  plain = ChatTokenizer.decode
  monkeypatch.setattr(ChatTokenizer, 'decode', lambda text, ids: decoded.append(len(ids)) or plain(text, ids))
  detokenizer = Detokenizer(TEXT)
  for i in range(1000):
    detokenizer.feed([5 + i % 300] * 4, [0.0] * 4)
  assert sum(decoded) < 1000 * 80


@settings(max_examples=100, deadline=None)
@given(ids=IDS, sizes=st.lists(st.integers(0, 40), max_size=8), tokens=st.booleans())
def test_thinking_may_be_text_though_its_tags_are_special(ids, sizes, tokens):
  tags = thinking_tags(TEXT)
  assert sorted(tags.values()) == ['</think>', '<think>']
  detokenizer, text, at = Detokenizer(TEXT, Wanted(thinking=True, tokens=tokens)), '', 0
  for n in [*sizes, len(ids)]:
    text += detokenizer.feed(ids[at : at + n], [0.5] * n)[0]
    at += n
  text += detokenizer.end()[0]
  pieces = [list(group) for _, group in itertools.groupby(ids, key=lambda i: tags.get(i))]
  assert text == ''.join(tags[p[0]] * len(p) if p[0] in tags else TEXT.decode(p) for p in pieces)


@settings(max_examples=100, deadline=None)
@given(
  words=st.text(st.sampled_from('ab€ '), min_size=1, max_size=30),
  stop=st.text(st.sampled_from('ab€ '), min_size=1, max_size=3),
  size=st.integers(1, 40),
  by_id=st.booleans(),
)
def test_tokens_are_counted_up_to_the_stop(words, stop, size, by_id):
  """Whatever the pieces are: the one with which the stop is complete is the last that counts."""
  ids = ids_of(words)
  last = ids_of(stop)[-1]
  ends = (n for n in range(1, len(ids) + 1) if (ids[n - 1] == last if by_id else stop in TEXT.decode(ids[:n])))
  expected = next(ends, len(ids))
  detokenizer = Detokenizer(TEXT, Wanted(stop_ids=frozenset({last})) if by_id else Wanted([stop]))
  for at in range(0, len(ids), size):
    detokenizer.feed(ids[at : at + size], [0.5] * size)
    if detokenizer.met:
      break
  detokenizer.end()
  assert detokenizer.count == expected
  if by_id:
    assert detokenizer.text == TEXT.decode(ids[:expected])
