"""What only an accelerator shows, part by part (experiments/accelerator.py): functions of settings, dicts of figures.

Weights and tokens are random. A part is to have a process of its own: the peak of a device's memory is the process's.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from pydantic import NonNegativeInt, PositiveInt

from vibethinker_jax.config import spread
from vibethinker_jax.data.batches import Batch
from vibethinker_jax.engine import decode
from vibethinker_jax.engine.cache import ROWS, Int8KVCache, KVCache
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.engine.sampling import SamplingParams, batched
from vibethinker_jax.engine.score import score
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import bad_value
from vibethinker_jax.model.attention import attend_packed, attend_paged
from vibethinker_jax.model.int8 import quantize
from vibethinker_jax.model.mesh import MeshShape, decode_mesh, lay_out, make_mesh, no_mesh, place, spread_rows
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.plan.device import bound, chip, copy_rate, decode_work, matmul_rate, seconds, training_flops
from vibethinker_jax.plan.formulas import memory, resident, roofline
from vibethinker_jax.plan.machine import Machine
from vibethinker_jax.plan.stage import StagePlan
from vibethinker_jax.train import rl, sft
from vibethinker_jax.train.optim import Optim, optimizer
from vibethinker_jax.train.rl_batches import Responses
from vibethinker_jax.train.rl_loss import make_loss
from vibethinker_jax.train.state import Diverged, gradient_adder, start, updater

ACCELERATORS = ('gpu', 'tpu')
# of packed rows, and of pages
KERNELS = {'gpu': ('triton', 'gpu'), 'tpu': ('splash', 'tpu'), 'cpu': ('xla', 'xla')}
TILE = 128  # tokens that every kernel takes a multiple of


@dataclasses.dataclass(frozen=True)
class Decode:
  """Decode steps at the end of rows of `positions` positions.

  rows: samples decoded at a time, one part for each number.
  positions: prompt and response together.
  block: steps of a call.
  page: positions of a page.
  """

  rows: tuple[PositiveInt, ...]
  positions: PositiveInt
  block: PositiveInt
  page: PositiveInt


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """configs/accelerator.py.

  seed: of weights and tokens.
  repeats: measurements, of which the median counts.
  mesh: how devices share the work; the first so many devices of the machine.
  model: its sizes; the attention kernel is the device's own.
  lengths: tokens of a row in training, one part for each.
  sft_rows: rows of a micro-batch.
  rl_rows: responses of a micro-batch, each in a row with its prompt.
  prompt: tokens of it.
  decode: what decodes.
  """

  seed: NonNegativeInt
  repeats: PositiveInt
  mesh: MeshShape
  model: Config
  lengths: tuple[PositiveInt, ...]
  sft_rows: PositiveInt
  rl_rows: PositiveInt
  prompt: PositiveInt
  decode: Decode


@dataclasses.dataclass(frozen=True)
class Figure:
  """A measured value, and what it is compared with. None: the device does not tell."""

  value: float | None
  unit: str
  against: str = ''
  reference: float | None = None

  def row(self) -> dict:
    """As the JSON has it."""
    compared = None not in (self.value, self.reference) and self.reference != 0
    return dataclasses.asdict(self) | {'ratio': self.value / self.reference if compared else None}


@dataclasses.dataclass(frozen=True)
class Part:
  """Something to measure."""

  name: str
  run: Callable[[Accelerator], dict[str, Figure]]
  needs: tuple[str, ...] = ()  # platforms, one of which it takes; (): any
  fallback: str = ''  # the part whose `step` its own is compared with, where that was measured


def parts_of(s: Accelerator) -> list[Part]:
  """All parts, in the order in which they are wanted where time is short."""
  first, *longer = s.lengths
  kernel = lambda n: Part(f'attention_{n}', functools.partial(packed_attention, length=n), ACCELERATORS)
  steps = lambda n: [
    Part(f'{kind}_{n}', functools.partial(training_step, kind=kind, length=n)) for kind in ('sft', 'rl')
  ]
  beside = lambda layout, n: '' if layout == 'contiguous' else f'decode_contiguous_{n}'
  decoding = lambda layout: [
    Part(f'decode_{layout}_{n}', functools.partial(decode_step, layout=layout, rows=n), fallback=beside(layout, n))
    for n in s.decode.rows
  ]
  plain = functools.partial(training_step, kind='sft', length=first, by_kernel=False)
  return [
    Part('rates', rates),
    kernel(first),
    *steps(first),
    *decoding('contiguous'),
    *decoding('paged'),
    Part('paged_attention', paged_attention, ACCELERATORS),
    *(part for n in longer for part in steps(n)),
    *decoding('int8'),
    *(kernel(n) for n in longer),
    Part('int8_error', int8_error),
    Part(f'sft_{first}_plain', plain, ACCELERATORS, fallback=f'sft_{first}'),
    *decoding('int8_cache'),
    *decoding('int8_weights'),
  ]


def check(s: Accelerator) -> None:
  """Raises BadInput for what can be told without a device."""
  d, tile = s.decode, TILE * s.mesh.seq
  for name, several in (('lengths', s.lengths), ('decode.rows', d.rows)):
    if not several or len({*several}) < len(several):
      raise bad_value(f'config.{name}', several, 'one or more, each once')
  for length in s.lengths:
    if length % tile or length > s.model.positions:
      raise bad_value('config.lengths', length, f'a multiple of {tile}, at most model.positions, {s.model.positions}')
  if s.prompt >= min(s.lengths):
    raise bad_value('config.prompt', s.prompt, f'less than the shortest of lengths, {min(s.lengths)}')
  if d.positions > s.model.positions:
    raise bad_value('config.decode.positions', d.positions, f'at most model.positions, {s.model.positions}')
  if d.block >= d.positions:
    raise bad_value('config.decode.block', d.block, f'less than decode.positions, {d.positions}')
  if odd := [n for n in d.rows if n % s.mesh.size]:
    raise bad_value('config.decode.rows', odd[0], f'a multiple of the devices of the mesh, {s.mesh.size}')
  spread(s.mesh, s.model, {'sft_rows': s.sft_rows, 'rl_rows': s.rl_rows})


# ---- the parts -------------------------------------------------------------------------------------------------------


def rates(s: Accelerator) -> dict[str, Figure]:
  """What one device reaches at a large product and a large copy."""
  on, source = chip(jax.devices()[0], s.model.dtype)
  return {
    'matmul': Figure(matmul_rate(s.model.dtype) / 1e12, 'TFLOP/s', source, on.flops / 1e12),
    'copy': Figure(copy_rate() / 1e9, 'GB/s', source, on.bandwidth / 1e9),
  }


def packed_attention(s: Accelerator, length: int) -> dict[str, Figure]:
  """The device's kernel for one packed row beside the plain form: how exact, on two documents; how fast, on one."""
  c, kernel = s.model, KERNELS[jax.default_backend()][0]
  on, source = chip(jax.devices()[0], c.dtype)
  query, keys, values = (1, c.K, c.G, length, c.H), (1, c.K, c.H, length), (1, c.K, length, c.H)
  normal = lambda i, shape: jax.random.normal(jax.random.key(s.seed + i), shape, c.dtype)
  inputs = [normal(i, shape) for i, shape in enumerate((query, keys, values, query))]
  wide = [x.astype(jnp.float32) for x in inputs]
  one, two = jnp.ones((1, length), jnp.int32), (jnp.arange(length) * 2 // length + 1)[None]

  def forward(q, k, v, toward, segments, which):
    return attend_packed(q, k, v, segments, which)

  def loss(q, k, v, toward, segments, which):
    return (attend_packed(q, k, v, segments, which) * toward).sum(dtype=jnp.float32)

  found = {}
  for name, f in (('forward', forward), ('forward and backward', jax.grad(loss, (0, 1, 2)))):
    f = jax.jit(f, static_argnums=5)
    with jax.default_matmul_precision('highest'):  # else a GPU rounds float32 to TF32
      exact = f(*wide, two, 'xla')
    errors = [distance(f(*inputs, two, which), exact) for which in (kernel, 'xla')]
    times = [seconds(functools.partial(f, *inputs, one, which), s.repeats, 4) for which in (kernel, 'xla')]
    found |= {f'{name}, error': beside_fallback(errors, ''), f'{name}, time': beside_fallback(times, 's')}
  achieved = 4 * c.K * c.G * c.H * length * (length + 1) / 2 / found['forward, time'].value
  return found | {'forward, FLOP/s': Figure(achieved / 1e12, 'TFLOP/s', source, on.flops / 1e12)}


def paged_attention(s: Accelerator) -> dict[str, Figure]:
  """The device's kernel for one query a row and pages, beside the gather, at lengths of all kinds."""
  c, d, rng, kernel = s.model, s.decode, np.random.default_rng(s.seed), KERNELS[jax.default_backend()][1]
  on, source = chip(jax.devices()[0], c.dtype)
  B, W = max(d.rows), -(-d.positions // d.page)
  pool = (c.K, B * W, d.page, c.H)
  normal = lambda i, shape: jax.random.normal(jax.random.key(s.seed + i), shape, c.dtype)
  inputs = [normal(i, shape) for i, shape in enumerate(((B, c.K, c.G, c.H), pool, pool))]
  lengths = jnp.asarray(rng.integers(1, d.positions + 1, B, np.int32))
  table = jnp.asarray(rng.permutation(B * W).reshape(B, W).astype(np.int32))
  f = jax.jit(attend_paged, static_argnums=5)
  q, *rest = *inputs, lengths, table
  with jax.default_matmul_precision('highest'):
    exact = f(q.astype(jnp.float32), *rest, 'xla')
  errors = [distance(f(q, *rest, which), exact) for which in (kernel, 'xla')]
  times = [seconds(functools.partial(f, q, *rest, which), s.repeats, 16) for which in (kernel, 'xla')]
  read = 2 * int(lengths.sum()) * c.K * c.H * jnp.dtype(c.dtype).itemsize
  return {
    'error': beside_fallback(errors, ''),
    'time': beside_fallback(times, 's'),
    'bytes read': Figure(read / times[0] / 1e9, 'GB/s', source, on.bandwidth / 1e9),
  }


def beside_fallback(pair: list[float], unit: str) -> Figure:
  """The kernel's value beside the plain form's."""
  return Figure(pair[0], unit, 'fallback', pair[1])


def distance(one, other) -> float:
  """The largest difference of two trees' arrays, each by the largest value of `other`'s."""
  far = lambda a, b: jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max()
  return max(float(x) for x in jax.tree.leaves(jax.tree.map(far, one, other)))


def training_step(s: Accelerator, kind: str, length: int, by_kernel: bool = True) -> dict[str, Figure]:
  """One micro-batch and one update of SFT or RL, by the device's kernel or by the plain form."""
  kernel = KERNELS[jax.default_backend()][0] if by_kernel else 'xla'
  c, mesh = dataclasses.replace(s.model, attention=kernel), mesh_of(s)
  on, source = chip(jax.devices()[0], c.dtype)
  rows, targets = (s.sft_rows, length) if kind == 'sft' else (s.rl_rows, length - s.prompt)
  stage = StagePlan(kind, kind, c, s.mesh, rows, length)
  loss = sft.loss if kind == 'sft' else make_loss(rl.MGPO(lam=0.0).loss, 1.0)
  transform = optimizer(Optim(learning_rate=1e-6), 1000)
  with jax.set_mesh(mesh):
    batch = spread_rows(documents(s, length) if kind == 'sft' else responses(s, length))
    add, update = gradient_adder(loss), updater(transform)
    state = start(place(jax.jit(functools.partial(Qwen2, c))(jax.random.key(s.seed)), mesh), transform)
    norms = {}

    def work():
      nonlocal state, norms
      sums, _ = add(None, state.model, batch)
      state, norms = update(state, sums)
      return norms, state.step

    taken = seconds(work, s.repeats)
  if not np.isfinite(float(norms['grad_norm'])):
    raise Diverged(f'{kind}, {length} tokens: the gradient is not finite')
  planned = max(roofline(stage, Machine(source, on, s.mesh.size)).values())
  achieved = training_flops(c, rows, length, targets) / s.mesh.size / taken
  return {
    'step': Figure(taken, 's', "plan's roofline", planned),
    'tokens': Figure(rows * length / taken, 'tokens/s'),
    'model FLOP/s': Figure(achieved / 1e12, 'TFLOP/s', source, on.flops / 1e12),
    'peak memory': peak(sum(memory(stage).values()) + resident(stage, False)),
  }


def documents(s: Accelerator, length: int) -> Batch:
  """Rows of one document each."""
  rng, shape = np.random.default_rng(s.seed), (s.sft_rows, length)
  ids = lambda: rng.integers(0, s.model.V, shape, np.int32)
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
  return Batch(ids(), ids(), positions, np.ones(shape, np.int32), np.ones(shape, np.float32))


def responses(s: Accelerator, length: int) -> Responses:
  """Responses that fill their rows, half of them right, each to a prompt of its own."""
  rng, B, T = np.random.default_rng(s.seed), s.rl_rows, length - s.prompt
  ids = lambda *sizes: rng.integers(0, s.model.V, sizes, np.int32)
  ones, advantages = np.ones((B, T), np.float32), np.where(np.arange(B) % 2, 1, -1).astype(np.float32)
  drawn = -np.log(s.model.V).astype(np.float32) * ones
  lengths = np.full(B, s.prompt, np.int32)
  return Responses(ids(B, s.prompt), lengths, ids(B, T), ids(B, T), ones, drawn, 0 * ones, advantages)


def decode_step(s: Accelerator, layout: str, rows: int) -> dict[str, Figure]:
  """A step of a block of the engine's, with every row at the end of its positions.

  Layouts: the cache 'contiguous', 'paged', or in int8 ('int8_cache'); the weights too ('int8') or alone
  ('int8_weights').
  """
  c, d = s.model, s.decode
  on, mesh = chip(jax.devices()[0], c.dtype)[0], None if s.mesh.size == 1 else decode_mesh(mesh_of(s))
  pages = rows * -(-d.positions // d.page)
  kinds = {'paged': PagedLayout(pages, d.page, KERNELS[jax.default_backend()][1])}
  kinds |= {'int8': Int8KVCache, 'int8_cache': Int8KVCache}
  engine = Engine(c, (), rows, d.block, max_length=d.positions, cache=kinds.get(layout, KVCache), mesh=mesh)
  begin = d.positions - d.block
  with no_mesh():
    model = engine.place(weights(s, layout in ('int8', 'int8_weights')))
    state, cache, allocator = engine.empty(rows, d.positions)
    for row in range(rows):
      allocator.grow(row, d.positions)
    state, cache = allocator.fit(state, cache, d.positions)
    full = lambda n: lay_out(jnp.full(rows, n, jnp.int32), mesh, ROWS)
    sampling = lay_out(jax.tree.map(jnp.asarray, batched([SamplingParams()] * rows)), mesh, ROWS)
    state = dataclasses.replace(state, position=full(begin), left=full(d.block), sampling=sampling)

    def work():
      nonlocal cache
      again = jax.tree.map(jnp.copy, state)  # a block gives its rows away
      numbers = np.int32(d.block), np.int32(0)
      _, cache, *out = decode.decode_block(model, again, cache, *numbers, (), d.block, False, False)
      return out

    taken = seconds(work, s.repeats) / d.block
  held = (pages + s.mesh.size) * d.page if layout == 'paged' else rows * d.positions
  least = bound(on, *decode_work(model, cache, held, rows / s.mesh.size, begin + (d.block + 1) / 2))
  stage = StagePlan('decode', 'decode', c, s.mesh, rows, d.positions, pages * d.page if layout == 'paged' else 0)
  return {
    'step': Figure(taken, 's', 'roofline', least),
    'tokens': Figure(rows / taken, 'tokens/s', 'roofline', rows / least),
    'peak memory': peak(None if layout.startswith('int8') else sum(memory(stage).values())),
  }


def int8_error(s: Accelerator) -> dict[str, Figure]:
  """How far int8 weights move the ln p of random tokens. Trained weights: docs/performance.md."""
  sequences = np.random.default_rng(s.seed).integers(0, s.model.V, (8, TILE + 1)).tolist()
  found = [dict(score(weights(s, rounded), sequences)) for rounded in (False, True)]
  moved = np.abs(np.concatenate([found[0][i].logps - found[1][i].logps for i in range(len(sequences))]))
  return {'mean': Figure(float(moved.mean()), 'nats'), 'largest': Figure(float(moved.max()), 'nats')}


def weights(s: Accelerator, rounded: bool) -> Qwen2:
  """The model as decoding wants it, made in one program, so that the float32 weights need not lie beside."""
  kind = quantize if rounded else decode.cast
  return jax.jit(lambda key: kind(Qwen2(s.model, key)))(jax.random.key(s.seed))


def mesh_of(s: Accelerator) -> Mesh:
  """The first devices of the machine. Raises BadInput where they are too few."""
  try:
    return make_mesh(s.mesh, jax.devices()[: s.mesh.size])
  except ValueError as error:
    raise BadInput(f'config.mesh: {error}') from None


def peak(planned: float | None) -> Figure:
  """The most that this process has held on a device, beside what was planned. A CPU does not tell."""
  stats = jax.local_devices()[0].memory_stats()
  return Figure(
    stats['peak_bytes_in_use'] / 2**30 if stats else None,
    'GiB',
    *(() if planned is None else ('plan', planned / 2**30)),
  )
