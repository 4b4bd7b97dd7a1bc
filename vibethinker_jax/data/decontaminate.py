"""Decontamination: finds the training rows that give away an evaluation problem, by shared 10-grams and as
near-duplicates, with the evidence.

Texts are compared as words (words.py): lower case, letters that look alike unified, without punctuation and LaTeX's
spacing, numbers separated from letters after them (so "3x + 1" and "3 x+1" are the same words). A training row is
removed as

  ngram           if it shares n words in a row with an evaluation problem (n = 10, arXiv 2511.06221, section 3.5), or
                  contains the whole of a problem that is shorter than that, or is the same text;
  near_duplicate  if the sets of three-word shingles of the two overlap enough (Jaccard), where all numbers count as the
                  same number: a problem with other numbers or a few other words is still that problem.

A stock phrase, such as "where m and n are relatively prime positive integers, find m + n", occurs in many evaluation
problems and gives none of them away. Phrases are therefore ignored if they occur in many problems, or are in a list.
Formulas of general use, such as sin^2 x + cos^2 x = 1 or the equation of an ellipse, are ignored too: words of formulas
with little prose count only where they are half of the problem, or where their numbers are unusual.

The time is linear in the training rows. numpy hashes the words of a block of rows at a time; candidates for
near-duplicates come from MinHash bands (Broder 1997; sketches by `rensa`). Whatever the hashes find is then compared
word by word: no row is removed because of a hash alone.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Interval
from pydantic import PositiveInt

from vibethinker_jax.data.hashed import SHINGLE, Block, Table
from vibethinker_jax.data.instructions import statement
from vibethinker_jax.data.words import holds, is_formula, is_identity, loose, normal, words
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
_LEAST_WORDS, _LEAST_PROSE = 3, 5  # of a short problem that is searched for in longer texts, with and without a number


@dataclasses.dataclass(frozen=True)
class Decontaminate:
  """The settings of decontamination.

  n: words in a row that give a problem away. Published: 10.
  threshold: Jaccard similarity from which on two texts are near-duplicates.
  least: shingles that a text needs to be compared as a near-duplicate; shorter texts are similar by chance.
  common: an n-gram of this many evaluation problems or more is a stock phrase.
  stock: further stock phrases.
  """

  n: Annotated[int, Interval(ge=2)] = 10
  threshold: Annotated[float, Interval(ge=0.5, le=1)] = 0.7
  least: PositiveInt = 8
  common: Annotated[int, Interval(ge=2)] = 5
  stock: tuple[str, ...] = STOCK


@dataclasses.dataclass(frozen=True)
class Leak:
  """Why a training row is removed.

  id: of the training row. match_id: of the evaluation problem. kind: 'ngram' or 'near_duplicate'. evidence: shared
    words.
  """

  id: str | int
  match_id: str | int
  kind: str
  evidence: str


def named_text(row: dict, where: str) -> tuple[str | int, str]:
  """(id, statement) of a row in any of the usual shapes. Raises BadInput where no field holds a statement.

  The id is in "id", "unique_id", "task_id" or "question_id", otherwise it is the line in `where`. The statement is a
  text, or the last user message of a chat, without an instruction at its end.
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


