"""Inside the sandbox: an ordinary interpreter for a program, from its first line to the last flush.

A program is run in a fork of a process that has long been up, so what Python does at its start and its end is done
here: standard streams, `exit` and `__file__`, a `__main__` of its own; then threads waited for, `atexit`, what is still
buffered written, and what the module holds let go of. A program that ends in an exception, or with an exit status other
than 0, has failed, whatever it printed.

Programs of contests are run as LiveCodeBench runs them (`contest`): with its imports before their first line and
its recursion limit. A built-in is not hidden by a name of these imports.

A program whose functions are tested answers calls instead (`offer`), from a process that knows nothing of the tests.

Standard library only.
"""

import atexit
import builtins
import contextlib
import gc
import importlib
import os
import site
import socket
import sys
import types
from collections.abc import Iterable

from vibethinker_jax.verify.channel import Channel

_RECURSION = 50_000  # LiveCodeBench's
# Of these LiveCodeBench imports every public name, in this order, then the modules themselves; and sys (`namespace`).
_STARRED = (
  'string', 're', 'datetime', 'collections', 'heapq', 'bisect', 'copy', 'math', 'random', 'statistics', 'itertools',
  'functools', 'operator', 'io', 'json', 'typing',
)  # fmt: skip
_MODULES = (
  'string', 're', 'datetime', 'collections', 'heapq', 'bisect', 'copy', 'math', 'random', 'statistics', 'itertools',
  'functools', 'operator', 'io', 'sys', 'json',
)  # fmt: skip
_LOOKS = {'eval', 'exec', 'globals', 'locals', 'vars', 'dir'}  # they reach names that the program does not spell
_CONTEST: dict[str, object] = {}
_HOOKS: list[dict] = []


def prepare() -> None:
  """What is done once, in the process that programs are forked from."""
  for add in (site.setquit, site.setcopyright, site.sethelper):
    add()
  # random draws a new seed after every fork, which takes half as long as the fork itself. Here every program begins
  # with the same numbers, as with the same hashes; the processes that it forks itself draw theirs (`namespace`).
  register, os.register_at_fork = os.register_at_fork, lambda **hooks: _HOOKS.append(hooks)
  try:
    modules = {name: importlib.import_module(name) for name in (*_STARRED, *_MODULES)}
  finally:
    os.register_at_fork = register
  for name in _STARRED:
    _CONTEST.update(_public(modules[name]))
  _CONTEST.update((name, modules[name]) for name in _MODULES)
  for name in vars(builtins):
    _CONTEST.pop(name, None)
  gc.collect()
  gc.freeze()  # a program's collections then pass over what was here before it


def _public(module: types.ModuleType) -> dict[str, object]:
  names: Iterable[str] = vars(module).get('__all__') or [name for name in vars(module) if not name.startswith('_')]
  return {name: getattr(module, name) for name in names}


def open_streams() -> None:
  """stdin, stdout and stderr as Python makes them, of the files 0, 1 and 2."""
  for name, fd, mode, errors in (
    ('stdin', 0, 'r', 'surrogateescape'),
    ('stdout', 1, 'w', 'surrogateescape'),
    ('stderr', 2, 'w', 'backslashreplace'),
  ):
    stream = open(fd, mode, encoding='utf-8', errors=errors, closefd=False)  # noqa: SIM115
    stream.reconfigure(line_buffering=fd == 2)
    stream.buffer.raw.name = f'<{name}>'
    stream.mode = mode
    setattr(sys, name, stream)
    setattr(sys, f'__{name}__', stream)


def namespace(name: str, file: str) -> dict[str, object]:
  """The names of a fresh module `name` that stands in `file`."""
  sys.argv, sys.orig_argv = [os.path.basename(file)], []
  sys.path.insert(0, os.path.dirname(file))
  for hooks in _HOOKS:
    os.register_at_fork(**hooks)
  module = types.ModuleType(name)
  sys.modules[name] = module  # dataclasses and pickle look their module up
  names = module.__dict__
  names['__file__'], names['__builtins__'] = file, builtins
  return names


