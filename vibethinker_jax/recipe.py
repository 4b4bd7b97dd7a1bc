"""What is asked of a run: the settings that a config is frozen into, and what has to go together in them."""

import dataclasses
import pathlib

from vibethinker_jax.data.domains import Data
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.evaluate import Evaluate
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.spectrum.fusion import check_weights
from vibethinker_jax.train import rl, sft

TINY_BASE = pathlib.Path(__file__).parent / 'tiny_base'


@dataclasses.dataclass(frozen=True)
class Start:
  """The base model: a Hugging Face directory ('' is the shipped tiny base), or random weights of `random` sizes."""

  path: str | None = ''  # None: still to be given
  random: dict | None = None
  tokenizer: str = ''  # '' is the model directory's
  system: str | None = None  # system prompt; None is the chat template's own
  rope_theta: float | None = None  # None keeps the base's own; longer contexts want more
  positions: int | None = None
  param_dtype: str = 'float32'  # master weights
  dtype: str = 'float32'  # what layers compute in
  attention: str = 'xla'  # kernel of training: 'xla', 'splash' (TPU) or 'triton' (GPU)
  remat: str = 'none'
  unroll: int = 1
  logit_chunk: int = 1024


@dataclasses.dataclass(frozen=True)
class Rows:
  """The engine: samples decoded at a time, tokens between two looks by the host, and where keys and values lie."""

  rows: int
  block: int
  pages: int = 0  # of `page` slots each, on all devices together; 0: as many slots a row as the longest sample has
  page: int = 128


@dataclasses.dataclass(frozen=True)
class Judging:
  """The graders of each process: how many of each kind at most, and the seconds that one response may take."""

  workers: int = 2
  deadline_s: float = 10.0


@dataclasses.dataclass(frozen=True)
class Fusion:
  """One weight for each of data.domains, in their order; () is 1/N."""

  weights: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a device costs. All but the first two are for plan/ only."""

  price_per_hour: float
  devices: int = 1
  prices: dict = dataclasses.field(default_factory=dict)  # dollars an hour by chip: {'v5e': 1.2}; else price_per_hour
  utilization: float = 0.45  # share of the roofline's speed to count on
  response: int = 8192  # tokens of a response on average, at most the stage's limit
  sizes: dict | None = None  # the base's, as in start.random, while start.path is not there yet


@dataclasses.dataclass(frozen=True)
class Settings:
  """A whole run."""

  name: str
  seed: int
  start: Start
  mesh: MeshShape
  data: Data
  experts: str  # 'one_run': one SFT run, a selection per domain (the report); 'per_domain': one run per domain
  sft: sft.SFT
  probe: Evaluate
  fusion: Fusion
  mgpo: rl.MGPO
  rl: rl.RL
  engine: Rows
  evaluate: Evaluate
  cost: Cost
  grader: Judging = dataclasses.field(default_factory=Judging)
  prune: bool = False  # once the experts are chosen, delete the SFT checkpoints that nothing is to read any more


def check(s: Settings) -> None:
  """Raises BadInput for what can be told without a device or a file."""
  if not 0 <= s.seed <= 4000:  # times a million it is still a seed (Pipeline.noise)
    raise BadInput(f'config.seed is {s.seed}, expected 0 to 4000')
  if not 0 <= s.rl.seed < 100:
    raise BadInput(f'config.rl.seed is {s.rl.seed}, expected 0 to 99')
  for name, e in (('probe', s.probe), ('evaluate', s.evaluate)):
    if not 1 <= e.k <= e.samples:
      raise BadInput(f'config.{name}: Pass@{e.k} of {e.samples} samples, expected k of 1 or more, and as many samples')
  if s.grader.workers < 1 or not 0 < s.grader.deadline_s < float('inf'):
    raise BadInput('config.grader: expected 1 worker or more, and more than 0 seconds, but not for ever')
  domains = (*s.data.domains, *s.data.others)
  if s.start.path is None:
    raise BadInput("config.start.path is not given, expected the base model's directory")
  if s.experts not in ('one_run', 'per_domain'):
    raise BadInput(f"config.experts is {s.experts!r}, expected 'one_run' or 'per_domain'")
  if s.fusion.weights:
    try:
      check_weights(s.fusion.weights, len(s.data.domains))
    except ValueError as error:
      raise BadInput(f'config.fusion.weights: {error}') from None
  for stage in s.rl.stages:
    for domain in stage.domains:
      if domain not in domains:
        raise BadInput(f'config.rl stage {stage.name!r}: unknown domain {domain!r}, expected one of {domains}')


def computing(c: Config, s: Start) -> Config:
  """A base's config with the run's way of computing."""
  return dataclasses.replace(
    c,
    rope_theta=c.rope_theta if s.rope_theta is None else s.rope_theta,
    positions=c.positions if s.positions is None else s.positions,
    dtype=s.dtype,
    attention=s.attention,
    remat=s.remat,
    unroll=s.unroll,
    logit_chunk=s.logit_chunk,
  )


def check_mesh(s: Settings, c: Config) -> None:
  """Raises BadInput where the mesh does not divide what it is to spread: the model's axes, the rows, their length."""
  m = s.mesh
  for what, size, axes, n in (
    ('the model width', c.D, 'fsdp', m.fsdp),
    ('the number of kv heads', c.K, 'tensor', m.tensor),
    ('the feed-forward width', c.F, 'tensor', m.tensor),
    ('the vocabulary', c.V, 'tensor', m.tensor),
    ('sft.rows', s.sft.rows, 'data x fsdp', m.data * m.fsdp),
    ('rl.micro_rows / rl.share', s.rl.micro_rows // s.rl.share, 'data x fsdp', m.data * m.fsdp),
    ('sft.length', s.sft.length, 'seq', m.seq),
  ):
    if size % n:
      raise BadInput(f'config.mesh: {axes} is {n}, which does not divide {what}, {size}')
