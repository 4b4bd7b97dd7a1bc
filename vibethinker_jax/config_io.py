"""The door for configs: an ml_collections ConfigDict stops here and becomes frozen dataclasses."""

import ast
import dataclasses
import difflib
import functools
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence

import jax
from absl import app, flags
from ml_collections import ConfigDict

from vibethinker_jax import distributed, fields, runtime
from vibethinker_jax.errors import BadInput, Failure


def load_config(where: str | pathlib.Path, changes: Mapping[str, object] | None = None) -> dict:
  """The values of a config file, FILE or FILE:PRESET, with changes in them: {'mgpo.lam': 2.0, 'rl.stages[0].steps': 3}.

  Raises BadInput.
  """
  name, _, preset = str(where).partition(':')
  try:
    loader = importlib.machinery.SourceFileLoader('config', name)  # whatever the file's name ends in
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('config', loader))
    loader.exec_module(module)
    values = module.get_config(*([preset] if preset else [])).to_dict()
  except (Exception, SystemExit) as error:  # whatever a file may raise that is run as a config
    raise BadInput(f'--config {where}: no config ({type(error).__name__}: {error})') from None
  for path, value in (changes or {}).items():
    values = _changed(values, _steps(path), lambda was, value=value: value, path)
  return values


class ConfigFlag:
  """--config=FILE[:PRESET], and --config.a.b=VALUE for any field, whether the file names it or leaves it out.

  Which fields there are is for `freeze` to say.
  """

  def __init__(self, default: str | None):
    self._where = flags.DEFINE_string('config', default, 'FILE or FILE:PRESET; --config.a.b=VALUE changes a field.')

  @functools.cached_property
  def value(self) -> dict:
    """The values of the file, with those of the command line in them. Raises BadInput."""
    if self._where.value is None:
      raise BadInput('--config is not given, expected FILE or FILE:PRESET')
    values = load_config(self._where.value)
    for path, text in _given(sys.argv)[1]:
      values = _changed(values, _steps(path), lambda was, text=text, path=path: _read(text, was, path), path)
    return values


def config_flag(default: str | None = None) -> ConfigFlag:
  """The flags of a config, to be asked for its `value` in main."""
  return ConfigFlag(default)


