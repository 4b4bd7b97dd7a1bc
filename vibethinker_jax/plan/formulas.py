"""Formulas for a stage's memory, traffic and work, and its time at the roofline.

`memory` was fitted to programs of the TPU's compiler (docs/planning.md). Work is counted by formula because the
compiler counts the body of a scan only once, and nothing inside a kernel. The time of a stage is the longest of three:
computing, reading and writing memory, and sending between devices, each by itself at the chip's published rate.
"""

import jax.numpy as jnp

from vibethinker_jax.model.attention import FUSED
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.plan.machine import Machine
from vibethinker_jax.plan.stage import StagePlan


def sizes(c: Config) -> tuple[int, int]:
  """Number of parameters of all layers, and of one embedding table [V,D]."""
  biases = {'q': c.K * c.G * c.H, 'k': c.K * c.H, 'v': c.K * c.H, 'o': c.D}
  layer = 2 * c.D * c.K * (c.G + 1) * c.H + 3 * c.D * c.F + 2 * c.D + 2 * c.H * c.qk_norm
  layer += sum(biases[of] for of in c.biased)
  return c.L * layer, c.V * c.D


def resident(stage: StagePlan, kl: bool) -> float:
  """Bytes on one device that the stage's program does not use: optimizer state, and while decoding the trainer's model.

  kl: whether a reference model for the KL term is kept too.
  """
  layers, table = sizes(stage.model)
  share = (layers + table * (1 if stage.model.tied else 2)) / (stage.mesh.fsdp * stage.mesh.tensor)
  if stage.kind in ('prefill', 'decode'):
    return share * (16 if kl else 12)
  return share * (12 if kl and stage.kind == 'rl' else 8)


def memory(stage: StagePlan) -> dict[str, float]:
  """Peak memory of the stage's program on one device: bytes by purpose.

  Training has two peaks, in the loss and in the middle of the backward pass; the larger one counts.
  """
  c, m = stage.model, stage.mesh
  layers, table = sizes(c)
  wide, own = jnp.dtype(c.dtype).itemsize, m.fsdp * m.tensor
  tables = table * (1 if c.tied else 2)
  kv = 2 * c.L * c.K * c.H * wide
  if stage.kind in ('prefill', 'decode'):
    rows = stage.rows / m.size
    cache = (stage.cache_positions or stage.rows * stage.length) / m.size * kv
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
    'offload': c.D / c.L,  # of the current layer only; the other inputs are in the host's memory
    'full': c.D,
    'dots': 3 * c.D + 2 * c.K * c.H + 2 * heads + 2 * c.F / m.tensor,
    'none': 10 * c.D + 8 * heads + 6 * c.F / m.tensor,
  }[c.remat]
  layer = layers / c.L
  # docs/planning.md says to which programs the coefficients were fitted
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


def traffic(stage: StagePlan) -> float:
  """Bytes that one device sends in one call of the stage's program.

  An all-gather of n devices sends (n - 1) / n of its result, an all-reduce twice as much.
  """
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


def work(stage: StagePlan, context: float | None = None) -> tuple[float, float, float]:
  """The work of one call on one device.

  Args:
    stage: the program.
    context: positions that a token sees on average; None: half the stage's length.

  Returns:
    Operations of the model; operations including those that are computed again in the backward pass; and bytes that are
    read and written in the device's memory.
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
  # with a causal mask the last device of a sequence has the most work
  body += attention * (m.seq - 1) / m.seq
  again = {'none': 0.0, 'dots': attention, 'full': body, 'offload': body}[c.remat]
  passes = 4 if c.remat in ('full', 'offload') else 3
  moved = passes * (weights + stage.tokens * c.L * (10 * c.D + 4 * c.F / m.tensor) * 2)
  flops = 3 * stage.tokens * (2 * layers / m.tensor + attention + head)
  return flops, stage.tokens * (3 * (body + head) + again + head), moved


def roofline(
  stage: StagePlan, on: Machine, sent: float | None = None, context: float | None = None
) -> dict[str, float]:
  """Seconds of one call if only one thing limited it: 'compute', 'memory' or 'links'.

  Args:
    stage: the program.
    on: the machine.
    sent: bytes that one device sends; None: by `traffic`.
    context: positions that a token sees on average; None: half the stage's length.
  """
  _, flops, moved = work(stage, context)
  links = (traffic(stage) if sent is None else sent) / on.chip.link
  if on.devices > on.chip.group and stage.kind in (
    'sft',
    'rl',
  ):  # gradients, already scattered within a group, are summed across
    m, (layers, table) = stage.mesh, sizes(stage.model)
    across = 2 * (m.data - 1) / m.data * 2 * (layers + 2 * table) / (m.fsdp * m.seq * m.tensor)
    links += across / on.chip.network
  return {'compute': flops / on.chip.flops, 'memory': moved / on.chip.bandwidth, 'links': links}
