"""The one error that is the user's to mend."""


class BadInput(ValueError):
  """What a user gave cannot be used. The message is one line: the file or field, the row, and what was expected.

  Mains and the command turn it into that line on stderr and exit code 2.
  """
