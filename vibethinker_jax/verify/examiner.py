"""Tests in one process, the code they test in another: what the code says is data, never a verdict.

An assert that runs in the process of the code under test can always be fooled: the code may redefine what the assert
calls, write the verdict itself, or look up the expected value. So the examiner runs setup and asserts in a process of
its own, and a name of the program stands there for a call over a socket. Arguments go out, results come back as plain
data (numbers, texts, lists, dicts, ...) and are compared on the examiner's side with values the program has never seen.

What is no plain data stays where it is and is spoken of by number: a `Remote` here is an object there. Nothing the
program says is run: no pickle, no code, and of the examiner's own objects the program reaches those a test hands it,
by the public names of their attributes. A Remote is never equal to a plain value, has no order and no arithmetic with
one, for an object of the program could answer as it likes.

Which names of the tests are the program's: its entry point, and every name that setup does not define, with two
exceptions. A module of the standard library that the tests only reach into (`math.isclose(...)`) is the examiner's own.
A built-in is the built-in, unless the tests name nothing else (`assert sum(10, 15) == 6`).

What remains: a helper that the tests take from the program (HumanEval's `poly`) says what the program wants, unless
setup defines it; so does a method of an object of the program's that is handed the expected value. Tests cannot derive
from the program's classes or catch its exceptions by name, and what the program prints stays on its side.

Standard library only, for the sandbox (sandbox.py) imports this file before it closes its doors.
"""

import ast
import builtins
import importlib
import json
import socket
import sys
import types
from collections.abc import Callable, Iterator

_FRAME = 1 << 24  # bytes of a message at most

# Types whose values cross as the arguments that make them.
_VALUES: dict[tuple[str, str], Callable[[object], tuple]] = {
  ('fractions', 'Fraction'): lambda v: (v.numerator, v.denominator),
  ('decimal', 'Decimal'): lambda v: (str(v),),
  ('collections', 'deque'): lambda v: (list(v), v.maxlen),
  ('datetime', 'date'): lambda v: (v.year, v.month, v.day),
  ('datetime', 'time'): lambda v: (v.hour, v.minute, v.second, v.microsecond),
  ('datetime', 'datetime'): lambda v: (v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond),
  ('datetime', 'timedelta'): lambda v: (v.days, v.seconds, v.microseconds),
}
_SHOWS = {'antigravity', 'this'}  # modules that do something when imported
_MUTABLE = (list, dict, set, bytearray)


class Gone(Exception):
  """The other side closed the line, or does not keep to its grammar."""


class Remote:
  """An object of the other side."""

  __slots__ = ('_line', '_number')

  def __init__(self, line: 'Line', number: int):
    object.__setattr__(self, '_line', line)
    object.__setattr__(self, '_number', number)

  def __getattr__(self, name):
    return self._line.ask('getattr', self, name)

  def __setattr__(self, name, value):
    self._line.ask('setattr', self, name, value)

  def __call__(self, *args, **named):
    return self._line.call(self, args, named)

  def __eq__(self, other):
    return isinstance(other, Remote) and self._line.ask('eq', self, other) is True

  def __hash__(self):
    return hash(self._number)

  def __instancecheck__(self, instance):
    return isinstance(instance, Remote) and self._line.ask('isinstance', instance, self) is True

  def __next__(self):
    return self._line.ask('next', self)

  def __iter__(self):
    return self._line.ask('iter', self)

  def __len__(self):
    return self._line.ask('len', self)

  def __bool__(self):
    return self._line.ask('bool', self)

  def __str__(self):
    return self._line.ask('str', self)

  def __repr__(self):
    return self._line.ask('repr', self)

  def __getitem__(self, key):
    return self._line.ask('getitem', self, key)

  def __setitem__(self, key, value):
    self._line.ask('setitem', self, key, value)

  def __delitem__(self, key):
    self._line.ask('delitem', self, key)

  def _both(self, sign: str, other):
    return self._line.ask(sign, self, other) if isinstance(other, Remote) else NotImplemented

  def __add__(self, other):
    return self._both('add', other)

  def __sub__(self, other):
    return self._both('sub', other)

  def __mul__(self, other):
    return self._both('mul', other)

  def __lt__(self, other):
    return self._both('lt', other)

  def __le__(self, other):
    return self._both('le', other)


