"""Measures one SFT step and one RL update of a config on this machine, and compares them with the plan.

  python experiments/measure.py --config=configs/ssp_1p5b.py:h200-1 --lengths=8192,16384 --out=measured.json

Weights and tokens are random; the model has the sizes of config.plan.sizes where config.model.path is not given. For
each length: tokens/s, MFU (the operations of the model, without recomputation, over the rate of a matmul on this
machine), the peak of a device's memory and the plan's, and the error of the config's attention kernel.
"""

import json
import pathlib
import re
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from vibethinker_jax import distributed
from vibethinker_jax.config import RunConfig, check_fields, check_mesh, on_devices
from vibethinker_jax.config_io import config_flag, freeze, run_app
from vibethinker_jax.data.batches import Batch
from vibethinker_jax.disk import beginning, write_json
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.attention import attend_packed, unit
from vibethinker_jax.model.mesh import make_mesh, no_mesh, place, spread_rows
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.plan.formulas import memory, resident, work
from vibethinker_jax.plan.stage import PROMPT, StagePlan, model_of
from vibethinker_jax.train import sft
from vibethinker_jax.train.optim import optimizer
from vibethinker_jax.train.rl_batches import Responses
from vibethinker_jax.train.rl_loss import make_loss
from vibethinker_jax.train.state import Diverged, gradient_adder, start, updater

CONFIG = config_flag()
LENGTHS = flags.DEFINE_list('lengths', ['8192', '16384'], 'Tokens in a row, one or more lengths.')
REPEATS = flags.DEFINE_integer(
  'repeats', 5, lower_bound=1, help='Steps, of which the median counts; the first one compiles, and does not count.'
)
OUT = flags.DEFINE_string('out', 'measured.json', 'The file of the results.')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # jax reports every kind of device that is not there
  s, out = freeze(RunConfig, CONFIG.value), pathlib.Path(OUT.value)
  check_fields(s)
  distributed.cpu_devices(s.mesh.size)
  s = on_devices(s, jax.device_count())
  c = model_of(s)
  check_mesh(s, c)
  lengths = lengths_of(LENGTHS.value, 2 * unit(c.attention, s.mesh.seq))  # an RL row is half prompt, half response
  if out.is_dir():
    raise BadInput(f'--out {out}: is a directory, expected a file to write')
  with beginning(out):
    out.parent.mkdir(parents=True, exist_ok=True)
  try:
    mesh = make_mesh(s.mesh)
  except ValueError as error:
    raise BadInput(f'config.mesh: {error}') from None
  rate = matmul_rate(c.dtype)
  result = {'device': jax.devices()[0].device_kind, 'devices': jax.device_count(), 'matmul_flops_per_s': rate}
  with jax.set_mesh(mesh):
    model = place(jax.jit(lambda key: Qwen2(c, key))(jax.random.key(s.seed)), mesh)
    for length in lengths:
      result[f'attention_error_{length}'] = attention_error(c, length)
      for kind, rows in (('sft', s.sft.rows), ('rl', s.rl.micro_rows)):
        stage = StagePlan(kind, kind, c, s.mesh, rows, length)
        result[f'{kind}_{length}'] = row = step(s, stage, model, rate)
        tqdm.write(f'{kind} {rows} x {length}: ' + ', '.join(f'{k} {v:,.4g}' for k, v in row.items()))
  write_json(out, result)
  print(json.dumps(result, indent=2))


def lengths_of(texts: Sequence[str], multiple: int) -> list[int]:
  """The lengths of --lengths; each is a multiple of `multiple`. Raises BadInput."""
  lengths = [int(text) if re.fullmatch('[0-9]{1,9}', text) else 0 for text in texts]
  for text, length in zip(texts, lengths):
    if length < 1 or length % multiple:
      raise BadInput(f'--lengths {text}: expected a multiple of {multiple}')
  if not lengths:
    raise BadInput('--lengths: expected one or more, such as 8192,16384')
  return lengths


