"""Whether a run fits a machine, and what it costs, told before the machine is rented.

A plan goes through the stages of a config (SFT, the RL updates, prefill, decoding) on a machine such as `v5e:4x4` or
`a100:8`. For a TPU slice each stage is compiled by the TPU's own compiler, which needs libtpu but no TPU, and the
memory is what that compiler assigned. For GPUs and CPUs each stage is traced and lowered, which finds shapes and
layouts that do not go together, and the memory is that of `memory`, a model held to the compiled TPU figures.

Work is counted by formula (the compiler counts a scan's body once, and nothing inside a kernel); a stage's time is the
roofline: the longest of computing, moving memory and moving between devices, each alone at the chip's published rate.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vibethinker_jax.data.batches import Batch
from vibethinker_jax.engine import decode
from vibethinker_jax.engine.cache import Slots
from vibethinker_jax.engine.engine import TOGETHER
from vibethinker_jax.engine.pages import POOL, Pages, Paging
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model import hf
from vibethinker_jax.model.attention import FUSED, unit
from vibethinker_jax.model.mesh import ACTIVATION, MeshShape, decode_mesh, make_mesh, no_mesh, shardings, spec
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.settings import freeze
from vibethinker_jax.ssp import TINY_BASE, Settings, check_mesh, computing
from vibethinker_jax.train import rl, sft
from vibethinker_jax.train.journal import write_json
from vibethinker_jax.train.state import gradient_adder

PROMPT = 1024  # tokens that a prompt is taken to have at most
RESERVED = 0.03  # of a device's memory: the runtime's own, and what fragmentation costs


@dataclasses.dataclass(frozen=True)
class Chip:
  """A device by its data sheet: bytes, bf16 operations and bytes a second (`link`: all its links, one direction)."""

  platform: str
  memory: float
  flops: float
  bandwidth: float
  link: float
  group: int = 1 << 30  # devices that `link` joins; between groups there is `network`
  network: float = 0.0


CHIPS = {
  'v5e': Chip('tpu', 16 * 2**30, 197e12, 819e9, 100e9),
  'v5p': Chip('tpu', 95 * 2**30, 459e12, 2765e9, 300e9),
  'v6e': Chip('tpu', 32 * 2**30, 918e12, 1640e9, 224e9),
  'a100': Chip('cuda', 80 * 2**30, 312e12, 2039e9, 300e9, 8, 25e9),
  'h100': Chip('cuda', 80 * 2**30, 989e12, 3350e9, 450e9, 8, 50e9),
  'h200': Chip('cuda', 141 * 2**30, 989e12, 4800e9, 450e9, 8, 50e9),
  'cpu': Chip('cpu', 16 * 2**30, 0.1e12, 20e9, 10e9),
}
KERNELS = {'tpu': 'splash', 'cuda': 'triton', 'cpu': 'xla'}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Some devices of one kind, as `topology` names them: v5e:4x4 (a TPU slice), a100:8, cpu:1."""

  topology: str
  chip: Chip
  devices: int

  @property
  def name(self) -> str:
    """The chip's, as config.cost.prices has it."""
    return self.topology.split(':')[0]


def machine(topology: str) -> Machine:
  """Raises BadInput for what names no machine."""
  name, _, grid = topology.partition(':')
  if name not in CHIPS or not re.fullmatch(r'\d+(x\d+)*', grid) or 0 in map(int, grid.split('x')):
    raise BadInput(
      f'--topology {topology}: expected CHIP:GRID, for example v5e:4x4 or a100:8, with a CHIP of {[*CHIPS]}'
    )
  return Machine(topology, CHIPS[name], math.prod(map(int, grid.split('x'))))


@dataclasses.dataclass(frozen=True)
class Stage:
  """One program of a run: `rows` rows of `length` tokens at a time, on a mesh."""

  name: str
  kind: str  # 'sft', 'rl', 'prefill' or 'decode'
  model: Config
  mesh: MeshShape
  rows: int
  length: int
  slots: int = 0  # of the whole cache, where it lies in pages; 0: `length` for each row

  @property
  def tokens(self) -> float:
    """Tokens of one call on one device."""
    split = self.mesh.size
    if self.kind in ('sft', 'rl'):
      split //= self.mesh.tensor  # whose devices share the tokens of a row
    return self.rows * (1 if self.kind == 'decode' else self.length) / split