class Index:
  """Evaluation problems, prepared for the search in training rows."""

  def __init__(self, problems: Iterable[tuple[str | int, str]], s: Decontaminate):
    """problems: (id, statement); those with the same words count once. Raises ValueError for bad settings."""
    if s.n < 2 or not 0.5 <= s.threshold <= 1 or s.least < 1 or s.common < 2:
      raise ValueError('expected n of 2 or more, a threshold of 0.5 to 1, least of 1 and common of 2 or more')
    self.s = s
    self._stock = [phrase for p in s.stock if (phrase := tuple(loose(words(p))))]
    distinct: dict[tuple[str, ...], tuple[str | int, str]] = {}
    for id, text in problems:
      if found := tuple(words(text)):
        distinct.setdefault(found, (id, text))
    self.ids, self._texts = map(list, zip(*distinct.values())) if distinct else ([], [])
    self._words = list(distinct)
    self._sets: dict[int, set] = {}  # shingles of the problems that have been compared
    block = Block([' '.join(found) for found in self._words])
    self._short = self._short_ones(block)
    self._whole = Table(block.whole(), np.arange(len(self.ids)))
    grams, at = block.grams(s.n)
    stock = [start for row, found in enumerate(self._words) for start in self._stock_grams(found, block.first[row])]
    keep = ~np.isin(at, np.array(stock, np.int64))
    self._grams = Table(grams[keep], block.row[at[keep]], s.common)
    bands, rows = block.bands(s.least)
    self._bands = Table(bands.ravel(), np.repeat(rows, bands.shape[1]))

  def _short_ones(self, block: Block) -> dict[int, Table]:
    """The problems of fewer than n words that are searched for in longer texts, by their number of words."""
    chosen: dict[int, list[int]] = {}
    for problem, found in enumerate(self._words):
      prose = sum(not is_formula(word) for word in found)
      says = len(found) >= _LEAST_WORDS if any(word.isdigit() for word in found) else prose >= _LEAST_PROSE
      if says and len(found) < self.s.n and 2 * sum(self._covered(found)) <= len(found):
        chosen.setdefault(len(found), []).append(problem)
    tables = {}
    for length, problems in chosen.items():
      grams, at = block.grams(length)
      within, short = Table(block.whole()[problems], np.array(problems)).find(grams, block.row[at])
      often = collections.Counter(problem for _, problem in set(zip(within, short)))  # counted in itself too
      kept = [problem for problem in problems if often[problem] < self.s.common]
      tables[length] = Table(block.whole()[kept], np.array(kept, np.int64))
    return tables

  def find(self, rows: Sequence[tuple[str | int, str]]) -> list[Leak | None]:
    """For each training row (id, statement) why it has to be removed, or None."""
    block = Block([normal(text) for _, text in rows])
    suspects: dict[int, set[int]] = {}
    for row, problem in zip(*self._whole.find(block.whole(), np.arange(len(rows)))):
      suspects.setdefault(row, set()).add(problem)
    for length, table in ((self.s.n, self._grams), *self._short.items()):
      grams, at = block.grams(length)
      for row, problem in zip(*table.find(grams, block.row[at])):
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
    """The longest run of words shared with one of `problems`; None if it is only stock phrases and general formulas."""
    mine, n, best, short = words(text), self.s.n, (0, 0, 0), None
    for problem in problems:
      theirs = self._words[problem]
      if tuple(mine) == theirs:
        return Leak(id, self.ids[problem], 'ngram', ' '.join(mine))
      if len(theirs) < n and len(theirs) > len(short or ()) and holds(text, self._texts[problem]):
        short, by = theirs, problem
      stock = set(self._stock_grams(theirs, 0))
      places = {theirs[i : i + n]: i for i in range(len(theirs) - n + 1) if i not in stock}
      end = 0
      for i in range(len(mine) - n + 1):
        if i >= end and (there := places.get(tuple(mine[i : i + n]))) is not None:
          end = i + n
          while end < len(mine) and there + end - i < len(theirs) and mine[end] == theirs[there + end - i]:
            end += 1
          if 2 * (end - i) >= len(theirs) or not is_identity(mine[i:end], n):
            best = max(best, (end - i, -problem, i))
    length, problem, start = best
    if short is not None and not length:
      return Leak(id, self.ids[by], 'ngram', ' '.join(short))
    return Leak(id, self.ids[-problem], 'ngram', ' '.join(mine[start : start + length])) if length else None

  def _alike(self, id: str | int, text: str, problems: list[int]) -> Leak | None:
    """The problem whose shingles are most similar to those of `text`; None if none is similar enough."""
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
    """Three-word shingles, with all numbers the same, without those within a stock phrase."""
    covered = self._covered(found)
    same = ['0' if w[0].isdigit() else w for w in found]
    places = range(len(found) - SHINGLE + 1)
    return {tuple(same[i : i + SHINGLE]) for i in places if not all(covered[i : i + SHINGLE])}

  def _stock_grams(self, found: Sequence[str], first: int) -> list[int]:
    """Positions (counted from `first`) of the n-grams that belong to stock phrases with more than half their words."""
    covered, n = self._covered(found), self.s.n
    if not any(covered):
      return []
    return [first + i for i in range(len(found) - n + 1) if sum(covered[i : i + n]) > n // 2]

  def _covered(self, found: Sequence[str]) -> list[bool]:
    """For each word, whether a stock phrase covers it."""
    covered, same = [False] * len(found), tuple(loose(found))
    whole = ' '.join(same)
    for phrase in self._stock:
      if ' '.join(phrase) not in whole:
        continue
      for i in range(len(same) - len(phrase) + 1):
        if same[i : i + len(phrase)] == phrase:
          covered[i : i + len(phrase)] = [True] * len(phrase)
    return covered


def find_leaks(rows: Iterable[tuple[str | int, str]], index: Index) -> Iterator[Leak | None]:
  """`Index.find` for a stream of rows, in order, with one block of them in memory at a time."""
  block, size = [], 0
  for row in rows:
    block.append(row)
    size += len(row[1])
    if size >= _BLOCK:
      yield from index.find(block)
      block, size = [], 0
  if block:
    yield from index.find(block)
