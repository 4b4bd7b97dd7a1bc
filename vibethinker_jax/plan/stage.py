"""The programs of a run that a plan looks at, with their sizes."""

import dataclasses

from vibethinker_jax.config import TINY_BASE, RunConfig, computing
from vibethinker_jax.engine.buckets import PREFILL_BATCH
from vibethinker_jax.model import hf
from vibethinker_jax.model.attention import unit
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.train.rl_batches import rounded_up

PROMPT = 1024  # assumed length of the longest prompt, in tokens


@dataclasses.dataclass(frozen=True)
class StagePlan:
  """One program of a run: it computes `rows` rows of `length` tokens at a time on a mesh."""

  name: str
  kind: str  # 'sft', 'rl', 'prefill' or 'decode'
  model: Config
  mesh: MeshShape
  rows: int
  length: int
  cache_positions: int = 0  # positions of all pages of a paged cache; 0: contiguous, `length` positions for each row

  @property
  def tokens(self) -> float:
    """Tokens of one call on one device."""
    split = self.mesh.size
    if self.kind in ('sft', 'rl'):
      split //= self.mesh.tensor  # its devices share the tokens of a row
    return self.rows * (1 if self.kind == 'decode' else self.length) / split


def model_of(s: RunConfig) -> Config:
  """The sizes of the run's model: from the directory of its base, of its random model, or from config.plan.sizes."""
  if s.model.random is not None:
    c = s.model.random
  elif s.plan.sizes is not None and not s.model.path:
    c = s.plan.sizes
  else:
    c = hf.read_config(s.model.path or TINY_BASE)
  return computing(c, s.model)


def stages_of(s: RunConfig, c: Config) -> list[StagePlan]:
  """Every program of the run that takes much memory."""
  whole = lambda tokens: rounded_up(tokens, unit(c.attention, s.mesh.seq))
  out = [StagePlan('sft', 'sft', c, s.mesh, s.sft.rows, s.sft.length)]
  for stage in s.rl.stages:
    out.append(StagePlan(f'rl/{stage.name}', 'rl', c, s.mesh, s.rl.micro_rows, whole(stage.max_tokens + PROMPT)))
  batch = -(-PREFILL_BATCH // s.mesh.size) * s.mesh.size
  out.append(StagePlan('prefill', 'prefill', c, s.mesh, batch, min(PROMPT, c.positions)))
  positions = s.engine.pages * s.engine.page
  out.append(StagePlan('decode', 'decode', c, s.mesh, s.engine.rows, c.positions, positions))
  return out
