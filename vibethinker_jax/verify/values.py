"""The values that test runner and program send each other, as JSON.

Plain values (numbers, texts, lists, dicts, sets, arrays of numpy, values of the standard library's types) are sent by
their contents. An object whose class the program derived from an immutable plain type (a named tuple, an IntEnum) is
sent as that plain value, and is represented by a `Copy`: it compares, sorts and adds like the plain value, and
everything else is requested from the original. Exceptions are sent with those of their classes that are exceptions. All
other objects stay where they are and are referred to by number.

Numbers, texts and constants of JSON mean themselves; everything else is [tag, ...]. Nothing that is read here is run:
there is no pickle and no code, and the only classes are those of the lists below.

Standard library only, and numpy for its own values.
"""

import builtins
import collections
import functools
import importlib
import itertools
import keyword
import sys
import types
from collections.abc import Callable

_SCALARS = frozenset((type(None), bool, str, float))
_PLAIN = _SCALARS | {int}
_SMALL = 1 << 60
_SEQUENCES = {'list': list, 'tuple': tuple, 'set': set, 'frozenset': frozenset}
_IMMUTABLE = (int, float, complex, str, bytes, tuple, frozenset)
MUTABLE = (list, dict, set, bytearray)
_ARRAYS = 'biufcSUmM?'  # kinds of numpy's types that bytes can hold
_SHOWS = {'antigravity', 'this'}  # modules that show something when they are imported
_NUMPY = {'numpy', 'numpy.linalg', 'numpy.random', 'numpy.testing'}

# Types whose values are sent as the arguments that make them.
_VALUES: dict[tuple[str, str], Callable[[object], tuple]] = {
  ('fractions', 'Fraction'): lambda v: (v.numerator, v.denominator),
  ('decimal', 'Decimal'): lambda v: (str(v),),
  ('collections', 'deque'): lambda v: (list(v), v.maxlen),
  ('collections', 'OrderedDict'): lambda v: (list(v.items()),),
  ('collections', 'Counter'): lambda v: (dict(v),),
  ('collections', 'defaultdict'): lambda v: (v.default_factory, dict(v)),
  ('array', 'array'): lambda v: (v.typecode, v.tolist()),
  ('datetime', 'date'): lambda v: (v.year, v.month, v.day),
  ('datetime', 'time'): lambda v: (v.hour, v.minute, v.second, v.microsecond, v.tzinfo),
  ('datetime', 'datetime'): lambda v: (
    v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.tzinfo
  ),
  ('datetime', 'timedelta'): lambda v: (v.days, v.seconds, v.microseconds),
  ('datetime', 'timezone'): lambda v: (v.utcoffset(None), v.tzname(None)),
  ('zoneinfo', 'ZoneInfo'): lambda v: (v.key,),
  ('uuid', 'UUID'): lambda v: (v.hex,),
  ('pathlib', 'PosixPath'): lambda v: (str(v),),
  ('pathlib', 'PurePosixPath'): lambda v: (str(v),),
}  # fmt: skip
# Operators that a class derived from a plain type may redefine.
_SIGNS = [f'__{sign}__' for sign in (
  'add', 'sub', 'mul', 'truediv', 'floordiv', 'mod', 'pow', 'matmul', 'and', 'or', 'xor', 'lshift', 'rshift', 'lt',
  'le', 'gt', 'ge', 'neg', 'pos', 'invert', 'abs',
)]  # fmt: skip
# Types outside builtins that the `__class__` of a value may be; tests ask generators for it.
_TYPES = {
  kind.__name__: kind
  for kind in (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FunctionType)
}


class Gone(Exception):
  """The other side closed the channel, or sent something that the protocol does not allow."""


class Foreign:
  """The base of everything that represents an object of the other side."""

  __slots__ = ()


class Copy(Foreign):
  """A base, beside a plain type, of the classes whose values are copies of the other side's (`_copies`)."""

  _original: Foreign | None = None  # what this is a copy of

  def __getattr__(self, name):
    return getattr(self._original, name)

  def __str__(self):
    return str(self._original)

  def __repr__(self):
    return repr(self._original)

  def __format__(self, spec):
    return format(self._original, spec)


