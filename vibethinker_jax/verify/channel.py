"""One process's objects in another: questions over a socket, answered one within the other.

What cannot cross as a plain value (values.py) stands on the other side as a `Remote`, and what is done to that is asked
of the original. A question is [what, argument, ...], its answer ['is', value, changes] or ['raised', exception].
While one side waits for an answer the other may ask back, so functions can be handed over too.

Standard library only, for the sandbox imports this before it closes its doors.
"""

import collections
import collections.abc
import json
import socket
import sys

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

_FRAME = 1 << 28  # bytes of a message at most
_HELD = {'getattr', 'getitem', *IN_PLACE}  # what may give a container that an object holds
_SYNCHRONIZED = (list, collections.deque, bytearray, dict, set)


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
