"""The errors that end a program in one line: wrong input (BadInput), and every other expected failure (Failure)."""


class BadInput(ValueError):
  """The user's input cannot be used. The message is one line: the file or field, the row, and what was expected.

  Every program prints it on stderr and ends with exit code 2.
  """


class Failure(RuntimeError):
  """A run cannot continue although its input is right. The message is one line; the exit code is 1."""


class CannotWrite(Failure):
  """A file system refuses a write: the disk is full, a quota is used up, or a mount is gone."""
