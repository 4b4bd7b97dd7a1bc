"""A stage's program without its machine: traced from shapes alone, lowered, or compiled for a TPU slice."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vibethinker_jax.config import RunConfig
from vibethinker_jax.data.batches import Batch
from vibethinker_jax.engine import decode
from vibethinker_jax.engine.cache import KVCache
from vibethinker_jax.engine.pages import POOL, PagedKVCache, PagedLayout
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.mesh import ACTIVATION, decode_mesh, make_mesh, no_mesh, shardings, spec
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.plan.collectives import sent_bytes
from vibethinker_jax.plan.machine import Machine
from vibethinker_jax.plan.stage import PROMPT, StagePlan
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.train import sft
from vibethinker_jax.train.rl_batches import Responses
from vibethinker_jax.train.rl_loss import make_loss
from vibethinker_jax.train.state import gradient_adder


def lower(stage: StagePlan, s: RunConfig, mesh: Mesh) -> jax.stages.Traced:
  """The stage's program, traced for `mesh` from shapes alone."""
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
      loss, prompts = make_loss(s.mgpo.loss, s.rl.temperature), (row(jnp.int32, N, S), row(jnp.int32, N))
      batch = Responses(*prompts, ids, ids, real, real, real, row(jnp.float32, B))
    count = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(on, PartitionSpec()))
    add = gradient_adder(loss)
    return jax.jit(lambda sums, *rest: add(sums, *rest), donate_argnums=0).trace((model, count), model, batch)


def _trace_engine(stage: StagePlan, s: RunConfig, model: Qwen2, mesh: Mesh) -> jax.stages.Traced:
  """The engine's program for prefill or decoding, with weights in the dtype in which the layers compute."""
  c = stage.model
  put = lambda tree, where: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, where)), tree
  )
  model = put(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, c.dtype), model), PartitionSpec())
  cache = jax.eval_shape(lambda: KVCache.empty(c, stage.rows, stage.length, c.dtype))
  at = PartitionSpec('data')
  if stage.kind == 'prefill':
    whole = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.int32)
    asked = whole(stage.rows, stage.length), whole(stage.rows), whole(stage.rows)
    return decode.prefill.trace(model, put(cache, at), *put(asked, PartitionSpec()))
  rows, cache = put(jax.eval_shape(lambda: decode.free_rows(stage.rows)), at), put(cache, at)
  if stage.cache_positions:
    paging = PagedLayout(s.engine.pages, s.engine.page, 'tpu' if mesh.devices.flat[0].platform == 'tpu' else 'xla')
    pool = jax.ShapeDtypeStruct(paging.shape(c, mesh.shape['data']), c.dtype, sharding=NamedSharding(mesh, POOL))
    cache = tuple(PagedKVCache(pool, pool, None, paging.kernel, mesh) for _ in range(c.L))
    table = jax.ShapeDtypeStruct((stage.rows, -(-stage.length // s.engine.page)), jnp.int32)
    rows = dataclasses.replace(rows, pages=put(table, at))
  return decode.decode_block.trace(model, rows, cache, np.int32(1), np.int32(0), (0,), s.engine.block, False, False)


def _laid_out(tree, mesh: Mesh):
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, shardings(tree, mesh)
  )


def check_lowered(stage: StagePlan, s: RunConfig, on: Machine) -> None:
  """Lower the stage for the machine, without its compiler. Raises BadInput if shapes or shardings do not match."""
  if len(jax.devices('cpu')) < on.devices:
    raise BadInput(f'--topology {on.topology}: {on.devices} devices are more than this process has set up')
  try:
    lower(stage, s, make_mesh(stage.mesh, jax.devices('cpu')[: on.devices])).lower(
      lowering_platforms=(on.chip.platform,)
    )
  except ValueError as error:
    raise BadInput(f'{stage.name}: {str(error).splitlines()[0]}') from None


def compiled(stage: StagePlan, s: RunConfig, on: Machine, cache: pathlib.Path) -> dict:
  """Compile the stage for a TPU slice, which takes minutes. The result is kept in the folder `cache`.

  Returns {'bytes': peak memory of one device, 'sent': bytes that it sends in one call, None if unknown}. Raises
  BadInput if libtpu is missing or does not know the slice.
  """
  source = b''.join(path.read_bytes() for path in sorted(pathlib.Path(__file__).parents[1].rglob('*.py')))
  asked = [dataclasses.asdict(stage) | {'name': ''}, s.mgpo.kl_coef, s.mgpo.aggregate, s.engine.block, on.topology]
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
  except jax.errors.JaxRuntimeError as error:  # the program is too large for the compiler
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
  """`sent_bytes`, or None if libtpu cannot print the compiled program (version 0.0.42: programs for v5p)."""
  try:
    return sent_bytes(program.as_text())
  except jax.errors.JaxRuntimeError:
    return None


def _libtpu() -> str:
  try:
    return importlib.metadata.version('libtpu')
  except importlib.metadata.PackageNotFoundError:
    raise BadInput("planning for a TPU needs libtpu, which is not installed (pip install -e '.[plan]')") from None
