"""What `import vibethinker_jax as vt` offers, as functions of values: the command's work, without its files.

Each function calls what the command of the same name calls, so both give the same numbers. Bad arguments raise
errors.BadInput (a ValueError) whose message is one line. The names that are not here (vt.maxent_weight, vt.advantages,
vt.policy_loss, vt.pass_at_k) are train/mgpo.py's and spectrum/passk.py's own.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from vibethinker_jax import runtime
from vibethinker_jax.config import RunConfig
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.data import sources
from vibethinker_jax.data.problem import Problem, answer_text
from vibethinker_jax.data.prompts import Prompt, prompt_ids
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.disk import beginning
from vibethinker_jax.engine import score as scoring
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams, number_of
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import benchmarks, run
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import read_config
from vibethinker_jax.model.mesh import own_mesh
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.model_directory import difference, load_model, load_tokenizer
from vibethinker_jax.plan import plan as planning
from vibethinker_jax.plan.machine import machine
from vibethinker_jax.spectrum import fusion
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.code import check_tests
from vibethinker_jax.verify.grader import Grader

Answer = str | int | float | Sequence[str | int | float]  # one that is right, or all that are accepted

_DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Sample:
  """One response to one prompt: n tokens."""

  text: str | None  # without special tokens; None without a tokenizer
  tokens: np.ndarray  # int32 [n], the token that ended it included
  logprobs: np.ndarray  # float32 [n]: ln p of each token under the model, at temperature 1
  finish_reason: str  # 'stop' (a stop token was drawn) or 'length' (max_tokens were drawn)


def load(directory: str | pathlib.Path, dtype: str = 'float32') -> tuple[Qwen2, ChatTokenizer | None]:
  """The model of a Hugging Face directory (docs/models.md), and its tokenizer (None where there is no tokenizer.json).

  Args:
    directory: holds config.json, weights as safetensors and tokenizer files. A run's is WORKDIR/final.
    dtype: 'float32' or 'bfloat16', of the weights and of what the layers compute in.

  Raises:
    BadInput: the directory is not a model that can be read, or its tokenizer has ids that the model has no row for.
  """
  directory = pathlib.Path(directory)
  if dtype not in _DTYPES:
    raise BadInput(f'dtype {dtype!r}: expected one of {", ".join(_DTYPES)}')
  read_config(directory)  # what it lacks is said first
  tokenizer = load_tokenizer(directory)
  return load_model(directory, dtype), tokenizer


def save(model: Qwen2, tokenizer: ChatTokenizer | None, directory: str | pathlib.Path) -> None:
  """Writes a Hugging Face directory, whole or not at all, in place of a model that is there.

  Args:
    model: what `load` or `fuse` gave.
    tokenizer: what `load` gave; its files are copied from the directory that it was loaded from. None writes none.
    directory: where to; `load`, transformers and `vibethinker --model` read it.

  Raises:
    BadInput: the directory holds something that is no model, cannot be written, or the tokenizer's files are gone.
    CannotWrite: the disk is full.
  """
  directory = pathlib.Path(directory)
  if directory.is_file() or (
    directory.is_dir() and any(directory.iterdir()) and not (directory / 'config.json').exists()
  ):
    raise BadInput(f'{directory}: it is no model directory, so it is not replaced')
  source = None if tokenizer is None else pathlib.Path(tokenizer.hf.name_or_path)
  if source is not None and not (source / 'tokenizer.json').exists():
    raise BadInput(f'{source / "tokenizer.json"}: the tokenizer was loaded from there, and the file is gone')
  with beginning(directory):
    hf.save(model, directory, source, () if tokenizer is None else tokenizer.eos_ids)


def generate(
  model: Qwen2,
  tokenizer: ChatTokenizer | None,
  prompts: Sequence[Prompt],
  *,
  max_tokens: int,
  n: int = 1,
  temperature: float = 1.0,
  top_p: float = 1.0,
  top_k: int = -1,
  min_p: float = 0.0,
  seed: int = 0,
  names: Sequence[str | int] | None = None,
  stop_ids: Sequence[int] | None = None,
  rows: int = 64,
) -> list[list[Sample]]:
  """n samples of each of P prompts: [P][n]. What `vibethinker generate` writes for rows whose ids are `names`.

  A sample's random numbers belong to (seed, the prompt's name, the sample's number): they do not depend on what else
  is asked for, nor on `rows`.

  Args:
    model, tokenizer: what `load` gave.
    prompts: each is a text, which is continued as it stands; a conversation [{'role': ..., 'content': ...}, ...],
      which is put into the chat template (so ask a question); or token ids.
    max_tokens: new tokens of a sample at most.
    n: samples of each prompt.
    temperature: 0 always takes the likeliest token.
    top_p: 1 is off. top_k: -1 is off. min_p: 0 is off.
    seed: 0 to 2^32 - 1.
    names: of the prompts, all different; None is 0, 1, 2, ...
    stop_ids: token ids that end a sample; None is what the tokenizer and the model's files name.
    rows: samples decoded at a time.

  Raises:
    BadInput: an argument is out of range, a prompt is empty, of no such form or too long, or the weights are broken.
  """
  _check_list('prompts', prompts)
  for name, value in (('n', n), ('max_tokens', max_tokens), ('rows', rows)):
    if value < 1:
      raise BadInput(f'{name} {value}: expected 1 or more')
  names = [*range(len(prompts))] if names is None else [*names]
  if len(names) != len(prompts) or len({*names}) < len(names):
    raise BadInput(f'names: expected {len(prompts)} that differ, one for each prompt')
  if stop_ids is None:
    stop_ids = () if tokenizer is None else tokenizer.stop_ids
  sampling = SamplingParams(temperature, top_k, top_p, min_p)
  vocabulary = None if tokenizer is None else tokenizer.size
  engine = Engine(model.config, stop_ids, rows=rows, mesh=own_mesh(jax.local_devices()), vocabulary=vocabulary)
  requests = []
  for i, (prompt, name) in enumerate(zip(prompts, names)):
    ids = tuple(prompt_ids(prompt, tokenizer, model.config.V, f'prompts[{i}]'))
    requests.append(Request(ids, max_tokens, n, sampling, seed, number_of(json.dumps(name))))
    if (why := engine.validate(requests[-1])) is not None:
      raise BadInput(f'prompts[{i}]: {why}')
  out: list[list[Sample | None]] = [[None] * n for _ in prompts]
  with runtime.bar(len(prompts) * n, 'generate', 'sample', leave=False) as bar:
    for done in engine.generate(model, requests):
      _check_finite(done.logps)
      text = None if tokenizer is None else tokenizer.decode(done.tokens.tolist())
      out[done.request][done.sample] = Sample(text, done.tokens, done.logps, done.finish)
      bar.update()
  return out


def score(model: Qwen2, tokenizer: ChatTokenizer | None, sequences: Sequence[Prompt]) -> list[np.ndarray]:
  """How likely given sequences are: float32 [T-1] for each of T tokens, ln p of every token but the first.

  Natural logarithms, at temperature 1, each given the tokens before it. What `vibethinker score` writes.

  Args:
    model, tokenizer: what `load` gave.
    sequences: texts, conversations or token ids, as in `generate`.

  Raises:
    BadInput: a sequence is empty, of no such form, or longer than the model's positions; the weights are broken.
  """
  _check_list('sequences', sequences)
  given = []
  for i, sequence in enumerate(sequences):
    ids = prompt_ids(sequence, tokenizer, model.config.V, f'sequences[{i}]')
    if not 1 <= len(ids) <= model.config.positions:
      raise BadInput(f'sequences[{i}]: {len(ids)} tokens, expected 1 to {model.config.positions}, as the model has')
    given.append(ids)
  out: list[np.ndarray] = [np.zeros(0, np.float32)] * len(given)
  for i, scored in scoring.score(model, given):
    _check_finite(scored.logps)
    out[i] = scored.logps
  return out


def grade(
  responses: Sequence[str],
  answers: Sequence[Answer] | None = None,
  *,
  tests: Sequence[dict | list] | None = None,
  workers: int = 2,
  deadline_s: float = 10.0,
  strict: bool = False,
) -> list[Verdict]:
  """A verdict for each response, in order: `score` (1 right, 0 wrong), `extracted` and `reason`.

  The judges of training and evaluation, and of `vibethinker grade`. Programs run shut in, in processes of their own.

  Args:
    responses: whole texts of a model; what counts is the last box, or the last block of code.
    answers: for each response the right answer of a problem of mathematics, or a list of accepted ones.
    tests: in place of answers, for each response the tests of its program: [{'input': text, 'output': text}, ...], or
      {'entry_point': name or None, 'setup': code, 'asserts': [code, ...]}.
    workers: processes of each kind at most.
    deadline_s: seconds that one response may take; then it is wrong.
    strict: by the published grader's rules.

  Raises:
    BadInput: not one answer (or tests) for each response, or one of another form.
  """
  _check_list('responses', responses)
  if (answers is None) == (tests is None):
    raise BadInput('grade: expected exactly one of answers and tests')
  given, what = (tests, 'tests') if answers is None else (answers, 'answers')
  _check_list(what, given)
  if len(given) != len(responses):
    raise BadInput(f'grade: {len(given)} {what} for {len(responses)} responses, expected one for each')
  if workers < 1 or not 0 < deadline_s < float('inf'):
    raise BadInput('grade: expected 1 worker or more, and more than 0 seconds, but not for ever')
  rows = []
  for i, (response, one) in enumerate(zip(responses, given)):
    if not isinstance(response, str):
      raise BadInput(f'responses[{i}]: expected a text, found {type(response).__name__}')
    rows.append((response, _accepted(one, f'answers[{i}]'), None) if tests is None else (response, None, one))
    try:
      if tests is not None:
        check_tests(one)
    except (TypeError, ValueError) as error:
      raise BadInput(f'tests[{i}]: {error}') from None
  with Grader(workers, deadline_s, strict) as grader:
    return grader.grade(rows)


def fuse(models: Sequence[Qwen2], weights: Sequence[float] | None = None) -> Qwen2:
  """The weighted mean of models, summed in float32, in the first one's dtype and with its config.

  Args:
    models: of one architecture. A model given twice counts twice.
    weights: one each, 0 or more, summing to 1; None is 1/N, the report's choice.

  Raises:
    BadInput: the weights do not fit, or a model differs from the first in what decides its function.
  """
  _check_list('models', models)
  weights = [1 / max(len(models), 1)] * len(models) if weights is None else [float(w) for w in weights]
  first = models[0].config if len(models) else None
  for i, model in enumerate(models):
    if (name := difference(model.config, first)) is not None:
      ours, theirs = getattr(model.config, name), getattr(first, name)
      raise BadInput(f'models[{i}]: {name} is {ours}, of the first model it is {theirs}')
  try:
    fusion.check_weights(weights, len(models))
  except ValueError as error:
    raise BadInput(f'weights: {error}') from None
  # what may still differ, such as how many positions, goes by the first
  structure = jax.tree.structure(models[0])
  return fusion.fuse([jax.tree.unflatten(structure, jax.tree.leaves(model)) for model in models], weights)


def evaluate(
  model: Qwen2,
  tokenizer: ChatTokenizer,
  problems: str | pathlib.Path | Sequence[Problem],
  *,
  n: int | None = None,
  max_tokens: int | None = None,
  temperature: float | None = None,
  top_p: float | None = None,
  top_k: int | None = None,
  instruction: str | None = None,
  seed: int = 0,
  rows: int = 64,
  workers: int = 2,
  deadline_s: float = 10.0,
  strict: bool = False,
  name: str = 'model',
  folder: str | pathlib.Path | None = None,
  out: str | pathlib.Path | None = None,
) -> dict:
  """Pass@1, Pass@K and maj@K with 95% intervals: the summary that `vibethinker evaluate` writes as summary.json.

  Args:
    model, tokenizer: what `load` gave; the tokenizer needs a chat template.
    problems: the name of a benchmark (evaluate/benchmarks.py), the pathlib.Path of a file of problems, or a list of
      Problem (data/problem.py describes both).
    n, max_tokens, temperature, top_p, top_k, instruction: samples of each problem, new tokens of a sample, how a token
      is drawn, and the text after every statement. None takes the benchmark's own; for other problems 64 samples of up
      to 40,960 tokens at temperature 1 and top-p 0.95, and no text.
    seed: the random numbers of a sample belong to (seed, the problem's id, the sample's number).
    rows: samples decoded at a time.
    workers, deadline_s, strict: as in `grade`.
    name: what the summary calls the model.
    folder: of the benchmarks' files; None is the value of VIBETHINKER_DATA, or ../shared/data.
    out: a directory for the samples and the summary; an evaluation that was stopped goes on there when it is called
      again. None keeps nothing.

  Raises:
    BadInput: unknown benchmark, bad problems or values, no chat template, or `out` holds another evaluation.
  """
  if tokenizer is None or tokenizer.hf.chat_template is None:
    raise BadInput('evaluate: expected a tokenizer with a chat template')
  if isinstance(problems, str):
    folder = pathlib.Path(folder or os.environ.get('VIBETHINKER_DATA', '../shared/data'))
    task = benchmarks.published(problems, folder)
  else:
    title = 'problems'
    if isinstance(problems, pathlib.Path):
      title, problems = problems.name, sources.load(problems)
    _check_list('problems', problems)
    task = benchmarks.own(title, problems)
  task = task.changed(n, max_tokens, temperature, top_p, top_k, instruction)
  for field, value in (('rows', rows), ('workers', workers)):
    if value < 1:
      raise BadInput(f'evaluate: {field} is {value}, expected 1 or more')
  if not 0 <= seed < 2**32 or not 0 < deadline_s < float('inf'):
    raise BadInput('evaluate: expected a seed of 0 to 2^32 - 1, and a deadline of more than 0 seconds')
  subject = run.subject(name, '' if out is None else _fingerprint(model), model, tokenizer, rows)
  with Grader(workers, deadline_s, strict) as grader, tempfile.TemporaryDirectory() as scratch:
    directory = pathlib.Path(scratch if out is None else out)
    with beginning(directory):
      directory.mkdir(parents=True, exist_ok=True)
    return run.evaluate(subject, {directory: task}, grader, seed)[0]


def plan(config: str | pathlib.Path, topology: str, changes: Mapping[str, object] | None = None) -> dict:
  """Whether a run fits a machine and what it costs, estimated in seconds: what `vibethinker plan --estimate` writes.

  The command without `--estimate` compiles every stage for the machine besides, which wants a process of its own.

  Args:
    config: FILE or FILE:PRESET, of experiments/ssp.py.
    topology: 'v5e:4x4', 'a100:8', 'cpu:1', ... (plan/machine.py).
    changes: fields of the config, as {'mgpo.lam': 2.0}.

  Returns:
    `fits`, `limit`, `mesh`, for each stage bytes, operations and seconds, and for the run device-hours and dollars
    (docs/planning.md).

  Raises:
    BadInput: no such config, field or machine.
  """
  return planning.plan(freeze(RunConfig, load_config(config, changes)), machine(topology), None)


def _check_list(name: str, value) -> None:
  """Raises BadInput for a lone text, or anything that is no sequence."""
  if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray):
    raise BadInput(f'{name}: expected a list, found {type(value).__name__}')


def _accepted(answer: Answer, where: str) -> tuple[str, ...]:
  """The accepted answers as texts."""
  texts = [answer] if isinstance(answer, str | int | float | np.generic) else answer
  _check_list(where, texts)
  texts = [one.item() if isinstance(one, np.generic) else one for one in texts]
  if not texts or any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in texts):
    raise BadInput(f'{where}: expected a text, a number, or a list of at least one of them')
  return tuple(answer_text(one, where) for one in texts)


def _check_finite(logps: np.ndarray) -> None:
  if not np.isfinite(logps).all():
    raise BadInput('log-probabilities are not finite, the weights are broken')


def _fingerprint(model: Qwen2) -> str:
  """The sha256 of the weights in memory: names, dtypes, shapes and bytes."""
  whole = hashlib.sha256()
  for name, x in hf.tensors(model).items():
    whole.update(f'{name} {x.dtype} {x.shape}\n'.encode())
    whole.update(np.ascontiguousarray(x).view(np.uint8).data)
  return whole.hexdigest()