# What one side may ask of an object of the other.
_DEEDS: dict[str, Callable] = {
  'getattr': getattr,
  'setattr': setattr,
  'eq': lambda a, b: a == b,
  'isinstance': isinstance,
  'next': next,
  'iter': iter,
  'len': len,
  'bool': bool,
  'str': str,
  'repr': repr,
  'getitem': lambda a, key: a[key],
  'setitem': lambda a, key, value: a.__setitem__(key, value),
  'delitem': lambda a, key: a.__delitem__(key),
  'add': lambda a, b: a + b,
  'sub': lambda a, b: a - b,
  'mul': lambda a, b: a * b,
  'lt': lambda a, b: a < b,
  'le': lambda a, b: a <= b,
}


class Line:
  """One end of the socket between tests and program. Questions may be nested: an answer may take a question back."""

  def __init__(self, end: socket.socket):
    self._end = end
    self._lent: list[object] = []  # own objects the other side knows by number
    self._numbers: dict[int, int] = {}

  # ---- messages

  def send(self, message: list) -> None:
    """One message. Raises Gone."""
    data = json.dumps(message).encode()
    if len(data) > _FRAME:
      raise ValueError(f'a value of {len(data)} bytes is too large to be compared')
    try:
      self._end.sendall(len(data).to_bytes(4, 'big') + data)
    except OSError:
      raise Gone from None

  def receive(self) -> list:
    """The next message. Raises Gone."""
    size = int.from_bytes(self._exactly(4), 'big')
    if size > _FRAME:
      raise Gone
    try:
      message = json.loads(self._exactly(size))
    except (ValueError, RecursionError):
      raise Gone from None
    if not isinstance(message, list) or not message:
      raise Gone
    return message

  def _exactly(self, n: int) -> bytes:
    parts = []
    while n:
      try:
        part = self._end.recv(min(n, 1 << 16))
      except OSError:
        part = b''
      if not part:
        raise Gone
      parts.append(part)
      n -= len(part)
    return b''.join(parts)

  # ---- questions

  def ask(self, deed: str, *args):
    """What the other side answers. Raises what it raised, or Gone."""
    value, _ = self._ask([deed, *map(self.encode, args)])
    return value

  def call(self, function: Remote, args: tuple, named: dict):
    """The other side's function, called. Lists, dicts and sets it changed are changed here too."""
    value, changed = self._ask(['call', self.encode(function), self.encode(args), self.encode(named)])
    for place, now in changed:
      if type(place) is int and 0 <= place < len(args) and type(args[place]) is type(now) in _MUTABLE:
        args[place].clear()
        (args[place].extend if isinstance(now, list | bytearray) else args[place].update)(now)
    return value

  def _ask(self, question: list) -> tuple[object, list]:
    self.send(question)
    while True:
      kind, *rest = self.receive()
      if kind == 'is' and len(rest) == 2 and isinstance(rest[1], list):
        return self.decode(rest[0]), [(place, self.decode(now)) for place, now in rest[1]]
      if kind == 'raised' and len(rest) == 2 and all(isinstance(part, str) for part in rest):
        raise _error(*rest)
      self.answer(kind, rest)

  def answer(self, deed: str, args: list) -> None:
    """Do what the other side asks and say what came of it. Raises Gone."""
    try:
      changed = []
      if deed == 'call':
        if args[0][0] != 'yours':  # only what this side lent
          raise Gone
        function, args, named = map(self.decode, args)
        before = [self.encode(arg) if type(arg) in _MUTABLE else None for arg in args]
        value = function(*args, **named)
        after = [self.encode(arg) if type(arg) in _MUTABLE else None for arg in args]
        changed = [[place, now] for place, (was, now) in enumerate(zip(before, after)) if was != now]
      else:
        value = self.do(deed, *map(self.decode, args))
      reply = ['is', self.encode(value), changed]
      self.send(reply)
    except Gone:
      raise
    except BaseException as error:
      self.send(['raised', type(error).__name__, _text(error)])

  def do(self, deed: str, *args):
    """A deed other than a call."""
    return _DEEDS[deed](*args)

  # ---- values

  def encode(self, value) -> object:
    """A value as JSON: plain ones as they are or as [tag, ...], all others as the number of an object."""
    if value is None or value is True or value is False:
      return value
    if isinstance(value, str):
      return str.__str__(value)
    if isinstance(value, int):
      value = int.__int__(value)
      return value if -(1 << 60) < value < 1 << 60 else ['int', hex(value)]
    if isinstance(value, float):
      return float.__float__(value)
    if isinstance(value, Remote):
      return ['yours', object.__getattribute__(value, '_number')]
    for kind, tag in ((list, 'list'), (tuple, 'tuple'), (set, 'set'), (frozenset, 'frozenset')):
      if isinstance(value, kind):
        return [tag, [self.encode(item) for item in kind.__iter__(value)]]
    if isinstance(value, dict):
      return ['dict', [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]]
    if isinstance(value, bytes | bytearray):
      return [type(value).__name__, value.hex()]
    if isinstance(value, complex):
      return ['complex', value.real, value.imag]
    if isinstance(value, range):
      return ['range', *map(self.encode, (value.start, value.stop, value.step))]
    if isinstance(value, types.ModuleType):
      return ['module', value.__name__]
    if isinstance(value, type) and vars(builtins).get(value.__name__) is value:
      return ['type', value.__name__]
    made_of = _VALUES.get((type(value).__module__, type(value).__name__))
    if made_of is not None:
      return ['value', type(value).__module__, type(value).__name__, [self.encode(part) for part in made_of(value)]]
    return self.lend(value)

  def lend(self, value) -> list:
    """An object of this side, by number."""
    if id(value) not in self._numbers:
      self._numbers[id(value)] = len(self._lent)
      self._lent.append(value)
    return ['mine', self._numbers[id(value)]]

  def decode(self, data) -> object:
    """A value from JSON. Raises Gone for what `encode` never makes."""
    if not isinstance(data, list):
      if isinstance(data, dict):
        raise Gone
      return data
    try:
      tag, *rest = data
      if tag in ('list', 'tuple', 'set', 'frozenset', 'iterator'):
        kind = {'list': list, 'tuple': tuple, 'set': set, 'frozenset': frozenset, 'iterator': iter}[tag]
        return kind([self.decode(item) for item in rest[0]])
      if tag == 'dict':
        return {self.decode(key): self.decode(item) for key, item in rest[0]}
      if tag == 'int':
        return int(rest[0], 16)
      if tag in ('bytes', 'bytearray'):
        return {'bytes': bytes, 'bytearray': bytearray}[tag].fromhex(rest[0])
      if tag == 'complex':
        return complex(float(rest[0]), float(rest[1]))
      if tag == 'range':
        return range(*map(self.decode, rest))
      if tag == 'module' and rest[0] in sys.stdlib_module_names - _SHOWS:
        return importlib.import_module(rest[0])
      if tag == 'type' and isinstance(vars(builtins)[rest[0]], type):
        return vars(builtins)[rest[0]]
      if tag == 'value' and (rest[0], rest[1]) in _VALUES:
        return vars(importlib.import_module(rest[0]))[rest[1]](*map(self.decode, rest[2]))
      if tag == 'mine':
        return Remote(self, int(rest[0]))
      if tag == 'yours':
        return self._lent[rest[0]]
    except (TypeError, ValueError, LookupError, ImportError, RecursionError, ArithmeticError):
      pass
    raise Gone


