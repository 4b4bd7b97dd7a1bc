"""A Remote represents an object of the other process: whatever is done to it is requested from the original.

The ops are a call and those of `PROTOCOL` and `ATTRIBUTES`, which list Python's special methods by the name of their
op; an RPC channel (channel.py) carries them.

Standard library only: the sandbox imports this file before it gives up its access to files.
"""

import collections.abc
import copy
import math
import operator
from collections.abc import Callable
from typing import Protocol

from vibethinker_jax.verify.values import Foreign

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
# The ops on an object of the other side, besides a call.
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


class Rpc(Protocol):
  """What a Remote needs of its channel; channel.py has the meanings."""

  def ask(self, op: str, *arguments): ...

  def call(self, function: 'Remote', arguments: tuple, named: dict): ...

  def operate(self, name: str, left, right): ...

  def equal(self, remote: 'Remote', other) -> bool: ...

  def leave(self, manager: 'Remote', error: BaseException | None) -> bool: ...


def _asks(op: str) -> Callable:
  def method(self, *arguments):
    return self._channel_.ask(op, self, *arguments)

  return method


class Remote(Foreign):
  # Represents an object of the other side. (A comment, because `__doc__` has to be that of the original.)

  __slots__ = ('_channel_', '_number_')
  __doc__ = property(_asks('doc'))
  __class__ = property(_asks('class'))

  def __init__(self, channel: Rpc, number: int):
    object.__setattr__(self, '_channel_', channel)
    object.__setattr__(self, '_number_', number)

  def __getattr__(self, name):
    if name.startswith('__array'):
      raise AttributeError(name)  # numpy would take an address of the other process for one of this process
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
  """The methods for `self <name> other` and for `other <name> self`."""
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
  # A list, dict, set or bytearray that stays on the other side. It is changed there; here it is compared as plain.

  __slots__ = ('_kind_',)
  __hash__ = None

  def __init__(self, channel: Rpc, number: int, kind: type):
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
  """The present contents of a container."""
  return container._kind_(container._channel_.ask('plain', container))


class Awaitable(Remote):
  # A coroutine of the other side. It runs there from beginning to end when it is awaited here.

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
  """The metaclass of classes that represent exception classes of the other side; their attributes come from there."""

  def __getattr__(cls, name):
    if name.startswith('__'):
      raise AttributeError(name)
    return getattr(cls._class, name)


class Failure(Foreign, metaclass=FailureType):
  """A base, beside a built-in exception, of the classes that represent exception classes of the other side."""

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