def model_of(s: Settings) -> Config:
  """The sizes the run will have: of its base's directory, of its random model, or of config.cost.sizes."""
  if s.start.random is not None:
    c = freeze(Config, s.start.random, 'config.start.random')
  elif s.cost.sizes is not None and not s.start.path:
    c = freeze(Config, s.cost.sizes, 'config.cost.sizes')
  else:
    c = hf.read_config(s.start.path or TINY_BASE)
  return computing(c, s.start)


def stages_of(s: Settings, c: Config) -> list[Stage]:
  """Every program of the run that takes memory worth planning."""
  whole = lambda tokens: rl.rounded_up(tokens, unit(c.attention, s.mesh.seq))
  out = [Stage('sft', 'sft', c, s.mesh, s.sft.rows, s.sft.length)]
  for stage in s.rl.stages:
    out.append(Stage(f'rl/{stage.name}', 'rl', c, s.mesh, s.rl.micro_rows, whole(stage.max_tokens + PROMPT)))
  together = -(-TOGETHER // s.mesh.size) * s.mesh.size
  out.append(Stage('prefill', 'prefill', c, s.mesh, together, min(PROMPT, c.positions)))
  slots = s.engine.pages * s.engine.page
  out.append(Stage('decode', 'decode', c, s.mesh, s.engine.rows, c.positions, slots))
  return out


# ---- memory and work by formula -----------------------------------------------------------------------------------


def sizes(c: Config) -> tuple[int, int]:
  """Parameters of the layers, and of one table [V,D]."""
  layer = 2 * c.D * c.K * (c.G + 1) * c.H + c.K * (c.G + 2) * c.H + 3 * c.D * c.F + 2 * c.D
  return c.L * layer, c.V * c.D


def resident(stage: Stage, kl: bool) -> float:
  """Bytes a device holds that are no argument of the stage's program: the optimizer's, the trainer's while decoding."""
  layers, table = sizes(stage.model)
  share = (layers + table * (1 if stage.model.tied else 2)) / (stage.mesh.fsdp * stage.mesh.tensor)
  if stage.kind in ('prefill', 'decode'):
    return share * (16 if kl else 12)
  return share * (12 if kl and stage.kind == 'rl' else 8)


def memory(stage: Stage) -> dict[str, float]:
  """What a device holds at the worst moment of the stage's program, in bytes by what it is.

  Training has two such moments, the loss and the middle of the backward pass; the greater one counts.
  """
  c, m = stage.model, stage.mesh
  layers, table = sizes(c)
  wide, own = jnp.dtype(c.dtype).itemsize, m.fsdp * m.tensor
  tables = table * (1 if c.tied else 2)
  kv = 2 * c.L * c.K * c.H * wide
  if stage.kind in ('prefill', 'decode'):
    rows = stage.rows / m.size
    cache = (stage.slots or stage.rows * stage.length) / m.size * kv
    work = stage.tokens * (c.F + 5 * c.D) * wide + 4 * rows * c.V * 4
    work += 4 * stage.tokens * c.K * c.G * stage.length  # scores
    weights = {'weights': (layers + tables) * wide}
    if stage.kind == 'decode':
      weights['weights, layer by layer'] = layers * wide
    return {**weights, 'cache': cache, 'work': work}
  n = stage.tokens
  rows = stage.rows / (m.data * m.fsdp)
  heads = c.K * c.G * c.H / m.tensor
  keys = rows * stage.length * 2 * c.K * c.H * wide / m.tensor
  kept = {
    'offload': c.D / c.L,  # those of the layer at hand; c.L x n x c.D numbers are on the host
    'full': c.D,
    'dots': 3 * c.D + 2 * c.K * c.H + 2 * heads + 2 * c.F / m.tensor,
    'none': 10 * c.D + 8 * heads + 6 * c.F / m.tensor,
  }[c.remat]
  layer = layers / c.L
  # the coefficients are those of the programs that docs/planning.md says they were fitted to
  loss = table * (wide + 4) / m.tensor + 2 * 4 * rows * min(c.logit_chunk, stage.length / m.seq) * c.V / m.tensor
  backward = 4 * (layers + tables) / own + 4 * keys + 2 * layer * wide / m.tensor
  partial = stage.length / 1024 * heads if c.attention == 'splash' and stage.length <= FUSED else 0
  backward += n * wide * (5 * heads + max(3 * c.F / m.tensor + 8 * c.D, 6 * c.D + partial))
  return {
    'weights': 4 * (layers + tables) / own,
    'gradient': 4 * (layers + tables) / own,
    'cast weights': wide * layers / own,
    'layer inputs': c.L * n * kept * wide,
    'work': max(loss, backward),
  }


def traffic(stage: Stage) -> float:
  """Bytes that one device sends in one call. All-gather: its result's others; all-reduce: twice that."""
  c, m = stage.model, stage.mesh
  wide = jnp.dtype(c.dtype).itemsize
  if stage.kind in ('prefill', 'decode'):
    return 0.0
  layers, table = (x * wide / m.tensor for x in sizes(c))
  every, keys = m.data * m.fsdp * m.seq, 2 * stage.rows / (m.data * m.fsdp) * stage.length * c.K * c.H * wide / m.tensor
  gather, reduce = (lambda n: (n - 1) / n), (lambda n: 2 * (n - 1) / n)
  again = 1 if c.remat == 'none' else 2
  sent = layers * (again * gather(m.fsdp) + reduce(every))
  sent += c.L * keys * (again * gather(m.seq) + reduce(m.seq))
  sent += table * (gather(m.fsdp) + reduce(every)) + table * (reduce(m.fsdp) + reduce(m.data * m.seq) / m.fsdp)
  return sent + (2 + again) * c.L * stage.tokens * c.D * wide * reduce(m.tensor)


def work(stage: Stage, context: float | None = None) -> tuple[float, float, float]:
  """Of one call on one device: operations of the model, those with what is computed again, and bytes moved.

  `context`: tokens that a decoded one sees on average (default: half the cache).
  """
  c, m = stage.model, stage.mesh
  layers, table = sizes(c)
  seen = stage.length / 2 if context is None else context
  tensor = 1 if stage.kind in ('prefill', 'decode') else m.tensor
  attention = 4 * c.L * c.K * c.G * c.H * seen / tensor
  body, head = 2 * layers / tensor + attention, 2 * table / tensor
  weights = 2 * (layers + table) / tensor
  if stage.kind == 'decode':
    flops = stage.tokens * (body + head)
    return flops, flops, weights + stage.tokens * 2 * c.L * c.K * c.H * 2 * seen
  if stage.kind == 'prefill':
    flops = stage.tokens * body
    return flops, flops, weights + stage.tokens * c.L * 20 * c.D
  # with a causal mask the last device of a sequence has the most to see
  body += attention * (m.seq - 1) / m.seq
  again = {'none': 0.0, 'dots': attention, 'full': body, 'offload': body}[c.remat]
  passes = 4 if c.remat in ('full', 'offload') else 3
  moved = passes * (weights + stage.tokens * c.L * (10 * c.D + 4 * c.F / m.tensor) * 2)
  flops = 3 * stage.tokens * (2 * layers / m.tensor + attention + head)
  return flops, stage.tokens * (3 * (body + head) + again + head), moved


def roofline(stage: Stage, on: Machine, sent: float | None = None, context: float | None = None) -> dict[str, float]:
  """Seconds of one call by what would bound it: 'compute', 'memory', 'links' (`sent` bytes; default: by formula)."""
  _, flops, moved = work(stage, context)
  links = (traffic(stage) if sent is None else sent) / on.chip.link
  if on.devices > on.chip.group and stage.kind in ('sft', 'rl'):  # gradients, scattered within a group, go across
    m, (layers, table) = stage.mesh, sizes(stage.model)
    across = 2 * (m.data - 1) / m.data * 2 * (layers + 2 * table) / (m.fsdp * m.seq * m.tensor)
    links += across / on.chip.network
  return {'compute': flops / on.chip.flops, 'memory': moved / on.chip.bandwidth, 'links': links}


# ---- programs, compiled or lowered --------------------------------------------------------------------------------


def lower(stage: Stage, s: Settings, mesh: Mesh) -> jax.stages.Traced:
  """The stage's program, traced for `mesh` with nothing but shapes."""
  on = decode_mesh(mesh) if stage.kind in ('prefill', 'decode') else mesh
  model = jax.eval_shape(lambda: Qwen2(stage.model, jax.random.key(0)))
  if stage.kind in ('prefill', 'decode'):
    with no_mesh():
      return _trace_engine(stage, s, model, on)
  with jax.set_mesh(on):
    model = _laid_out(model, on)
    row = lambda kind, *sizes: jax.ShapeDtypeStruct(
      sizes, kind, sharding=NamedSharding(on, spec('BT'[: len(sizes)], ACTIVATION))
    )
    B, T = stage.rows, stage.length
    if stage.kind == 'sft':
      ids = row(jnp.int32, B, T)
      loss, batch = sft.loss, Batch(ids, ids, ids, ids, row(jnp.float32, B, T))
    else:
      N, S = B // s.rl.share, min(PROMPT, T // 2)
      ids, real = row(jnp.int32, B, T - S), row(jnp.float32, B, T - S)
      loss, prompts = rl.make_loss(s.mgpo, s.rl.temperature), (row(jnp.int32, N, S), row(jnp.int32, N))
      batch = rl.Responses(*prompts, ids, ids, real, real, real, row(jnp.float32, B))
    count = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(on, PartitionSpec()))
    add = gradient_adder(loss)
    return jax.jit(lambda sums, *rest: add(sums, *rest), donate_argnums=0).trace((model, count), model, batch)


