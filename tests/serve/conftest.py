"""A server in this process, on a free port: the tiny base, eight rows, short lengths."""

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time

import openai
import pytest
import uvicorn

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.model import hf
from vibethinker_jax.serve import api
from vibethinker_jax.serve.server import Server, first_breath
from vibethinker_jax.serve.service import Service
from vibethinker_jax.serve.solve import GraderPool
from vibethinker_jax.serve.worker import Worker

ROWS, WAITING, LONGEST = 8, 8, 256


@dataclasses.dataclass(frozen=True)
class Live:
  service: Service
  url: str
  loop: asyncio.AbstractEventLoop

  def client(self, key: str = 'none') -> openai.OpenAI:
    return openai.OpenAI(base_url=f'{self.url}/v1', api_key=key, max_retries=0, timeout=120)

  def idle(self, within_s: float = 60) -> bool:
    """Whether the metrics show within `within_s` seconds that no row is in use and no sample waits."""
    end, worker = time.monotonic() + within_s, self.service.worker
    while time.monotonic() < end:
      if worker.open == worker.metrics.live == worker.metrics.queued == 0:
        return True
      time.sleep(0.02)
    return False


@contextlib.contextmanager
def _served(service: Service, cors: tuple[str, ...] = ()):
  """The service on uvicorn, in a thread with its own event loop."""
  sock = socket.create_server(('127.0.0.1', 0))
  ready, ended = threading.Event(), threading.Event()
  loop = asyncio.new_event_loop()
  server = Server(uvicorn.Config(api.build(service, cors), log_level='warning', timeout_graceful_shutdown=5))

  async def main():
    service.worker.start()
    await first_breath(service.worker)
    ready.set()
    await server.serve([sock])
    await service.worker.stop()

  def run():
    with contextlib.closing(loop), sock:
      loop.run_until_complete(main())
    ended.set()

  threading.Thread(target=run, daemon=True).start()
  assert ready.wait(300)
  yield Live(service, f'http://127.0.0.1:{sock.getsockname()[1]}', loop)
  server.should_exit = True
  assert ended.wait(60)


@pytest.fixture(scope='session')
def tiny():
  """(engine, model, tokenizer) of the tiny base; engines of equal sizes share what is compiled."""
  directory = TINY_BASE
  tokenizer, model = load_chat_tokenizer(directory), hf.load(directory)
  engine = Engine(model.config, tokenizer.stop_ids, rows=ROWS, block=8, max_length=LONGEST)
  engine.row_sizes = [ROWS]
  return engine, model, tokenizer


@pytest.fixture(scope='session')
def graders():
  graders = GraderPool(1)
  yield graders
  graders.close()


@pytest.fixture(scope='session')
def make_service(tiny, graders):
  engine, model, tokenizer = tiny
  return lambda keys=(): Service('vibethinker', tokenizer, Worker(engine, model, WAITING), graders, keys)


@pytest.fixture(scope='session')
def served():
  """served(service, cors=()): a context, the service behind a port."""
  return _served


@pytest.fixture(scope='session')
def live(make_service):
  with _served(make_service()) as live:
    yield live
