"""What is asked of the experiments beside the pipeline: their settings, and what has to go together in them."""

import dataclasses
from typing import Annotated

from annotated_types import Interval
from pydantic import NonNegativeFloat, NonNegativeInt

from vibethinker_jax.config import optim_faults, spread
from vibethinker_jax.config_io import check_ranges
from vibethinker_jax.data import synthetic
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.benchmarks import BENCHMARKS
from vibethinker_jax.fields import bad_value
from vibethinker_jax.model.mesh import MeshShape
from vibethinker_jax.model.qwen2 import Config, Dtype
from vibethinker_jax.train import sft
from vibethinker_jax.train.optim import Optim

CONTROL_TOKENS = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', '<think>', '</think>')
Sized = Annotated[int, Interval(ge=1, le=1 << 20)]
Seed = NonNegativeInt


@dataclasses.dataclass(frozen=True)
class Corpus:
  """The embedded world's web: see data/synthetic.py's corpus.

  n: problems, each with one solution.
  tokenizer_lines: texts that the tokenizer is trained on.
  slip_rate: share of solutions with a wrong operation in them.
  practice: share of items that are plain lines of arithmetic.
  path_weights: how often each path of a solution is taken, by its name; those not named never are.
  """

  n: Annotated[int, Interval(ge=1, le=100_000_000)]
  tokenizer_lines: Annotated[int, Interval(ge=1, le=100_000_000)]
  slip_rate: Annotated[float, Interval(ge=0, le=1)]
  practice: Annotated[float, Interval(ge=0, le=1)]
  path_weights: dict[str, NonNegativeFloat]


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """configs/pretrain_tiny.py, for experiments/pretrain_tiny.py.

  seed: of weights, corpus and tokenizer.
  model: sizes of the tiny base, and how it is computed with.
  corpus: what it reads.
  sft: how it is trained.
  """

  seed: Seed
  model: Config
  corpus: Corpus
  sft: sft.SFT


@dataclasses.dataclass(frozen=True)
class Step:
  """One GRPO step: every response has exactly `new_tokens`.

  prompts: problems.
  num_generations: samples of each.
  prompt_tokens: of each prompt.
  new_tokens: of each response.
  rows: samples decoded at a time.
  micro_rows: responses whose gradient is computed at a time, a multiple of `share`.
  share: responses to a prompt in one row, at most `num_generations`.
  """

  prompts: Sized
  num_generations: Sized
  prompt_tokens: Annotated[int, Interval(ge=2, le=1 << 20)]
  new_tokens: Sized
  rows: Sized
  micro_rows: Sized
  share: Sized


@dataclasses.dataclass(frozen=True)
class LongTail:
  """Log-normal response lengths, a quarter of `longest` on average.

  samples: responses.
  rows: samples decoded at a time.
  prompt_tokens: of each prompt.
  longest: tokens of a response at most.
  spread: deviation of the lengths' logarithm.
  """

  samples: Sized
  rows: Sized
  prompt_tokens: Sized
  longest: Sized
  spread: Annotated[float, Interval(ge=0, le=10)]


@dataclasses.dataclass(frozen=True)
class Benchmarking:
  """configs/benchmark.py, for experiments/benchmark.py.

  seed: of weights, prompts and lengths.
  repeats: measurements, of which the median counts.
  mesh: how devices share the work.
  model: sizes of the model, and how it is computed with.
  optim: the optimizer of the update.
  grpo_step: the first measurement.
  long_tail: the second.
  """

  seed: Seed
  repeats: Annotated[int, Interval(ge=1, le=10_000)]
  mesh: MeshShape
  model: Config
  optim: Optim
  grpo_step: Step
  long_tail: LongTail


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """configs/evaluate.py, for experiments/evaluate.py.

  model: a Hugging Face directory.
  dtype: what its layers compute in.
  benchmarks: names of evaluate/benchmarks.py, each once.
  data: the folder of their files.
  files: a file of your own by benchmark, for LiveCodeBench and GPQA.
  n: samples of each problem; 0 for the protocol's. Published: 64; 16 for GPQA, 8 for code.
  max_tokens: of a response; 0 for the protocol's. Published: 40,960.
  limit: problems of each benchmark; 0 for all.
  seed: of the samples.
  rows: samples decoded at a time.
  workers: judges of each kind at most.
  deadline_s: seconds that one response may take to judge.
  strict: judge by the published grader's rules.
  steps: check the equalities of the responses too: the share that holds, in summary and table.
  regrade: judge the samples that are there again, by another grader too.
  """

  model: str
  dtype: Dtype
  benchmarks: tuple[str, ...]
  data: str
  files: dict[str, str]
  n: Annotated[int, Interval(ge=0, le=1 << 16)]
  max_tokens: NonNegativeInt
  limit: NonNegativeInt
  seed: Seed
  rows: Sized
  workers: Annotated[int, Interval(ge=1, le=1024)]
  deadline_s: Annotated[float, Interval(gt=0, le=86400)]
  strict: bool
  steps: bool
  regrade: bool


def check_pretraining(p: Pretraining) -> None:
  """Raises BadInput for what can be told without a device or a file."""
  check_ranges(p)
  alphabet = 256 + len(CONTROL_TOKENS)
  if alphabet > p.model.V:
    raise bad_value('config.model.V', p.model.V, f'{alphabet} or more: bytes, and the control tokens')
  if p.sft.length > p.model.positions:
    raise bad_value('config.sft.length', p.sft.length, f'at most model.positions, {p.model.positions}')
  for name, value, expected in optim_faults('sft.optim', p.sft.optim):
    raise bad_value(f'config.{name}', value, expected)
  try:
    synthetic.check_weights(p.corpus.path_weights)
  except ValueError as error:
    raise BadInput(f'config.corpus.path_weights: {error}') from None


def check_benchmarking(b: Benchmarking) -> None:
  """Raises BadInput for what can be told without a device or a file."""
  check_ranges(b)
  g, t, positions = b.grpo_step, b.long_tail, b.model.positions
  if b.model.V < 9:
    raise bad_value('config.model.V', b.model.V, '9 or more: prompts are drawn from the ids of 8 on')
  if g.micro_rows % g.share:
    raise bad_value('config.grpo_step.micro_rows', g.micro_rows, f'a multiple of grpo_step.share, {g.share}')
  if g.share > g.num_generations:
    raise bad_value('config.grpo_step.share', g.share, f'at most grpo_step.num_generations, {g.num_generations}')
  for name, prompt, tokens in (
    ('grpo_step.new_tokens', g.prompt_tokens, g.new_tokens),
    ('long_tail.longest', t.prompt_tokens, t.longest),
  ):
    if prompt + tokens > positions:
      raise bad_value(
        f'config.{name}', tokens, f'at most {positions - prompt} of {positions} positions after the prompt'
      )
  spread(b.mesh, b.model, {'grpo_step.micro_rows / share': g.micro_rows // g.share})


def check_evaluation(e: Evaluation) -> None:
  """Raises BadInput for what can be told without a device or a file."""
  check_ranges(e)
  if not e.model:
    raise bad_value('config.model', e.model, 'a Hugging Face directory')
  if not e.benchmarks or len({*e.benchmarks}) < len(e.benchmarks):
    raise bad_value('config.benchmarks', e.benchmarks, 'one or more, each once')
  for name in e.benchmarks:
    if name not in BENCHMARKS:
      raise bad_value('config.benchmarks', name, f'some of {", ".join(BENCHMARKS)}')
  if unknown := [name for name in e.files if name not in e.benchmarks]:
    raise bad_value('config.files', unknown[0], f'some of {", ".join(e.benchmarks)}')
