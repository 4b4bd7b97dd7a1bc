"""Training rows that give away an evaluation: found by shared 10-grams and as near-duplicates, with the evidence.

Texts are compared as words: lower case, compatibility forms of Unicode unified, punctuation and LaTeX's spacing gone,
a number apart from letters after it (so "3x + 1" and "3 x+1" are the same words). A training row is taken out if

  ngram           it shares n words in a row with an evaluation problem (n = 10, arXiv 2511.06221, section 3.5), or the
                  whole text where a text is shorter than that;
  near_duplicate  the sets of their three-word shingles overlap enough (Jaccard), every number counting as the same
                  number: a problem with other numbers or a few other words is still that problem.

Words that stand in many evaluation problems are a stock phrase ("where m and n are relatively prime positive integers,
find m + n") and say nothing: phrases are left out by how many problems they stand in, and by a list.

All is linear in the training rows. Words are hashed a block of rows at a time by numpy; near-duplicates are candidates
of MinHash bands (Broder 1997; sketches by `rensa`). Whatever is found by hash is then compared word by word: no removal
rests on a hash.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import rensa

from vibethinker_jax.data.readers import statement
from vibethinker_jax.errors import BadInput

STOCK = (  # single letters stand for any letters
  'can be written in the form m / n where m and n are relatively prime positive integers find m + n',
  'can be written as frac m n where m and n are relatively prime positive integers find m + n',
  'can be expressed as m / n where m and n are relatively prime positive integers find m + n',
  'can be expressed as frac m n where m and n are relatively prime positive integers find m + n',
  'where m and n are relatively prime positive integers find m + n',
  'm and n are relatively prime positive integers what is m + n',
  'where m n and p are positive integers and p is not divisible by the square of any prime find m + n + p',
  'where m and n are positive integers and n is not divisible by the square of any prime find m + n',
)

_FIELDS = (
  'prompt',
  'problem',
  'question',
  'question_content',
  'Question',
  'statement',
  'statement_tex',
  'text',
  'messages',
)
_NAMES = ('id', 'unique_id', 'task_id', 'question_id')
_BLOCK = 4 << 20  # characters hashed at a time
_SHINGLE, _PERMUTATIONS, _BAND = 3, 128, 4  # 32 bands of 4: of pairs with a Jaccard of 0.7, 1 in 5,000 is missed
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Decontaminate:
  """How leaks are told.

  n: words in a row that give a problem away. threshold: Jaccard of near-duplicates, 0.5 to 1. least: shingles a text
  needs to be compared as a near-duplicate, for short ones are alike by chance. common: n-grams of this many evaluation
  problems or more are stock phrases. stock: phrases known as such.
  """

  n: int = 10
  threshold: float = 0.7
  least: int = 8
  common: int = 5
  stock: tuple[str, ...] = STOCK


@dataclasses.dataclass(frozen=True)
class Leak:
  """Why a training row is taken out. `kind` is 'ngram' or 'near_duplicate'."""

  id: str | int
  match_id: str | int
  kind: str
  evidence: str


def named_text(row: dict, where: str) -> tuple[str | int, str]:
  """(id, statement) of a row in any of the usual shapes. Raises BadInput where no field holds a statement.

  The id is in "id", "unique_id", "task_id" or "question_id", else its line. The statement is a text, or a chat
  whose last user message is taken; an instruction at its end is no part of it.
  """
  name = next((n for n in _FIELDS if row.get(n) is not None), None)
  if name is None:
    raise BadInput(f'{where}: no statement, expected one of the fields {", ".join(_FIELDS)}')
  text = row[name]
  if isinstance(text, list):
    text = next((m.get('content') for m in reversed(text) if isinstance(m, dict) and m.get('role') == 'user'), None)
  if not isinstance(text, str):
    raise BadInput(f'{where}: field "{name}" must be a text or a chat with a user message')
  own = next((row[n] for n in _NAMES if isinstance(row.get(n), str | int)), where.rpartition(', ')[2])
  return own, statement(text)


def words(text: str) -> list[str]:
  """The words of a text: numbers, and letters with digits at their end."""
  return _WORD.findall(_normal(text))


class Index:
  """Evaluation problems, ready to be looked for in training rows."""

  def __init__(self, problems: Iterable[tuple[str | int, str]], s: Decontaminate):
    """`problems` are (id, statement); those with the same words count once. Raises ValueError for bad settings."""
    if s.n < 2 or not 0.5 <= s.threshold <= 1 or s.least < 1 or s.common < 2:
      raise ValueError('expected n of 2 or more, a threshold of 0.5 to 1, least of 1 and common of 2 or more')
    self.s = s
    self._stock = [phrase for p in s.stock if (phrase := tuple(_loose(words(p))))]
    distinct: dict[tuple[str, ...], str | int] = {}
    for id, text in problems:
      if found := tuple(words(text)):
        distinct.setdefault(found, id)
    self.ids = list(distinct.values())
    self._words = list(distinct)
    self._sets: dict[int, set] = {}  # shingles of the problems that have been compared
    block = _Block([' '.join(found) for found in self._words])
    self._whole = _Table(block.whole(), np.arange(len(self.ids)))
    grams, at = block.grams(s.n)
    stock = [start for row, found in enumerate(self._words) for start in self._stock_grams(found, block.first[row])]
    keep = ~np.isin(at, np.array(stock, np.int64))
    self._grams = _Table(grams[keep], block.row[at[keep]], s.common)
    bands, rows = block.bands(s.least)
    self._bands = _Table(bands.ravel(), np.repeat(rows, bands.shape[1]))

  def find(self, rows: Sequence[tuple[str | int, str]]) -> list[Leak | None]:
    """For each training row (id, statement), why it is to go, or None."""
    block = _Block([_normal(text) for _, text in rows])
    suspects: dict[int, set[int]] = {}
    for row, problem in zip(*self._whole.find(block.whole(), np.arange(len(rows)))):
      suspects.setdefault(row, set()).add(problem)
    grams, at = block.grams(self.s.n)
    for row, problem in zip(*self._grams.find(grams, block.row[at])):
      suspects.setdefault(row, set()).add(problem)
    found: list[Leak | None] = [None] * len(rows)
    for row, problems in suspects.items():
      found[row] = self._shared(*rows[row], sorted(problems))
    bands, at = block.bands(self.s.least)
    alike: dict[int, set[int]] = {}
    for row, problem in zip(*self._bands.find(bands.ravel(), np.repeat(at, bands.shape[1]))):
      if found[row] is None:
        alike.setdefault(row, set()).add(problem)
    for row, problems in alike.items():
      found[row] = self._alike(*rows[row], sorted(problems))
    return found

  def _shared(self, id: str | int, text: str, problems: list[int]) -> Leak | None:
    """The longest run of words shared with one of `problems`, where it is more than stock phrases."""
    mine, n, best = words(text), self.s.n, (0, 0, 0)
    for problem in problems:
      theirs = self._words[problem]
      if tuple(mine) == theirs:
        return Leak(id, self.ids[problem], 'ngram', ' '.join(mine))
      stock = set(self._stock_grams(theirs, 0))
      places = {theirs[i : i + n]: i for i in range(len(theirs) - n + 1) if i not in stock}
      end = 0
      for i in range(len(mine) - n + 1):
        if i >= end and (there := places.get(tuple(mine[i : i + n]))) is not None:
          end = i + n
          while end < len(mine) and there + end - i < len(theirs) and mine[end] == theirs[there + end - i]:
            end += 1
          best = max(best, (end - i, -problem, i))
    length, problem, start = best
    return Leak(id, self.ids[-problem], 'ngram', ' '.join(mine[start : start + length])) if length else None

  def _alike(self, id: str | int, text: str, problems: list[int]) -> Leak | None:
    """The problem whose shingles are most nearly those of `text`, where they are near enough."""
    mine, best = self._shingles(words(text)), (0.0, 0)
    for problem in problems:
      if problem not in self._sets:
        self._sets[problem] = self._shingles(self._words[problem])
      theirs = self._sets[problem]
      if min(len(mine), len(theirs)) >= max(self.s.least, self.s.threshold * max(len(mine), len(theirs))):
        best = max(best, (len(mine & theirs) / len(mine | theirs), -problem))
    similarity, problem = best[0], -best[1]
    if similarity < self.s.threshold:
      return None
    return Leak(id, self.ids[problem], 'near_duplicate', f'Jaccard {similarity:.2f}: {" ".join(self._words[problem])}')

  def _shingles(self, found: Sequence[str]) -> set[tuple[str, ...]]:
    """Three-word shingles, numbers taken as one number, without those that lie in a stock phrase."""
    covered = self._covered(found)
    same = ['0' if w[0].isdigit() else w for w in found]
    places = range(len(found) - _SHINGLE + 1)
    return {tuple(same[i : i + _SHINGLE]) for i in places if not all(covered[i : i + _SHINGLE])}

  def _stock_grams(self, found: Sequence[str], first: int) -> list[int]:
    """Places (counted from `first`) of the n-grams of which more than half the words belong to stock phrases."""
    covered, n = self._covered(found), self.s.n
    if not any(covered):
      return []
    return [first + i for i in range(len(found) - n + 1) if sum(covered[i : i + n]) > n // 2]

  def _covered(self, found: Sequence[str]) -> list[bool]:
    """For each word, whether a stock phrase covers it."""
    covered, loose = [False] * len(found), tuple(_loose(found))
    whole = ' '.join(loose)
    for phrase in self._stock:
      if ' '.join(phrase) not in whole:
        continue
      for i in range(len(loose) - len(phrase) + 1):
        if loose[i : i + len(phrase)] == phrase:
          covered[i : i + len(phrase)] = [True] * len(phrase)
    return covered


def find_leaks(rows: Iterable[tuple[str | int, str]], index: Index) -> Iterator[Leak | None]:
  """`Index.find` for a stream of rows, in order, a block in memory at a time."""
  block, size = [], 0
  for row in rows:
    block.append(row)
    size += len(row[1])
    if size >= _BLOCK:
      yield from index.find(block)
      block, size = [], 0
  if block:
    yield from index.find(block)


# ---- words as numbers ------------------------------------------------------------------------------------------------

# what LaTeX says about space, size and type face; a command ends where its letters end
_LATEX = re.compile(
  r'\\(?:[\\,;:!> ]|[dt](?=frac)|(?:q?quad|left|right|[bB]igg?[lr]?|displaystyle|mbox'
  r'|(?:text|math)(?:bf|it|rm)?)(?![a-zA-Z]))'
)
_FOREIGN = re.compile(r'[^\w\x00-\x7f]')
_WORD = re.compile(r'[0-9]+|[^\W_0-9]+[0-9]*')
_KIND = np.zeros(256, np.uint8)  # of a byte: 0 between words, 1 letter (or part of one), 2 digit
_KIND[[*b'abcdefghijklmnopqrstuvwxyz', *range(128, 256)]] = 1
_KIND[[*b'0123456789']] = 2
_NUMBER = np.uint64(0x5851F42D4C957F2D)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


def _normal(text: str) -> str:
  """Lower case, without LaTeX's spacing, all that is neither word nor ASCII made a space."""
  text = _LATEX.sub(' ', text)
  if text.isascii():
    return text.lower()
  return _FOREIGN.sub(' ', unicodedata.normalize('NFKC', text).lower())


