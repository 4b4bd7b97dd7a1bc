"""What is asked of a run: the settings that a config is frozen into, and what has to go together in them."""

import dataclasses
import pathlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from vibethinker_jax.config_io import check_ranges
from vibethinker_jax.data.splits import Data
from vibethinker_jax.data.synthetic import PATHS
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.fields import LARGEST, bad_value, shown
from vibethinker_jax.model.attention import unit
from vibethinker_jax.model.config import read_config
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config, Dtype, Kernel, Positions, Remat, Theta
from vibethinker_jax.model.rope import Llama3
from vibethinker_jax.spectrum.fusion import check_weights
from vibethinker_jax.train import rl, sft
from vibethinker_jax.train.optim import Optim

TINY_BASE = pathlib.Path(__file__).parent / 'tiny_base'


@dataclasses.dataclass(frozen=True)
class BaseConfig:
  """The base model, and how it is computed with.

  path: its Hugging Face directory; '' is the shipped tiny base, None is still to be given. Published:
    Qwen2.5-Math-1.5B.
  random: sizes of a model of random weights in its place.
  tokenizer: a directory with the tokenizer; '' is the model's.
  system: system prompt; None is the chat template's own.
  rope_theta: None keeps the base's own; longer contexts want more.
  positions: the longest sequence; None keeps the base's own.
  param_dtype: of the weights that are trained.
  dtype: what layers compute in.
  attention: kernel of training: 'xla', 'splash' (TPU) or 'triton' (GPU).
  remat: what backward need not compute again: 'none' is everything kept, 'dots' matmul results, 'full' layer inputs
    only, 'offload' those on the host.
  unroll: layers that a scan step holds: more compiles longer, and saves copies of what backward needs.
  logit_chunk: positions whose logits exist at the same time.
  """

  path: str | None = ''
  random: Config | None = None
  tokenizer: str = ''
  system: str | None = None
  rope_theta: Theta | None = None
  positions: Positions | None = None
  param_dtype: Dtype = 'float32'
  dtype: Dtype = 'float32'
  attention: Kernel = 'xla'
  remat: Remat = 'none'
  unroll: PositiveInt = 1
  logit_chunk: PositiveInt = 1024


@dataclasses.dataclass(frozen=True)
class EngineConfig:
  """The engine.

  rows: samples decoded at a time, of all processes together.
  block: tokens between two looks by the host.
  pages: of all devices together, where keys and values lie in pages; 0: as many positions a row as the longest sample
    has.
  page: positions of a page.
  """

  rows: Annotated[int, Interval(ge=1, le=1 << 20)]
  block: Annotated[int, Interval(ge=1, le=1 << 16)]
  pages: NonNegativeInt = 0
  page: PositiveInt = 128


@dataclasses.dataclass(frozen=True)
class GraderConfig:
  """The graders of each process.

  workers: processes of each kind at most.
  deadline_s: seconds that one response may take.
  """

  workers: Annotated[int, Interval(ge=1, le=1024)] = 2
  deadline_s: Annotated[float, Interval(gt=0, le=86400)] = 10.0


