"""What a run works on: its tokenizer, and those of its problems that fit its budgets and the model's positions."""

import dataclasses
from collections.abc import Mapping, Sequence

from vibethinker_jax.config import TINY_BASE, RunConfig, check_mesh, computing, own_config, sft_runs
from vibethinker_jax.data.augment import chosen
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.splits import Sets, load_sets
from vibethinker_jax.data.tokenizer import ChatTokenizer, load_chat_tokenizer, render
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import bad_value
from vibethinker_jax.model.qwen2 import Config


@dataclasses.dataclass(frozen=True)
class RunData:
  """Problems are those of the sets without what does not fit; `left_out` says in a line a set how many that are."""

  tokenizer: ChatTokenizer
  sets: Sets
  rolled: dict[str, list[Problem]]  # the problems of each stage of RL
  left_out: tuple[str, ...]


def load_run_data(s: RunConfig) -> RunData:
  """Raises BadInput where tokenizer, problems and base do not go together, or nothing is left of a set."""
  own = own_config(s)
  config = computing(own, s.model)
  check_mesh(s, config)
  if s.sft.length > config.positions:
    raise bad_value('config.sft.length', s.sft.length, f'at most the positions of the model, {config.positions}')
  tokenizer = load_chat_tokenizer(s.model.tokenizer or s.model.path or TINY_BASE, s.model.system)
  tokenizer.check(own.V, 'the base model')
  return fitting(s, config, tokenizer, load_sets(s.data, s.seed))


def fitting(s: RunConfig, c: Config, tokenizer: ChatTokenizer, sets: Sets) -> RunData:
  """What of `sets` fits a model of config `c`, the base's with the run's way of computing. Raises BadInput."""
  lines: list[str] = []

  def left(what: str, where: str, tokens: int, groups: Mapping[str, Sequence[Problem]]) -> dict[str, list[Problem]]:
    """Of each group the problems with room for a response of `tokens`, which the config says at `where`."""
    kept, out = _with_room(tokenizer, groups, c.positions - tokens)
    for name, problems in groups.items():
      if not kept[name]:
        longest = max(0, c.positions - min(len(tokenizer.prompt(p)) for p in problems))
        raise bad_value(
          f'config.{where}',
          tokens,
          f'at most {longest}: no prompt of {what}, {name}, leaves more of the {c.positions} positions of the model',
        )
    if out:
      lines.append(
        f'{what}: {len(out)} of {sum(map(len, groups.values()))} problems left out, whose prompts leave no room for '
        f'{where}, {tokens}, in the {c.positions} positions of the model; the first is {out[0].id}'
      )
    return kept

  halves = {'probe_a': sets.probe_a, 'probe_b': sets.probe_b}
  fits = {name: left(name, 'probe.max_tokens', s.probe.max_tokens, half) for name, half in halves.items()}
  fits['test'] = left('test', 'evaluate.max_tokens', s.evaluate.max_tokens, sets.test)
  rolled = {}
  for i, stage in enumerate(s.rl.stages):
    problems = [problem for domain in stage.domains for problem in sets.train[domain]]
    group = {' and '.join(stage.domains): problems}
    (rolled[stage.name],) = left(f'rl/{stage.name}', f'rl.stages[{i}].max_tokens', stage.max_tokens, group).values()
  for run, domains in sft_runs(s).items():
    _check_solutions(s, tokenizer, [problem for domain in domains for problem in sets.train[domain]], run)
  return RunData(tokenizer, dataclasses.replace(sets, **fits), rolled, tuple(lines))


def _with_room(
  tokenizer: ChatTokenizer, groups: Mapping[str, Sequence[Problem]], room: int
) -> tuple[dict[str, list[Problem]], list[Problem]]:
  """Of each group the problems with prompts of at most `room` tokens; and all the others."""
  around = len(tokenizer.chat([{'role': 'user', 'content': ''}]))
  # a token is at least a byte, but for what the tokenizer makes of it before: twice that is on the safe side
  near = lambda p: around + 2 * len(p.prompt.encode()) > room
  kept, out = {}, []
  for name, problems in groups.items():
    fits = [not near(p) or len(tokenizer.prompt(p)) <= room for p in problems]
    kept[name] = [p for p, fit in zip(problems, fits) if fit]
    out += [p for p, fit in zip(problems, fits) if not fit]
  return kept, out


def _check_solutions(s: RunConfig, tokenizer: ChatTokenizer, problems: Sequence[Problem], run: str) -> None:
  """Raises BadInput where sft/`run` has nothing to learn from: no solution, or none that fits."""
  rows, shortest = chosen(problems, s.data.spectrum), None
  for row in rows:
    length = len(render(tokenizer, *row)['tokens'])
    if length <= s.sft.length:
      return
    shortest = min(length, shortest or length)
  if shortest is None:
    raise BadInput(f'config.data: no solution is left that sft/{run} could learn from, expected one or more')
  expected = f'{shortest} or more: the shortest solution of sft/{run} has as many tokens'
  raise bad_value('config.sft.length', s.sft.length, expected)
