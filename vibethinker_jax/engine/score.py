"""ln p of given tokens under the model at temperature 1, and the most likely tokens at the same places.

Nothing is drawn here. `vibethinker score` and the server's `echo` with `logprobs` call it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vibethinker_jax.engine.buckets import bucket
from vibethinker_jax.engine.sampling import top_logprobs
from vibethinker_jax.model.mesh import no_mesh
from vibethinker_jax.model.qwen2 import Qwen2

_TOKENS = 4096  # of one forward pass, with padding
_LOGITS = 1024  # positions whose logits are in memory at the same time


@dataclasses.dataclass(frozen=True)
class Score:
  """ln p(tokens[i+1] | tokens[:i+1]) of one sequence of T tokens, and the TOP most likely tokens at the same places.

  top_ids and top_logps: the most likely token first (sampling.top_logprobs); None if they were not asked for.
  """

  logps: np.ndarray  # float32 [T-1]
  top_ids: np.ndarray | None  # int32 [T-1,TOP]
  top_logps: np.ndarray | None  # float32 [T-1,TOP]


def score(model: Qwen2, sequences: Sequence[Sequence[int]], top: bool = False) -> Iterator[tuple[int, Score]]:
  """Score sequences, in batches of similar length.

  Args:
    model: the model.
    sequences: token ids, at least one in each.
    top: whether the most likely tokens are wanted too.

  Yields:
    (index into sequences, Score). Broken weights give values that are not finite; the caller checks that.
  """
  by_length: dict[int, list[int]] = {}
  for i, ids in enumerate(sequences):
    by_length.setdefault(bucket(len(ids) - 1), []).append(i)
  for T, members in sorted(by_length.items()):
    size = max(1, _TOKENS // T)
    for begin in range(0, len(members), size):
      batch = members[begin : begin + size]
      B = min(size, 1 << (len(batch) - 1).bit_length())  # a power of two: each size is compiled
      tokens, segments = np.zeros((B, T + 1), np.int32), np.zeros((B, T), np.int32)
      for row, i in enumerate(batch):
        tokens[row, : len(sequences[i])] = sequences[i]
        segments[row, : len(sequences[i])] = 1
      with no_mesh():
        values = jax.device_get(_score_batch(model, tokens, segments, max(1, _LOGITS // B), top))
      for row, i in enumerate(batch):
        yield i, Score(*(None if value is None else value[row, : len(sequences[i]) - 1] for value in values))


@functools.partial(jax.jit, static_argnames=['chunk', 'top'])
def _score_batch(model: Qwen2, tokens, segments, chunk: int, top: bool) -> tuple:
  """The three arrays of Score for tokens [B,T+1] and segments [B,T]; logits exist for `chunk` positions at a time."""
  B, T = segments.shape
  model.config = dataclasses.replace(model.config, logit_chunk=chunk)  # the model is this trace's own copy
  positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  hidden = model(tokens[:, :-1], positions, segments)
  logps = model.token_logps(hidden, tokens[:, 1:])[0]
  if not top:
    return logps, None, None
  parts = -(-T // chunk)
  padded = jnp.pad(hidden, ((0, 0), (0, parts * chunk - T), (0, 0))).reshape(B, parts, chunk, -1)
  ids, values = jax.lax.map(lambda part: top_logprobs(model.logits(part)), jnp.moveaxis(padded, 1, 0))
  whole = lambda x: jnp.moveaxis(x, 0, 1).reshape(B, parts * chunk, -1)[:, :T]
  return logps, whole(ids), whole(values)
