"""The errors of the server, each answered as OpenAI does: {"error": {"message", "type", "param", "code"}}.

A mistake of the client is answered with a status 4xx that names it; 5xx is left for failures of the server.
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException


class Busy(Exception):
  """The queue of the engine, or of the scorer, is full. retry_s: seconds after which another try may succeed."""

  def __init__(self, message: str, retry_s: int):
    super().__init__(message)
    self.retry_s = retry_s


class Closing(Exception):
  """The server is shutting down."""


class EngineFailure(Exception):
  """The engine failed while it worked on a request. It starts again with the next request."""


class ApiError(Exception):
  """An answer that is an error object.

  status: of HTTP. message: one sentence. param: the field of the request that is wrong. code: OpenAI's, such as
  'context_length_exceeded'. retry_s: seconds for the header Retry-After, 0 for none.
  """

  def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, retry_s: int = 0):
    super().__init__(message)
    self.status, self.param, self.code, self.retry_s = status, param, code, retry_s

  @property
  def body(self) -> dict:
    """OpenAI's error object."""
    kinds = {401: 'authentication_error', 429: 'rate_limit_error'}
    kind = 'server_error' if self.status >= 500 else kinds.get(self.status, 'invalid_request_error')
    return {'error': {'message': str(self), 'type': kind, 'param': self.param, 'code': self.code}}

  def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The HTTP response with this error in it, and with `headers`."""
    headers = {**(headers or {})} | ({'Retry-After': str(self.retry_s)} if self.retry_s else {})
    if self.status == 401:
      headers['WWW-Authenticate'] = 'Bearer'
    return JSONResponse(self.body, self.status, headers)


def engine_failed(error: EngineFailure) -> ApiError:
  """500: a failure of the server; the engine goes on with the next request."""
  return ApiError(500, str(error), code='engine_failure')


def busy(error: Busy) -> ApiError:
  """429: the client should try again."""
  return ApiError(429, str(error), code='rate_limit_exceeded', retry_s=error.retry_s)


def shutting_down(error: Closing) -> ApiError:
  """503: the client should try again."""
  return ApiError(503, str(error), code='shutting_down', retry_s=5)


class _ErrorObject(BaseModel):
  message: str
  type: str
  param: str | None
  code: str | None


class _Error(BaseModel):
  """OpenAI's error object."""

  error: _ErrorObject


ERROR_RESPONSES: dict = {
  '4XX': {'model': _Error, 'description': 'The request cannot be served; the message says why'},
  '5XX': {'model': _Error, 'description': 'The server failed or is shutting down'},
}


def handle_errors(app: FastAPI) -> None:
  """Makes `app` answer whatever an endpoint raises with an error object."""

  @app.exception_handler(ApiError)
  async def refused(http: Request, error: ApiError) -> Response:
    return error.response()

  @app.exception_handler(RequestValidationError)
  async def invalid(http: Request, error: RequestValidationError) -> Response:
    return _invalid(error).response()

  @app.exception_handler(HTTPException)
  async def other(http: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
      return ApiError(404, f'{http.url.path}: not found, this server has {", ".join(_paths(app))}').response()
    if error.status_code == 405:
      allowed = (error.headers or {}).get('Allow', '')
      return ApiError(405, f'{http.url.path} takes {allowed}, not {http.method}').response(error.headers)
    return ApiError(error.status_code, str(error.detail)).response(error.headers)

  @app.exception_handler(EngineFailure)
  async def failed(http: Request, error: EngineFailure) -> Response:
    return engine_failed(error).response()

  @app.exception_handler(Closing)
  async def closed(http: Request, error: Closing) -> Response:
    return shutting_down(error).response()

  @app.exception_handler(Exception)
  async def unforeseen(http: Request, error: Exception) -> Response:
    return ApiError(500, f'the server failed ({type(error).__name__})').response()


def _paths(app: FastAPI) -> list[str]:
  """The paths of the server that have no parameter in them."""
  return sorted({route.path for route in app.routes if '{' not in route.path})


def _invalid(error: RequestValidationError) -> ApiError:
  """The first error of pydantic's list as one line: the field, and what was expected there."""
  first = error.errors()[0]
  if first['type'] == 'json_invalid':
    return ApiError(400, f'the body is not JSON ({first["ctx"]["error"]})')
  path = [str(part) for part in first['loc'][1:] if isinstance(part, int) or part.isidentifier()]
  if first['type'] == 'fault' and first.get('ctx', {}).get('param'):
    path.append(first['ctx']['param'])
  param = '.'.join(path) or None
  if first['type'] == 'extra_forbidden':
    return ApiError(400, f'Unrecognized request argument supplied: {param}', param)
  return ApiError(400, f'{param or "the body"}: {first["msg"]}', param)
