"""Packed batches of rendered solutions: a Grain pipeline whose position can be saved and restored exactly."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import grain
import jax
import numpy as np


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['tokens', 'targets', 'positions', 'segments', 'weights'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Batch:
  """Packed rows, all [B,T]: a row holds several sequences, and `segments` says which token belongs to which."""

  tokens: np.ndarray  # int32
  targets: np.ndarray  # int32: the next token of the same sequence
  positions: np.ndarray  # int32, restart at 0 with every sequence
  segments: np.ndarray  # int32, 1, 2, ... along a row; 0 is padding
  weights: np.ndarray  # float32: how much predicting `targets` counts; 0 on prompts and padding


class PackedDataset:
  """An endless, seeded stream of Batches, shuffled again in every epoch.

  Args:
    rows: the examples, of any type.
    render: makes of a row the arrays tokens, targets and weights of one length, a sequence.
    B, T: rows of a batch, and tokens of each. Sequences are packed into them first-fit.
    seed: of the order.
    window: rows are shuffled within windows of this many rows; 0 shuffles all of them.

  A sequence longer than T is left out, since a solution without its end teaches a model not to end. `dropped` counts
  how often that has happened. Raises ValueError where no sequence fits.
  """

  def __init__(self, rows: Sequence, render: Callable, B: int, T: int, seed: int, window: int = 0):
    self.dropped = 0
    fits = lambda row: len(row['tokens']) <= T

    def count(row):
      self.dropped += not fits(row)
      return fits(row)

    if not any(fits(render(row)) for row in rows):
      raise ValueError(f'none of {len(rows)} sequences fits in {T} tokens')
    stream = grain.MapDataset.source(rows)
    if window:
      stream = grain.experimental.WindowShuffleMapDataset(stream, window_size=window, seed=seed)
    else:
      stream = stream.shuffle(seed=seed)
    stream = stream.repeat().map(render)
    stream = stream.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4 * B)).filter(count)
    lengths = dict.fromkeys(('tokens', 'targets', 'weights'), T)
    stream = grain.experimental.FirstFitPackIterDataset(stream, length_struct=lengths, num_packing_bins=B)
    self._rows = iter(stream.batch(B, drop_remainder=True))

  def __next__(self) -> Batch:
    row = next(self._rows)
    return Batch(row['tokens'], row['targets'], row['tokens_positions'], row['tokens_segment_ids'], row['weights'])

  def position(self) -> dict:
    """The position of the stream, as JSON."""
    return self._rows.get_state()

  def restore(self, position: dict) -> None:
    """Continues from a `position`."""
    self._rows.set_state(position)