def execute(code: str, file: str, names: dict) -> None:
  """Executes `code` in the namespace `names`."""
  exec(compile(code, file, 'exec', dont_inherit=True), names)


def enter(code: str, file: str, names: dict) -> None:
  """Executes the program of a contest."""
  compiled = compile(code, file, 'exec', dont_inherit=True)
  sys.setrecursionlimit(_RECURSION)
  used = _used(compiled)
  if used & _LOOKS:
    used |= _CONTEST.keys() | _public(sys).keys()
  # Only what it names: to touch everything would copy the pages of memory that all of it lies in.
  for name in used:
    if name in _CONTEST:
      names[name] = _CONTEST[name]
    elif name in vars(sys) and not name.startswith('_') and name not in vars(builtins):
      names[name] = vars(sys)[name]
  exec(compiled, names)


def _used(code: types.CodeType) -> set[str]:
  """Every name in a piece of code that it does not bind as a local one."""
  names = set(code.co_names)
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      names |= _used(constant)
  return names


def what(error: BaseException) -> str:
  """One line about an exception."""
  try:
    return f'error: {type(error).__name__}: {error}'[:300].replace('\n', ' ')
  except BaseException:
    return 'error: an exception that cannot be printed'


def run(code: str, file: str, report: int) -> None:
  """Runs a program that reads stdin and prints, and ends this process. An exception is told to the file `report`."""
  leave, write = os._exit, os.write
  try:
    try:
      enter(code, file, namespace('__main__', file))
    except SystemExit as error:
      status = error.code if isinstance(error.code, int) else int(error.code is not None)
      if status & 0xFF:
        raise
    _shut_down()
  except BaseException as error:
    write(report, what(error).encode('utf-8', 'replace'))
    leave(1)
  leave(0)


def _shut_down() -> None:
  """What Python does at the end of a program, in its order; like Python it lets nothing that fails here out."""
  if (threading := sys.modules.get('threading')) is not None:
    with contextlib.suppress(Exception):
      threading._shutdown()
  atexit._run_exitfuncs()
  _flush(sys.stdout)
  sys.modules.pop('__main__', None)
  gc.collect()  # finalizers run, and files that were left open are written
  _flush(sys.__stdout__)


def _flush(stream) -> None:
  with contextlib.suppress(Exception):  # whatever the program has put in its place
    stream.flush()


class ProgramChannel(Channel):
  """The end in the program's process: gives out the names of its module, and whatever those lead to."""

  def __init__(self, end: socket.socket, names: dict):
    super().__init__(end)
    self._names = names

  def do(self, what: str, *arguments):
    if what != 'name':
      return super().do(what, *arguments)
    if arguments[0] not in self._names:
      raise NameError(f'name {arguments[0]!r} is not defined')
    return self._names[arguments[0]]

  def hand_out(self, value: list | dict | set) -> object:
    return self.lend(value, type(value).__name__)

  def serve(self) -> None:
    """Answers until the other side hangs up."""
    self.send(['ready'])
    while True:
      what, *arguments = self.receive()
      self.answer(what, arguments)


def offer(code: str, file: str, fd: int, contest: str | None) -> None:
  """Runs the code, then answers the tests' questions at the socket `fd`, and ends this process.

  contest: the name of the class whose methods a contest calls; without it the functions of the program stand for
  its methods. None for other programs. What goes wrong here only ever hurts the program.
  """
  names = namespace('solution', file)
  channel = ProgramChannel(socket.socket(fileno=fd), names)
  try:
    (execute if contest is None else enter)(code, file, names)
  except BaseException as error:
    channel.send(['failed', what(error)])
    os._exit(1)
  if contest is not None and contest not in names:
    own = {name: value for name, value in names.items() if _CONTEST.get(name) is not value}
    names[contest] = type(contest, (), {name: staticmethod(value) for name, value in own.items() if callable(value)})
  try:
    channel.serve()
  finally:
    os._exit(0)
