"""The device at hand: its rates by data sheet or by measurement, and the least that a step can take on it."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.plan.formulas import sizes
from vibethinker_jax.plan.machine import CHIPS, Chip

# device_kind -> CHIPS, in full: a PCIe card, a 40 GB one or a MIG slice has other rates than the sheet says
KINDS = {
  'NVIDIA A100-SXM4-80GB': 'a100',
  'NVIDIA H100 80GB HBM3': 'h100',
  'NVIDIA H200': 'h200',
  'TPU v5 lite': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
}


def chip(device: jax.Device, dtype: str) -> tuple[Chip, str]:
  """The device's rates, and where they are from. A kind without a data sheet is measured: a large matmul, a copy."""
  if device.device_kind in KINDS:
    name = KINDS[device.device_kind]
    return CHIPS[name], f'data sheet of {name}'
  measured = dataclasses.replace(CHIPS['cpu'], flops=matmul_rate(dtype), bandwidth=copy_rate())
  return measured, 'measured: no data sheet of this device'


def seconds(work: Callable[[], object], repeats: int, calls: int = 1) -> float:
  """Wall seconds of one `work()`: the median of `repeats` measurements, each of `calls` calls and one wait.

  `work` returns arrays that may not be ready yet. Two calls before are not counted: the first compiles, and so may the
  second, whose arguments lie where the first has put them.
  """
  for _ in range(2):
    jax.block_until_ready(work())
  taken = []
  for _ in range(repeats):
    clock = time.perf_counter()
    jax.block_until_ready([work() for _ in range(calls)])
    taken.append((time.perf_counter() - clock) / calls)
  return statistics.median(taken)


def matmul_rate(dtype: str) -> float:
  """Operations a second of one device at a large product of random matrices."""
  side = 8192 if jax.default_backend() != 'cpu' else 1024
  multiply, x = jax.jit(lambda x: x @ x), jax.random.normal(jax.random.key(0), (side, side), dtype)
  return 2 * side**3 / seconds(lambda: multiply(x), 5, 4)


def copy_rate() -> float:
  """Bytes a second, read and written, of one device at a large copy."""
  copy, x = jax.jit(lambda x: x + 1), jnp.zeros((256 if jax.default_backend() != 'cpu' else 8, 2**20), jnp.float32)
  return 2 * x.nbytes / seconds(lambda: copy(x), 5, 4)


def training_flops(c: Config, rows: int, length: int, targets: int) -> float:
  """Operations of the model in one forward and backward pass over `rows` rows, each one document of `length` tokens.

  6 for every weight of the layers and token; 6 for every weight of the un-embedding and each of the row's last
  `targets` tokens, those that have a loss; 12 x head width for every query head, layer and pair of a query and a key
  that it sees, length x (length + 1) / 2 of them. What is computed again in the backward pass is not counted.
  """
  layers, table = sizes(c)
  pairs = length * (length + 1) / 2
  return rows * (6 * layers * length + 6 * table * targets + 12 * c.L * c.K * c.G * c.H * pairs)


def decode_work(model: Qwen2, cache: tuple, positions: int, rows: float, seen: float) -> tuple[float, float]:
  """Operations, and bytes read, of one decode step of one device with `rows` rows that each see `seen` positions.

  The bytes are those of the weights as they lie there, and of the cache, which holds `positions` positions in all, as
  far as the rows see. An embedding that is not the un-embedding too is not read but for a few of its rows.
  """
  c, size = model.config, lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
  layers, table = sizes(c)
  weights = size(model) - (0 if c.tied else size(model.embed))
  flops = rows * (2 * (layers + table) + 4 * c.L * c.K * c.G * c.H * seen)
  return flops, weights + size(cache) / positions * rows * seen


def bound(on: Chip, flops: float, moved: float) -> float:
  """Seconds that the roofline allows: the longer of computing and of moving memory."""
  return max(flops / on.flops, moved / on.bandwidth)