def _text(error: BaseException) -> str:
  try:
    return str(error)[:300]
  except BaseException:  # an exception class may say anything in its __str__, or refuse to
    return 'an exception that cannot be printed'


def _error(name: str, text: str) -> Exception:
  """The exception of that name if it is a built-in one that tests may want to catch."""
  kind = vars(builtins).get(name)
  if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
    return kind(text)
  return type(name, (RuntimeError,), {})(text)


# ---- the program's side


def _no_name(name: str):
  raise NameError(f'name {name!r} is not defined')


class Program(Line):
  """The end in the program's process: gives out the names of its module."""

  def __init__(self, end: socket.socket, names: dict):
    super().__init__(end)
    self._names = names

  def do(self, deed: str, *args):
    if deed == 'name':
      return self._names[args[0]] if args[0] in self._names else _no_name(args[0])
    return super().do(deed, *args)

  def serve(self) -> None:
    """Answers until the examiner hangs up."""
    self.send(['ready'])
    while True:
      deed, *args = self.receive()
      self.answer(deed, args)


# ---- the examiner's side


class Examiner(Line):
  """The end in the tests' process. The program is given what tests hand it and gets no further than that."""

  def encode(self, value) -> object:
    if isinstance(value, Iterator) and not isinstance(value, Remote):
      return ['iterator', [self.encode(item) for item in value]]
    return super().encode(value)

  def lend(self, value) -> list:
    if callable(value) or type(value).__module__ == 'tests':
      return super().lend(value)
    raise TypeError(f'the tests hand over a {type(value).__name__}, which cannot be sent to the program')

  def do(self, deed: str, *args):
    # Objects of the tests' own classes, by public names: dunders, frames and globals are out of reach.
    if deed in ('getattr', 'setattr') and type(args[0]).__module__ == 'tests' and not str(args[1]).startswith('_'):
      return super().do(deed, *args)
    raise TypeError(f'{deed} is not for the program to ask')


