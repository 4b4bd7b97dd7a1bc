"""One process's objects in another: questions over a socket, answered one within the other.

What cannot cross as a plain value (values.py) stands on the other side as a `Remote`, and what is done to that is asked
of the original. A question is [what, argument, ...], its answer ['is', value, changes] or ['raised', exception].
While one side waits for an answer the other may ask back, so functions can be handed over too.

Standard library only, for the sandbox imports this before it closes its doors.
"""

import collections
import collections.abc
import copy
import json
import math
import operator
import socket
import sys
from collections.abc import Callable

from vibethinker_jax.verify.values import Codec, Copy, Foreign, Gone, text_of

_FRAME = 1 << 28  # bytes of a message at most

_BINARY = {name: getattr(operator, name) for name in (
  'add', 'sub', 'mul', 'truediv', 'floordiv', 'mod', 'pow', 'matmul', 'and_', 'or_', 'xor', 'lshift', 'rshift',
)} | {'divmod': divmod}  # fmt: skip
IN_PLACE = {name: getattr(operator, name) for name in (
  'iadd', 'isub', 'imul', 'itruediv', 'ifloordiv', 'imod', 'ipow', 'imatmul', 'iand', 'ior', 'ixor', 'ilshift',
  'irshift',
)}  # fmt: skip
ORDER = {name: getattr(operator, name) for name in ('lt', 'le', 'gt', 'ge')}
_NUMBERS: dict[str, Callable] = {
  'abs': abs, 'int': int, 'float': float, 'complex': complex, 'index': operator.index, 'round': round,
  'trunc': math.trunc, 'floor': math.floor, 'ceil': math.ceil, 'bool': bool, 'len': len,
}  # fmt: skip
# What one side may ask of an object of the other, besides calling it.
PROTOCOL: dict[str, Callable] = _BINARY | IN_PLACE | ORDER | _NUMBERS | {
  'neg': operator.neg, 'pos': operator.pos, 'invert': operator.invert,
  'eq': operator.eq, 'hash': hash, 'str': str, 'repr': repr, 'format': format, 'class': lambda v: v.__class__,
  'isinstance': isinstance, 'issubclass': issubclass, 'dir': dir, 'doc': lambda v: v.__doc__,
  'iter': iter, 'next': next, 'reversed': reversed, 'aiter': aiter, 'anext': anext,
  'getitem': operator.getitem, 'setitem': operator.setitem, 'delitem': operator.delitem,
  'enter': lambda v: type(v).__enter__(v), 'exit': lambda v, e: type(v).__exit__(v, e and type(e), e, None),
  'aenter': lambda v: type(v).__aenter__(v), 'aexit': lambda v, e: type(v).__aexit__(v, e and type(e), e, None),
  'copy': copy.copy, 'deepcopy': copy.deepcopy,
}  # fmt: skip
ATTRIBUTES: dict[str, Callable] = {'getattr': getattr, 'setattr': setattr, 'delattr': delattr}
_HELD = {'getattr', 'getitem', *IN_PLACE}  # what may give a container that an object holds
_SYNCHRONIZED = (list, collections.deque, bytearray, dict, set)


def _asks(what: str) -> Callable:
  def method(self, *arguments):
    return self._channel_.ask(what, self, *arguments)

  return method


