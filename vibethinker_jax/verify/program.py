"""In the test process: runs the code under test as an ordinary interpreter would, from its first line to the last
flush.

The code runs in a fork of a process that is already up, so this file does what Python does at the start and at the end
of a program. At the start: standard streams, `exit`, `__file__`, and a `__main__` of its own. At the end: it waits for
threads, runs `atexit`, writes what is buffered, and releases what the module holds. A program that ends with an
exception, or with an exit status other than 0, has failed, whatever it printed.

Programs of contests run as LiveCodeBench runs them (`enter`): with its imports before their first line, and with its
recursion limit. No name of these imports hides a built-in.

Code whose functions are tested answers requests after its last line (`offer`). Its process knows nothing of the tests.

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
# LiveCodeBench imports every public name of these modules, in this order, then the modules, and the names of sys.
_STARRED = (
  'string', 're', 'datetime', 'collections', 'heapq', 'bisect', 'copy', 'math', 'random', 'statistics', 'itertools',
  'functools', 'operator', 'io', 'json', 'typing',
)  # fmt: skip
_MODULES = (
  'string', 're', 'datetime', 'collections', 'heapq', 'bisect', 'copy', 'math', 'random', 'statistics', 'itertools',
  'functools', 'operator', 'io', 'sys', 'json',
)  # fmt: skip
_LOOKS = {'eval', 'exec', 'globals', 'locals', 'vars', 'dir'}  # they reach names that are not in the code's text
_CONTEST: dict[str, object] = {}
_HOOKS: list[dict] = []


def prepare() -> None:
  """Prepares the process from which programs are forked. Called once."""
  for add in (site.setquit, site.setcopyright, site.sethelper):
    add()
  # random draws a new seed after every fork, which takes half as long as the fork itself. Here every program starts
  # with the same random numbers, as with the same hashes; the processes that it forks draw new ones (`namespace`).
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
  gc.freeze()  # the garbage collections of a program then skip what was here before it


def _public(module: types.ModuleType) -> dict[str, object]:
  names: Iterable[str] = vars(module).get('__all__') or [name for name in vars(module) if not name.startswith('_')]
  return {name: getattr(module, name) for name in names}


def open_streams() -> None:
  """Makes stdin, stdout and stderr of the files 0, 1 and 2, as Python does."""
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
  """The namespace of a new module `name` whose source is `file`."""
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
  """Executes the program of a contest in the namespace `names`."""
  compiled = compile(code, file, 'exec', dont_inherit=True)
  sys.setrecursionlimit(_RECURSION)
  used = _used(compiled)
  if used & _LOOKS:
    used |= _CONTEST.keys() | _public(sys).keys()
  # Only the names that it uses: touching all objects would copy the pages of memory that hold them.
  for name in used:
    if name in _CONTEST:
      names[name] = _CONTEST[name]
    elif name in vars(sys) and not name.startswith('_') and name not in vars(builtins):
      names[name] = vars(sys)[name]
  exec(compiled, names)


def _used(code: types.CodeType) -> set[str]:
  """The names in a piece of code that are not local variables."""
  names = set(code.co_names)
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      names |= _used(constant)
  return names


def what(error: BaseException) -> str:
  """One line that describes an exception."""
  try:
    return f'error: {type(error).__name__}: {error}'[:300].replace('\n', ' ')
  except BaseException:
    return 'error: an exception that cannot be printed'


def run(code: str, file: str, report: int) -> None:
  """Runs a program that reads stdin and prints, and ends this process. It writes an exception to the file `report`."""
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
  """Does what Python does at the end of a program, in the same order; like Python it ignores what fails here."""
  if (threading := sys.modules.get('threading')) is not None:
    with contextlib.suppress(Exception):
      threading._shutdown()
  atexit._run_exitfuncs()
  _flush(sys.stdout)
  sys.modules.pop('__main__', None)
  gc.collect()  # finalizers run, and files that were left open are written
  _flush(sys.__stdout__)


def _flush(stream) -> None:
  with contextlib.suppress(Exception):  # the program may have put anything in its place
    stream.flush()


class ProgramChannel(Channel):
  """The program's end of the channel: gives out the names of its module, and whatever they lead to."""

  def __init__(self, end: socket.socket, names: dict):
    super().__init__(end)
    self._names = names

  def do(self, op: str, *arguments):
    if op != 'name':
      return super().do(op, *arguments)
    if arguments[0] not in self._names:
      raise NameError(f'name {arguments[0]!r} is not defined')
    return self._names[arguments[0]]

  def hand_out(self, value: list | dict | set) -> object:
    return self.lend(value, type(value).__name__)

  def serve(self) -> None:
    """Answers requests until the other side closes the channel, which raises Gone."""
    self.send(['ready'])
    while True:
      op, *arguments = self.receive()
      self.answer(op, arguments)


def offer(code: str, file: str, fd: int, contest: str | None) -> None:
  """Runs the code, then answers the requests of the tests, and ends this process.

  Args:
    code: the text of the program.
    file: its name.
    fd: the socket to the test runner.
    contest: the name of the class whose methods a contest calls; None for other programs. A program without this class
      gets one with its functions as methods.

  Whatever fails here counts against the program only.
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