def names_of_the_program(setup: str, asserts: list[str], entry_point: str | None) -> list[str]:
  """The names in the tests that are looked up in the program, by the rules at the top of this file.

  A text that does not parse has none: running it will say why.
  """
  loaded: dict[str, bool] = {}  # name -> whether the tests only reach into it
  bound: set[str] = set()
  for text in (setup, *asserts):
    try:
      tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
      continue
    reached = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
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
  own = lambda name: name in sys.stdlib_module_names and loaded[name]
  free = [name for name in loaded if name not in bound and not own(name)]
  theirs = [name for name in free if name not in vars(builtins)]
  if entry_point is not None:
    return list(dict.fromkeys([entry_point, *theirs]))
  return theirs or free


def examine(end: socket.socket, tests: dict) -> dict:
  """Runs the tests against the program at the other end. Returns {'passed': bool, 'reason': text}.

  tests: {'entry_point', 'setup', 'asserts'}, see code.py. Reason 'gone' where the program broke the line.
  """
  line, stage = Examiner(end), 0
  module = types.ModuleType('tests')
  sys.modules['tests'] = module
  names, entry = module.__dict__, tests['entry_point']
  try:
    kind, *said = line.receive()
    if kind != 'ready':
      return {'passed': False, 'reason': str(said[0])[:400] if kind == 'failed' and said else 'gone'}
    for name in sys.stdlib_module_names & _reached(tests):
      names[name] = importlib.import_module(name)
    for name in names_of_the_program(tests['setup'], tests['asserts'], entry):
      try:
        names[name] = line.ask('name', name)
      except NameError:
        if name == entry:
          raise NameError(f'the entry point {entry!r} is not defined') from None
    if entry is not None and not callable(names[entry]):
      raise NameError(f'the entry point {entry!r} is not defined')
    run(tests['setup'], 'setup.py', names)
    for stage, text in enumerate(tests['asserts'], 1):
      run(text, f'test {stage}', names)
  except Gone:
    return {'passed': False, 'reason': 'gone'}
  except AssertionError as error:
    return {'passed': False, 'reason': f'test {stage} failed' if stage else what(error)}
  except BaseException as error:
    return {'passed': False, 'reason': what(error) + (f' (test {stage})' if stage else '')}
  return {'passed': True, 'reason': 'passed'}


def _reached(tests: dict) -> set[str]:
  """Names that the tests use as `name.attribute`."""
  out = set()
  for text in (tests['setup'], *tests['asserts']):
    try:
      nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
      continue
    out |= {n.value.id for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
  return out


def run(code: str, file: str, names: dict) -> None:
  """Executes `code` in the namespace `names`."""
  exec(compile(code, file, 'exec', dont_inherit=True), names)


def what(error: BaseException) -> str:
  """One line about an exception."""
  try:
    return f'error: {type(error).__name__}: {error}'[:300].replace('\n', ' ')
  except BaseException:
    return 'error: an exception that cannot be printed'
