"""The door for configs: an ml_collections ConfigDict stops here and becomes frozen dataclasses."""

import dataclasses
import difflib
import importlib.util
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Mapping

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from vibethinker_jax import cluster, host
from vibethinker_jax.errors import BadInput


def load_config(where: str | pathlib.Path, changes: Mapping[str, object] | None = None) -> dict:
  """The values of a config file, FILE or FILE:PRESET, with changes in them: {'mgpo.lam': 2.0}. Raises BadInput."""
  name, _, preset = str(where).partition(':')
  try:
    spec = importlib.util.spec_from_file_location('config', name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config(*([preset] if preset else [])).to_dict()
  except Exception as error:  # whatever a file may raise that is run as a config
    raise BadInput(f'--config {where}: no config ({type(error).__name__}: {error})') from None
  for path, value in (changes or {}).items():
    part = values
    *parents, last = path.split('.')
    for parent in parents:
      part = part.setdefault(parent, {})
      if not isinstance(part, dict):
        raise BadInput(f'config.{path}: {parent} is a value and has no fields')
    part[last] = value
  return values


def config_flag(default: str | None = None) -> flags.FlagHolder:
  """--config=FILE[:PRESET], and --config.a.b=VALUE for any field.

  Fields that the file leaves at their defaults can be given too: which ones there are is for `freeze` to say.
  """
  return config_flags.DEFINE_config_file('config', default, lock_config=False, accept_new_attributes=True)


def process_flags() -> Callable[[int], None]:
  """The flags by which one of several processes finds the others.

  Returns what joins them, to be called once flags are parsed and before anything that uses jax, with the number of
  devices that the CPUs of all processes are to count as (cluster.cpu_devices).
  """
  distributed = flags.DEFINE_bool('distributed', False, 'One of several processes; jax finds the others.')
  coordinator = flags.DEFINE_string('coordinator', '', 'Where jax cannot find them: the address of the first process,')
  processes = flags.DEFINE_integer('processes', 1, 'how many there are,')
  process = flags.DEFINE_integer('process', 0, 'and which of them this is.')

  def join(devices: int) -> None:
    cluster.cpu_devices(max(1, devices // processes.value))
    if distributed.value or coordinator.value:
      cluster.join(coordinator.value, processes.value, process.value)

  return join


def run_app(main: Callable) -> None:
  """absl's app.run, where every foreseen end is one line: bad input (exit code 2), interruption (130), SIGTERM."""

  def guarded(argv):
    try:
      return main(argv)
    except (BadInput, cluster.NotShared) as error:
      sys.exit(_refused(str(error)))
    except cluster.Stopped as saved:
      print(f'\n{saved}; the same command continues', file=sys.stderr)
    except KeyboardInterrupt:
      print('\ninterrupted; the same command continues', file=sys.stderr)
      sys.exit(130)

  host.most_of_the_gpu()
  app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    why = str(error)
  except (KeyError, AttributeError) as error:  # of a part that the file does not have; the library suggests another
    why = 'config: unknown part ' + error.args[0].strip('"').replace("\\'", "'").replace('\\n', ' ')
  except ValueError as error:  # such as --config.mgpo.lambda=2
    why = f"config: {str(error).split(':')[0]}: no field is called by a word of Python (lambda is called 'lam')"
  sys.exit(_refused(why))


def _refused(why: str) -> int:
  print('error:', ' '.join(why.split()), file=sys.stderr)
  return 2


def freeze(kind: type, values: Mapping, where: str = 'config'):
  """An instance of the dataclass `kind` from a mapping that names every field without a default and no other.

  Fields that are dataclasses are frozen in turn, tuples of dataclasses element by element. Raises BadInput naming the
  field, for example "config.sft: unknown field 'step', expected one of steps, rows, ...".
  """
  fields = {f.name: f for f in dataclasses.fields(kind)}
  if not isinstance(values, Mapping | ConfigDict):
    raise BadInput(f'{where}: expected the fields {", ".join(fields)}, found {values!r}')
  for name in values:
    if name not in fields:
      near = difflib.get_close_matches(name, fields, 1, 0.0)[0]
      raise BadInput(f'{where}: unknown field {name!r}, did you mean {near!r}? Expected one of {", ".join(fields)}')
  kinds = typing.get_type_hints(kind)
  made = {}
  for name, field in fields.items():
    if name in values:
      made[name] = _convert(kinds[name], values[name], f'{where}.{name}')
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise BadInput(f'{where}: field {name!r} is missing')
  return kind(**made)


def _convert(kind, value, where: str):
  if typing.get_origin(kind) is types.UnionType:  # X | None, the only union used
    kind = next(k for k in typing.get_args(kind) if k is not type(None))
    return None if value is None else _convert(kind, value, where)
  if dataclasses.is_dataclass(kind):
    return freeze(kind, value, where)
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, list | tuple):
      raise BadInput(f'{where}: expected a list, found {value!r}')
    element = typing.get_args(kind)[0]
    return tuple(_convert(element, v, f'{where}[{i}]') for i, v in enumerate(value))
  if kind is dict:
    if not isinstance(value, Mapping | ConfigDict):
      raise BadInput(f'{where}: expected names with values, found {value!r}')
    return dict(value)
  if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
    return float(value)
  if type(value) is not kind:
    wanted = {float: 'a number', int: 'a whole number', str: 'a text', bool: 'true or false'}[kind]
    raise BadInput(f'{where}: expected {wanted}, found {value!r}')
  return value