@functools.lru_cache(256)
def _copies(base: type, name: str, fields: tuple[str, ...] | None, own: tuple[str, ...]) -> type:
  """The class for copies of objects of a class.

  base: the plain type that the class is derived from. name: of the class. fields: of a named tuple, else None. own: the
  operators that the class defines itself.
  """
  if fields is not None:
    base = collections.namedtuple(name, fields, rename=True)
  return type(name, (Copy, base), {'__module__': 'copies'} | {sign: _own(sign, base) for sign in own if sign in _SIGNS})


def _own(sign: str, base: type) -> Callable:
  """An operator: between values of the other side that of the original, beside a plain value that of the plain type.

  The original could answer as it likes, and the plain value may be what a test expects.
  """
  plain = getattr(base, sign, None)

  def operate(self, *others):
    if all(isinstance(other, Foreign) for other in others):
      return getattr(self._original, sign)(*others)
    return NotImplemented if plain is None else plain(self, *others)

  return operate


class Codec:
  """Values to JSON and back, on one side. A subclass (channel.py) keeps the objects that are lent and borrowed."""

  copies: dict[int, Copy]  # by the numbers of their originals

  def lend(self, value, kind: str = '') -> list:
    """JSON for an object that stays on this side: ['mine', number, kind]."""
    raise NotImplementedError

  def number(self, value) -> int | None:
    """The number of a value that belongs to the other side, None for one that belongs to this side."""
    raise NotImplementedError

  def lent(self, number: int) -> object:
    """The object of this side with a number. Raises LookupError or TypeError."""
    raise NotImplementedError

  def borrow(self, number: int, kind: str) -> object:
    """The representative of an object of the other side."""
    raise NotImplementedError

  def failure_class(self, number: int, name: str, bases: tuple[type, ...]) -> type:
    """The representative of an exception class of the other side."""
    raise NotImplementedError

  # ---- out

  def encode(self, value) -> object:
    """A value as JSON. Raises TypeError for one that may not be sent, RecursionError for one that contains itself."""
    kind = type(value)
    if kind in _SCALARS:
      return value
    if kind is int:
      return value if -_SMALL < value < _SMALL else ['int', hex(value)]
    if (number := self.number(value)) is not None:
      return ['yours', number]
    if kind in (list, tuple, set, frozenset):
      return [kind.__name__, self._items(value)]
    if kind is dict:
      return ['dict', self._items(value), self._items(value.values())]
    if kind in (bytes, bytearray):
      return [kind.__name__, value.hex()]
    if kind is complex:
      return ['complex', value.real, value.imag]
    if kind in (range, slice):
      return [kind.__name__, *map(self.encode, (value.start, value.stop, value.step))]
    if kind is types.ModuleType:
      return ['module', value.__name__]
    if issubclass(kind, type):
      return self._class(value)
    if issubclass(kind, BaseException):
      return self.failure(value)
    made_of = _VALUES.get((kind.__module__, kind.__qualname__))
    if made_of is not None:
      return ['value', kind.__module__, kind.__qualname__, [self.encode(part) for part in made_of(value)]]
    if (numpy := sys.modules.get('numpy')) is not None and (kind is numpy.ndarray or issubclass(kind, numpy.generic)):
      return self._array(numpy, value)
    return self._derived(value)

  def _items(self, values) -> list:
    """The JSON of values; a list of numbers and texts alone, the common case, is its own JSON."""
    values = list(values)
    kinds = set(map(type, values))
    if kinds <= _SCALARS or (kinds == {int} and max(map(abs, values)) < _SMALL):
      return values
    return [self.encode(value) for value in values]

  def _class(self, value: type) -> list:
    name = value.__name__
    if vars(builtins).get(name) is value or _TYPES.get(name) is value:
      return ['type', name]
    if (number := self.number(value)) is not None:
      return ['yours', number]
    if not issubclass(value, BaseException):
      return self.lend(value)
    bases = [self._class(base) for base in value.__bases__ if issubclass(base, BaseException)]
    return ['failures', self.lend(value)[1], value.__module__, name, bases]

  def failure(self, error: BaseException) -> list:
    """An exception as JSON: class, arguments, text, number (where the class is not well known), attributes, cause."""
    if (number := self.number(error)) is not None:
      return ['yours', number]
    kind = self._class(type(error))
    try:
      arguments = [self.encode(argument) for argument in error.args]
    except TypeError:
      arguments = [text_of(error)]
    try:
      facts = self.encode(dict(vars(error)))
    except TypeError:
      facts = ['dict', [], []]
    cause = None if error.__cause__ is None else self.failure(error.__cause__)
    number = self.lend(error.with_traceback(None))[1] if kind[0] == 'failures' else None
    return ['failure', kind, arguments, text_of(error), number, facts, cause]

  def _array(self, numpy, value) -> list:
    kind = value.dtype
    if kind.kind == 'O':
      return ['objects', list(value.shape), self._items(value.ravel().tolist())]
    if kind.kind not in _ARRAYS:
      return self.lend(value)
    array = type(value) is numpy.ndarray
    return ['array', kind.str, list(value.shape) if array else None, numpy.ascontiguousarray(value).tobytes().hex()]

  def _derived(self, value) -> list:
    kind = type(value)
    for base in _IMMUTABLE:
      if issubclass(kind, base):
        made_of = (frozenset.__iter__(value),) if base is frozenset else base.__getnewargs__(value)
        fields = [*kind._fields] if base is tuple and '_fields' in dir(kind) else None
        own = [sign for sign in _SIGNS if getattr(kind, sign, None) is not getattr(base, sign, None)]
        number = self.lend(value)[1]
        return ['copy', base.__name__, kind.__name__, fields, own, self.encode(base(*made_of)), number]
    for base in MUTABLE:
      if issubclass(kind, base):
        return self.lend(value, base.__name__)
    return self.lend(value)

  # ---- in

  def decode(self, data) -> object:
    """A value from JSON. Raises Gone for JSON that `encode` never makes."""
    if not isinstance(data, list):
      if isinstance(data, dict):
        raise Gone
      return data
    try:
      tag, *rest = data
      return _READERS[tag](self, tag, *rest)
    except (TypeError, ValueError, LookupError, ImportError, RecursionError, ArithmeticError, AttributeError):
      raise Gone from None

  def _read_items(self, data: list) -> list:
    if not isinstance(data, list):
      raise TypeError
    return data if set(map(type, data)) <= _PLAIN else [self.decode(item) for item in data]

  def _read_sequence(self, tag, items):
    return _SEQUENCES[tag](self._read_items(items))

  def _read_dict(self, tag, keys, values):
    return dict(zip(self._read_items(keys), self._read_items(values), strict=True))

  def _read_int(self, tag, digits):
    return int(digits, 16)

  def _read_bytes(self, tag, digits):
    return {'bytes': bytes, 'bytearray': bytearray}[tag].fromhex(digits)

  def _read_complex(self, tag, real, imaginary):
    return complex(float(real), float(imaginary))

  def _read_span(self, tag, *parts):
    return {'range': range, 'slice': slice}[tag](*map(self.decode, parts))

  def _read_module(self, tag, name):
    if name not in _NUMPY and name not in sys.stdlib_module_names - _SHOWS:
      raise ValueError
    return importlib.import_module(name)

  def _read_type(self, tag, name):
    kind = vars(builtins).get(name) or _TYPES[name]
    if not isinstance(kind, type):
      raise TypeError
    return kind

  def _read_value(self, tag, module, name, parts):
    if (module, name) not in _VALUES:
      raise ValueError
    return vars(importlib.import_module(module))[name](*map(self.decode, parts))

  def _read_array(self, tag, kind, shape, digits):
    numpy = importlib.import_module('numpy')
    kind = numpy.dtype(str(kind))
    if kind.kind not in _ARRAYS:
      raise ValueError
    array = numpy.ndarray(shape or (), kind, bytearray.fromhex(digits))
    return array[()] if shape is None else array

  def _read_objects(self, tag, shape, items):
    array = importlib.import_module('numpy').empty(len(items), object)
    array[:] = self._read_items(items)
    return array.reshape(shape)

  def _read_copy(self, tag, base, name, fields, own, plain, number):
    base, plain = vars(builtins)[base], self.decode(plain)
    if base not in _IMMUTABLE or type(plain) is not base or not (name.isidentifier() and not keyword.iskeyword(name)):
      raise ValueError
    kind = _copies(base, name, None if fields is None else tuple(fields), tuple(own))
    if number not in self.copies:
      self.copies[number] = kind(plain) if fields is None else kind._make(plain)
      self.copies[number]._original = self.borrow(int(number), '')
    return self.copies[number]

  def _read_failures(self, tag, number, module, name, bases):
    known = vars(sys.modules[module]).get(name) if module in sys.modules and _is_known(module) else None
    if isinstance(known, type) and issubclass(known, BaseException):
      return known
    bases = tuple(self.decode(base) for base in bases)
    if not bases or not all(issubclass(base, BaseException) for base in bases) or not name.isidentifier():
      raise ValueError
    return self.failure_class(int(number), name, bases)

  def _read_failure(self, tag, kind, arguments, text, number, facts, cause):
    kind, arguments = self.decode(kind), [self.decode(argument) for argument in arguments]
    if not issubclass(kind, BaseException) or not isinstance(text, str):
      raise TypeError
    error = _failure(kind, arguments)
    if issubclass(kind, Foreign):
      error._text, error._number = text, int(number)
    else:
      vars(error).update(self.decode(facts))
    if cause is not None:
      error.__cause__ = self.decode(cause)
    return error

  def _read_iterator(self, tag, ahead, rest):
    ahead = self._read_items(ahead)
    return iter(ahead) if rest is None else itertools.chain(ahead, self.decode(rest))

  def _read_mine(self, tag, number, kind=''):
    return self.borrow(int(number), kind)

  def _read_yours(self, tag, number):
    return self.lent(number)