class Remote(Foreign):
  # An object of the other side. (Its docstring, like all else, is the original's.)

  __slots__ = ('_channel_', '_number_')
  __doc__ = property(_asks('doc'))
  __class__ = property(_asks('class'))

  def __init__(self, channel: 'Channel', number: int):
    object.__setattr__(self, '_channel_', channel)
    object.__setattr__(self, '_number_', number)

  def __getattr__(self, name):
    if name.startswith('__array'):
      raise AttributeError(name)  # numpy would believe that an address is a place in this process
    return self._channel_.ask('getattr', self, name)

  def __setattr__(self, name, value):
    self._channel_.ask('setattr', self, name, value)

  def __delattr__(self, name):
    self._channel_.ask('delattr', self, name)

  def __call__(self, *arguments, **named):
    return self._channel_.call(self, arguments, named)

  def __eq__(self, other):
    return self._channel_.equal(self, other)

  def __instancecheck__(self, instance):
    return isinstance(instance, Foreign) and self._channel_.ask('isinstance', instance, self) is True

  def __subclasscheck__(self, kind):
    return isinstance(kind, Foreign) and self._channel_.ask('issubclass', kind, self) is True

  def __exit__(self, kind, error, trace):
    return self._channel_.leave(self, error)

  async def __aexit__(self, kind, error, trace):
    await self._channel_.ask('aexit', self, error)

  __hash__ = _asks('hash')
  __str__ = _asks('str')
  __repr__ = _asks('repr')
  __format__ = _asks('format')
  __dir__ = _asks('dir')
  __iter__ = _asks('iter')
  __next__ = _asks('next')
  __reversed__ = _asks('reversed')
  __aiter__ = _asks('aiter')
  __anext__ = _asks('anext')
  __getitem__ = _asks('getitem')
  __setitem__ = _asks('setitem')
  __delitem__ = _asks('delitem')
  __enter__ = _asks('enter')
  __aenter__ = _asks('aenter')
  __copy__ = _asks('copy')
  __neg__ = _asks('neg')
  __pos__ = _asks('pos')
  __invert__ = _asks('invert')

  def __deepcopy__(self, memo):
    return self._channel_.ask('deepcopy', self)


def _operators(name: str) -> tuple[Callable, Callable]:
  """`self <name> other`, and the same from the right."""
  return (
    lambda self, other: self._channel_.operate(name, self, other),
    lambda self, other: self._channel_.operate(name, other, self),
  )


for _name in (*_BINARY, *IN_PLACE, *ORDER):
  _forward, _backward = _operators(_name)
  setattr(Remote, f'__{_name.strip("_")}__', _forward)
  if _name in _BINARY:
    setattr(Remote, f'__r{_name.strip("_")}__', _backward)
for _name in _NUMBERS:
  setattr(Remote, f'__{_name}__', _asks(_name))


class Container(Remote):
  # A list, dict, set or bytearray that stays on the other side: it is changed there, and compared here as plain.

  __slots__ = ('_kind_',)
  __hash__ = None

  def __init__(self, channel: 'Channel', number: int, kind: type):
    super().__init__(channel, number)
    object.__setattr__(self, '_kind_', kind)

  @property
  def __class__(self):
    return self._kind_

  def __contains__(self, item):
    return item in plain(self)

  def __deepcopy__(self, memo):
    return plain(self)


def plain(container: Container) -> list | dict | set | bytearray:
  """What is in a container now."""
  return container._kind_(container._channel_.ask('plain', container))


class Awaitable(Remote):
  # A coroutine of the other side, which runs there from its beginning to its end when it is awaited here.

  __slots__ = ()

  def __await__(self):
    yield from ()
    return self._channel_.ask('await', self)

  def send(self, value):
    raise StopIteration(self._channel_.ask('await', self))

  def __next__(self):
    return self.send(None)

  def throw(self, kind, error=None, trace=None):
    raise kind if error is None else error

  def close(self):
    pass


collections.abc.Coroutine.register(Awaitable)


class FailureType(type):
  """The class of classes that stand for exceptions of the other side: their other attributes are the original's."""

  def __getattr__(cls, name):
    if name.startswith('__'):
      raise AttributeError(name)
    return getattr(cls._class, name)


class Failure(Foreign, metaclass=FailureType):
  """Beside an exception, a base of the classes that stand for exceptions of the other side."""

  _number: int | None = None
  _text = ''
  _class: Remote  # the original class

  def __new__(cls, *arguments, **named):
    return cls._class(*arguments, **named)  # which comes back as an instance of this class

  def __init__(self, *arguments, **named):
    pass

  def __str__(self):
    return self._text

  def __getattr__(self, name):
    if self._number is None or name.startswith('__'):
      raise AttributeError(name)
    return getattr(Remote(self._class._channel_, self._number), name)


