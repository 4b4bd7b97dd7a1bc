"""What is asked of a run: the settings that a config is frozen into, and what has to go together in them."""

import dataclasses
import pathlib
import unicodedata
from collections.abc import Sequence

from vibethinker_jax.data.domains import Data, Sets
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.text import Text
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
  if s.start.path is None:
    raise BadInput("config.start.path is not given, expected the base model's directory")
  if s.experts not in ('one_run', 'per_domain'):
    raise BadInput(f"config.experts is {s.experts!r}, expected 'one_run' or 'per_domain'")
  if s.fusion.weights:
    try:
      check_weights(s.fusion.weights, len(s.data.domains))
    except ValueError as error:
      raise BadInput(f'config.fusion.weights: {error}') from None
  if s.mgpo.updates > s.rl.prompts:
    raise BadInput(f'config.mgpo.updates is {s.mgpo.updates}, expected at most rl.prompts, {s.rl.prompts}')
  _check_domains(s)


# what summary.json, the report and the workdir call by a name, beside domains
_RESERVED = ('math', 'all')  # rows of domains taken together, and the one SFT run


def _check_domains(s: Settings) -> None:
  """Names of domains and stages, which become directories and rows; and that stages know their domains."""
  domains = (*s.data.domains, *s.data.others)
  if not s.data.domains:
    raise BadInput('config.data.domains is empty, expected one or more: each has its expert')
  _check_names('config.data.domains and others', domains, _RESERVED)
  _check_names('config.rl.stages', [stage.name for stage in s.rl.stages])
  for stage in s.rl.stages:
    where = f'config.rl stage {stage.name!r}'
    if not stage.domains or len({*stage.domains}) < len(stage.domains):
      raise BadInput(f'{where}: its domains are {stage.domains}, expected one or more, each once')
    for domain in stage.domains:
      if domain not in domains:
        raise BadInput(f'{where}: unknown domain {domain!r}, expected one of {domains}')


def _check_names(where: str, names: Sequence[str], reserved: Sequence[str] = ()) -> None:
  """Raises BadInput where a name could not be a directory of its own, on any file system, or a row of its own."""
  seen: dict[str, str] = {}
  for name in names:
    key = unicodedata.normalize('NFKC', name).casefold()
    plain = name.isprintable() and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    if not plain or not 1 <= len(name.encode()) <= 100 or name[0] in '.-' or name[-1] == '.':
      raise BadInput(
        f'{where}: the name {name!r} is no plain one, expected up to 100 printable characters without any of '
        '/ \\ : * ? " < > |, with no blank, dot or hyphen before and no blank or dot after them'
      )
    if key in reserved:
      raise BadInput(f'{where}: the name {name!r} is taken by the summary, expected none of {", ".join(reserved)}')
    if key in seen:
      raise BadInput(f'{where}: the names {seen[key]!r} and {name!r} are one on some disks, expected different ones')
    seen[key] = name


def check_lengths(s: Settings, c: Config, text: Text, sets: Sets) -> None:
  """Raises BadInput where a model of config `c` has too few positions for what a stage is to read or write.

  `c` is the base's with the run's way of computing.
  """
  if s.sft.length > c.positions:
    raise BadInput(f'config.sft.length is {s.sft.length}, expected at most the positions of the model, {c.positions}')
  probed = [sets.probe_a, sets.probe_b]
  asked = [
    ('config.probe.max_tokens', s.probe.max_tokens, [p for half in probed for own in half.values() for p in own]),
    ('config.evaluate.max_tokens', s.evaluate.max_tokens, [p for own in sets.test.values() for p in own]),
  ]
  for stage in s.rl.stages:
    problems = [p for domain in stage.domains for p in sets.train[domain]]
    asked.append((f'config.rl stage {stage.name!r}: max_tokens', stage.max_tokens, problems))
  for where, tokens, problems in asked:
    problem, length = _longest(text, problems, c.positions - tokens)
    if length + tokens > c.positions:
      raise BadInput(
        f'{where} is {tokens}, with a prompt of {length} tokens (problem {problem.id}) more than the {c.positions} '
        f'positions of the model, expected at most {max(c.positions - length, 0)}'
      )


def _longest(text: Text, problems: Sequence[Problem], room: int) -> tuple[Problem, int]:
  """The problem with the longest prompt, and its tokens, of those that might have more than `room`; else any, and 0."""
  around = len(text.chat([{'role': 'user', 'content': ''}]))
  # a token is at least a byte, but for what the tokenizer makes of it before: twice that is on the safe side
  near = [p for p in problems if around + 2 * len(p.prompt.encode()) > room]
  lengths = [(len(text.prompt(p)), i) for i, p in enumerate(near)]
  length, i = max(lengths, default=(0, 0))
  return (near or problems)[i], length


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
