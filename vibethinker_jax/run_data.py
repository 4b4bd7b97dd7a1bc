"""What a run works on: its mesh, its tokenizer, and the problems that fit its limits and the model's positions."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import Mesh

from vibethinker_jax.config import (
  TINY_BASE,
  RunConfig,
  check,
  check_mesh,
  check_pages,
  computing,
  on_devices,
  own_config,
  sft_runs,
)
from vibethinker_jax.data.augment import chosen
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.splits import Sets, load_sets
from vibethinker_jax.data.tokenizer import ChatTokenizer, load_chat_tokenizer, render
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import bad_value
from vibethinker_jax.model.mesh import make_mesh
from vibethinker_jax.model.qwen2 import Config


@dataclasses.dataclass(frozen=True)
class RunData:
  """What the stages of a run need beside the workdir."""

  settings: RunConfig  # the config, with a number for every axis of the mesh
  mesh: Mesh
  tokenizer: ChatTokenizer
  sets: Sets  # without the problems that do not fit
  rolled: dict[str, list[Problem]]  # the problems of each RL stage
  left_out: tuple[str, ...]  # for each set from which problems were left out, a line that says how many and why


def load_run_data(s: RunConfig, devices: Sequence[jax.Device] | None = None) -> RunData:
  """Everything that a run reads before its first step, checked against each other; nothing is written.

  `devices`: of the mesh; None: all. Raises BadInput where config, devices, tokenizer, problems and base do not go
  together, or where a set has no problem left. What needs no device is checked before the devices are looked for.
  """
  check(s)
  devices = jax.devices() if devices is None else list(devices)
  s = on_devices(s, len(devices))
  try:
    mesh = make_mesh(s.mesh, devices)
  except ValueError as error:
    raise BadInput(f'config.mesh: {error}') from None
  platform = devices[0].platform
  if (wants := {'splash': 'tpu', 'triton': 'gpu'}.get(s.model.attention, platform)) != platform:
    raise bad_value('config.model.attention', s.model.attention, f"'xla' on a {platform}: that kernel needs a {wants}")
  own = own_config(s)
  config = computing(own, s.model)
  check_mesh(s, config)
  if s.sft.length > config.positions:
    raise bad_value('config.sft.length', s.sft.length, f'at most the positions of the model, {config.positions}')
  tokenizer = load_chat_tokenizer(s.model.tokenizer or s.model.path or TINY_BASE, s.model.system)
  tokenizer.check(own.V, 'the base model')
  sets, rolled, left_out = fitting(s, config, tokenizer, load_sets(s.data, s.seed))
  check_pages(s, config, jax.process_count(), len(mesh.local_devices))
  return RunData(s, mesh, tokenizer, sets, rolled, left_out)


def fitting(
  s: RunConfig, c: Config, tokenizer: ChatTokenizer, sets: Sets
) -> tuple[Sets, dict[str, list[Problem]], tuple[str, ...]]:
  """The problems whose prompt and longest response fit a model of config `c`.

  Returns the sets, the problems of each RL stage, and a line for each set from which problems were left out. Raises
  BadInput where a set has no problem left.
  """
  lines: list[str] = []

  def left(what: str, field: str, tokens: int, groups: Mapping[str, Sequence[Problem]]) -> dict[str, list[Problem]]:
    """Of each group the problems with room for a response of `tokens`, the value of config.`field`."""
    kept, out = _with_room(tokenizer, groups, c.positions - tokens)
    for name, problems in groups.items():
      if not kept[name]:
        longest = max(0, c.positions - min(len(tokenizer.prompt(p)) for p in problems))
        raise bad_value(
          f'config.{field}',
          tokens,
          f'at most {longest}: no prompt of {what}, {name}, leaves more of the {c.positions} positions of the model',
        )
    if out:
      lines.append(
        f'{what}: {len(out)} of {sum(map(len, groups.values()))} problems left out, whose prompts leave no room for '
        f'{field}, {tokens}, in the {c.positions} positions of the model; the first is {out[0].id}'
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
  return dataclasses.replace(sets, **fits), rolled, tuple(lines)


def _with_room(
  tokenizer: ChatTokenizer, groups: Mapping[str, Sequence[Problem]], room: int
) -> tuple[dict[str, list[Problem]], list[Problem]]:
  """Of each group the problems whose prompts have at most `room` tokens; and a list of all others."""
  around = len(tokenizer.chat([{'role': 'user', 'content': ''}]))
  # a token has at least one byte; twice as many is safe, since the tokenizer may normalise the text first
  near = lambda p: around + 2 * len(p.prompt.encode()) > room
  kept, out = {}, []
  for name, problems in groups.items():
    fits = [not near(p) or len(tokenizer.prompt(p)) <= room for p in problems]
    kept[name] = [p for p, fit in zip(problems, fits) if fit]
    out += [p for p, fit in zip(problems, fits) if not fit]
  return kept, out


def _check_solutions(s: RunConfig, tokenizer: ChatTokenizer, problems: Sequence[Problem], run: str) -> None:
  """Raises BadInput where sft/`run` has no solution to learn from, or where none fits a row."""
  rows, shortest = chosen(problems, s.data.spectrum), None
  for row in rows:
    length = len(render(tokenizer, *row)['tokens'])
    if length <= s.sft.length:
      return
    shortest = min(length, shortest or length)
  if shortest is None:
    raise BadInput(f'config.data: no solution is left that sft/{run} could learn from, expected one or more')
  expected = f'{shortest} or more: the shortest solution of sft/{run} has {shortest} tokens'
  raise bad_value('config.sft.length', s.sft.length, expected)
