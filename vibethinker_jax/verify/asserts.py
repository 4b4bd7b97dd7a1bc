"""The test runner: it runs setup and asserts in one process, while the program that they test runs in another.

An assert that runs in the process of the code under test can always be forged: the code may redefine what the assert
calls, write the verdict itself, or look up the expected value. So setup and asserts run here. A function of the program
is called over an RPC channel (channel.py): arguments go out, results come back as plain values, and they are compared
here with values that the program has never seen. What the program sends is data, never a verdict.

An object that is no plain value stays in its process; a `Remote` stands for it here. Of the tests' objects, the program
reaches only those that a test hands over, by the public names of their attributes and by their operators. A Remote is
never equal to a plain value and is not ordered relative to one, since an object of the program could answer as it
likes. An operator between a Remote and a number or text may give another object of the program, but never a plain
value: whether `abs(f(1) - 0.1) < 1e-6` holds is not for f to decide. Nor can a context manager of the program swallow a
failed assert.

These names in the tests belong to the program: its entry point, and every name that setup does not define, with two
exceptions. A module of the standard library of which the tests only use attributes (`math.isclose(...)`) belongs to the
tests. A built-in is the built-in, unless the tests name nothing else (`assert sum(10, 15) == 6`).

These limits remain. A helper that the tests take from the program (HumanEval's `poly`) returns what the program wants,
unless setup defines it; so does a method of the program's object that is given the expected value. Tests cannot derive
from the program's classes, `x in obj` compares the object's items, and what the program prints stays on its side.

Standard library only: the sandbox imports this file before it gives up its access to files.
"""

import ast
import builtins
import importlib
import socket
import sys
import types
from collections.abc import Callable, Iterator

from vibethinker_jax.verify import program
from vibethinker_jax.verify.channel import Channel
from vibethinker_jax.verify.remote import ATTRIBUTES, IN_PLACE, ORDER, PROTOCOL, Container, Remote, plain
from vibethinker_jax.verify.values import Foreign, Gone

CONTEST = 'Solution'  # the entry point of a LeetCode problem, as LiveCodeBench has them
_MODULE = 'tests'  # the name of the module that setup and asserts run in
_OPERANDS = {int, float, complex, str}
_AHEAD = 1000  # items of an iterator that are sent before they are asked for


class NotAllowed(TypeError, AttributeError):
  """The program asked for something that it may not have."""


class Handed(Remote):
  # An object of the program that an operator made from another one and a plain value of the tests.

  __slots__ = ()


def _refuse(name: str) -> Callable:
  def method(self, *arguments):
    raise TypeError(f'{name}() of an object of the program that was made with a value of the tests proves nothing')

  return method


for _name in ('abs', 'int', 'float', 'complex', 'index', 'round', 'trunc', 'floor', 'ceil', 'bool', 'len'):
  setattr(Handed, f'__{_name}__', _refuse(_name))


class AssertChannel(Channel):
  """The test runner's end of the channel. The program gets what the tests hand over, and nothing else."""

  def __init__(self, end: socket.socket):
    super().__init__(end)
    self._last: dict[str, set[int]] = {}  # file -> lines after which their `with` has nothing left to do

  # ---- ops that the program is asked for

  def equal(self, remote: Remote, other) -> bool:
    if isinstance(other, Foreign):
      return self.ask('eq', remote, other) is True
    return isinstance(remote, Container) and plain(remote) == other

  def operate(self, name: str, left, right):
    theirs = isinstance(left, Foreign) and isinstance(right, Foreign)
    contained = isinstance(left, Container) or isinstance(right, Container)
    if not theirs and contained and name not in IN_PLACE:
      left, right = (plain(value) if isinstance(value, Container) else value for value in (left, right))
      return PROTOCOL[name](left, right)
    if not theirs and not contained and (name in ORDER or not {type(left), type(right)} & _OPERANDS):
      return NotImplemented
    value = self.ask(name, left, right)
    handed = not theirs or isinstance(left, Handed) or isinstance(right, Handed)
    if (value is left and name in IN_PLACE) or name in ORDER or not handed:
      return value
    if not isinstance(value, Remote):
      raise TypeError(f'{name} of an object of the program and a value of the tests must give such an object')
    return Handed(self, self.number(value))

  def leave(self, manager: Remote, error: BaseException | None) -> bool:
    """Whether the manager swallows the exception: only where the last line of the block raised it, not an assert."""
    if isinstance(error, AssertionError):
      return False
    swallowed = super().leave(manager, error)
    trace = error.__traceback__ if error is not None else None
    last = self._last.get(trace.tb_frame.f_code.co_filename, set()) if trace is not None else set()
    return swallowed and trace is not None and trace.tb_next is None and trace.tb_lineno in last

  def raised(self, op: str, error: BaseException) -> BaseException:
    # A function that raises StopIteration would end the loop that calls it, and the asserts in the loop.
    if isinstance(error, StopIteration | StopAsyncIteration) and op not in ('next', 'await', 'anext'):
      return RuntimeError(f'the program raised {type(error).__name__}')
    return error

  # ---- ops that the program may ask for

  def encode(self, value) -> object:
    if issubclass(type(value), Iterator) and not isinstance(value, Foreign):
      return self._iterator(value)
    return super().encode(value)

  def _iterator(self, value: Iterator) -> list:
    ahead = []
    for item in value:
      ahead.append(item)
      if len(ahead) == _AHEAD:
        return ['iterator', self._items(ahead), self.lend(value)]
    return ['iterator', self._items(ahead), None]

  def lend(self, value, kind: str = '') -> list:
    kinds = Iterator | types.CoroutineType | BaseException
    if callable(value) or _own(value) or issubclass(type(value), kinds):
      return super().lend(value, kind)
    raise TypeError(f'the tests hand over a {type(value).__name__}, which cannot be sent to the program')

  def do(self, op: str, *arguments):
    # Allowed are objects of the tests' own classes, by public names: dunders, frames and globals are out of reach.
    own = [_own(argument) for argument in arguments]
    if op in ATTRIBUTES:
      allowed = own[0] and not str(arguments[1]).startswith('_')
      allowed |= op == 'getattr' and callable(arguments[0]) and arguments[1] in ('__name__', '__qualname__')
    elif op in ('doc', 'repr', 'str', 'hash'):
      allowed = own[0] or callable(arguments[0])
    elif op in ('next', 'iter'):
      allowed = own[0] or issubclass(type(arguments[0]), Iterator)
    elif op == 'await':
      allowed = isinstance(arguments[0], types.CoroutineType)
    else:
      allowed = any(own) and op in PROTOCOL
    if not allowed:
      raise NotAllowed(f'{op} is not for the program to ask')
    return super().do(op, *arguments)

  # ---- setup and asserts

  def run(self, code: str, file: str, names: dict) -> None:
    """Executes a text of the tests in the namespace `names`; `file` is its name in tracebacks."""
    tree = ast.parse(code)
    blocks = [node.body[-1] for node in ast.walk(tree) if isinstance(node, ast.With | ast.AsyncWith)]
    lines = [range(s.lineno, s.end_lineno + 1) for s in blocks if isinstance(s, ast.Raise | ast.Expr)]
    self._last[file] = {line for span in lines for line in span}
    program.execute(code, file, names)


