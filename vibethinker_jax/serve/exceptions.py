"""Why the engine's thread, or the one that scores, does not answer."""


class Busy(Exception):
  """The queue is full. `retry_s`: when it may be worth another try."""

  def __init__(self, message: str, retry_s: int):
    super().__init__(message)
    self.retry_s = retry_s


class Closing(Exception):
  """The server shuts down."""


class EngineFailure(Exception):
  """The engine failed while it worked on a request. The next one finds it at work again."""