def _given(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
  """Arguments without those of a config's fields; and these, as (path, text)."""
  rest, given, argv = [], [], [*argv]
  while argv:
    argument = argv.pop(0)
    if argument == '--':
      return [*rest, argument, *argv], given
    match = re.fullmatch(r'--?(no)?config\.([^=]+)(=.*)?', argument, re.DOTALL)
    if match is None:
      rest.append(argument)
    elif match[3] is not None:
      given.append((match[2], match[3][1:]))
    elif match[1] is None and argv and not argv[0].startswith('--'):
      given.append((match[2], argv.pop(0)))
    else:
      given.append((match[2], 'false' if match[1] else 'true'))
  return rest, given


def _steps(path: str) -> list[str | int]:
  """'rl.stages[0].steps' -> ['rl', 'stages', 0, 'steps']. Raises BadInput."""
  steps: list[str | int] = []
  for part in path.split('.'):
    match = re.fullmatch(r'([^\[\]]+)((?:\[\d+\])*)', part)
    if match is None:
      raise BadInput(f'config.{path}: no name of a field, expected one such as mgpo.lam or rl.stages[0].steps')
    steps += [match[1], *(int(number) for number in re.findall(r'\d+', match[2]))]
  return steps


def _changed(values, steps: Sequence[str | int], change: Callable, path: str):
  """`values` with what lies at `steps` replaced by `change` of it (of None where there is nothing)."""
  if not steps:
    return change(values)
  step, *rest = steps
  if isinstance(step, int):
    if not isinstance(values, list | tuple) or step >= len(values):
      there = f'a list of {len(values)}' if isinstance(values, list | tuple) else 'no list'
      raise BadInput(f'config.{path}: there is {there}, which has no [{step}]')
    return tuple(_changed(v, rest, change, path) if i == step else v for i, v in enumerate(values))
  if not isinstance(values, Mapping | ConfigDict | None):
    raise BadInput(f'config.{path}: {step} would be a field of {values!r}, which is a value and has no fields')
  values = dict(values or {})
  return {**values, step: _changed(values.get(step), rest, change, path)}


def _read(text: str, was, path: str):
  """The value that a text on the command line stands for, where the file has `was`."""
  if isinstance(was, str):
    return text
  if text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    value = tuple(part for part in text.split(',') if part) if isinstance(was, list | tuple) else text
  if isinstance(was, bool) and value in (0, 1):
    return bool(value)
  return (value,) if isinstance(was, list | tuple) and isinstance(value, str | int | float) else value


def process_flags() -> Callable[[int], None]:
  """The flags by which one of several processes finds the others.

  Returns what joins them, to be called once flags are parsed and before anything that uses jax, with the number of
  devices that the CPUs of all processes are to count as (distributed.cpu_devices).
  """
  automatic = flags.DEFINE_bool('distributed', False, 'One of several processes; jax finds the others.')
  coordinator = flags.DEFINE_string('coordinator', '', 'Where jax cannot find them: the address of the first process,')
  processes = flags.DEFINE_integer('processes', 1, lower_bound=1, help='how many there are,')
  process = flags.DEFINE_integer('process', 0, lower_bound=0, help='and which of them this is.')

  def join(devices: int) -> None:
    n, which, several = processes.value, process.value, automatic.value or coordinator.value
    if which >= n:
      raise BadInput(f'--process {which}: expected 0 to {n - 1} of --processes {n}')
    if n > 1 and not several:
      raise BadInput(f'--processes {n}: expected --coordinator or --distributed too, or they would not meet')
    if coordinator.value and not re.fullmatch(r'\S+:\d+', coordinator.value):
      raise BadInput(f'--coordinator {coordinator.value}: expected HOST:PORT')
    distributed.cpu_devices(max(1, devices // n))
    if several:
      try:
        distributed.join(coordinator.value, n, which)
      except (RuntimeError, ValueError) as error:
        raise BadInput(f'--distributed: the other processes are not found ({str(error).splitlines()[0]})') from None

  return join


def run_app(main: Callable) -> None:
  """absl's app.run, where every foreseen end is one line: bad input (exit code 2), a full disk, a full memory or
  divergence (1), interruption (130), SIGTERM (0).
  """

  def guarded(argv):
    try:
      return main(argv)
    except (BadInput, distributed.NotShared) as error:
      sys.exit(_refused(str(error)))
    except Failure as error:
      _refused(str(error))
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(1)  # threads of libraries that were writing would tell of it, page after page, while Python ends
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
      if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      said = str(error).split('\n')[0][:200]
      _refused(f'the memory is full ({said}); expected fewer rows at a time, shorter ones, or more devices')
      sys.exit(1)
    except distributed.Stopped as saved:
      print(f'\n{saved}; the same command continues', file=sys.stderr)
    except KeyboardInterrupt:
      print('\ninterrupted; the same command continues', file=sys.stderr)
      sys.exit(130)

  runtime.most_of_the_gpu()
  app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(_given(argv)[0])
  except flags.Error as error:
    sys.exit(_refused(str(error)))
  if len(rest) > 1:
    sys.exit(_refused(f'unexpected argument {rest[1]!r}, expected flags only'))
  if 'workdir' in flags.FLAGS and flags.FLAGS['workdir'].value == '':
    sys.exit(_refused('--workdir is empty, expected a directory'))
  return rest


def _refused(why: str) -> int:
  print('error:', ' '.join(why.split()), file=sys.stderr)
  return 2


# fields whose old name is still refused with the new one; for the release after 0.1
_RENAMED = {
  'config.start': 'model',
  'config.data.others': 'extra_domains',
  'config.rl.group': 'num_generations',
  'config.mgpo.kl': 'kl_coef',
  'config.mgpo.updates': 'minibatches',
  'config.mgpo.steps': 'step_penalty',
  'config.grpo_step.group': 'num_generations',
}


def freeze(kind: type, values: Mapping, where: str = 'config'):
  """An instance of the dataclass `kind` from a mapping that names every field without a default and no other.

  Fields that are dataclasses are frozen in turn, tuples of dataclasses element by element. Raises BadInput naming the
  field and what it may be (fields.py), as "config.sft.save_every: 0, expected a whole number of 1 or more".
  """
  declared = {f.name: f for f in dataclasses.fields(kind)}
  if not isinstance(values, Mapping | ConfigDict):
    raise fields.bad_value(where, values, fields.words(kind))
  for name in values:
    if name not in declared and f'{where}.{name}' in _RENAMED:
      raise BadInput(f'{where}.{name}: this field was renamed, expected {where}.{_RENAMED[f"{where}.{name}"]}')
    if name not in declared:
      near = difflib.get_close_matches(str(name), declared, 1, 0.0)[0]
      raise BadInput(
        f'{where}: unknown field {fields.shown(name)}, did you mean {near!r}? Expected one of {", ".join(declared)}'
      )
  made = {}
  for name, own in fields.kinds(kind).items():
    if name in values:
      made[name] = _frozen(own, values[name], f'{where}.{name}')
    elif declared[name].default is dataclasses.MISSING and declared[name].default_factory is dataclasses.MISSING:
      raise BadInput(f'{where}: field {name!r} is missing')
  return kind(**made)


def check_ranges(made, where: str = 'config') -> None:
  """Raises BadInput where a field of a dataclass that was not made by `freeze` is not what it may be."""
  freeze(type(made), vars(made), where)


def _frozen(kind, value, where: str):
  """A field's value, of type `kind`."""
  kinds = fields.union(kind) or (kind,)
  if value is None and types.NoneType in kinds:
    return None
  if inner := [k for k in kinds if dataclasses.is_dataclass(k)]:
    if isinstance(value, tuple(inner)):
      return freeze(type(value), vars(value), where)
    return freeze(_meant(inner, value), value, where)
  whole, kind = kind, kinds[0]
  origin, parts = typing.get_origin(kind), typing.get_args(kind)
  if origin is tuple:
    endless = parts[1:] == (...,)
    if not isinstance(value, list | tuple) or (not endless and len(value) != len(parts)):
      raise fields.bad_value(where, value, fields.words(kind))
    each = parts[:1] * len(value) if endless else parts
    return tuple(_frozen(own, v, f'{where}[{i}]') for i, (own, v) in enumerate(zip(each, value)))
  if kind is dict or origin is dict:
    if not isinstance(value, Mapping | ConfigDict):
      raise fields.bad_value(where, value, fields.words(kind))
    names = [fields.checked(str, name, f'{where}, the name') for name in value]
    return {n: _frozen(parts[1], value[n], f'{where}[{fields.shown(n)}]') if parts else value[n] for n in names}
  return fields.checked(whole, value, where)


def _meant(kinds: Sequence[type], value) -> type:
  """Of several dataclasses the one with most of the fields that are given; of equals the one with the fewest."""
  given = {*value} if isinstance(value, Mapping | ConfigDict) else set()
  known = lambda kind: {*fields.kinds(kind)}
  return max(kinds, key=lambda kind: (len(given & known(kind)), -len(known(kind))))
