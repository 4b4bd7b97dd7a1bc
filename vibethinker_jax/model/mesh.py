"""The mesh, and the tables that say which axes of the arrays are sharded over which mesh axes.

Letters (declared in qwen2.py) name the axes of arrays. The mesh axes are:

  data    replicas of the model, across slices or nodes         fsdp    weights and rows of the batch, within a slice
  seq     the query axis of long sequences                      tensor  heads, feed-forward and vocabulary

Between uses weights are sharded over fsdp and tensor (AT_REST). They are gathered over fsdp just before use (IN_USE).
Activations follow ACTIVATION. Decoding uses the devices of its process as another mesh, `decode_mesh`, on which every
device has the whole model: so weights are gathered once, and not once a token.

A mesh is optional. Without one (`jax.set_mesh` was not called) the functions here leave their arrays as they are.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AT_REST = {'D': 'fsdp', 'F': 'tensor', 'K': 'tensor', 'V': 'tensor'}
IN_USE = {'F': 'tensor', 'K': 'tensor', 'V': 'tensor'}
ACTIVATION = {'B': ('data', 'fsdp'), 'T': 'seq', 'F': 'tensor', 'K': 'tensor', 'V': 'tensor'}
Along = Literal[-1] | Annotated[int, Interval(ge=1, le=1 << 20)]  # devices; -1: all that the other axes leave


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Devices along each mesh axis; the product is the number of devices.

  One axis may be -1: it takes all devices that the other axes leave. A CPU counts as so many devices as the product, or
  with -1 as one device for each core.

  data: replicas of the model.
  fsdp: over which the weights and the rows of a batch are sharded.
  seq: over which long sequences are sharded.
  tensor: over which heads, feed-forward and vocabulary are sharded; at most the kv heads.
  """

  data: Along = 1
  fsdp: Along = 1
  seq: Along = 1
  tensor: Along = 1

  @property
  def size(self) -> int | None:
    """The number of devices; None where an axis is -1."""
    sizes = dataclasses.astuple(self)
    return None if -1 in sizes else math.prod(sizes)

  def on(self, devices: int) -> 'MeshShape':
    """This shape on so many devices, with a number for every axis. Raises ValueError where -1 cannot be one."""
    free = [axis for axis, n in dataclasses.asdict(self).items() if n == -1]
    if not free:
      return self
    if len(free) > 1:
      raise ValueError(f'{" and ".join(free)} are -1, expected -1 at one axis at most')
    rest = math.prod(n for n in dataclasses.astuple(self) if n != -1)
    if devices % rest:
      raise ValueError(f'{free[0]} is -1, but the other axes have {rest} devices, which do not divide {devices}')
    return dataclasses.replace(self, **{free[0]: devices // rest})


def make_mesh(shape: MeshShape, devices=None) -> Mesh:
  """The training mesh over `devices` (default: all). Raises ValueError if the shape has another number of devices.

  Several TPU slices are replicas: the data axis goes across slices, every other axis stays within one.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = shape.on(len(devices))
  sizes = dataclasses.astuple(shape)
  if shape.size != len(devices):
    raise ValueError(f'mesh {dataclasses.asdict(shape)} wants {shape.size} devices, there are {len(devices)}')
  slices = _slices(devices)
  if shape.data % slices:
    raise ValueError(f'data is {shape.data}, expected a multiple of the number of slices, {slices}')
  # a mesh axis may be a part of an axis of the torus, as for a mesh of 4 x 8 x 2 on a torus of 4 x 4 x 4
  if slices == 1:
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  else:
    within, across = (shape.data // slices, *sizes[1:]), (slices, 1, 1, 1)
    grid = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
  return Mesh(grid, tuple(dataclasses.asdict(shape)), axis_types=(AxisType.Explicit,) * 4)


def _slices(devices: Sequence[jax.Device]) -> int:
  """How many TPU slices the devices come from."""
  if devices[0].platform != 'tpu':
    return 1
  try:
    return len({device.slice_index for device in devices})
  except AttributeError:  # plan/ describes a single slice without having it
    return 1


def decode_mesh(mesh: Mesh) -> Mesh:
  """The same devices as one axis, for decoding: each has the whole model and its share of the rows.

  The axis is Auto: rows are scattered, gathered and sampled independently, and the compiler distributes that by itself.
  With an explicit axis every such operation would have to name its sharding.
  """
  return Mesh(mesh.devices.ravel(), ('data',), axis_types=(AxisType.Auto,))


def own_mesh(devices: Sequence[jax.Device]) -> Mesh | None:
  """The decode_mesh of the `devices` of this process; None if there is only one device and only one process."""
  if len(devices) == jax.process_count() == 1:
    return None
  return decode_mesh(make_mesh(MeshShape(data=len(devices)), devices))


def no_mesh():
  """A context in which no mesh is set, even if the caller has set one: `with no_mesh(): ...`."""
  return jax.set_mesh(Mesh(np.empty((), object), ()))


def lay_out(tree, mesh: Mesh | None, where: PartitionSpec):
  """`tree` with every array laid out by `where` on `mesh`; without a mesh, as it is."""
  return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, where))


def spec(axes: str, rules: dict) -> PartitionSpec:
  """PartitionSpec of an array whose axes are the letters `axes`: spec('DKGH', AT_REST) -> P('fsdp', 'tensor')."""
  return PartitionSpec(*(rules.get(letter) for letter in axes))


def shard(x: jax.Array, axes: str, rules: dict = ACTIVATION) -> jax.Array:
  """`x` sharded by `rules`. Its gradient has the sharding that x had (the gradient of a gather is a reduce-scatter)."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.reshard(x, spec(axes, rules))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
  """jnp.einsum whose result is sharded by the letters after the arrow; a sum over sharded letters is a reduction.

  Both gradients are einsums too, and give their axes in the order of the operand. JAX's own rule gives them transposed;
  on a CPU the copies that undo this take a fifth of a training step.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return jnp.einsum(equation, x, y)
  return jnp.einsum(equation, x, y, out_sharding=spec(equation.split('->')[1], ACTIVATION))


def _einsum_forward(equation, x, y):
  return einsum(equation, x, y), (x, y)


def _einsum_backward(equation, operands, gradient):
  x, y = operands
  (a, b), out = equation.split('->')[0].split(','), equation.split('->')[1]
  of_x = _laid_out_einsum(f'{out},{b}->{a}', gradient, y, x)
  if x.size <= gradient.size:
    return of_x, _laid_out_einsum(f'{a},{out}->{b}', x, gradient, y)
  # XLA copies the first operand of a product so that the axis summed over comes last. In the gradient of a weight
  # that copies the activations of all tokens. So the narrower operand is put first, and the small result is transposed
  # (after a barrier, since the compiler would undo it).
  first = [letter for letter in out if letter in b]
  turned = ''.join(first + [letter for letter in b if letter not in first])
  order = [turned.index(letter) for letter in b]
  like = jnp.transpose(y, [b.index(letter) for letter in turned])
  of_y = jax.lax.optimization_barrier(_laid_out_einsum(f'{out},{a}->{turned}', gradient, x, like))
  return of_x, jnp.transpose(of_y, order)


def _laid_out_einsum(equation: str, x: jax.Array, y: jax.Array, like: jax.Array) -> jax.Array:
  """jnp.einsum whose result has the sharding of `like`."""
  where = None if jax.sharding.get_abstract_mesh().empty else jax.typeof(like).sharding
  return jnp.einsum(equation, x, y, out_sharding=where)


einsum.defvjp(_einsum_forward, _einsum_backward)


def reshape(x: jax.Array, sizes: tuple[int, ...], axes: str) -> jax.Array:
  """`x` in another shape, sharded by the letters `axes`: if an axis is split, JAX cannot know which part is sharded."""
  out = None if jax.sharding.get_abstract_mesh().empty else spec(axes, ACTIVATION)
  return jax.lax.reshape(x, sizes, out_sharding=out)


def use(param: nnx.Param, dtype) -> jax.Array:
  """A weight as its layer computes with it: first cast (half the bytes to gather), then gathered over fsdp."""
  return shard(param[...].astype(dtype), param.axes, IN_USE)


def is_param(x) -> bool:
  """Whether `x` is a parameter, which knows its axis letters."""
  return isinstance(x, nnx.Param)


def rest_sharding(param: nnx.Param, mesh: Mesh) -> NamedSharding:
  """The sharding of a parameter (or of its shape) between uses. The leading axis of stacked layers is not sharded."""
  stacked = param.get_value().ndim - len(param.axes)
  return NamedSharding(mesh, PartitionSpec(*[None] * stacked, *spec(param.axes, AT_REST)))


def shardings(tree, mesh: Mesh):
  """A NamedSharding for every leaf of `tree`: parameters, or an optimizer state of the same structure.

  Leaves without axis letters, such as a step count, are replicated.
  """

  def leaf(x):
    if is_param(x):
      return x.replace(rest_sharding(x, mesh))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree.map(leaf, tree, is_leaf=is_param)


def place(tree, mesh: Mesh, dtype=None):
  """`tree` on `mesh`, sharded as between uses, and cast to `dtype` if it is given.

  From another mesh of the same devices it is moved without the host.
  """
  if dtype is not None:
    tree = jax.tree.map(lambda x: x.astype(dtype), tree)
  return jax.device_put(tree, shardings(tree, mesh))


def local(tree, mesh: Mesh | None, dtype):
  """`tree` for this process alone: cast to `dtype`, and whole on each device of `mesh`.

  mesh: of this process's own devices. Arrays that several processes hold together are gathered, so all processes must
  call this. If all arrays are this process's own, the tree is returned as it is.
  """
  if all(x.is_fully_addressable for x in jax.tree.leaves(tree)):
    return tree
  whole = jax.jit(lambda tree: jax.tree.map(lambda x: jax.reshard(x.astype(dtype), PartitionSpec()), tree))(tree)
  where = NamedSharding(mesh, PartitionSpec())
  own = lambda x: jax.make_array_from_single_device_arrays(x.shape, where, [s.data for s in x.addressable_shards])
  return jax.tree.map(own, whole)


def spread_rows(batch):
  """Arrays [B,T] or [B] on the mesh that is set, rows sharded over data and fsdp; without a mesh, as they are.

  Every process has the whole batch in its memory and copies their rows to its own devices.
  """
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    return batch

  def put(x):
    where = NamedSharding(mesh, spec('BT'[: x.ndim], ACTIVATION))
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

  return jax.tree.map(put, batch)


class InFlight:
  """Limits the number of dispatched programs: call `in_flight(result)` after each dispatch.

  jax dispatches programs without waiting for them. A CPU device has about 30 places for dispatched programs. If all are
  taken, a dispatch waits, and it does so on one of the few threads that also run programs. A collective whose other
  device needs that thread then never ends. So at most two programs are dispatched and not finished: one runs, and the
  next is ready, so that no device is idle.
  """

  def __init__(self):
    self._results: collections.deque = collections.deque()

  def __call__(self, result) -> None:
    """Note a dispatched program, and wait for the one two before it.

    result: a small output of the program, which is not donated to a later one.
    """
    self._results.append(result)
    if len(self._results) > 2:
      jax.block_until_ready(self._results.popleft())
