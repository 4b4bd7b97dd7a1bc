"""The server: opens the addresses of the API and of the page, serves, and closes in order.

On SIGTERM or SIGINT new requests are refused (503, also at /health), and present ones may finish within the grace
period. The others get an error object, and the process ends with exit code 0. A second signal ends the grace period.
"""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import time

import jax
import numpy as np
import uvicorn
from fastapi import FastAPI

from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.serve import api
from vibethinker_jax.serve.service import Service
from vibethinker_jax.serve.solve import GraderPool
from vibethinker_jax.serve.worker import Worker

_PARTING_S = 3  # seconds for connections that stay open after their answer, such as those of browsers


@dataclasses.dataclass(frozen=True)
class ListenAddresses:
  """Where to listen. page: the port of the chat page, None for no page. cors: origins whose pages may send requests."""

  host: str = '127.0.0.1'
  port: int = 8000
  page: int | None = 7860
  cors: tuple[str, ...] = ()


class Server(uvicorn.Server):
  """One of several servers in a process that handles the signals itself."""

  @contextlib.contextmanager
  def capture_signals(self):
    yield


def run(
  engine: Engine,
  model: Qwen2,
  tokenizer: ChatTokenizer,
  name: str,
  addresses: ListenAddresses,
  waiting: int = 256,
  warm: int = 1024,
  keys: tuple[str, ...] = (),
  grace_s: float = 30.0,
  separate: bool = True,
) -> None:
  """Serves until a signal.

  Args:
    engine, model, tokenizer: what answers.
    name: of the model, for clients.
    addresses: where to listen.
    waiting, warm: as in Worker.
    keys, separate: as in Service.
    grace_s: seconds in which requests may finish after the signal.

  Raises:
    BadInput: a port is taken.
  """
  begin = time.monotonic()
  # the thread of the engine needs the interpreter for moments only, and would wait 5 ms for each of them
  sys.setswitchinterval(0.0005)
  os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')  # threads for single prompts cost more than they bring
  with contextlib.ExitStack() as stack:
    listening = [stack.enter_context(_listen(addresses.host, addresses.port))]
    if addresses.page is not None:
      listening.append(stack.enter_context(_listen(addresses.host, addresses.page)))
    say(*memory(engine, model))
    graders = GraderPool()
    stack.callback(graders.close)
    service = Service(name, tokenizer, Worker(engine, model, waiting, warm), graders, keys, separate)
    asyncio.run(_serve(service, listening, addresses.cors, grace_s, begin))


async def _serve(
  service: Service, listening: list[socket.socket], cors: tuple[str, ...], grace_s: float, begin: float
) -> None:
  told, told_again = asyncio.Event(), asyncio.Event()
  loop = asyncio.get_running_loop()
  for sign in (signal.SIGTERM, signal.SIGINT):
    loop.add_signal_handler(sign, lambda: (told_again if told.is_set() else told).set())
  worker = service.worker
  worker.start()
  await first_breath(worker)
  apps = [api.build(service, cors)]
  if len(listening) > 1:
    from vibethinker_jax.serve import page  # Gradio takes seconds to import

    apps.append(page.build(service))
  servers = [Server(_config(app)) for app in apps]
  tasks = [asyncio.create_task(server.serve([sock])) for server, sock in zip(servers, listening)]
  for what, sock in zip(('API', 'chat page'), listening):
    host, port = sock.getsockname()[:2]
    say(f'{what}: http://{host}:{port}{"/v1" if what == "API" else ""}')
  say(f'ready after {time.monotonic() - begin:.1f} s' + ('' if worker.warm else '; other shapes are being compiled'))
  await told.wait()
  say(f'closing: {worker.open} samples may finish within {grace_s:g} s')
  draining = asyncio.create_task(worker.drain(grace_s))
  impatient = asyncio.create_task(told_again.wait())
  await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
  for task in (draining, impatient):
    task.cancel()
  await worker.drain(0)
  for server in servers:
    server.should_exit = True
  await asyncio.gather(*tasks)
  await worker.stop()
  say('closed')


async def first_breath(worker: Worker) -> None:
  """Draws one token greedily and one by sampling, so that what a first short request needs is compiled."""
  for sampling in (SamplingParams(0.0), SamplingParams(0.6, top_p=0.95)):
    with worker.ask([Request((0,) * 40, 2, 1, sampling)]) as stream:
      async for _ in stream:
        pass


def memory(engine: Engine, model: Qwen2) -> list[str]:
  """Lines that say how much memory the weights and the cache take."""
  size = lambda tree: sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
  R, S = engine.row_sizes[0], engine.max_length
  cache = size(jax.eval_shape(lambda: engine.cache.empty(engine.config, R, S, engine.config.dtype)))
  return [
    f'weights: {_bytes(size(model))}',
    f'keys and values: {_bytes(cache / R / S)} a token, at most {_bytes(cache)} ({R} rows of {S} tokens)',
  ]


def _bytes(n: float) -> str:
  for unit in ('B', 'KiB', 'MiB'):
    if n < 1024:
      return f'{n:.3g} {unit}'
    n /= 1024
  return f'{n:.2f} GiB'


def say(*lines: str) -> None:
  """Prints lines to stderr, as a log."""
  for line in lines:
    print(f'vibethinker: {line}', file=sys.stderr, flush=True)


def _listen(host: str, port: int) -> socket.socket:
  try:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)
  except OSError as error:
    raise BadInput(f'{host}, port {port}: cannot listen there ({error.strerror})') from None


def _config(app: FastAPI) -> uvicorn.Config:
  return uvicorn.Config(
    app, log_level='warning', access_log=False, timeout_graceful_shutdown=_PARTING_S, timeout_keep_alive=30
  )
