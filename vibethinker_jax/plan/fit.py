"""Chooses the mesh and the micro-batches for a machine, by the memory model and the roofline, without compiling."""

import dataclasses
import math
from collections.abc import Callable, Iterator

from vibethinker_jax.config import RunConfig, computing
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.attention import unit
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.plan.formulas import memory, resident, roofline, sizes
from vibethinker_jax.plan.machine import KERNELS, Machine
from vibethinker_jax.plan.stage import PROMPT, StagePlan, stages_of


def meshes(s: RunConfig, c: Config, on: Machine) -> Iterator[RunConfig]:
  """The config `s` with every mesh that the machine `on` can use.

  Every device has whole rows, or of each row a part whose length the attention kernel takes. If the kernel of the
  machine does not take the config's lengths, the plain form is used. Meshes that need more rows than a step has are
  left out, since the sequence can be sharded instead; except on GPUs, whose kernel takes whole rows only.
  """
  total, attention = s.sft.rows * s.sft.accumulation, KERNELS[on.chip.platform]
  attention = 'xla' if s.sft.length % unit(attention, 1) else attention
  start = dataclasses.replace(s.model, attention=attention)
  for seq in (1, 2, 4, 8, 16, 32):
    if seq > 1 and (on.chip.platform == 'cuda' or s.sft.length % (128 * seq)):
      continue
    for fsdp in (n for n in range(1, min(on.devices // seq, c.D) + 1) if on.devices % (n * seq) == 0):
      split = on.devices // seq
      if c.D % fsdp or (on.devices > on.chip.group and on.chip.group % (seq * fsdp)):
        continue
      if split <= total or on.chip.platform == 'cuda':
        yield dataclasses.replace(s, mesh=MeshShape(split // fsdp, fsdp, seq, 1), model=start)


def fitted(s: RunConfig, c: Config, on: Machine, share: float = 0.85) -> RunConfig | None:
  """The config `s` with a mesh and micro-batches for the machine `on`, or None if nothing fits.

  Of those that fit by `formulas.memory` it is the fastest by `formulas.roofline`. A step keeps its number of tokens:
  rows that do not fit at a time are accumulated. At most `share` of the memory is used, since the memory model is not
  exact.
  """
  best, least = None, math.inf
  for candidate in meshes(s, c, on):
    tried = _micro_batches(candidate, c, on, share)
    if tried is not None:
      seconds = sum(stage_seconds(tried, c, on).values())
      # of meshes of about equal speed the first one is kept, in which the sequence is sharded less
      if seconds < 0.98 * least:
        best, least = tried, seconds
  return best


def _micro_batches(s: RunConfig, c: Config, on: Machine, share: float) -> RunConfig | None:
  """The config `s` with the largest micro-batches that fit on its mesh, or None if none does."""
  split = s.mesh.data * s.mesh.fsdp
  total = s.sft.rows * s.sft.accumulation
  c = computing(c, s.model)

  def largest(name: str, least: int, wanted: int, change: Callable[[int], RunConfig]) -> int:
    """The most rows for the stage `name`: `least` times a power of 2, at most `wanted`; 0 if not even `least` fits."""
    rows = 0
    for n in [least * 2**i for i in range(20)]:
      stage = next(stage for stage in stages_of(change(n), c) if stage.name == name)
      if _bytes(stage, s) > share * on.chip.memory or n > max(wanted, least):
        break
      rows = n
    return rows

  rows = largest('sft', split, total, lambda n: dataclasses.replace(s, sft=dataclasses.replace(s.sft, rows=n)))
  in_rl = lambda n: dataclasses.replace(s, rl=dataclasses.replace(s.rl, micro_rows=n))
  samples = s.rl.prompts * s.rl.num_generations
  own = split * s.rl.share  # the responses that share a row stay on one device
  micro = min((largest(f'rl/{stage.name}', own, samples, in_rl) for stage in s.rl.stages), default=own)
  in_engine = lambda n: dataclasses.replace(s, engine=dataclasses.replace(s.engine, rows=n))
  rows_held = largest('decode', split * s.mesh.seq, samples, in_engine)
  if not rows or not micro or not rows_held:
    return None
  return dataclasses.replace(
    s,
    sft=dataclasses.replace(s.sft, rows=rows, accumulation=max(1, -(-total // rows))),
    rl=dataclasses.replace(s.rl, micro_rows=micro),
    engine=dataclasses.replace(s.engine, rows=rows_held),
  )


def _bytes(stage: StagePlan, s: RunConfig) -> float:
  """Bytes on one device during the stage, by the memory model."""
  return sum(memory(stage).values()) + resident(stage, s.mgpo.kl_coef > 0)


def smallest(s: RunConfig, c: Config, on: Machine) -> RunConfig:
  """The config `s` with what takes the least memory on the machine `on`: one row for each device, on the best mesh.

  Raises BadInput if no mesh of the machine can be used.
  """
  total, found = s.sft.rows * s.sft.accumulation, []
  for candidate in meshes(s, c, on):
    split = candidate.mesh.data * candidate.mesh.fsdp
    found.append(
      dataclasses.replace(
        candidate,
        sft=dataclasses.replace(s.sft, rows=split, accumulation=max(1, total // split)),
        rl=dataclasses.replace(s.rl, micro_rows=split * s.rl.share),
        engine=dataclasses.replace(s.engine, rows=on.devices),
      )
    )
  if not found:
    raise BadInput(
      f'--topology {on.topology}: no mesh of {on.devices} devices goes with the model width, {c.D}, and '
      f'the {total} rows of {s.sft.length} tokens of an SFT step; expected another number of devices, or more rows'
    )
  return min(found, key=lambda one: max(_bytes(stage, s) for stage in stages_of(one, computing(c, one.model))))


def suggestion(s: RunConfig, c: Config, on: Machine) -> dict | None:
  """What would fit: another mesh and smaller micro-batches on this machine, or on 2 to 64 times as many devices."""
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


def stage_seconds(s: RunConfig, c: Config, on: Machine, sent: dict | None = None) -> dict[str, float]:
  """Seconds of all of SFT, of probing, of every RL stage and of evaluation, at the roofline.

  sent: bytes that one call of a stage sends, by the stage's name; None or missing: by formula.
  """
  named = {stage.name: stage for stage in stages_of(s, computing(c, s.model))}
  layers, table = sizes(c)
  update = (
    28 * (layers + table) / (s.mesh.fsdp * s.mesh.tensor) / on.chip.bandwidth
  )  # seconds to read and write its state
  call = lambda name: max(roofline(named[name], on, (sent or {}).get(name)).values())

  def decoding(samples: int, limit: int) -> float:
    tokens = min(s.plan.response, limit)
    rows_held = max(1, min(s.engine.rows, samples))
    step = dataclasses.replace(named['decode'], rows=rows_held)
    return samples * tokens / rows_held * max(roofline(step, on, context=PROMPT / 2 + tokens / 2).values())

  runs = 1 if s.experts == 'one_run' else len(s.data.domains)
  checkpoints = -(-s.sft.steps // s.sft.save_every)
  out = {'sft': runs * s.sft.steps * (s.sft.accumulation * call('sft') + update)}
  probing = 2 * s.data.probe * len(s.data.domains) * s.probe.samples
  out['probe'] = checkpoints * decoding(probing, s.probe.max_tokens)
  for stage in s.rl.stages:
    samples = s.rl.prompts * s.rl.num_generations
    learning = -(-samples // s.rl.micro_rows) * call(f'rl/{stage.name}') + s.mgpo.minibatches * update
    out[f'rl/{stage.name}'] = stage.steps * (decoding(samples, stage.max_tokens) * (1 + s.mgpo.refills) + learning)
  models = 5 + len(s.data.domains)
  domains = len(s.data.domains) + len(s.data.extra_domains)
  out['evaluate'] = models * decoding(s.data.test * domains * s.evaluate.samples, s.evaluate.max_tokens)
  return out
