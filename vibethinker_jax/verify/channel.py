"""The RPC channel: two processes use each other's objects, by requests over a socket.

An object that cannot be sent as a plain value (values.py) is represented on the other side by a `Remote`, and whatever
is done to the Remote is requested from the process that has the object. A request is [op, argument, ...], where the op
names what to do; the reply is ['is', value, changes] or ['raised', exception]. While one side waits for a reply, the
other side may send requests of its own; therefore functions can be handed over too.

Standard library only: the sandbox imports this file before it gives up its access to files.
"""

import collections
import collections.abc
import socket
import sys

from vibethinker_jax.verify import frames
from vibethinker_jax.verify.remote import (
  ATTRIBUTES,
  IN_PLACE,
  PROTOCOL,
  Awaitable,
  Container,
  Failure,
  FailureType,
  Remote,
)
from vibethinker_jax.verify.values import Codec, Copy, Foreign, Gone, text_of

_LARGEST = 1 << 28  # bytes of a message
_HELD = {'getattr', 'getitem', *IN_PLACE}  # ops that may return a container which an object holds
_SYNCHRONIZED = (list, collections.deque, bytearray, dict, set)


class Channel(Codec):
  """One end of the channel between test runner and program."""

  def __init__(self, end: socket.socket):
    self._end = end
    self._lent: list[object] = []  # own objects that the other side knows by number
    self._numbers: dict[int, int] = {}
    self._borrowed: dict[int, object] = {}
    self.copies = {}
    self._loop = None

  # ---- messages

  def send(self, message: list) -> None:
    """Sends one message. Raises Gone, or ValueError for one that is too large."""
    data = frames.frame(message)
    if len(data) > _LARGEST:
      raise ValueError(f'a value of {len(data)} bytes is too large to be compared')
    try:
      self._end.sendall(data)
    except OSError:
      raise Gone from None

  def receive(self) -> list:
    """The next message. Raises Gone."""
    try:
      message = frames.receive(self._end.recv, _LARGEST)
    except (OSError, EOFError, ValueError, RecursionError):
      raise Gone from None
    if not isinstance(message, list) or not message:
      raise Gone
    return message

  # ---- requests

  def ask(self, op: str, *arguments):
    """The result of an op on the other side. Raises what it raised there, or Gone."""
    value, _ = self._ask([op, *map(self.encode, arguments)])
    if type(value) is _Argument:
      raise Gone
    return value

  def call(self, function: Remote, arguments: tuple, named: dict):
    """Calls a function of the other side. Lists, dicts and arrays that it changes are changed here too."""
    places = [*arguments, *named.values()]
    value, changes = self._ask(['call', self.encode(function), self.encode(arguments), self.encode(named)])
    for place, now in changes:
      if type(place) is int and 0 <= place < len(places):
        _renew(places[place], now)
    if type(value) is _Argument and 0 <= value.place < len(places):
      return places[value.place]
    return value

  def operate(self, name: str, left, right):
    """`left <name> right`, where one of the two is the other side's."""
    return self.ask(name, left, right)

  def equal(self, remote: Remote, other) -> bool:
    """remote == other."""
    return self.ask('eq', remote, other)

  def leave(self, manager: Remote, error: BaseException | None) -> bool:
    """Ends a `with` block; returns whether the manager swallows the exception that ended it."""
    return self.ask('exit', manager, error) is True

  def _ask(self, request: list) -> tuple[object, list]:
    self.send(request)
    while True:
      kind, *rest = self.receive()  # the reply, or a request of the other side
      if kind == 'is' and len(rest) == 2 and isinstance(rest[1], list):
        return self._answered(rest[0]), [(place, self.decode(now)) for place, now in rest[1]]
      if kind == 'raised' and len(rest) == 1:
        error = self.decode(rest[0])
        raise self.raised(request[0], error) if isinstance(error, BaseException) else Gone
      self.answer(kind, rest)

  def _answered(self, data):
    if isinstance(data, list) and len(data) == 2 and data[0] == 'argument' and type(data[1]) is int:
      return _Argument(data[1])
    return self.decode(data)

  def raised(self, op: str, error: BaseException) -> BaseException:
    """The exception to raise here where an op raised `error` on the other side."""
    return error

  def answer(self, op: str, arguments: list) -> None:
    """Does what the other side requests, and replies. Raises Gone."""
    try:
      reply = ['is', *(self._called(*arguments) if op == 'call' else (self._done(op, arguments), []))]
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

  def _done(self, op: str, arguments: list) -> object:
    arguments = [self.decode(argument) for argument in arguments]
    value = self.do(op, *arguments)
    if op in _HELD and type(value) in (list, dict, set):
      return self.hand_out(value)
    return self.encode(value)

  def hand_out(self, value: list | dict | set) -> object:
    """The JSON of a container that an object of this side holds."""
    return self.encode(value)

  def do(self, op: str, *arguments):
    """The result of any op but a call."""
    if op == 'plain':
      kind = next(kind for kind in (list, dict, set, bytearray) if isinstance(arguments[0], kind))
      return kind(arguments[0]) if kind is not list else [*list.__iter__(arguments[0])]
    if op == 'await':
      return self._finish(arguments[0])
    return {**PROTOCOL, **ATTRIBUTES}[op](*arguments)

  def _finish(self, awaitable) -> object:
    """The result of a coroutine. The event loop stays for the next one: tasks that were begun would be lost with it."""
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
  """The result of a call that returned one of its arguments."""

  def __init__(self, place: int):
    self.place = place


def _changeable(value) -> bool:
  kind = type(value)
  if kind.__module__ == 'numpy':
    return value is not None and kind.__name__ == 'ndarray'
  return issubclass(kind, _SYNCHRONIZED) and not issubclass(kind, Foreign)


def _renew(old, new) -> None:
  """Gives `old` the contents of `new`."""
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
