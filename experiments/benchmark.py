"""Times one GRPO step, and decoding with a long tail of lengths, and compares each with what the device can do.

  python experiments/benchmark.py --config=configs/benchmark.py --workdir=runs/benchmark

Writes WORKDIR/benchmark.json and prints it as a table. Where torch is installed, transformers' generate samples from
the same weights and prompts for comparison.
"""

from vibethinker_jax import runtime

if __name__ == '__main__':
  runtime.huge_pages()

import dataclasses
import importlib.util
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from jax.sharding import Mesh
from tqdm import tqdm

from vibethinker_jax import distributed
from vibethinker_jax.config_io import config_flag, freeze, run_app
from vibethinker_jax.disk import beginning
from vibethinker_jax.engine.engine import Completion, Engine, Request
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model import attention, hf
from vibethinker_jax.model.mesh import decode_mesh, make_mesh, place, spread_rows
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.shared_files import write_json
from vibethinker_jax.tasks import Benchmarking, check_benchmarking
from vibethinker_jax.train.optim import optimizer
from vibethinker_jax.train.rl import MGPO
from vibethinker_jax.train.rl_batches import responses, rounded_up, sharing
from vibethinker_jax.train.rl_loss import make_loss
from vibethinker_jax.train.state import gradient_adder, start, updater

CONFIG = config_flag('configs/benchmark.py')
WORKDIR = flags.DEFINE_string('workdir', 'runs/benchmark', 'The directory of benchmark.json.')


@dataclasses.dataclass(frozen=True)
class Times:
  """The median of the repeats; and how much longer the first call takes, which compiles."""

  wall_s: float
  cpu_s: float
  compile_s: float


def timed(work: Callable[[], object], repeats: int, what: str) -> Times:
  """Time `work`, which returns when it is computed: one call to compile, and `repeats` calls to measure."""
  wall, cpu = [], []
  for _ in tqdm(range(1 + repeats), desc=what, leave=False):
    w, c = time.perf_counter(), time.process_time()
    work()
    wall.append(time.perf_counter() - w)
    cpu.append(time.process_time() - c)
  median = statistics.median(wall[1:])
  return Times(median, statistics.median(cpu[1:]), max(0.0, wall[0] - median))


def requests(s: Benchmarking) -> list[Request]:
  """The prompts of the GRPO step."""
  g, rng = s.grpo_step, np.random.default_rng(s.seed + 1)
  prompts = rng.integers(8, s.model.V, (g.prompts, g.prompt_tokens))
  return [
    Request(tuple(map(int, p)), g.new_tokens, g.num_generations, seed=s.seed, number=i) for i, p in enumerate(prompts)
  ]


def rollout(s: Benchmarking, mesh: Mesh, model: Qwen2) -> tuple[dict, list[Completion], list[Request]]:
  """The times of the rollout; its completions and its requests."""
  asked, done = requests(s), []
  engine = Engine(s.model, (), rows=s.grpo_step.rows, mesh=decode_mesh(mesh))

  def work():
    done[:] = engine.generate(model, asked)

  t = timed(work, s.repeats, 'rollout')
  tokens = sum(len(c.tokens) for c in done)
  row = {'rollout_wall_s': t.wall_s, 'rollout_cpu_s': t.cpu_s, 'rollout_compile_s': t.compile_s}
  return row | {'rollout_tokens_per_s': tokens / t.wall_s}, done, asked


def update(s: Benchmarking, model: Qwen2, done: list[Completion], asked: list[Request]) -> dict:
  """The times of the update on these responses, all of which have an advantage other than 0."""
  g, rng = s.grpo_step, np.random.default_rng(s.seed + 2)
  rows = [(asked[c.request].prompt, c, float(rng.normal())) for c in done]
  add = gradient_adder(make_loss(MGPO(lam=1.0).loss, 1.0))
  transform = optimizer(s.optim, 100)
  step, state = updater(transform), start(model, transform)
  unit = attention.unit(s.model.attention, 1)
  N, S = g.micro_rows // g.share, rounded_up(g.prompt_tokens - 1, unit)

  def work():
    nonlocal state
    shares, sums = sharing(rows, g.share), None
    for i in range(0, len(shares), N):
      sums, _ = add(sums, state.model, spread_rows(responses(shares[i : i + N], N, g.share, S, unit)))
    state, norms = step(state, sums)
    jax.block_until_ready((state, norms))

  t = timed(work, s.repeats, 'update')
  return {'update_wall_s': t.wall_s, 'update_cpu_s': t.cpu_s, 'update_compile_s': t.compile_s}


