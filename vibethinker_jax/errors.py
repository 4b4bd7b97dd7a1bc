"""The errors that end a run in one line: what the user can mend, and what nobody gave wrong."""


class BadInput(ValueError):
  """What a user gave cannot be used. The message is one line: the file or field, the row, and what was expected.

  Mains and the command turn it into that line on stderr and exit code 2.
  """


class Failure(RuntimeError):
  """A run cannot go on, though nothing it was given is wrong. The message is one line; the exit code is 1."""


class CannotWrite(Failure):
  """A file system does not take what is to be written: the disk is full, a quota is used up, a mount is gone."""