def _loose(found: Sequence[str]) -> list[str]:
  """Words with every single letter the same."""
  return ['_' if len(w) == 1 and w.isalpha() else w for w in found]


class _Block:
  """The words of some texts (in `_normal` form) as 64-bit hashes, one text after the other.

  hashes [W]; number [W], whether a word is one; row [W], its text; first [texts + 1], where each text's words begin.
  """

  def __init__(self, texts: Sequence[str]):
    coded = [text.encode() for text in texts]
    raw = np.frombuffer(b'\n'.join(coded) + b'\n', np.uint8)
    kind = _KIND[raw]
    before = np.append(np.uint8(0), kind[:-1])
    parted = (before == 2) & (kind == 1)
    begin = np.flatnonzero((kind > 0) & ((before == 0) | parted))
    end = np.flatnonzero((before > 0) & ((kind == 0) | parted))
    self.hashes = _mix(_runs(raw.astype(np.uint64), begin, end))
    self.number = kind[begin] == 2
    offsets = np.cumsum([0, *(len(c) + 1 for c in coded)])
    self.first = np.searchsorted(begin, offsets)
    self.row = np.repeat(np.arange(len(texts)), np.diff(self.first))

  def whole(self) -> np.ndarray:
    """The hash of each text's words; of a text without words, its own that nothing matches."""
    empty = self.first[1:] == self.first[:-1]
    return np.where(empty, _ODD, _mix(_runs(self.hashes, self.first[:-1], self.first[1:])))

  def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of n words in a row of one text, and the place of the first of them."""
    return _windows(self.hashes, self.row, n)

  def bands(self, least: int) -> tuple[np.ndarray, np.ndarray]:
    """MinHash bands [texts with enough shingles, bands] and which texts these are."""
    shingles, at = _windows(np.where(self.number, _NUMBER, self.hashes), self.row, _SHINGLE)
    counts = np.bincount(self.row[at], minlength=len(self.first) - 1)
    rows = np.flatnonzero(counts >= least)
    if not len(rows):
      return np.zeros((0, _PERMUTATIONS // _BAND), np.uint64), rows
    shingles = shingles[counts[self.row[at]] >= least]
    offsets = np.append(0, np.cumsum(counts[rows])).astype(np.uint64)
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, _PERMUTATIONS, _SEED)
    digests = np.array(digests.to_rows(), np.uint64).reshape(len(rows), -1, _BAND)
    bands = digests[:, :, 0]
    for part in range(1, _BAND):
      bands = _mix(bands) + digests[:, :, part]
    return _mix(bands + np.arange(bands.shape[1], dtype=np.uint64) * _ODD), rows


class _Table:
  """Hashes and what each belongs to; asked with a great many hashes of which few are in it."""

  def __init__(self, hashes: np.ndarray, owners: np.ndarray, common: int | None = None):
    """With `common`, hashes of that many owners or more are left out."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    hashes, self._owners = hashes[new], owners[new]
    keys, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    kept = counts < common if common is not None else np.ones(len(keys), bool)
    self._keys, self._first, self._counts = keys[kept], first[kept], counts[kept]
    bits = int(np.clip(np.ceil(np.log2(32 * len(keys) + 1)), 10, 27))
    self._shift = np.uint64(64 - bits)
    self._seen = np.zeros(1 << bits, bool)  # by the first bits of a hash: sends 31 of 32 away at once
    self._seen[self._keys >> self._shift] = True

  def find(self, hashes: np.ndarray, askers: np.ndarray) -> tuple[list[int], list[int]]:
    """Pairs (asker, owner) of equal hashes."""
    likely = np.flatnonzero(self._seen[hashes >> self._shift])
    place = np.searchsorted(self._keys, hashes[likely])
    place[place == len(self._keys)] = 0
    hit = self._keys[place] == hashes[likely] if len(self._keys) else np.zeros(0, bool)
    place, askers = place[hit], askers[likely[hit]]
    counts = self._counts[place]
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    owners = self._owners[np.repeat(self._first[place], counts) + steps]
    return np.repeat(askers, counts).tolist(), owners.tolist()


def _windows(hashes: np.ndarray, row: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
  if len(hashes) < n:
    return np.zeros(0, np.uint64), np.zeros(0, np.int64)
  at = np.flatnonzero(row[n - 1 :] == row[: len(row) - n + 1])
  return _mix(_runs(hashes, at, at + n)), at


def _runs(values: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
  """For each run, sum of values[begin + k] * odd^k modulo 2^64: from prefix sums, since odd numbers have inverses."""
  power, inverse = _powers(1 << int(len(values)).bit_length())
  sums = np.zeros(len(values) + 1, np.uint64)
  np.cumsum(values * power[: len(values)], out=sums[1:])
  return (sums[end] - sums[begin]) * inverse[begin]


@functools.lru_cache(maxsize=8)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
  powers = []
  for base in (_ODD, _INVERSE):
    power = np.full(size, base, np.uint64)
    power[0] = 1
    powers.append(np.cumprod(power, dtype=np.uint64))
  return powers[0], powers[1]


def _mix(h: np.ndarray) -> np.ndarray:
  """Every bit of a hash into every other (the finaliser of splitmix64)."""
  h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return h ^ (h >> np.uint64(31))