_READERS: dict[str, Callable] = {
  'list': Codec._read_sequence,
  'tuple': Codec._read_sequence,
  'set': Codec._read_sequence,
  'frozenset': Codec._read_sequence,
  'dict': Codec._read_dict,
  'int': Codec._read_int,
  'bytes': Codec._read_bytes,
  'bytearray': Codec._read_bytes,
  'complex': Codec._read_complex,
  'range': Codec._read_span,
  'slice': Codec._read_span,
  'module': Codec._read_module,
  'type': Codec._read_type,
  'value': Codec._read_value,
  'array': Codec._read_array,
  'objects': Codec._read_objects,
  'copy': Codec._read_copy,
  'failures': Codec._read_failures,
  'failure': Codec._read_failure,
  'iterator': Codec._read_iterator,
  'mine': Codec._read_mine,
  'yours': Codec._read_yours,
}


def _is_known(module: str) -> bool:
  """Whether exceptions of a module may be recreated by name. Those of unittest may not: they would skip a test."""
  return module.partition('.')[0] in {'numpy', *sys.stdlib_module_names} - {'unittest'}


def _failure(kind: type[BaseException], arguments: list) -> BaseException:
  """An exception with these arguments; where its class takes other arguments, they are at least its `args`."""
  if not issubclass(kind, Foreign):
    try:
      return kind(*arguments)
    except Exception:
      pass
  known = next(base for base in kind.__mro__ if not issubclass(base, Foreign))
  error = known.__new__(kind)
  error.args = tuple(arguments)
  return error


def text_of(error: BaseException) -> str:
  """The text of an exception, at most 300 characters."""
  try:
    return str(error)[:300]
  except BaseException:  # the __str__ of an exception class may raise anything
    return 'an exception that cannot be printed'
