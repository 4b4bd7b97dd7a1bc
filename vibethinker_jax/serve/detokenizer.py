"""From the tokens of one sample to the text that may be sent, without half characters and without stop strings.

A token may end within a character, and a stop string may end within a token. Text that may still turn out to be part of
a character or of a stop string is held back until more tokens come.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

from vibethinker_jax.data.tokenizer import ChatTokenizer

CUT = '\ufffd'  # what an incomplete character decodes to
_WINDOW = 64  # tokens that are decoded again with each piece, at most
_CONTEXT = 8  # of these, the last ones that are kept: more than a character has bytes


@dataclasses.dataclass(frozen=True)
class Token:
  """A token of a sample, as OpenAI's clients expect it.

  bytes: None where they are unknown. logprob: None for the first token of a prompt. begin: its position in the text.
  top: the likeliest tokens in its place, if they were asked for.
  """

  text: str
  bytes: list[int] | None
  logprob: float | None
  begin: int = 0
  top: tuple['Token', ...] = ()


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What a request wants to know of its samples.

  stops: stop strings. stop_ids: tokens that end a sample. tokens: whether the tokens of the text are wanted (slower).
  special: whether these include tokens that are no text, such as the one that ends the sample. thinking: whether
  <think> and </think> are text even if the tokenizer calls them special. top: likeliest tokens beside each token.
  """

  stops: Sequence[str] = ()
  stop_ids: frozenset[int] = frozenset()
  tokens: bool = False
  special: bool = False
  thinking: bool = False
  top: int = 0


class Detokenizer:
  """The text of one sample, fed piece by piece.

  text: all that was sent. count: tokens fed, up to the one that completes a stop. met: whether a stop string or id was
  met; whatever follows it is ignored.
  """

  def __init__(self, tokenizer: ChatTokenizer, wanted: Wanted = Wanted()):
    self._tokenizer, self._wanted = tokenizer, wanted
    self._tags = thinking_tags(tokenizer) if wanted.thinking else {}
    self._special = special_ids(tokenizer) - self._tags.keys()
    self._window: list[int] = []
    self._read = 0  # characters of the window's text that are in `_held` or were sent
    self._held = ''  # text that is certain but may be the beginning of a stop string
    self._sent = 0
    self._waiting: list[tuple[int, Callable[[], Token]]] = []  # where its text begins, and a token not yet returned
    self.text = ''
    self.count = 0
    self.met = False

  def feed(self, ids: Sequence[int], logps: Sequence[float], likeliest=None) -> tuple[str, list[Token]]:
    """What can be sent after these tokens: text, and the tokens that begin in it.

    ids, logps: of the new tokens. likeliest: ids and ln p of the likeliest ones as TokenChunk has them, if wanted.
    """
    wanted = self._wanted
    if not (wanted.tokens or wanted.stops or wanted.stop_ids):
      self.count += len(ids)
      self._held += self._decode(ids)
      return self._send(len(self._held)), []
    out, told = '', []
    for n, (i, logp) in enumerate(zip(ids, logps)):
      if self.met:
        break
      self.count += 1
      if wanted.tokens and (wanted.special or i not in self._special):
        top = () if likeliest is None else tuple(zip(*(column[n, : wanted.top].tolist() for column in likeliest)))
        begin = self._sent + len(self._held)
        self._waiting.append((begin, functools.partial(token_of, self._tokenizer, i, logp, begin, top)))
      self._held += self._decode([i])
      out += self._send(self._before_stop(len(self._held) - _overlap(self._held, wanted.stops)))
      told += self._tell()
      if i in wanted.stop_ids and not self.met:
        rest, more = self.end()
        out, told, self.met = out + rest, told + more, True
    return out, told

  def end(self) -> tuple[str, list[Token]]:
    """What was held back; called when no more tokens come."""
    if self.met:
      return '', []
    self._held += self._cut()
    out = self._send(self._before_stop(len(self._held)))
    return out, self._tell(all_of_them=not self.met)

  def _before_stop(self, n: int) -> int:
    """The position of the first stop string in the text that is held, n where there is none."""
    found = [at for stop in self._wanted.stops if (at := self._held.find(stop)) >= 0]
    self.met = bool(found)
    return min(found, default=n)

  def _send(self, n: int) -> str:
    """Sends the next n characters of the text that is held."""
    out, self._held = self._held[:n], self._held[n:]
    self._sent += n
    self.text += out
    return out

  def _tell(self, all_of_them: bool = False) -> list[Token]:
    """The waiting tokens that begin in the text that was sent."""
    n = sum(all_of_them or begin < self._sent for begin, _ in self._waiting)
    told, self._waiting = self._waiting[:n], self._waiting[n:]
    return [token() for _, token in told]

  def _decode(self, ids: Sequence[int]) -> str:
    """The text that becomes certain with these tokens."""
    if self._tags.keys().isdisjoint(ids):
      return self._certain(ids)
    return ''.join(self._certain([i]) if i not in self._tags else self._cut() + self._tags[i] for i in ids)

  def _cut(self) -> str:
    """The half character at the end, if there is one; the tokens that follow are no part of it."""
    rest = self._tokenizer.decode(self._window)[self._read :]
    self._window, self._read = [], 0
    return rest

  def _certain(self, ids: Sequence[int]) -> str:
    self._window += [i for i in ids if i not in self._special]
    whole = self._tokenizer.decode(self._window)
    sure = len(whole) - whole.endswith(CUT)
    new = whole[self._read : sure]
    self._read = max(self._read, sure)
    if len(self._window) > _WINDOW:
      self._window = self._window[-_CONTEXT:]
      whole = self._tokenizer.decode(self._window)
      self._read = len(whole) - whole.endswith(CUT)
    return new