def _own(value) -> bool:
  """Whether a value is a class that the tests define, or an object of one."""
  kind = value if isinstance(value, type) else type(value)
  return kind.__module__ == _MODULE


def names_of_the_program(setup: str, asserts: list[str], entry_point: str | None) -> list[str]:
  """The names in the tests that are looked up in the program, by the rules at the top of this file.

  A text that does not parse has no names: running it will say why.
  """
  loaded: dict[str, bool] = {}  # name -> whether the tests only use attributes of it
  bound: set[str] = set()
  for nodes in _parsed(setup, asserts):
    reached = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
      if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        loaded[node.id] = loaded.get(node.id, True) and id(node) in reached
      elif isinstance(node, ast.Name):
        bound.add(node.id)
      elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        bound.add(node.name)
      elif isinstance(node, ast.arg):
        bound.add(node.arg)
      elif isinstance(node, ast.alias):
        bound.add((node.asname or node.name).split('.')[0])
      elif isinstance(node, ast.ExceptHandler) and node.name:
        bound.add(node.name)
  own = lambda name: name in sys.stdlib_module_names and loaded[name]
  free = [name for name in loaded if name not in bound and not own(name)]
  theirs = [name for name in free if name not in vars(builtins)]
  if entry_point is not None:
    return list(dict.fromkeys([entry_point, *theirs]))
  return theirs or free


def _parsed(setup: str, asserts: list[str]) -> list[list[ast.AST]]:
  """The nodes of each text that parses."""
  out = []
  for text in (setup, *asserts):
    try:
      out.append(list(ast.walk(ast.parse(text))))
    except (SyntaxError, ValueError, RecursionError):
      continue
  return out


class _Instance(Remote):
  # The class of a LeetCode problem. LiveCodeBench makes one instance of it for all calls.

  __slots__ = ('_made_',)

  def __call__(self, *arguments, **named):
    if arguments or named:
      return super().__call__(*arguments, **named)
    return self._made_


def _one_instance(channel: AssertChannel, kind: Remote) -> Remote:
  once = _Instance(channel, channel.number(kind))
  object.__setattr__(once, '_made_', kind())
  return once


def run_tests(end: socket.socket, tests: dict, tick: Callable[[], None]) -> dict:
  """Runs the tests against the program at the other end of a channel.

  Args:
    end: the socket.
    tests: {'entry_point', 'setup', 'asserts'}, as in code.py.
    tick: called before each assert.

  Returns:
    {'passed': bool, 'reason': text}; the reason is 'gone' if the program broke the channel.
  """
  channel, stage = AssertChannel(end), 0
  module = types.ModuleType(_MODULE)
  sys.modules[_MODULE] = module
  names, entry = module.__dict__, tests['entry_point']
  try:
    kind, *said = channel.receive()
    if kind != 'ready':
      return {'passed': False, 'reason': str(said[0])[:400] if kind == 'failed' and said else 'gone'}
    reached = {
      node.value.id
      for nodes in _parsed(tests['setup'], tests['asserts'])
      for node in nodes
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for name in sys.stdlib_module_names & reached:
      names[name] = importlib.import_module(name)
    for name in names_of_the_program(tests['setup'], tests['asserts'], entry):
      try:
        names[name] = channel.ask('name', name)
      except NameError:
        if name == entry:
          raise NameError(f'the entry point {entry!r} is not defined') from None
    if entry is not None and not callable(names[entry]):
      raise NameError(f'the entry point {entry!r} is not defined')
    if entry == CONTEST and isinstance(names[entry], Remote):
      names[entry] = _one_instance(channel, names[entry])
    channel.run(tests['setup'], 'setup.py', names)
    for stage, text in enumerate(tests['asserts'], 1):
      tick()
      channel.run(text, f'test {stage}', names)
  except Gone:
    return {'passed': False, 'reason': 'gone'}
  except AssertionError as error:
    return {'passed': False, 'reason': f'test {stage} failed' if stage else program.what(error)}
  except BaseException as error:
    return {'passed': False, 'reason': program.what(error) + (f' (test {stage})' if stage else '')}
  return {'passed': True, 'reason': 'passed'}
