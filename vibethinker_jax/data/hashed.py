"""Words as 64-bit hashes, a block of texts at a time: hashes of runs of words, MinHash bands, and a table for both."""

import functools
from collections.abc import Sequence

import numpy as np
import rensa

SHINGLE = 3
_PERMUTATIONS, _BAND = 128, 4  # 32 bands of 4: of pairs with a Jaccard of 0.7, 1 in 5,000 is missed
_SEED = 0
_KIND = np.zeros(256, np.uint8)  # of a byte: 0 between words, 1 letter (or part of one), 2 digit
_KIND[[*b'abcdefghijklmnopqrstuvwxyz', *range(128, 256)]] = 1
_KIND[[*b'0123456789']] = 2
_NUMBER = np.uint64(0x5851F42D4C957F2D)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


class Block:
  """The W words of some texts (in the form of words.normal) as 64-bit hashes, one text after the other.

  hashes [W]. number [W]: whether a word is a number. row [W]: the index of its text. first [texts + 1]: where the words
  of each text begin.
  """

  def __init__(self, texts: Sequence[str]):
    coded = [text.encode() for text in texts]
    raw = np.frombuffer(b'\n'.join(coded) + b'\n', np.uint8)
    kind = _KIND[raw]
    before = np.append(np.uint8(0), kind[:-1])
    parted = (before == 2) & (kind == 1)
    begin = np.flatnonzero((kind > 0) & ((before == 0) | parted))
    end = np.flatnonzero((before > 0) & ((kind == 0) | parted))
    self.hashes = _mix(_Runs(raw.astype(np.uint64)).of(begin, end))
    self._runs = _Runs(self.hashes)
    self.number = kind[begin] == 2
    offsets = np.cumsum([0, *(len(c) + 1 for c in coded)])
    self.first = np.searchsorted(begin, offsets)
    self.row = np.repeat(np.arange(len(texts)), np.diff(self.first))

  def whole(self) -> np.ndarray:
    """A hash of each text's words, [texts]; that of a text without words equals no other."""
    empty = self.first[1:] == self.first[:-1]
    return np.where(empty, _ODD, _mix(self._runs.of(self.first[:-1], self.first[1:])))

  def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of n words within one text, and the positions of their first words."""
    return _windows(self._runs, self.row, n)

  def bands(self, least: int) -> tuple[np.ndarray, np.ndarray]:
    """MinHash bands [texts, bands] of the texts with `least` shingles or more, and the indices of these texts."""
    shingles, at = _windows(_Runs(np.where(self.number, _NUMBER, self.hashes)), self.row, SHINGLE)
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


class Table:
  """Hashes and their owners, for searches with a great many hashes of which few are in the table."""

  def __init__(self, hashes: np.ndarray, owners: np.ndarray, common: int | None = None):
    """hashes [n]. owners [n]: of each. common: hashes with this many owners or more are left out; None keeps all."""
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
    self._seen = np.zeros(1 << bits, bool)  # by the first bits of a hash: answers no for 31 of 32
    self._seen[self._keys >> self._shift] = True

  def find(self, hashes: np.ndarray, askers: np.ndarray) -> tuple[list[int], list[int]]:
    """The pairs (asker, owner) with equal hashes, as two lists. askers: of each of `hashes`."""
    likely = np.flatnonzero(self._seen[hashes >> self._shift])
    place = np.searchsorted(self._keys, hashes[likely])
    place[place == len(self._keys)] = 0
    hit = self._keys[place] == hashes[likely] if len(self._keys) else np.zeros(0, bool)
    place, askers = place[hit], askers[likely[hit]]
    counts = self._counts[place]
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    owners = self._owners[np.repeat(self._first[place], counts) + steps]
    return np.repeat(askers, counts).tolist(), owners.tolist()


def _windows(runs: '_Runs', row: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
  if len(row) < n:
    return np.zeros(0, np.uint64), np.zeros(0, np.int64)
  at = np.flatnonzero(row[n - 1 :] == row[: len(row) - n + 1])
  return _mix(runs.of(at, at + n)), at


class _Runs:
  """Hashes of runs of values: the sum of values[begin + k] * odd^k modulo 2^64, for any begin and end.

  They are differences of prefix sums, divided by odd^begin: odd numbers have inverses modulo 2^64.
  """

  def __init__(self, values: np.ndarray):
    power, self._inverse = _powers(1 << int(len(values)).bit_length())
    self._sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * power[: len(values)], out=self._sums[1:])

  def of(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    return (self._sums[end] - self._sums[begin]) * self._inverse[begin]


@functools.lru_cache(maxsize=8)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
  powers = []
  for base in (_ODD, _INVERSE):
    power = np.full(size, base, np.uint64)
    power[0] = 1
    powers.append(np.cumprod(power, dtype=np.uint64))
  return powers[0], powers[1]


def _mix(h: np.ndarray) -> np.ndarray:
  """Mixes every bit of a hash into every other bit (the finaliser of splitmix64)."""
  h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return h ^ (h >> np.uint64(31))