@functools.cache
def special_ids(tokenizer: ChatTokenizer) -> frozenset[int]:
  """The ids of special tokens. The tokenizer's all_special_ids has fewer of them: it lacks those of ChatML."""
  return frozenset(i for i, token in tokenizer.hf.added_tokens_decoder.items() if token.special)


@functools.cache
def thinking_tags(tokenizer: ChatTokenizer) -> dict[int, str]:
  """The special ids of <think> and </think>, with their texts."""
  words = ((i, tokenizer.hf.convert_ids_to_tokens(i)) for i in special_ids(tokenizer))
  return {i: word for i, word in words if word in ('<think>', '</think>')}


def token_of(
  tokenizer: ChatTokenizer, i: int, logprob: float | None, begin: int = 0, likeliest: Iterable[tuple[int, float]] = ()
) -> Token:
  """Token i with its text and its bytes, where they are known. Half a character is shown as a question mark.

  logprob: its ln p. begin: its position in the text. likeliest: id and ln p of the likeliest tokens in its place.
  """
  return Token(*_word(tokenizer, i), logprob, begin, tuple(Token(*_word(tokenizer, j), logp) for j, logp in likeliest))


@functools.cache
def _word(tokenizer: ChatTokenizer, i: int) -> tuple[str, list[int] | None]:
  word = tokenizer.hf.decode([i])
  if CUT not in word:
    return word, list(word.encode())
  letters = tokenizer.hf.convert_ids_to_tokens(i)
  return word, [_BYTES[c] for c in letters] if all(c in _BYTES for c in letters) else None


def _overlap(held: str, stops: Sequence[str]) -> int:
  """The number of characters at the end of `held` that may be the beginning of a stop string."""
  longest = min(len(held), max((len(stop) - 1 for stop in stops), default=0))
  return next((n for n in range(longest, 0, -1) if any(stop.startswith(held[-n:]) for stop in stops)), 0)


def _byte_letters() -> dict[str, int]:
  """The letters with which byte-level vocabularies, such as GPT-2's, write bytes."""
  own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [b for b in range(256) if b not in own]
  return {chr(b): b for b in own} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_letters()
