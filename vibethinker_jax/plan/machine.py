"""Machines by their data sheets: what one device has, and which machine `--topology` names."""

import dataclasses
import math
import re

from vibethinker_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device by its data sheet."""

  platform: str  # jax's name
  memory: float  # bytes
  flops: float  # bfloat16 operations a second
  bandwidth: float  # of the memory, bytes a second
  link: float  # bytes a second over all links of the device, in one direction
  group: int = 1 << 30  # devices that the links connect; groups are connected by the network
  network: float = 0.0  # bytes a second
  axes: int = 0  # of the torus whose parts are slices; 0: there is no torus, the topology is a number of devices


CHIPS = {
  'v5e': Chip('tpu', 16 * 2**30, 197e12, 819e9, 100e9, axes=2),
  'v5p': Chip('tpu', 95 * 2**30, 459e12, 2765e9, 300e9, axes=3),
  'v6e': Chip('tpu', 32 * 2**30, 918e12, 1640e9, 224e9, axes=2),
  'a100': Chip('cuda', 80 * 2**30, 312e12, 2039e9, 300e9, 8, 25e9),
  'h100': Chip('cuda', 80 * 2**30, 989e12, 3350e9, 450e9, 8, 50e9),
  'h200': Chip('cuda', 141 * 2**30, 989e12, 4800e9, 450e9, 8, 50e9),
  'cpu': Chip('cpu', 16 * 2**30, 0.1e12, 20e9, 10e9),
}
MOST = 1 << 16  # the most devices of a machine
KERNELS = {'tpu': 'splash', 'cuda': 'triton', 'cpu': 'xla'}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Devices of one kind, named by a topology such as v5e:4x4 (a TPU slice), a100:8 or cpu:1."""

  topology: str
  chip: Chip
  devices: int

  @property
  def name(self) -> str:
    """The name of the chip, as in config.plan.prices."""
    return self.topology.split(':')[0]


def machine(topology: str) -> Machine:
  """The machine of a `--topology`. Raises BadInput if it names none."""
  name, _, grid = topology.partition(':')
  if name not in CHIPS or not re.fullmatch(r'[1-9][0-9]*(x[1-9][0-9]*)*', grid):
    raise BadInput(
      f'--topology {topology}: expected CHIP:GRID, for example v5e:4x4 or a100:8, with a CHIP of {", ".join(CHIPS)}'
    )
  chip, sides = CHIPS[name], [int(side) for side in grid.split('x')]
  if chip.axes and (len(sides) > chip.axes or any(side > 2 and side % 4 for side in sides)):
    raise BadInput(f'--topology {topology}: expected {chip.axes} sides at most, each 1, 2 or a multiple of 4')
  if math.prod(sides) > MOST:
    raise BadInput(f'--topology {topology}: {math.prod(sides):,} devices, expected {MOST:,} at most')
  return Machine(topology, chip, math.prod(sides))
