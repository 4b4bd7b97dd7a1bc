"""Samples kept in a file of JSON Lines while they are drawn, so that nothing is drawn twice.

A row is appended as soon as its sample is finished. A program that was killed, even in the middle of a line, draws the
samples that the file lacks, and they are what an uninterrupted program would have drawn: the random numbers of a sample
belong to (seed, the number of its problem, its place among the problem's samples).

Each of several processes appends to a file of its own: samples.jsonl, samples.1.jsonl, ... All of them see the folder.
The files become one when all samples are drawn, or when the program is started again, with any number of processes.

A row has
  id             '<problem>#<sample>'
  problem        the id of the problem
  sample         0 to n - 1
  response       the text
  answer         the right answer, where the problem has one
  tokens         how many tokens were drawn, the stop token included
  finish_reason  'stop', 'length', or 'no room': the prompt left no room for a token, and nothing was drawn
"""

import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from vibethinker_jax import disk
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.distributed import Stopped, gather
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.rollout import draw, validate
from vibethinker_jax.shared_files import write_text


def collect(
  engine: Engine,
  model: Qwen2,
  tokenizer: ChatTokenizer,
  problems: Sequence[Problem],
  protocol: Protocol,
  seed: int,
  numbers: Sequence[int],
  path: pathlib.Path | None,
  what: str = 'sample',
  stop: Callable[[], bool] = lambda: False,
) -> list[dict]:
  """Draws the samples that `path` does not hold yet, and appends each one to it.

  Args:
    engine: draws the tokens.
    model: the policy.
    tokenizer: turns problems into prompts and token ids into texts.
    problems: [P]; their ids differ.
    protocol: how many samples there are of each problem, and how they are drawn. A response has fewer than
      `max_tokens` where its prompt leaves the engine less room.
    seed, numbers: the random stream of problem i is (seed, numbers[i]); numbers [P].
    path: the file of the samples. It belongs to one model, protocol and list of problems, which the caller must ensure.
      None keeps nothing.
    what: the title of the progress bar.
    stop: it is asked between two blocks of tokens.

  Returns:
    The P x samples rows, in the order of the problems and of their samples, the same on all processes.

  Raises:
    Stopped: `stop` returned True on one of the processes; what had been finished is in the file.
    BadInput: a problem cannot be asked, the weights give numbers that are not finite, or the file is not a samples
      file.
    CannotWrite: the file system refuses.
  """
  have = gather(settle(path) if path is not None and jax.process_index() == 0 else {})[0]
  prompts = [tuple(tokenizer.prompt(problem)) for problem in problems]
  room = [min(protocol.max_tokens, engine.max_length - len(prompt)) for prompt in prompts]
  asked = [i for i, tokens in enumerate(room) if tokens > 0]
  requests = [Request(prompts[i], room[i], protocol.samples, protocol.sampling, seed, numbers[i]) for i in asked]
  try:
    validate(engine, [problems[i] for i in asked], requests)
  except ValueError as error:
    raise BadInput(str(error)) from None
  place = {i: at for at, i in enumerate(asked)}
  every = [(i, sample) for i in range(len(problems)) for sample in range(protocol.samples)]
  kept = {(place[i], sample) for i, sample in every if i in place and (problems[i].id, sample) in have}
  drawn: dict[tuple[str, int], dict] = {}

  def keep(i: int, sample: int, tokens: np.ndarray, finish: str) -> None:
    row = _row(problems[i], sample, tokenizer.response(prompts[i], tokens.tolist()), len(tokens), finish)
    drawn[problems[i].id, sample] = row
    if path is not None:
      disk.append(_part(path, jax.process_index()), json.dumps(row))

  for i, sample in every if jax.process_index() == 0 else ():
    if i not in place and (problems[i].id, sample) not in have:
      keep(i, sample, np.zeros(0, np.int32), 'no room')
  suspended = False
  for done in draw(engine, model, requests, kept, what, stop):
    i = asked[done.request]
    if done.finish == 'suspended':
      suspended = True
    elif not np.isfinite(done.logps).all():
      raise BadInput(f'problem {problems[i].id}: log-probabilities are not finite, the weights are broken')
    else:
      keep(i, done.sample, done.tokens, done.finish)
  parts = gather((drawn, suspended))
  if any(suspended for _, suspended in parts):
    raise Stopped(f'{what}: stopped before all samples were drawn')
  for part, _ in parts:
    have |= part
  rows = [have[problems[i].id, sample] for i, sample in every]
  if path is not None and jax.process_count() > 1:
    write_rows(path, rows)
    if jax.process_index() > 0:
      _part(path, jax.process_index()).unlink(missing_ok=True)
  return rows


def _row(problem: Problem, sample: int, response: str, tokens: int, finish: str) -> dict:
  row = {'id': f'{problem.id}#{sample}', 'problem': problem.id, 'sample': sample, 'response': response}
  row |= {'answer': problem.answer} if problem.tests is None else {}
  return row | {'tokens': tokens, 'finish_reason': finish}


def settle(path: pathlib.Path) -> dict[tuple[str, int], dict]:
  """The rows of `path` by (problem, sample), after the files of other processes have become part of it.

  One process calls this, while the others wait.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  parts, have = _parts(path), {}
  for part in (*parts, path):  # `path` is last: its rows may have verdicts already
    have |= read(part)
  if parts:
    with disk.atomic(path) as scratch:
      scratch.write_text(''.join(json.dumps(row) + '\n' for row in have.values()), encoding='utf-8')
  for part in parts:
    part.unlink()
  return have


def read(path: pathlib.Path) -> dict[tuple[str, int], dict]:
  """The rows of a file by (problem, sample), none where there is no file. A last line cut short by a kill is ignored.

  Raises BadInput, in which the line is named.
  """
  data = path.read_bytes() if path.exists() else b''
  rows = {}
  for number, line in enumerate(data.split(b'\n')[:-1], 1):
    try:
      row = json.loads(line.decode('utf-8'))
      rows[row['problem'], row['sample']] = row
    except (ValueError, KeyError, TypeError):
      raise BadInput(f'{path}, line {number}: not a sample of an evaluation') from None
  return rows


def write_rows(path: pathlib.Path, rows: Sequence[dict]) -> None:
  """Replaces the whole file; all processes call this."""
  write_text(path, ''.join(json.dumps(row) + '\n' for row in rows))


def beside(result: pathlib.Path) -> pathlib.Path:
  """Where the samples are kept until the file `result` is made of them: NAME.samples.jsonl beside NAME.json."""
  return result.with_suffix('.samples.jsonl')


def discard(result: pathlib.Path) -> None:
  """Deletes the samples beside `result`, which is written; all processes may call this."""
  if jax.process_index() == 0:
    for part in (*_parts(beside(result)), beside(result)):
      part.unlink(missing_ok=True)


def _part(path: pathlib.Path, process: int) -> pathlib.Path:
  """Where a process appends what it draws."""
  return path if process == 0 else path.with_suffix(f'.{process}{path.suffix}')


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
  """The files of the processes other than the first."""
  middle = lambda p: p.name.removeprefix(f'{path.stem}.').removesuffix(path.suffix)
  return sorted(p for p in path.parent.iterdir() if middle(p).isdecimal() and p == _part(path, int(middle(p))))
