"""What every request passes before an endpoint: HEAD and OPTIONS, a limit on the size of its body, and counters."""

from fastapi.responses import Response
from starlette.routing import Match

from vibethinker_jax.serve.errors import ApiError

BODY = 4 << 20  # bytes of a request at most


class Methods:
  """Answers HEAD like GET (the server leaves out the body), and OPTIONS with the methods that a path allows."""

  def __init__(self, app):
    self._app = app

  async def __call__(self, scope, receive, send) -> None:
    if scope['type'] != 'http':
      return await self._app(scope, receive, send)
    if scope['method'] == 'HEAD':
      return await self._app({**scope, 'method': 'GET'}, receive, send)
    if scope['method'] == 'OPTIONS':
      allowed = set().union(*(r.methods for r in scope['app'].routes if r.matches(scope)[0] is not Match.NONE))
      if allowed:
        allowed |= {'OPTIONS'} | ({'HEAD'} if 'GET' in allowed else set())
        return await Response(status_code=204, headers={'Allow': ', '.join(sorted(allowed))})(scope, receive, send)
    return await self._app(scope, receive, send)


class Limited:
  """Reads the body of a request before the application does, and answers 413 if it is too large."""

  def __init__(self, app):
    self._app = app

  async def __call__(self, scope, receive, send) -> None:
    if scope['type'] != 'http':
      return await self._app(scope, receive, send)
    parts, size, more = [], 0, True
    while more and size <= 16 * BODY:  # even a body that is too large is read: the client sends before it listens
      message = await receive()
      if message['type'] == 'http.disconnect':
        return None
      part, more = message.get('body', b''), message.get('more_body', False)
      size += len(part)
      if size <= BODY:
        parts.append(part)
    if size > BODY:
      error = ApiError(413, f'the body is larger than {BODY} bytes')
      return await error.response()(scope, receive, send)
    body = {'type': 'http.request', 'body': b''.join(parts), 'more_body': False}

    async def replay():
      nonlocal body
      if body is None:
        return await receive()
      message, body = body, None
      return message

    return await self._app(scope, replay, send)


class Counted:
  """Counts requests by route and by the status of the answer."""

  def __init__(self, app, metrics):
    self._app, self._requests = app, metrics.requests

  async def __call__(self, scope, receive, send) -> None:
    if scope['type'] != 'http':
      return await self._app(scope, receive, send)
    status = 499  # unless an answer begins

    async def noted(message):
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
      await send(message)

    try:
      await self._app(scope, receive, noted)
    finally:
      route = scope.get('route')
      self._requests.labels(route.path if route is not None else 'other', status).inc()
    return None
