"""Config files and command lines: an ml_collections ConfigDict is read here and becomes frozen dataclasses."""

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

from vibethinker_jax import compiled, distributed, fields, runtime
from vibethinker_jax.errors import BadInput, Failure


def load_config(
  where: str | pathlib.Path,
  changes: Mapping[str, object] | None = None,
  texts: Sequence[tuple[str, str]] = (),
) -> dict:
  """The values of a config file.

  Args:
    where: FILE, or FILE:PRESET, which calls the file's get_config(PRESET). The file can import its neighbours.
    changes: values by field, as {'mgpo.lam': 2.0, 'rl.stages[0].steps': 3}.
    texts: fields with values as a command line has them, as [('mgpo.lam', '2')].

  Raises:
    BadInput: the file cannot be run, or a change does not fit it. Which fields exist is checked by `freeze`.
  """
  name, _, preset = str(where).partition(':')
  folder, known = str(pathlib.Path(name).absolute().parent), {*sys.modules}
  sys.path.insert(0, folder)
  try:
    loader = importlib.machinery.SourceFileLoader('config', name)  # whatever the file's name ends in
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('config', loader))
    loader.exec_module(module)
    values = module.get_config(*([preset] if preset else [])).to_dict()
  except (Exception, SystemExit) as error:  # a file that is run as a config may raise anything
    raise BadInput(f'--config {where}: no config ({type(error).__name__}: {error})') from None
  finally:
    sys.path.remove(folder)
    for new in {*sys.modules} - known:  # a neighbour of that name in another folder is another module
      if str(getattr(sys.modules[new], '__file__', None) or '').startswith(folder + os.sep):
        del sys.modules[new]
  for path, value in (changes or {}).items():
    values = _changed(values, _steps(path), lambda was, value=value: value, path)
  for path, text in texts:
    values = _changed(values, _steps(path), lambda was, text=text: _read(text, was), path)
  return values


class ConfigFlag:
  """--config=FILE[:PRESET], and --config.a.b=VALUE for any field, also one that the file leaves out."""

  def __init__(self, default: str | None):
    self._where = flags.DEFINE_string('config', default, 'FILE or FILE:PRESET; --config.a.b=VALUE changes a field.')

  @functools.cached_property
  def value(self) -> dict:
    """The values of the file, with the values of the command line in their places. Raises BadInput."""
    if self._where.value is None:
      raise BadInput('--config is not given, expected FILE or FILE:PRESET')
    return load_config(self._where.value, texts=field_flags(sys.argv)[1])


def config_flag(default: str | None = None) -> ConfigFlag:
  """The flags of a config; its `value` is read in main. `default`: the config file where no flag names one."""
  return ConfigFlag(default)


