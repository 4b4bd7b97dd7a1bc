"""The host's record of each sample that is queued or being decoded, and of its tokens that are still on the device."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from vibethinker_jax.engine.decode import InsertBatch
from vibethinker_jax.engine.request import Request, TokenChunk
from vibethinker_jax.engine.sampling import SamplingParams, batched


class Sequence:
  """One sample of one request.

  prefix: the prompt and the tokens drawn earlier (`resume_from`), which are prefilled together. length: positions that
  the sample has, including that of its last token, whose keys and values are not yet in the cache. tokens: those that
  were handed out since the sample got its slot.
  """

  def __init__(self, request_id: int, request: Request, sample: int, resume_from: tuple[int, ...]):
    self.request_id, self.request, self.sample, self.resume_from = request_id, request, sample, resume_from
    self.prefix = request.prompt + resume_from
    self.length = len(self.prefix) + 1  # the first token is drawn as soon as the sample has a slot
    self.tokens: list[int] = []

  @property
  def drawn(self) -> int:
    """Tokens drawn so far and handed out, with those of `resume_from`."""
    return len(self.resume_from) + len(self.tokens)

  def preempted(self) -> 'Sequence':
    """The same sample, to be queued again and continued from the tokens that it has."""
    return Sequence(self.request_id, self.request, self.sample, (*self.resume_from, *self.tokens))


class Share(NamedTuple):
  """One sequence's share of some DrawnTokens."""

  index: int  # into the leading axis of the arrays
  sequence: Sequence
  count: int  # how many of the tokens there are its own
  finished: bool  # whether they are its last


@dataclasses.dataclass
class DrawnTokens:
  """Tokens that one program has drawn, still on the device.

  arrays: tokens and the two log-probs, [N,block] or [N]; with top_logprobs also their ids and ln p [...,TOP].
  """

  arrays: list[jax.Array]
  shares: list[Share]

  def chunks(self, stop_ids: tuple[int, ...]) -> list[TokenChunk]:
    """Wait for the arrays, copy them to the host and give each sequence its chunk."""
    tokens, logps, sampler_logps, *top = jax.device_get(self.arrays)
    tokens, logps, sampler_logps = (x.reshape(len(x), -1) for x in (tokens, logps, sampler_logps))
    top = [x.reshape(*tokens.shape, -1) for x in top]
    out = []
    for row, sequence, n, finished in self.shares:
      sequence.tokens += tokens[row, :n].tolist()
      finish = ('stop' if sequence.tokens[-1] in stop_ids else 'length') if finished else ''
      if n or finished:
        own_top = tuple(x[row, :n] for x in top) if sequence.request.top_logprobs else None
        arrays = tokens[row, :n], logps[row, :n], sampler_logps[row, :n]
        out.append(TokenChunk(sequence.request_id, sequence.sample, *arrays, finish, own_top))
    return out


def insert_batch(
  inserted: list[tuple[int, Sequence]], slots: list[int], rows: int, vocabulary: int | None
) -> InsertBatch:
  """The arrays for `decode.insert`, padded to one entry for every row of the decode batch.

  inserted: (index of the prefilled prompt, sequence) of every new sequence. slots: the slot of each. rows: rows of the
  decode batch. vocabulary: V if some row penalizes repetition, so that the tokens already seen are needed, else None.
  """
  sequences = [sequence for _, sequence in inserted]
  padding = rows - len(sequences)
  column = lambda values, fill, kind: np.array([*values, *[fill] * padding], kind)
  seen = None
  if vocabulary is not None:
    seen = np.zeros((rows, vocabulary), bool)
    for row, sequence in zip(seen, sequences):
      row[list(sequence.prefix)] = True
  return InsertBatch(
    source=column((prompt for prompt, _ in inserted), 0, np.int32),
    dest=column(slots, rows, np.int32),  # padding goes to one past the last row, which the scatter drops
    seed=column((s.request.seed for s in sequences), 0, np.uint32),
    number=column((s.request.number for s in sequences), 0, np.uint32),
    sample=column((s.sample for s in sequences), 0, np.uint32),
    count=column((len(s.resume_from) for s in sequences), 0, np.int32),
    left=column((s.request.max_tokens - len(s.resume_from) for s in sequences), 1, np.int32),
    sampling=batched([*(s.request.sampling for s in sequences), *[SamplingParams()] * padding]),
    seen=seen,
  )
