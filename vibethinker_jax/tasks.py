"""The configs of the experiments other than the pipeline: their fields, and the checks between them."""

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
  """The pretraining corpus of the embedded world (`corpus` in data/synthetic.py).

  n: problems, each with one solution.
  tokenizer_lines: texts on which the tokenizer is trained.
  slip_rate: the share of solutions with a wrong operation.
  practice: the share of items that are lines of arithmetic.
  path_weights: the frequency of each solution path, by its name; other paths do not occur.
  """

  n: Annotated[int, Interval(ge=1, le=100_000_000)]
  tokenizer_lines: Annotated[int, Interval(ge=1, le=100_000_000)]
  slip_rate: Annotated[float, Interval(ge=0, le=1)]
  practice: Annotated[float, Interval(ge=0, le=1)]
  path_weights: dict[str, NonNegativeFloat]


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """configs/pretrain_tiny.py, for experiments/pretrain_tiny.py.

  seed: the seed of weights, corpus and tokenizer.
  model: the sizes of the tiny base, and how it is computed.
  corpus: its training data.
  sft: its training.
  """

  seed: Seed
  model: Config
  corpus: Corpus
  sft: sft.SFT


@dataclasses.dataclass(frozen=True)
class Step:
  """A GRPO step in which every response has exactly `new_tokens`.

  prompts: problems.
  num_generations: responses to each problem.
  prompt_tokens: tokens of each prompt.
  new_tokens: tokens of each response.
  rows: samples that are decoded at the same time.
  micro_rows: responses whose gradient is computed at the same time, a multiple of `share`.
  share: responses to one prompt in one row, at most `num_generations`.
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
  """Decoding with log-normal response lengths, a quarter of `longest` on average.

  samples: responses.
  rows: samples that are decoded at the same time.
  prompt_tokens: tokens of each prompt.
  longest: tokens of a response, at most.
  spread: the standard deviation of the logarithm of the length.
  """

  samples: Sized
  rows: Sized
  prompt_tokens: Sized
  longest: Sized
  spread: Annotated[float, Interval(ge=0, le=10)]


@dataclasses.dataclass(frozen=True)
class Benchmarking:
  """configs/benchmark.py, for experiments/benchmark.py.

  seed: the seed of weights, prompts and lengths.
  repeats: the number of measurements, of which the median counts.
  mesh: how the devices share the work.
  model: the sizes of the model, and how it is computed.
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
  dtype: the dtype in which layers compute.
  benchmarks: names of evaluate/benchmarks.py, each once.
  data: the folder of their files.
  files: your own files by benchmark, for LiveCodeBench and GPQA.
  n: samples of each problem; 0: as the protocol. Published: 64; 16 for GPQA, 8 for code.
  max_tokens: the limit of a response, in tokens; 0: as the protocol. Published: 40,960.
  limit: problems of each benchmark; 0: all.
  seed: the seed of the samples.
  rows: samples that are decoded at the same time.
  workers: worker processes of each kind, at most.
  deadline_s: seconds that the judgement of one response may take.
  strict: judge by the rules of the published grader.
  steps: also check the equalities in the responses, and report the share of true ones.
  regrade: judge existing samples again, also where another grader has judged them.
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
  """Raises BadInput for every error that can be found without a device or a file."""
  check_ranges(p)
  alphabet = 256 + len(CONTROL_TOKENS)
  if alphabet > p.model.V:
    raise bad_value('config.model.V', p.model.V, f'{alphabet} or more, for all bytes and the control tokens')
  if p.sft.length > p.model.positions:
    raise bad_value('config.sft.length', p.sft.length, f'at most model.positions, {p.model.positions}')
  for name, value, expected in optim_faults('sft.optim', p.sft.optim):
    raise bad_value(f'config.{name}', value, expected)
  try:
    synthetic.check_weights(p.corpus.path_weights)
  except ValueError as error:
    raise BadInput(f'config.corpus.path_weights: {error}') from None


def check_benchmarking(b: Benchmarking) -> None:
  """Raises BadInput for every error that can be found without a device or a file."""
  check_ranges(b)
  g, t, positions = b.grpo_step, b.long_tail, b.model.positions
  if b.model.V < 9:
    raise bad_value('config.model.V', b.model.V, '9 or more: prompts have ids from 8 on')
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
  """Raises BadInput for every error that can be found without a device or a file."""
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