def field_flags(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
  """A command line taken apart: the other arguments, and the flags --config.a.b=VALUE as pairs ('a.b', 'VALUE')."""
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
  """`values` with the value at `steps` replaced by `change(value)`; `change(None)` where there is none."""
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


def _read(text: str, was):
  """The value of a text of the command line, in place of the file's value `was`."""
  if isinstance(was, str):
    return text
  if text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    value = _parts(text) if isinstance(was, list | tuple) else text
  if isinstance(was, bool) and value in (0, 1):
    return bool(value)
  return (value,) if isinstance(was, list | tuple) and isinstance(value, str | int | float) else value


def _parts(text: str) -> tuple[str, ...]:
  """A list of texts as a command line has it: 'algebra,code'."""
  return tuple(part for part in text.split(',') if part)


def process_flags() -> Callable[[int | None], None]:
  """The flags by which one of several processes finds the others.

  Returns the function that joins them. Call it after the flags are parsed and before anything else that uses jax. Its
  argument is the number of devices that the CPUs of all processes together count as; None: one device for each core
  of each process's machine (distributed.cpu_devices).
  """
  automatic = flags.DEFINE_bool('distributed', False, 'This is one of several processes; jax finds the others.')
  coordinator = flags.DEFINE_string('coordinator', '', 'HOST:PORT of the first process, where jax cannot find it.')
  processes = flags.DEFINE_integer('processes', 1, lower_bound=1, help='With --coordinator: the number of processes.')
  process = flags.DEFINE_integer('process', 0, lower_bound=0, help='With --coordinator: the number of this process.')

  def join(devices: int | None) -> None:
    n, which, several = processes.value, process.value, automatic.value or coordinator.value
    if which >= n:
      raise BadInput(f'--process {which}: expected 0 to {n - 1} of --processes {n}')
    if n > 1 and not several:
      raise BadInput(f'--processes {n}: expected --coordinator or --distributed as well')
    if coordinator.value and not re.fullmatch(r'\S+:\d+', coordinator.value):
      raise BadInput(f'--coordinator {coordinator.value}: expected HOST:PORT')
    distributed.cpu_devices(None if devices is None else max(1, devices // n))
    if several:
      try:
        distributed.join(coordinator.value, n, which)
      except (RuntimeError, ValueError) as error:
        raise BadInput(f'--distributed: the other processes cannot be found ({str(error).splitlines()[0]})') from None

  return join


def run_app(main: Callable) -> None:
  """Run `main` as absl's app.run does. Every expected end of a program is one line.

  Exit codes: 2 for bad input; 1 for a full disk, a full memory or divergence; 130 for Ctrl-C; 0 for SIGTERM.
  """

  def guarded(argv):
    if (kept := _compilation_cache()) is not None:
      compiled.keep(kept)
    try:
      return main(argv)
    except (BadInput, distributed.NotShared) as error:
      sys.exit(_refused(str(error)))
    except Failure as error:
      _refused(str(error))
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(1)  # otherwise library threads that were writing print pages of errors while Python ends
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

  flags.DEFINE_string(
    'compilation_cache',
    None,
    "Directory of compiled programs, 4 GiB at most; '' keeps none. Default: the user's cache.",
  )
  runtime.most_of_the_gpu()
  app.run(guarded, flags_parser=_parse)


def _compilation_cache() -> pathlib.Path | None:
  """The directory of compiled programs that the flag names; None: none is kept."""
  given = flags.FLAGS.compilation_cache
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ and given is None:
    return None  # jax reads it itself
  return compiled.default() if given is None else pathlib.Path(given) if given else None


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(field_flags(argv)[0])
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


# old names of fields, which are refused with the new names; for the release after 0.1
_RENAMED = {
  'config.start': 'config.model',
  'config.data.others': 'config.data.extra_domains',
  'config.rl.group': 'config.rl.num_generations',
  'config.mgpo.kl': 'config.mgpo.kl_coef',
  'config.mgpo.updates': 'config.mgpo.minibatches',
  'config.mgpo.steps': 'config.mgpo.step_penalty',
  'config.grpo_step.group': 'config.grpo_step.num_generations',
  'config.cost.prices': 'config.plan.prices',
  'config.cost.utilization': 'config.plan.utilization',
  'config.cost.response': 'config.plan.response',
  'config.cost.sizes': 'config.plan.sizes',
}


def freeze(kind: type, values: Mapping, where: str = 'config'):
  """An instance of the dataclass `kind` from a mapping.

  The mapping has every field without a default, and only fields of `kind`. Fields that are dataclasses, or tuples of
  dataclasses, are made in the same way. Where a field is a list of texts, one text with commas is such a list.

  Args:
    kind: a dataclass.
    values: the fields by name.
    where: the dotted name of this object, for messages.

  Raises:
    BadInput: names the field and its values (fields.py): "config.sft.save_every: 0, expected a whole number of 1 or
      more".
  """
  declared = {f.name: f for f in dataclasses.fields(kind)}
  if not isinstance(values, Mapping | ConfigDict):
    raise fields.bad_value(where, values, fields.words(kind))
  for name in values:
    if name not in declared and f'{where}.{name}' in _RENAMED:
      raise BadInput(f'{where}.{name}: this field was renamed, expected {_RENAMED[f"{where}.{name}"]}')
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
  """Raises BadInput where a field of a dataclass that `freeze` has not made has a value that it may not have."""
  freeze(type(made), vars(made), where)


def _frozen(kind, value, where: str):
  """The value of a field of type `kind`."""
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
    if isinstance(value, str) and parts == (str, ...):
      value = _parts(value)
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
  """Of several dataclasses the one that has most of the given fields; of equals the one with the fewest fields."""
  given = {*value} if isinstance(value, Mapping | ConfigDict) else set()
  known = lambda kind: {*fields.kinds(kind)}
  return max(kinds, key=lambda kind: (len(given & known(kind)), -len(known(kind))))