def theirs(s: Benchmarking, model: Qwen2) -> dict:
  """The times of transformers' generate on the same prompts and weights, all samples in one batch, default cache."""
  if importlib.util.find_spec('torch') is None:
    return {}
  import torch
  from transformers import AutoModelForCausalLM

  where = 'cuda' if torch.cuda.is_available() else 'cpu'
  with tempfile.TemporaryDirectory() as directory:
    hf.save(model, pathlib.Path(directory), None, ())
    kind = torch.float32 if s.model.dtype == 'float32' else torch.bfloat16
    network = AutoModelForCausalLM.from_pretrained(directory, dtype=kind).to(where).eval()
  g = s.grpo_step
  prompts = torch.tensor([r.prompt for r in requests(s) for _ in range(g.num_generations)]).to(where)
  cache = {'cache_implementation': 'static'} if where == 'cuda' else {}

  def work():
    with torch.no_grad():
      network.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        top_k=0,
        max_new_tokens=g.new_tokens,
        min_new_tokens=g.new_tokens,
        eos_token_id=None,
        pad_token_id=0,
        **cache,
      )

  t = timed(work, max(1, s.repeats // 2), 'transformers generate')
  return {'transformers_wall_s': t.wall_s, 'transformers_cpu_s': t.cpu_s}


def long_tail(s: Benchmarking, mesh: Mesh, model: Qwen2) -> dict:
  """The same samples in batches that wait for their longest sample, and with continuous batching."""
  t, rng = s.long_tail, np.random.default_rng(s.seed + 3)
  # the mean of a log-normal is exp(mu + spread^2 / 2)
  lengths = rng.lognormal(np.log(t.longest / 4) - t.spread**2 / 2, t.spread, t.samples)
  lengths = np.clip(lengths, 1, t.longest).astype(int)
  prompts = rng.integers(8, s.model.V, (t.samples, t.prompt_tokens))
  asked = [Request(tuple(map(int, p)), int(n), seed=s.seed, number=i) for i, (p, n) in enumerate(zip(prompts, lengths))]
  static, continuous = (Engine(s.model, (), rows=t.rows, mesh=decode_mesh(mesh)) for _ in range(2))
  static.row_sizes = [t.rows]  # a static batch keeps its rows to the end

  def wait():
    for i in range(0, t.samples, t.rows):
      list(static.generate(model, asked[i : i + t.rows]))

  repeats = max(1, s.repeats // 2)
  waiting = timed(wait, repeats, 'long tail, static')
  refilling = timed(lambda: list(continuous.generate(model, asked)), repeats, 'long tail, continuous')
  return {
    'samples': t.samples,
    'mean_length': float(lengths.mean()),
    'longest': int(lengths.max()),
    'static_row_steps': static.row_steps // (1 + repeats),
    'continuous_row_steps': continuous.row_steps // (1 + repeats),
    'static_wall_s': waiting.wall_s,
    'continuous_wall_s': refilling.wall_s,
  }


def device(dtype: str) -> dict:
  """What the device reaches: a large copy in GB/s (read and written), and a large matmul in TFLOP/s."""
  accelerated = jax.default_backend() != 'cpu'
  big = jnp.zeros((512 if accelerated else 64, 2**20), jnp.float32)
  side = 8192 if accelerated else 2048
  square = jnp.ones((side, side), dtype)
  copy, multiply = jax.jit(lambda x: x + 1), jax.jit(lambda x: x @ x)
  copied = timed(lambda: jax.block_until_ready(copy(big)), 9, 'copy').wall_s
  multiplied = timed(lambda: jax.block_until_ready(multiply(square)), 9, 'matmul').wall_s
  return {
    'kind': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'copy_gb_s': 2 * big.nbytes / copied / 1e9,
    'matmul_tflop_s': 2 * side**3 / multiplied / 1e12,
  }


def ideals(s: Benchmarking, d: dict) -> dict:
  """Seconds that the bytes and the multiplications alone would take at the device's own rates.

  Decoding: each step reads the weights and the live keys and values once, and multiplies every weight once a row; the
  slower of the two counts. The update: six operations a weight and token, a prompt counted once for its group, and
  attention.
  """
  c, g = s.model, s.grpo_step
  size = jnp.dtype(c.dtype).itemsize
  layer = c.D * c.H * c.K * (2 * c.G + 2) + 3 * c.D * c.F
  weights = c.L * layer + c.V * c.D
  samples = g.prompts * g.num_generations
  mean_slots = g.prompt_tokens + g.new_tokens / 2
  kv = 2 * c.L * c.K * c.H * size * mean_slots * g.rows
  attended = 4 * c.L * c.K * c.G * c.H * mean_slots  # operations a token, forward
  steps = g.new_tokens * samples / g.rows
  read = steps * (weights * size + kv) / d['copy_gb_s'] / 1e9
  multiplied = steps * g.rows * (2 * weights + attended) / d['matmul_tflop_s'] / 1e12
  prompts = g.prompts * (g.num_generations // g.share) * g.prompt_tokens
  trained = prompts + samples * g.new_tokens
  operations = trained * (6 * weights + 3 * attended) - 6 * prompts * c.V * c.D
  return {
    'rollout_ideal_s': max(read, multiplied),
    'rollout_bound': 'bandwidth' if read > multiplied else 'matmul',
    'update_ideal_s': operations / d['matmul_tflop_s'] / 1e12,
  }


def table(result: dict) -> str:
  """The times, what they are compared with, and the ratios, as text."""
  g, t, d = result['grpo_step'], result['long_tail'], result['device']
  lines = [
    f'{d["kind"]}, jax {d["jax"]}: copies {d["copy_gb_s"]:.1f} GB/s, multiplies {d["matmul_tflop_s"]:.3f} TFLOP/s',
    '',
    f'{"":34}{"seconds":>9}{"yardstick":>12}{"ratio":>8}',
  ]
  row = lambda name, ours, other, what: lines.append(f'{name:34}{ours:9.2f}{other:12.2f}{ours / other:8.2f}  {what}')
  row('rollout', g['rollout_wall_s'], g['rollout_ideal_s'], f'the {g["rollout_bound"]} roofline')
  if 'transformers_wall_s' in g:
    row('rollout', g['rollout_wall_s'], g['transformers_wall_s'], 'transformers generate')
  row('update', g['update_wall_s'], g['update_ideal_s'], 'the matmul roofline')
  row('long tail, continuous', t['continuous_wall_s'], t['static_wall_s'], 'static batches')
  lines += [
    '',
    f'rollout {g["rollout_tokens_per_s"]:.0f} tokens/s, {g["rollout_cpu_s"]:.1f} CPU s; update {g["update_cpu_s"]:.1f} '
    f'CPU s; compiling {g["compile_s"]:.1f} s',
    f'update at {g["update_ideal_s"] / g["update_wall_s"]:.0%} of the matmul rate (MFU), rollout at '
    f'{g["rollout_ideal_s"] / g["rollout_wall_s"]:.0%} of its roofline',
    f'long tail: {t["continuous_row_steps"]} row-steps instead of {t["static_row_steps"]} '
    f'({t["static_row_steps"] / t["continuous_row_steps"]:.2f} times fewer)',
  ]
  return '\n'.join(lines)


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # jax reports every kind of device that is not there
  s = freeze(Benchmarking, CONFIG.value)
  check_benchmarking(s)
  distributed.cpu_devices(s.mesh.size)
  out = pathlib.Path(WORKDIR.value) / 'benchmark.json'
  with beginning(out.parent):
    out.parent.mkdir(parents=True, exist_ok=True)
  try:
    s = dataclasses.replace(s, mesh=s.mesh.on(jax.device_count()))
    mesh = make_mesh(s.mesh)
  except ValueError as error:
    raise BadInput(f'config.mesh: {error}') from None
  check_benchmarking(s)  # again: an axis of -1 is a number now
  with jax.set_mesh(mesh):
    model = jax.jit(lambda key: Qwen2(s.model, key))(jax.random.key(s.seed))
    model = place(model, mesh, s.model.dtype)
    g, done, asked = rollout(s, mesh, model)
    g |= update(s, model, done, asked)
    g['compile_s'] = g['rollout_compile_s'] + g['update_compile_s']
    tail = long_tail(s, mesh, model)
  g |= theirs(s, model)
  d = device(s.model.dtype)
  result = {'grpo_step': g | ideals(s, d), 'long_tail': tail, 'device': d}
  write_json(out, result)
  print(table(result), f'\n{out}: the same numbers', sep='\n')


if __name__ == '__main__':
  run_app(main)
