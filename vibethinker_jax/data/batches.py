"""PackedDataset batches from rendered solutions: a Grain pipeline whose position can be saved and restored exactly."""

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
  """PackedDataset rows, all [B,T]: several sequences a row, told apart by `segments` (0 is padding)."""

  tokens: np.ndarray  # int32
  targets: np.ndarray  # int32: the next token of the same sequence
  positions: np.ndarray  # int32, restart at 0 with every sequence
  segments: np.ndarray  # int32, 1, 2, ... along a row; 0 where padded
  weights: np.ndarray  # float32: how much predicting `targets` counts; 0 on prompts and padding


class PackedDataset:
  """An endless, seeded stream of Batches over `rows`, reshuffled every epoch; with a `window` of rows, only within it.

  Each row is turned by `render` into arrays tokens, targets, weights of one length; sequences are packed first-fit
  into rows of T. A sequence longer than T is left out, since a solution without its end teaches not to end; `dropped`
  counts how often that has happened.
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
    """Where the stream stands, as JSON."""
    return self._rows.get_state()

  def restore(self, position: dict) -> None:
    """Go on from a `position`."""
    self._rows.set_state(position)
