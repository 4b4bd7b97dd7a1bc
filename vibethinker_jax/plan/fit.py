"""The mesh and the micro-batches for a machine, by the memory model and the roofline alone."""

import dataclasses
import math
from collections.abc import Callable

from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.plan.formulas import memory, resident, roofline, sizes
from vibethinker_jax.plan.machine import KERNELS, Machine
from vibethinker_jax.plan.stage import PROMPT, stages_of
from vibethinker_jax.recipe import Settings, computing


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
        seconds = sum(stage_seconds(tried, c, on).values())
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


def smallest(s: Settings, on: Machine) -> Settings:
  """What takes the least memory there: everything sharded, a row a device."""
  n = on.devices
  return dataclasses.replace(
    s,
    mesh=MeshShape(fsdp=n),
    start=dataclasses.replace(s.start, attention=KERNELS[on.chip.platform]),
    sft=dataclasses.replace(s.sft, rows=n, accumulation=max(1, s.sft.rows * s.sft.accumulation // n)),
    rl=dataclasses.replace(s.rl, micro_rows=n),
    engine=dataclasses.replace(s.engine, rows=n),
  )


def suggestion(s: Settings, c: Config, on: Machine) -> dict | None:
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


def stage_seconds(s: Settings, c: Config, on: Machine, sent: dict | None = None) -> dict[str, float]:
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
