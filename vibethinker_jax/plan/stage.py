"""The programs of a run that are worth planning, with their sizes."""

import dataclasses

from vibethinker_jax.engine.engine import TOGETHER
from vibethinker_jax.model import hf
from vibethinker_jax.model.attention import unit
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.recipe import TINY_BASE, Settings, computing
from vibethinker_jax.train import rl

PROMPT = 1024  # tokens that a prompt is taken to have at most


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
    c = s.start.random
  elif s.cost.sizes is not None and not s.start.path:
    c = s.cost.sizes
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