class Channel(Codec):
  """One end of the socket between tests and program."""

  def __init__(self, end: socket.socket):
    self._end = end
    self._lent: list[object] = []  # own objects the other side knows by number
    self._numbers: dict[int, int] = {}
    self._borrowed: dict[int, object] = {}
    self.copies = {}
    self._loop = None

  # ---- messages

  def send(self, message: list) -> None:
    """One message. Raises Gone."""
    data = json.dumps(message).encode()
    if len(data) > _FRAME:
      raise ValueError(f'a value of {len(data)} bytes is too large to be compared')
    try:
      self._end.sendall(len(data).to_bytes(4, 'big'))
      self._end.sendall(data)
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
    data = bytearray()
    while len(data) < n:
      try:
        part = self._end.recv(min(n - len(data), 1 << 20))
      except OSError:
        part = b''
      if not part:
        raise Gone
      data += part
    return bytes(data)

  # ---- questions

  def ask(self, what: str, *arguments):
    """What the other side answers. Raises what it raised, or Gone."""
    value, _ = self._ask([what, *map(self.encode, arguments)])
    if type(value) is _Argument:
      raise Gone
    return value

  def call(self, function: Remote, arguments: tuple, named: dict):
    """The other side's function, called. Lists, dicts, arrays it changed are changed here too."""
    places = [*arguments, *named.values()]
    value, changes = self._ask(['call', self.encode(function), self.encode(arguments), self.encode(named)])
    for place, now in changes:
      if type(place) is int and 0 <= place < len(places):
        _renew(places[place], now)
    if type(value) is _Argument and 0 <= value.place < len(places):
      return places[value.place]
    return value

  def operate(self, name: str, left, right):
    """`left <name> right`, one of them the other side's."""
    return self.ask(name, left, right)

  def equal(self, remote: Remote, other) -> bool:
    """remote == other."""
    return self.ask('eq', remote, other)

  def leave(self, manager: Remote, error: BaseException | None) -> bool:
    """The end of a `with`; whether the exception that ended it is swallowed."""
    return self.ask('exit', manager, error) is True

  def _ask(self, question: list) -> tuple[object, list]:
    self.send(question)
    while True:
      kind, *rest = self.receive()
      if kind == 'is' and len(rest) == 2 and isinstance(rest[1], list):
        return self._answered(rest[0]), [(place, self.decode(now)) for place, now in rest[1]]
      if kind == 'raised' and len(rest) == 1:
        error = self.decode(rest[0])
        raise self.raised(question[0], error) if isinstance(error, BaseException) else Gone
      self.answer(kind, rest)

  def _answered(self, data):
    if isinstance(data, list) and len(data) == 2 and data[0] == 'argument' and type(data[1]) is int:
      return _Argument(data[1])
    return self.decode(data)

  def raised(self, what: str, error: BaseException) -> BaseException:
    """What a question ends in when it raised `error` on the other side."""
    return error

  def answer(self, what: str, arguments: list) -> None:
    """Do what the other side asks and say what came of it. Raises Gone."""
    try:
      reply = ['is', *(self._called(*arguments) if what == 'call' else (self._done(what, arguments), []))]
    except Gone:
      raise
    except BaseException as error:
      self._send_failure(error)
    else:
      try:
        self.send(reply)
      except (TypeError, ValueError, RecursionError) as error:
        self._send_failure(error)

  def _send_failure(self, error: BaseException) -> None:
    try:
      failure = self.failure(error)
    except (TypeError, RecursionError):
      failure = ['failure', ['type', 'RuntimeError'], [text_of(error)], '', None, ['dict', [], []], None]
    self.send(['raised', failure])

  def _called(self, function: list, arguments: list, named: list) -> tuple[object, list]:
    if not isinstance(function, list) or function[0] != 'yours':  # only what this side lent
      raise Gone
    function, arguments, named = map(self.decode, (function, arguments, named))
    places = [*arguments, *named.values()]
    before = [self.encode(value) if _changeable(value) else None for value in places]
    value = function(*arguments, **named)
    after = [self.encode(value) if _changeable(value) else None for value in places]
    changes = [[place, now] for place, (was, now) in enumerate(zip(before, after)) if was != now]
    for place, argument in enumerate(places):
      if argument is value and _changeable(value):
        return ['argument', place], changes
    return self.encode(value), changes

  def _done(self, what: str, arguments: list) -> object:
    arguments = [self.decode(argument) for argument in arguments]
    value = self.do(what, *arguments)
    if what in _HELD and type(value) in (list, dict, set):
      return self.hand_out(value)
    return self.encode(value)

  def hand_out(self, value: list | dict | set) -> object:
    """JSON for a container that an object of this side holds."""
    return self.encode(value)

  def do(self, what: str, *arguments):
    """What was asked for, other than a call."""
    if what == 'plain':
      kind = next(kind for kind in (list, dict, set, bytearray) if isinstance(arguments[0], kind))
      return kind(arguments[0]) if kind is not list else [*list.__iter__(arguments[0])]
    if what == 'await':
      return self._finish(arguments[0])
    return {**PROTOCOL, **ATTRIBUTES}[what](*arguments)

  def _finish(self, awaitable) -> object:
    """The result of a coroutine. Its event loop outlives it, or tasks that it has begun would be lost."""
    import asyncio
    import concurrent.futures

    async def wait():
      return await awaitable

    if asyncio._get_running_loop() is not None:  # a coroutine of theirs awaits one of ours that awaits one of theirs
      with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()
    if self._loop is None:
      self._loop = asyncio.new_event_loop()
    return self._loop.run_until_complete(wait())

  # ---- objects

  def lend(self, value, kind: str = '') -> list:
    if id(value) not in self._numbers:
      self._numbers[id(value)] = len(self._lent)
      self._lent.append(value)
    if not kind and issubclass(type(value), collections.abc.Awaitable):
      kind = 'awaitable'
    return ['mine', self._numbers[id(value)], kind]

  def lent(self, number: int) -> object:
    if type(number) is not int or number < 0:
      raise TypeError
    return self._lent[number]

  def number(self, value) -> int | None:
    kind = type(value)
    if issubclass(kind, Remote):
      return value._number_
    if issubclass(kind, Copy):
      return value._original._number_
    if issubclass(kind, Failure):
      return value._number
    if issubclass(kind, type) and issubclass(value, Failure) and value is not Failure:
      return value._class._number_
    return None

  def borrow(self, number: int, kind: str) -> Remote:
    if number not in self._borrowed:
      if kind in ('list', 'dict', 'set', 'bytearray'):
        remote = Container(self, number, {'list': list, 'dict': dict, 'set': set, 'bytearray': bytearray}[kind])
      else:
        remote = Awaitable(self, number) if kind == 'awaitable' else Remote(self, number)
      self._borrowed[number] = remote
    return self._borrowed[number]

  def failure_class(self, number: int, name: str, bases: tuple[type, ...]) -> type:
    if number not in self._borrowed:
      own = {'_class': Remote(self, number), '__module__': 'failures'}
      bases = bases if any(issubclass(base, Failure) for base in bases) else (Failure, *bases)
      self._borrowed[number] = FailureType(name, bases, own)
    kind = self._borrowed[number]
    if not isinstance(kind, type):
      raise TypeError
    return kind


class _Argument:
  """The answer of a call that gave back one of its arguments."""

  def __init__(self, place: int):
    self.place = place


def _changeable(value) -> bool:
  kind = type(value)
  if kind.__module__ == 'numpy':
    return value is not None and kind.__name__ == 'ndarray'
  return issubclass(kind, _SYNCHRONIZED) and not issubclass(kind, Foreign)


def _renew(old, new) -> None:
  """`old` with the contents of `new`."""
  if type(old) is not type(new) or not _changeable(old):
    return
  if 'numpy' in sys.modules and type(old) is sys.modules['numpy'].ndarray:
    old[...] = new
    return
  old.clear()
  if isinstance(old, dict | set):
    old.update(new)
  else:
    old.extend(new)