def step(s: RunConfig, stage: StagePlan, model: Qwen2, rate: float) -> dict:
  """Measure a micro-batch and an update of `stage`.

  `rate`: operations per second of a matmul. Returns seconds, tokens/s, MFU, and bytes. Raises Diverged.
  """
  batch = packed(stage) if stage.kind == 'sft' else responses(s, stage)
  loss, optim = (
    (sft.loss, s.sft.optim) if stage.kind == 'sft' else (make_loss(s.mgpo.loss, s.rl.temperature), s.rl.optim)
  )
  transform = optimizer(optim, 1000)
  add, update, state = gradient_adder(loss), updater(transform), start(model, transform)
  seconds = []
  for _ in tqdm(range(1 + REPEATS.value), desc=f'{stage.kind} {stage.length}', unit='step', leave=False):
    clock = time.perf_counter()
    sums, _ = add(None, state.model, spread_rows(batch))
    state, norms = jax.block_until_ready(update(state, sums))
    seconds.append(time.perf_counter() - clock)
  if not np.isfinite(float(norms['grad_norm'])):
    raise Diverged(f'{stage.kind}, {stage.length} tokens: the gradient is not finite')
  took = statistics.median(seconds[1:])
  stats = jax.local_devices()[0].memory_stats()  # None on a CPU
  return {
    'seconds': took,
    'tokens_per_s': stage.rows * stage.length / took,
    'mfu': work(stage)[0] / took / rate,
    'peak_bytes': stats['peak_bytes_in_use'] if stats else 0,
    'planned_bytes': sum(memory(stage).values()) + resident(stage, s.mgpo.kl_coef > 0),
  }


def packed(stage: StagePlan) -> Batch:
  """Rows of four documents each."""
  rng, (B, T) = np.random.default_rng(0), (stage.rows, stage.length)
  ids = lambda: rng.integers(0, stage.model.V, (B, T), np.int32)
  segments = np.broadcast_to(np.arange(T, dtype=np.int32) * 4 // T, (B, T))
  positions = np.arange(T, dtype=np.int32) - segments * (T // 4)
  return Batch(ids(), ids(), positions, segments + 1, np.ones((B, T), np.float32))


def responses(s: RunConfig, stage: StagePlan) -> Responses:
  """Responses that fill their rows; half of them are right."""
  rng, B, n = np.random.default_rng(0), stage.rows, s.rl.share
  S = min(PROMPT, stage.length // 2)
  T = stage.length - S
  ids = lambda *sizes: rng.integers(0, stage.model.V, sizes, np.int32)
  ones, advantages = np.ones((B, T), np.float32), np.where(np.arange(B) % 2, 1, -1).astype(np.float32)
  prompts, lengths = ids(B // n, S), np.full(B // n, S - 1, np.int32)
  return Responses(prompts, lengths, ids(B, T), ids(B, T), ones, -11.9 * ones, 0 * ones, advantages)


def attention_error(c: Config, length: int) -> float:
  """The largest difference between the config's attention kernel and the plain form, for values of order 1."""
  length = min(length, 4096) // (128 * 8) * 128 * 8 or unit(c.attention, 1)
  keys = jax.random.split(jax.random.key(0), 3)
  normal = lambda key, *sizes: jax.random.normal(key, sizes, jnp.float32).astype(c.dtype)
  q = normal(keys[0], 1, c.K, c.G, length, c.H)
  k, v = normal(keys[1], 1, c.K, c.H, length), normal(keys[2], 1, c.K, length, c.H)
  segments = (jnp.arange(length) * 2 // length + 1)[None]
  with no_mesh():
    one, other = (
      jax.jit(attend_packed, static_argnums=4)(q, k, v, segments, kernel).astype(jnp.float32)
      for kernel in (c.attention, 'xla')
    )
    return float(jnp.abs(one - other).max())


def matmul_rate(dtype: str) -> float:
  """Operations per second of one device in a large matmul."""
  side = 8192 if jax.default_backend() != 'cpu' else 1024
  multiply, x = jax.jit(lambda x: x @ x), jnp.ones((side, side), dtype)
  jax.block_until_ready(multiply(x))
  clock = time.perf_counter()
  jax.block_until_ready([multiply(x) for _ in range(10)])
  return 10 * 2 * side**3 / (time.perf_counter() - clock)


if __name__ == '__main__':
  run_app(main)