@dataclasses.dataclass(frozen=True)
class Fusion:
  """How experts become one model.

  weights: one for each of data.domains, in their order, 0 or more, summing to 1; () is 1/N. Published: 1/N.
  """

  weights: tuple[NonNegativeFloat, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a device costs. All but the first two are for `vibethinker plan` only.

  price_per_hour: dollars.
  devices: that are paid for.
  prices: dollars an hour by chip, {'v5e': 1.2}; for others price_per_hour counts.
  utilization: share of the roofline's speed to count on.
  response: tokens of a response on average, at most the stage's limit.
  sizes: the base's, as in model.random, while model.path is not there yet.
  """

  price_per_hour: NonNegativeFloat
  devices: PositiveInt = 1
  prices: dict[str, NonNegativeFloat] = dataclasses.field(default_factory=dict)
  utilization: Annotated[float, Interval(gt=0, le=1)] = 0.45
  response: PositiveInt = 8192
  sizes: Config | None = None


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """A whole run.

  name: the heading of its report.
  seed: of everything that is drawn.
  model: the base model, and how it is computed with.
  mesh: how devices share the work.
  data: the problems.
  experts: 'one_run': one SFT run, a selection per domain; 'per_domain': one run per domain. Published: reads as
    'one_run'.
  sft: supervised fine-tuning.
  probe: how checkpoints are probed. Published: by Pass@K, K not given.
  fusion: of the experts.
  mgpo: the RL algorithm.
  rl: the RL loop.
  engine: what samples.
  evaluate: how all models of the run are evaluated. The published protocol is that of `vibethinker evaluate`.
  cost: what the run costs.
  grader: what judges.
  prune: once the experts are chosen, delete the SFT checkpoints that nothing is to read any more.
  """

  name: str
  seed: Annotated[int, Interval(ge=0, le=4000)]  # times a million it is still a seed (Pipeline.base_seed)
  model: BaseConfig
  mesh: MeshShape
  data: Data
  experts: Literal['one_run', 'per_domain']
  sft: sft.SFT
  probe: Protocol
  fusion: Fusion
  mgpo: rl.MGPO
  rl: rl.RL
  engine: EngineConfig
  evaluate: Protocol
  cost: Cost
  grader: GraderConfig = dataclasses.field(default_factory=GraderConfig)
  prune: bool = False


def check(s: RunConfig) -> None:
  """Raises BadInput for what can be told of a run without a device or a file."""
  if s.model.path is None:
    raise bad_value('config.model.path', None, "the base model's directory")
  check_fields(s)


def check_fields(s: RunConfig) -> None:
  """`check` of a config whose base need not be there yet: the range of every field, and what goes together."""
  check_ranges(s)
  for name, value, expected in _faults(s):
    raise bad_value(f'config.{name}', value, expected)
  _check_domains(s)


def _faults(s: RunConfig) -> Iterator[tuple[str, object, str]]:
  """What does not go together, each time as a field, its value, and what was expected beside the others."""
  yield from optim_faults('sft.optim', s.sft.optim)
  yield from optim_faults('rl.optim', s.rl.optim)
  if s.sft.rows * s.sft.length > LARGEST:
    yield 'sft.rows', s.sft.rows, f'at most {LARGEST // s.sft.length} of {s.sft.length} tokens each'
  for name, e in (('probe', s.probe), ('evaluate', s.evaluate)):
    if e.k > e.samples:
      yield f'{name}.k', e.k, f'at most {name}.samples, {e.samples}'
    if e.temperature == 0 and e.samples > 1:
      yield f'{name}.samples', e.samples, f'1 with {name}.temperature 0, which makes all samples of a problem one'
  if s.rl.micro_rows % s.rl.share:
    yield 'rl.micro_rows', s.rl.micro_rows, f'a multiple of rl.share, {s.rl.share}'
  if s.rl.prompts * s.rl.num_generations > 1 << 24:
    yield (
      'rl.prompts',
      s.rl.prompts,
      f'at most {(1 << 24) // s.rl.num_generations} with rl.num_generations {s.rl.num_generations}',
    )
  if s.mgpo.minibatches > s.rl.prompts:
    yield 'mgpo.minibatches', s.mgpo.minibatches, f'at most rl.prompts, {s.rl.prompts}'
  if not s.mgpo.band[0] < s.mgpo.band[1]:
    yield 'mgpo.band', s.mgpo.band, 'two rates, the lower one first'
  for stage in s.rl.stages:
    if s.mgpo.overlong > stage.max_tokens:
      yield 'mgpo.overlong', s.mgpo.overlong, f'at most max_tokens of stage {shown(stage.name)}, {stage.max_tokens}'
  if s.fusion.weights:
    try:
      check_weights(s.fusion.weights, len(s.data.domains))
    except ValueError as error:
      yield 'fusion.weights', s.fusion.weights, f'one for each of data.domains, with a sum of 1 ({error})'
  if s.data.source == 'files':
    for name, files in (('train_files', s.data.train_files), ('test_files', s.data.test_files)):
      if not files:
        yield f'data.{name}', files, "one source or more with data.source 'files'"
  if s.data.source == 'synthetic' and (unknown := {*s.data.paths} - {*PATHS}):
    yield 'data.paths', s.data.paths, f'none but {", ".join(PATHS)}; {min(unknown)!r} is none of these'
  for name, c in (('model.random', s.model.random), ('cost.sizes', s.cost.sizes)):
    yield from () if c is None else _size_faults(name, c)
  if s.model.random is not None and s.model.path:
    yield 'model.path', s.model.path, 'none beside model.random: a model is read, or made of random weights'


def optim_faults(name: str, o: Optim) -> Iterator[tuple[str, object, str]]:
  """As `_faults`, of an optimizer. A run may end within its warm-up, and says so (`optim.remark`)."""
  if 0 < o.horizon <= o.warmup:
    yield f'{name}.horizon', o.horizon, f'0, or more than {name}.warmup, {o.warmup}'


def _size_faults(name: str, c: Config) -> Iterator[tuple[str, object, str]]:
  """Of the sizes of a model. How it computes is not said there."""
  for field in dataclasses.fields(Config):
    if field.name in HOW and vars(c)[field.name] != field.default:
      yield f'{name}.{field.name}', vars(c)[field.name], f'it in config.model.{field.name}, which counts'
  scaling = c.rope_scaling
  if isinstance(scaling, Llama3) and not scaling.low_freq_factor < scaling.high_freq_factor:
    least = scaling.low_freq_factor
    yield f'{name}.rope_scaling.high_freq_factor', scaling.high_freq_factor, f'more than low_freq_factor, {least}'


# what summary.json, the report and the workdir call by a name, beside domains
_RESERVED = ('math', 'all')  # rows of domains taken together, and the one SFT run
# fields of a model's config that are the run's own
HOW = ('dtype', 'attention', 'remat', 'unroll', 'logit_chunk')


def _check_domains(s: RunConfig) -> None:
  """Names of domains and stages, which become directories and rows; and that stages know their domains."""
  domains = (*s.data.domains, *s.data.extra_domains)
  if not s.data.domains:
    raise bad_value('config.data.domains', (), 'one or more: each has its expert')
  check_names('config.data.domains and extra_domains', domains, _RESERVED)
  check_names('config.rl.stages', [stage.name for stage in s.rl.stages])
  for i, stage in enumerate(s.rl.stages):
    where = f'config.rl.stages[{i}].domains'
    if not stage.domains or len({*stage.domains}) < len(stage.domains):
      raise bad_value(where, stage.domains, 'one or more, each once')
    for domain in stage.domains:
      if domain not in domains:
        raise bad_value(where, stage.domains, f'some of {", ".join(domains)}; {shown(domain)} is none of these')


def check_names(where: str, names: Sequence[str], reserved: Sequence[str] = ()) -> None:
  """Raises BadInput where a name could not be a directory of its own, on any file system, or a row of its own."""
  seen: dict[str, str] = {}
  for name in names:
    key = unicodedata.normalize('NFKC', name).casefold()
    plain = name.isprintable() and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    if not plain or not 1 <= len(name.encode()) <= 100 or name[0] in '.-' or name[-1] == '.':
      raise BadInput(
        f'{where}: the name {shown(name)} is no plain one, expected up to 100 printable characters without any of '
        '/ \\ : * ? " < > |, with no blank, dot or hyphen before and no blank or dot after them'
      )
    if key in reserved:
      raise BadInput(f'{where}: the name {name!r} is taken by the summary, expected none of {", ".join(reserved)}')
    if key in seen:
      twice = f'{shown(seen[key])} and {shown(name)}'
      raise BadInput(f'{where}: the names {twice} are one on some disks, expected different ones')
    seen[key] = name


def check_mesh(s: RunConfig, c: Config) -> None:
  """Raises BadInput where the mesh does not divide what it is to spread, or a kernel does not take a row's length."""
  m = s.mesh
  spread(m, c, {'sft.rows': s.sft.rows, 'rl.micro_rows / rl.share': s.rl.micro_rows // s.rl.share})
  if s.sft.length % m.seq:
    raise BadInput(f'config.mesh: seq is {m.seq}, which does not divide sft.length, {s.sft.length}')
  if c.attention != 'xla' and s.sft.length % (whole := unit(c.attention, m.seq)):
    raise bad_value('config.sft.length', s.sft.length, f'a multiple of {whole} with model.attention {c.attention!r}')
  if c.attention == 'triton' and m.seq > 1:
    raise bad_value('config.mesh.seq', m.seq, "1 with model.attention 'triton', which wants sequences whole")


def spread(m: MeshShape, c: Config, rows: Mapping[str, int]) -> None:
  """Raises BadInput where the mesh does not divide a model's axes, or numbers of `rows`."""
  for what, size, axes, n in (
    ('the model width', c.D, 'fsdp', m.fsdp),
    ('the number of kv heads', c.K, 'tensor', m.tensor),
    ('the feed-forward width', c.F, 'tensor', m.tensor),
    ('the vocabulary', c.V, 'tensor', m.tensor),
    *((name, size, 'data x fsdp', m.data * m.fsdp) for name, size in rows.items()),
  ):
    if size % n:
      raise BadInput(f'config.mesh: {axes} is {n}, which does not divide {what}, {size}')


def check_pages(s: RunConfig, c: Config, processes: int, devices: int) -> None:
  """Raises BadInput where the pages of a process with so many `devices` do not hold a sample for each of them."""
  own = -(-s.engine.pages // processes) // devices
  if s.engine.pages and own * s.engine.page < c.positions:
    least = -(-c.positions // s.engine.page) * devices * processes
    raise bad_value(
      'config.engine.pages',
      s.engine.pages,
      f'0, or {least} or more of {s.engine.page} positions: a sample of {c.positions} positions on each device',
    )


def computing(c: Config, s: BaseConfig) -> Config:
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


def sft_runs(s: RunConfig) -> dict[str, tuple[str, ...]]:
  """SFT runs and the domains each trains on; domains without an expert go along with every run."""
  if s.experts == 'one_run':
    return {'all': (*s.data.domains, *s.data.extra_domains)}
  return {domain: (domain, *s.data.extra_domains) for domain in s.data.domains}


def own_config(s: RunConfig) -> Config:
  """The base's own config. Raises BadInput."""
  return s.model.random or read_config(s.model.path or TINY_BASE)
