"""The config of a run: its fields, and the checks of fields that depend on each other."""

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
  """The base model, and how it is computed.

  path: its Hugging Face directory; '' is the shipped tiny base, None must still be given. Published:
    Qwen2.5-Math-1.5B.
  random: the sizes of a model with random weights, instead of `path`.
  tokenizer: a directory with the tokenizer; '' is the model's.
  system: the system prompt; None is the default of the chat template.
  rope_theta: the base of the rotary frequencies, larger for longer contexts; None is the base model's.
  positions: the longest sequence, in tokens; None is the base model's.
  param_dtype: the dtype of the weights that are trained.
  dtype: the dtype in which layers compute.
  attention: the attention kernel of training: 'xla', 'splash' (TPU) or 'triton' (GPU).
  remat: what the forward pass keeps for the backward pass: 'none' recomputes nothing and keeps everything, 'dots' keeps
    the results of matrix products, 'full' the inputs of layers, 'offload' these in the memory of the host.
  unroll: layers in one step of the scan over layers; more take longer to compile, and save copies of what is kept.
  logit_chunk: positions whose logits are in memory at the same time.
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
  """The engine, which samples responses.

  rows: samples that are decoded at the same time, over all processes.
  block: tokens that are decoded before the host looks which samples have ended.
  pages: pages of keys and values, over all devices; 0: a cache without pages, in which each row has as many positions
    as the longest sample.
  page: positions in a page.
  """

  rows: Annotated[int, Interval(ge=1, le=1 << 20)]
  block: Annotated[int, Interval(ge=1, le=1 << 16)]
  pages: NonNegativeInt = 0
  page: PositiveInt = 128


@dataclasses.dataclass(frozen=True)
class GraderConfig:
  """The grader of each process, which judges responses.

  workers: worker processes of each kind (algebra, programs), at most.
  deadline_s: seconds that the judgement of one response may take.
  """

  workers: Annotated[int, Interval(ge=1, le=1024)] = 2
  deadline_s: Annotated[float, Interval(gt=0, le=86400)] = 10.0


@dataclasses.dataclass(frozen=True)
class Fusion:
  """How the experts are fused into one model.

  weights: one for each of data.domains, in their order, 0 or more, with a sum of 1; () is 1/N each. Published: 1/N.
  """

  weights: tuple[NonNegativeFloat, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cost:
  """What the machine costs, for the summary of a run.

  price_per_hour: dollars for one device and one hour.
  devices: devices that are paid for.
  """

  price_per_hour: NonNegativeFloat
  devices: PositiveInt = 1


@dataclasses.dataclass(frozen=True)
class Planning:
  """What `vibethinker plan` assumes; a run does not read it.

  prices: dollars for one chip and one hour, by the chip's name, as {'v5e': 1.2}; for other chips cost.price_per_hour.
  utilization: the share of the roofline's speed that is expected.
  response: the mean number of tokens of a response, at most the stage's limit.
  sizes: the sizes of the base, as in model.random, as long as model.path is not given.
  """

  prices: dict[str, NonNegativeFloat] = dataclasses.field(default_factory=dict)
  utilization: Annotated[float, Interval(gt=0, le=1)] = 0.45
  response: PositiveInt = 8192
  sizes: Config | None = None


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """A whole run.

  name: the heading of the report.
  seed: the seed of all random numbers (`base_seed` in vibethinker_jax/config.py).
  model: the base model, and how it is computed.
  mesh: how the devices share the work.
  data: the problems.
  experts: 'one_run': one SFT run, and a checkpoint of it for each domain; 'per_domain': an SFT run for each domain.
    Published: reads as 'one_run'.
  sft: supervised fine-tuning.
  probe: how checkpoints are probed. Published: by Pass@K, K not given.
  fusion: how the experts are fused.
  mgpo: the RL algorithm.
  rl: the RL loop.
  engine: the engine, which samples responses.
  evaluate: how all models of the run are evaluated. The published protocol is that of `vibethinker evaluate`.
  cost: what the machine costs.
  grader: the grader, which judges responses.
  plan: what `vibethinker plan` assumes.
  prune: after the experts are chosen, delete the SFT checkpoints that no later stage reads.
  """

  name: str
  seed: NonNegativeInt
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
  plan: Planning = dataclasses.field(default_factory=Planning)
  prune: bool = False


def check(s: RunConfig) -> None:
  """Raises BadInput for every error of a config that can be found without a device or a file."""
  if s.model.path is None:
    raise bad_value('config.model.path', None, "the base model's directory")
  check_fields(s)


def check_fields(s: RunConfig) -> None:
  """As `check`, of a config whose base model may still be missing."""
  check_ranges(s)
  for name, value, expected in _faults(s):
    raise bad_value(f'config.{name}', value, expected)
  _check_domains(s)


def _faults(s: RunConfig) -> Iterator[tuple[str, object, str]]:
  """Fields that contradict other fields: each as its name, its value, and what was expected."""
  if list(dataclasses.astuple(s.mesh)).count(-1) > 1:
    yield 'mesh', dataclasses.asdict(s.mesh), '-1 for one axis at most'

  yield from optim_faults('sft.optim', s.sft.optim)
  yield from optim_faults('rl.optim', s.rl.optim)
  if s.sft.rows * s.sft.length > LARGEST:
    yield 'sft.rows', s.sft.rows, f'at most {LARGEST // s.sft.length} of {s.sft.length} tokens each'
  for name, e in (('probe', s.probe), ('evaluate', s.evaluate)):
    if e.k > e.samples:
      yield f'{name}.k', e.k, f'at most {name}.samples, {e.samples}'
    if e.temperature == 0 and e.samples > 1:
      yield f'{name}.samples', e.samples, f'1 with {name}.temperature 0, where all samples of a problem are equal'
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
    yield 'data.paths', s.data.paths, f'some of {", ".join(PATHS)}; {min(unknown)!r} is none of these'
  for name, c in (('model.random', s.model.random), ('plan.sizes', s.plan.sizes)):
    yield from () if c is None else _size_faults(name, c)
  if s.model.random is not None and s.model.path:
    yield 'model.path', s.model.path, 'no path beside model.random: the model is either read or made of random weights'


def optim_faults(name: str, o: Optim) -> Iterator[tuple[str, object, str]]:
  """As `_faults`, of an optimizer. A run that ends within its warm-up is allowed, and warns (`optim.remark`)."""
  if 0 < o.horizon <= o.warmup:
    yield f'{name}.horizon', o.horizon, f'0, or more than {name}.warmup, {o.warmup}'


def _size_faults(name: str, c: Config) -> Iterator[tuple[str, object, str]]:
  """As `_faults`, of the sizes of a model: fields that say how it computes belong to config.model."""
  for field in dataclasses.fields(Config):
    if field.name in HOW and vars(c)[field.name] != field.default:
      yield f'{name}.{field.name}', vars(c)[field.name], f'the default here: config.model.{field.name} counts'
  scaling = c.rope_scaling
  if isinstance(scaling, Llama3) and not scaling.low_freq_factor < scaling.high_freq_factor:
    least = scaling.low_freq_factor
    yield f'{name}.rope_scaling.high_freq_factor', scaling.high_freq_factor, f'more than low_freq_factor, {least}'
  if c.family == 'qwen2' and c.attention_bias:
    yield f'{name}.attention_bias', True, "False: a 'qwen2' has biases on q, k and v, whatever stands here"
  if c.family == 'llama' and c.D % (c.K * c.G):
    yield f'{name}.D', c.D, f'a multiple of the {c.K * c.G} heads: transformers reads no other Llama'


# names beside those of domains in summary.json, the report and the workdir: domains taken together, and the one SFT run
_RESERVED = ('math', 'all')
# fields of a model's config that the run sets
HOW = ('dtype', 'attention', 'remat', 'unroll', 'logit_chunk')


def _check_domains(s: RunConfig) -> None:
  """Raises BadInput for names of domains and stages that cannot be directories, and for stages of unknown domains."""
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
  """Raises BadInput where a name cannot be a directory on every file system, is reserved, or equals another name."""
  seen: dict[str, str] = {}
  for name in names:
    key = unicodedata.normalize('NFKC', name).casefold()
    plain = name.isprintable() and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    if not plain or not 1 <= len(name.encode()) <= 100 or name[0] in '.-' or name[-1] == '.':
      raise BadInput(
        f'{where}: the name {shown(name)} is no plain one, expected up to 100 printable characters without '
        '/ \\ : * ? " < > |, which do not begin with a blank, dot or hyphen or end with a blank or dot'
      )
    if key in reserved:
      raise BadInput(f'{where}: the name {name!r} is reserved for the summary, expected none of {", ".join(reserved)}')
    if key in seen:
      twice = f'{shown(seen[key])} and {shown(name)}'
      raise BadInput(f'{where}: the names {twice} are one on some disks, expected names that differ')
    seen[key] = name


def check_mesh(s: RunConfig, c: Config) -> None:
  """Raises BadInput where the mesh does not divide what it shards, or where a kernel cannot compute a row's length."""
  m = s.mesh
  spread(m, c, {'sft.rows': s.sft.rows, 'rl.micro_rows / rl.share': s.rl.micro_rows // s.rl.share})
  if s.sft.length % m.seq:
    raise BadInput(f'config.mesh: seq is {m.seq}, which does not divide sft.length, {s.sft.length}')
  if c.attention != 'xla' and s.sft.length % (whole := unit(c.attention, m.seq)):
    raise bad_value('config.sft.length', s.sft.length, f'a multiple of {whole} with model.attention {c.attention!r}')
  if c.attention == 'triton' and m.seq > 1:
    raise bad_value('config.mesh.seq', m.seq, "1 with model.attention 'triton', which cannot shard sequences")


def on_devices(s: RunConfig, devices: int) -> RunConfig:
  """The config with a number for every axis of its mesh: -1 is what the other axes leave of `devices`.

  Raises BadInput.
  """
  try:
    return dataclasses.replace(s, mesh=s.mesh.on(devices))
  except ValueError as error:
    raise BadInput(f'config.mesh: {error}') from None


def spread(m: MeshShape, c: Config, rows: Mapping[str, int]) -> None:
  """Raises BadInput where the mesh does not divide an axis of the model, or one of `rows` (numbers by field)."""
  for what, size, axes, n in (
    ('the model width', c.D, 'fsdp', m.fsdp),
    ('the number of kv heads', c.K, 'tensor', m.tensor),
    ('the feed-forward width', c.F, 'tensor', m.tensor),
    ('the vocabulary', c.V, 'tensor', m.tensor),
    *((name, size, 'data x fsdp', m.data * m.fsdp) for name, size in rows.items()),
  ):
    if size % n:
      raise BadInput(f'config.mesh: {axes} is {n}, which does not divide {what}, {size}, expected a divisor')


def check_pages(s: RunConfig, c: Config, processes: int, devices: int) -> None:
  """Raises BadInput where a process with so many `devices` has too few pages for a longest sample on each of them."""
  own = -(-s.engine.pages // processes) // devices
  if s.engine.pages and own * s.engine.page < c.positions:
    least = -(-c.positions // s.engine.page) * devices * processes
    raise bad_value(
      'config.engine.pages',
      s.engine.pages,
      f'0, or {least} or more of {s.engine.page} positions: a sample of {c.positions} positions on each device',
    )


def computing(c: Config, s: BaseConfig) -> Config:
  """The config of a model with the fields that the run sets: `s` over `c`."""
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
  """The SFT runs, and the domains that each trains on; domains without an expert are part of every run."""
  if s.experts == 'one_run':
    return {'all': (*s.data.domains, *s.data.extra_domains)}
  return {domain: (domain, *s.data.extra_domains) for domain in s.data.domains}


def own_config(s: RunConfig) -> Config:
  """The config of the base as it was pretrained. Raises BadInput."""
  return s.model.random or read_config(s.model.path or TINY_BASE)


def base_seed(seed: int) -> int:
  """The first random seed of a run; epochs, stages and RL seeds add less than 2^28 to it.

  Up to config.seed 4000 it is a million times config.seed, so that the seeds of two runs do not meet. Larger products
  do not fit into the 32 bits of a seed: they are taken modulo a prime, which gives each config.seed below 2^31 a number
  of its own.
  """
  return 1_000_000 * seed % 4_026_531_833  # the largest prime below 2^32 - 2^28
