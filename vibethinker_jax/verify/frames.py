"""Messages between processes, each as one frame: four bytes of length (big endian), then that many bytes of JSON.

All processes of verify/ speak this one protocol, over pipes and over sockets. A reader is a function that takes a
number n and returns 1 to n bytes, b'' where the writer is gone; no function here reads past the end of a frame, so
two processes may read from the same pipe, one after the other.

Standard library only: the sandbox imports this file before it gives up its access to files.
"""

import json
import os
from collections.abc import Callable

HEADER = 4  # bytes of the length
_PIECE = 1 << 20  # bytes asked of a reader at a time

Reader = Callable[[int], bytes]


def frame(value: object) -> bytes:
  """The bytes of one frame. value: anything that JSON can hold."""
  return framed(json.dumps(value).encode())


def framed(payload: bytes) -> bytes:
  """The bytes of the frame that carries `payload`, which is JSON already."""
  return len(payload).to_bytes(HEADER, 'big') + payload


def receive(read: Reader, largest: int | None = None) -> object:
  """The value of the next frame. Raises what `payload` raises, and ValueError or RecursionError for broken JSON."""
  return json.loads(payload(read, largest))


def payload(read: Reader, largest: int | None = None) -> bytes:
  """The JSON of the next frame, not parsed.

  Raises EOFError where the writer is gone, ValueError for a frame of more than `largest` bytes, and what `read` raises.
  """
  size = int.from_bytes(_exactly(read, HEADER), 'big')
  if largest is not None and size > largest:
    raise ValueError(f'a frame of {size} bytes, expected at most {largest}')
  return _exactly(read, size)


def _exactly(read: Reader, n: int) -> bytes:
  data = bytearray()
  while len(data) < n:
    part = read(min(n - len(data), _PIECE))
    if not part:
      raise EOFError
    data += part
  return bytes(data)


def from_file(fd: int) -> Reader:
  """The reader of a file descriptor that blocks."""
  return lambda n: os.read(fd, n)


def write(fd: int, data: bytes) -> None:
  """Writes all of `data` to a file descriptor that blocks."""
  rest = memoryview(data)
  while rest:
    rest = rest[os.write(fd, rest) :]


class Inbox:
  """Puts frames together from the pieces that come out of a descriptor that does not block.

  largest: bytes of a frame at most.
  """

  def __init__(self, largest: int):
    self._largest, self._data = largest, bytearray()

  def take(self, piece: bytes) -> tuple[bool, object]:
    """(True, value) once a frame is complete, (False, None) before. Raises EOFError for b'' and for a broken frame.

    Whatever follows the frame in the same piece is dropped: a worker of `pool.Pool` answers once for each job.
    """
    self._data += piece
    size = int.from_bytes(self._data[:HEADER], 'big')
    if not piece or size > self._largest:
      raise EOFError
    if len(self._data) < HEADER + size or len(self._data) < HEADER:
      return False, None
    value = json.loads(self._data[HEADER : HEADER + size])
    self._data.clear()
    return True, value