def _trace_engine(stage: Stage, s: Settings, model: Qwen2, mesh: Mesh) -> jax.stages.Traced:
  """The engine's own programs, weights in the dtype the layers compute in."""
  c = stage.model
  put = lambda tree, where: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, where)), tree
  )
  model = put(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, c.dtype), model), PartitionSpec())
  cache = jax.eval_shape(lambda: Slots.empty(c, stage.rows, stage.length, c.dtype))
  at = PartitionSpec('data')
  if stage.kind == 'prefill':
    whole = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.int32)
    asked = whole(stage.rows, stage.length), whole(stage.rows), whole(stage.rows)
    return decode.prefill.trace(model, put(cache, at), *put(asked, PartitionSpec()))
  rows, cache = put(jax.eval_shape(lambda: decode.free_rows(stage.rows)), at), put(cache, at)
  if stage.slots:
    paging = Paging(s.engine.pages, s.engine.page, 'tpu' if mesh.devices.flat[0].platform == 'tpu' else 'xla')
    pool = jax.ShapeDtypeStruct(paging.shape(c, mesh.shape['data']), c.dtype, sharding=NamedSharding(mesh, POOL))
    cache = tuple(Pages(pool, pool, None, paging.kernel, mesh) for _ in range(c.L))
    table = jax.ShapeDtypeStruct((stage.rows, -(-stage.length // s.engine.page)), jnp.int32)
    rows = dataclasses.replace(rows, pages=put(table, at))
  return decode.decode_block.trace(model, rows, cache, np.int32(1), np.int32(0), (0,), s.engine.block, False)


def _laid_out(tree, mesh: Mesh):
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, shardings(tree, mesh)
  )


def compiled(stage: Stage, s: Settings, on: Machine, cache: pathlib.Path) -> dict:
  """What the TPU's compiler says of the stage: bytes by kind, and bytes sent. Minutes; kept in the folder `cache`.

  Raises BadInput where libtpu is missing or knows no such slice.
  """
  source = b''.join(path.read_bytes() for path in sorted(pathlib.Path(__file__).parent.rglob('*.py')))
  asked = [dataclasses.asdict(stage) | {'name': ''}, s.mgpo.kl, s.mgpo.aggregate, s.engine.block, on.topology]
  asked += [jax.__version__, _libtpu(), hashlib.sha256(source).hexdigest()]
  path = cache / f'{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]}.json'
  if path.exists():
    return json.loads(path.read_text())
  try:
    slice_ = topologies.get_topology_desc(platform='tpu', topology_name=on.topology)
  except (RuntimeError, NotImplementedError) as error:
    raise BadInput(f'--topology {on.topology}: no such TPU slice ({str(error).splitlines()[0]})') from None
  try:
    program = lower(stage, s, make_mesh(stage.mesh, slice_.devices)).lower().compile()
  except jax.errors.JaxRuntimeError as error:  # the compiler gives up on what is far too large
    needed = re.search(r'Used ([\d.]+)([MG]) of', str(error))
    if 'RESOURCE_EXHAUSTED' not in str(error) or needed is None:
      raise
    found = {'bytes': float(needed[1]) * {'M': 2**20, 'G': 2**30}[needed[2]], 'sent': None}
  else:
    m = program.memory_analysis()
    kept = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    found = {'bytes': kept + m.temp_size_in_bytes + m.generated_code_size_in_bytes, 'sent': _sent(program)}
  write_json(path, found)
  return found


def _sent(program: jax.stages.Compiled) -> float | None:
  """`sent_bytes`, or None where libtpu cannot write down what it has compiled (0.0.42: programs for v5p)."""
  try:
    return sent_bytes(program.as_text())
  except jax.errors.JaxRuntimeError:
    return None


def _libtpu() -> str:
  try:
    return importlib.metadata.version('libtpu')
  except importlib.metadata.PackageNotFoundError:
    raise BadInput("planning for a TPU needs libtpu, which is not installed (pip install -e '.[plan]')") from None


def sent_bytes(hlo: str) -> float:
  """Bytes a device sends in one call of a compiled program, counted as `traffic` counts; a loop's body once a turn."""
  total = 0.0
  for kind, size, devices, times in _collectives(hlo):
    per_byte = {'all-reduce': 2, 'reduce-scatter': devices}.get(kind, 1) * (devices - 1) / devices
    total += times * size * (1 if kind == 'collective-permute' else per_byte)
  return total


def _collectives(hlo: str) -> Iterator[tuple[str, int, int, int]]:
  """(kind, bytes of the result, devices of a group, times it is done) of every collective of a program's text."""
  blocks: dict[str, list[str]] = {}
  name = entry = ''
  for line in hlo.splitlines():
    if begins := re.match(r'(ENTRY )?%([\w.\-]+) \(.*\{$', line):
      name = begins[2]
      entry, blocks[name] = name if begins[1] else entry, []
    elif name:
      blocks[name].append(line)
  times, todo = {entry: 1}, [entry]
  while todo:
    block = todo.pop()
    for line in blocks[block]:
      turns = 1
      if loop := re.search(r' while\(.*condition=%([\w.\-]+)', line):
        bounds = [int(n) for text in blocks[loop[1]] for n in re.findall(r'constant\((\d+)\)', text)]
        turns = max(bounds, default=1)
      for called in re.findall(r'(?:calls|to_apply|body)=%([\w.\-]+)', line):
        if times[block] * turns > times.get(called, 0):
          times[called] = times[block] * turns
          todo.append(called)
  found = {}
  for block in times:
    for line in blocks[block]:
      call = re.search(r'= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\(', line)
      if call:
        # an overlapped one is spelt out once for every piece of work beside it, always under one channel
        channel = re.search(r'channel_id=(\d+)', line)
        key = channel[1] if channel else line
        found[key] = max(found.get(key, (0,)), (times[block], call[2], _bytes(call[1]), _group(line)))
  for turns, kind, size, devices in found.values():
    yield kind, size, devices, turns


def _bytes(shapes: str) -> int:
  width = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4}
  arrays = re.findall(r'(pred|[a-z]+\d+)\[([\d,]*)\]', shapes)
  return sum(width[kind] * math.prod(int(n) for n in dims.split(',') if n) for kind, dims in arrays)


def _group(line: str) -> int:
  """How many devices take part: groups stand as axes of a mesh, one by one, or as rows of an array."""
  if axes := re.search(r'replica_groups=mesh\[(.*?)\].*? \{(.*?)\}', line):
    size = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
    return math.prod(int(size[axis]) for axis in re.findall(r"'(\w+)'", axes[2]))
  if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', line):
    return len(listed[1].split(','))
  rows = re.search(r'replica_groups=\[\d+,(\d+)\]', line)
  return int(rows[1]) if rows else 2


# ---- the plan -----------------------------------------------------------------------------------------------------


def fitted(s: Settings, c: Config, on: Machine, share: float = 0.85) -> Settings | None:
  """The settings with the mesh and the micro-batches of `on`: the fastest by roofline of those that fit by `memory`.

  A step keeps its tokens: rows that do not fit at a time are accumulated. Not more than `share` of the memory is used,
  since the model is not exact. None where nothing fits.
  """
  best, least = None, math.inf
  for seq in (1, 2, 4, 8, 16, 32):
    for fsdp in (n for n in range(1, on.devices // seq + 1) if on.devices % (n * seq) == 0):
      if c.D % fsdp or (on.devices > on.chip.group and on.chip.group % (seq * fsdp)):
        continue
      shape = MeshShape(on.devices // (seq * fsdp), fsdp, seq, 1)
      start = dataclasses.replace(s.start, attention=KERNELS[on.chip.platform])
      tried = _micro_batches(dataclasses.replace(s, mesh=shape, start=start), c, on, share)
      if tried is not None:
        seconds = sum(_step_seconds(tried, c, on).values())
        # at equal speed, the simpler mesh: less of the sequence sharded
        if seconds < 0.98 * least:
          best, least = tried, seconds
  return best


def _micro_batches(s: Settings, c: Config, on: Machine, share: float) -> Settings | None:
  """The largest micro-batches on the mesh of `s`, or None; every device has whole rows, and kernels their lengths."""
  split = s.mesh.data * s.mesh.fsdp
  if s.mesh.seq > 1 and (s.start.attention == 'triton' or s.sft.length % (128 * s.mesh.seq)):
    return None
  total = s.sft.rows * s.sft.accumulation
  if split > total and s.start.attention != 'triton':  # a step would see more tokens: shard the sequence instead
    return None
  c = computing(c, s.start)

  def largest(name: str, wanted: int, change: Callable[[int], Settings]) -> int:
    rows = 0
    for n in [split * 2**i for i in range(20)]:
      stage = next(stage for stage in stages_of(change(n), c) if stage.name == name)
      if sum(memory(stage).values()) + resident(stage, s.mgpo.kl > 0) > share * on.chip.memory or n > max(
        wanted, split
      ):
        break
      rows = n
    return rows

  rows = largest('sft', total, lambda n: dataclasses.replace(s, sft=dataclasses.replace(s.sft, rows=n)))
  in_rl = lambda n: dataclasses.replace(s, rl=dataclasses.replace(s.rl, micro_rows=n))
  samples = s.rl.prompts * s.rl.group
  micro = min((largest(f'rl/{stage.name}', samples, in_rl) for stage in s.rl.stages), default=split)
  split *= s.mesh.seq
  seats = largest('decode', samples, lambda n: dataclasses.replace(s, engine=dataclasses.replace(s.engine, rows=n)))
  if not rows or not micro or not seats:
    return None
  return dataclasses.replace(
    s,
    sft=dataclasses.replace(s.sft, rows=rows, accumulation=max(1, -(-total // rows))),
    rl=dataclasses.replace(s.rl, micro_rows=micro),
    engine=dataclasses.replace(s.engine, rows=seats),
  )


def _step_seconds(s: Settings, c: Config, on: Machine, sent: dict | None = None) -> dict[str, float]:
  """Seconds of the run's parts at the roofline: all of SFT, probing, every RL stage, evaluation."""
  named = {stage.name: stage for stage in stages_of(s, computing(c, s.start))}
  layers, table = sizes(c)
  update = 28 * (layers + table) / (s.mesh.fsdp * s.mesh.tensor) / on.chip.bandwidth  # the optimizer's reads and writes
  call = lambda name: max(roofline(named[name], on, (sent or {}).get(name)).values())

  def decoding(samples: int, limit: int) -> float:
    tokens = min(s.cost.response, limit)
    seats = max(1, min(s.engine.rows, samples))
    step = dataclasses.replace(named['decode'], rows=seats)
    return samples * tokens / seats * max(roofline(step, on, context=PROMPT / 2 + tokens / 2).values())

  runs = 1 if s.experts == 'one_run' else len(s.data.domains)
  checkpoints = -(-s.sft.steps // s.sft.save_every)
  out = {'sft': runs * s.sft.steps * (s.sft.accumulation * call('sft') + update)}
  probing = 2 * s.data.probe * len(s.data.domains) * s.probe.samples
  out['probe'] = checkpoints * decoding(probing, s.probe.max_tokens)
  for stage in s.rl.stages:
    samples = s.rl.prompts * s.rl.group
    learning = -(-samples // s.rl.micro_rows) * call(f'rl/{stage.name}') + s.mgpo.updates * update
    out[f'rl/{stage.name}'] = stage.steps * (decoding(samples, stage.max_tokens) * (1 + s.mgpo.refills) + learning)
  models = 5 + len(s.data.domains)
  domains = len(s.data.domains) + len(s.data.others)
  out['evaluate'] = models * decoding(s.data.test * domains * s.evaluate.samples, s.evaluate.max_tokens)
  return out


def plan(s: Settings, on: Machine, cache: pathlib.Path | None) -> dict:
  """The whole report, as JSON. `cache`: folder of compiled stages; None: by the memory model alone, in seconds.

  A config for another machine (another number of devices, another's kernel) is first fitted to this one. Raises
  BadInput.
  """
  c = model_of(s)
  elsewhere = s.start.attention not in ('xla', KERNELS[on.chip.platform])
  chosen = elsewhere or math.prod(dataclasses.astuple(s.mesh)) != on.devices
  if chosen:
    better = fitted(s, c, on)
    s = _smallest(s, on) if better is None else better  # the latter is there to say how far it is from fitting
  check_mesh(s, c)
  c = computing(c, s.start)
  limit = (1 - RESERVED) * on.chip.memory
  report = {stage.name: _report(stage, s, on, limit, cache) for stage in stages_of(s, c)}
  seconds = _step_seconds(s, c, on, {name: row['sent_bytes'] for name, row in report.items()})
  hours = {name: value / s.cost.utilization * on.devices / 3600 for name, value in seconds.items()}
  price = s.cost.prices.get(on.name, s.cost.price_per_hour)
  worst = max(report, key=lambda name: report[name]['bytes_per_device'])
  fits = all(row['fits'] for row in report.values())
  share = report[worst]['bytes_per_device'] / report[worst]['hbm_per_device']
  return {
    'topology': on.topology,
    'devices': on.devices,
    'fits': fits,
    'limit': f'memory, in {worst}: {share:.0%} of that of a {on.name}',
    'mesh': dataclasses.asdict(s.mesh),
    'mesh_chosen': chosen,
    'attention': s.start.attention,
    'remat': s.start.remat,
    'stages': report,
    'run': {
      'utilization': s.cost.utilization,
      'response_tokens': s.cost.response,
      'device_hours': {**hours, 'all': sum(hours.values())},
      'price_per_hour': price,
      'dollars': sum(hours.values()) * price,
    },
    'would_fit': None if fits else _suggestion(s, c, on),
  }


def _smallest(s: Settings, on: Machine) -> Settings:
  n = on.devices
  return dataclasses.replace(
    s,
    mesh=MeshShape(fsdp=n),
    start=dataclasses.replace(s.start, attention=KERNELS[on.chip.platform]),
    sft=dataclasses.replace(s.sft, rows=n, accumulation=max(1, s.sft.rows * s.sft.accumulation // n)),
    rl=dataclasses.replace(s.rl, micro_rows=n),
    engine=dataclasses.replace(s.engine, rows=n),
  )


def _report(stage: Stage, s: Settings, on: Machine, limit: float, cache: pathlib.Path | None) -> dict:
  kl = s.mgpo.kl > 0
  parts = memory(stage)
  modelled = sum(parts.values())
  found, by = {'bytes': modelled, 'sent': None}, 'memory model'
  if modelled > 1.5 * on.chip.memory:
    cache = None  # hopeless: the compiler would take minutes to say so
  if cache is not None and on.chip.platform == 'tpu':
    found, by = compiled(stage, s, on, cache), 'compiler'
  elif cache is not None:
    _lower_only(stage, s, on)
  total = found['bytes'] + resident(stage, kl)
  sent = traffic(stage) if found['sent'] is None else found['sent']
  seconds = roofline(stage, on, sent)
  flops, with_recomputation, _ = work(stage)
  return {
    'fits': total <= limit,
    'bytes_per_device': int(total),
    'hbm_per_device': int(on.chip.memory),
    'by': by,
    'bytes_by_model': int(modelled + resident(stage, kl)),
    'parts_by_model': {name: int(size) for name, size in parts.items()},
    'rows': stage.rows,
    'length': stage.length,
    'accumulation': s.sft.accumulation if stage.kind == 'sft' else None,
    'flops': flops,
    'flops_with_recomputation': with_recomputation,
    'sent_bytes': sent,
    'sent_by': 'formula' if found['sent'] is None else 'compiler',
    'sent_bytes_by_formula': traffic(stage),
    'seconds': max(seconds.values()),
    'bound': max(seconds, key=seconds.get),
    'tokens_per_s': stage.rows * (1 if stage.kind == 'decode' else stage.length) / max(seconds.values()),
  }


def _lower_only(stage: Stage, s: Settings, on: Machine) -> None:
  """Finds what does not go together, without a compiler for the machine. Raises BadInput."""
  if len(jax.devices('cpu')) < on.devices:
    raise BadInput(f'--topology {on.topology}: {on.devices} devices are more than this process has set up')
  try:
    lower(stage, s, make_mesh(stage.mesh, jax.devices('cpu')[: on.devices])).lower(
      lowering_platforms=(on.chip.platform,)
    )
  except ValueError as error:
    raise BadInput(f'{stage.name}: {str(error).splitlines()[0]}') from None


def _suggestion(s: Settings, c: Config, on: Machine) -> dict | None:
  """What would fit: the same machine with another mesh and smaller micro-batches, or else more of its devices."""
  for times in (1, 2, 4, 8, 16, 32, 64):
    more = dataclasses.replace(on, devices=on.devices * times)
    if (better := fitted(s, c, more)) is not None:
      return {
        'devices': more.devices,
        'mesh': dataclasses.asdict(better.mesh),
        'sft': {'rows': better.sft.rows, 'accumulation': better.sft.accumulation},
        'rl': {'micro_rows': better.rl.micro_rows},
        'engine': {'rows': better.engine.rows},
      }
  return None


def table(report: dict) -> str:
  """The report for people."""
  mesh = ', '.join(f'{axis} {n}' for axis, n in report['mesh'].items() if n > 1) or 'one device'
  lines = [
    f'{report["topology"]}, {report["devices"]} devices; mesh: {mesh}'
    + (' (chosen for this machine)' if report['mesh_chosen'] else '')
    + f'; attention: {report["attention"]}; remat: {report["remat"]}',
    '',
    f'{"stage":16}{"rows x length":>16}{"GiB":>8}{"of":>6}  {"by":13}{"TFLOP":>8}{"GB sent":>9}{"seconds":>9}'
    f'  {"bound":9}{"tokens/s":>11}',
  ]
  for name, row in report['stages'].items():
    lines.append(
      f'{name:16}{row["rows"]:>7} x {row["length"]:<6}{row["bytes_per_device"] / 2**30:>8.2f}'
      f'{row["hbm_per_device"] / 2**30:>6.0f}  {row["by"]:13}{row["flops"] / 1e12:>8.1f}{row["sent_bytes"] / 1e9:>9.2f}'
      f'{row["seconds"]:>9.3f}  {row["bound"]:9}{row["tokens_per_s"]:>11,.0f}'
      + ('' if row['fits'] else '  DOES NOT FIT')
    )
  lines.append('')
  run = report['run']
  hours = ', '.join(f'{name} {value:,.0f}' for name, value in run['device_hours'].items() if name != 'all')
  lines.append(
    f'the run at {run["utilization"]:.0%} of the roofline, responses of {run["response_tokens"]:,} tokens: '
    f'{run["device_hours"]["all"]:,.0f} device-hours ({hours}), ${run["dollars"]:,.0f} at ${run["price_per_hour"]:g}'
  )
  lines.append(f'{"fits" if report["fits"] else "does not fit"}; the binding limit: {report["limit"]}')
  if not report['fits']:
    lines.append('would fit: ' + (_in_words(report['would_fit']) if report['would_fit'] else 'nothing that was tried'))
  return '\n'.join(lines)


def _in_words(suggestion: dict) -> str:
  mesh = ', '.join(f'{axis} {n}' for axis, n in suggestion['mesh'].items() if n > 1) or 'one device'
  return (
    f'{suggestion["devices"]} devices with the mesh {mesh}; sft.rows {suggestion["sft"]["rows"]}, sft.accumulation '
    f'{suggestion["sft"]["accumulation"]}, rl.micro_rows {suggestion["rl"]["micro_rows"]}, engine.rows '
    f'{suggestion["engine"]["rows"]}'
  )
