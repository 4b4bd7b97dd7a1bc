"""The server under load, beside the engine alone on the same requests: nothing lost, nothing leaked, how fast.

  python experiments/benchmark_serving.py [--clients 128] [--seconds 120] [--length long]

Starts `vibethinker serve` on the tiny base. Clients ask one streamed question after the other; every tenth request is
left after its first piece. They begin uncounted, until what they need is compiled. Then the server is told to stop, and
the same requests are generated without one, by the same engine in this process. `--length long`: the base's lines of
practice, some 70 tokens an answer; `short`: problems, some 20. The figures are in docs/serving.md.
"""

import asyncio
import dataclasses
import functools
import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence

from absl import flags

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.config_io import run_app
from vibethinker_jax.data import synthetic
from vibethinker_jax.data.tokenizer import ChatTokenizer, load_chat_tokenizer
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.model import hf
from vibethinker_jax.serve.detokenizer import Detokenizer, Wanted

CLIENTS = flags.DEFINE_integer('clients', 128, lower_bound=1, help='asking at a time')
SECONDS = flags.DEFINE_float('seconds', 120, lower_bound=1, help='that count')
WARM = flags.DEFINE_float('warm', 40, lower_bound=0, help='seconds before that do not')
LENGTH = flags.DEFINE_enum('length', 'long', ['long', 'short'], 'of the answers')

ROWS, BLOCK, LONGEST = 64, 32, 256


@dataclasses.dataclass
class Tally:
  """What the clients saw."""

  raw: dict[int, bytes] = dataclasses.field(default_factory=dict)  # request -> the body of its answer
  whole: dict[int, str] = dataclasses.field(default_factory=dict)  # request -> its text
  tokens: int = 0
  left: int = 0
  lost: list[str] = dataclasses.field(default_factory=list)
  first: list[float] = dataclasses.field(default_factory=list)  # seconds to the first piece


def main(argv) -> None:
  del argv
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  flags = f'--no-page --port {port} --rows {ROWS} --block {BLOCK} --max-length {LONGEST} --warm 0 --waiting 512'
  begin = time.monotonic()
  server = subprocess.Popen(
    [sys.executable, '-m', 'vibethinker_jax.cli', 'serve', '--model', str(TINY_BASE), *flags.split()]
  )
  try:
    wait(port, server, lambda: health(port)['status'] == 'ok')
    print(f'answers after {time.monotonic() - begin:.1f} s')
    asyncio.run(load(port, server.pid, WARM.value))
    wait(port, server, lambda: metrics(port)['samples_open'] == 0)
    before = metrics(port)
    tally, seconds, resident = asyncio.run(load(port, server.pid, SECONDS.value))
    wait(port, server, lambda: metrics(port)['samples_open'] == 0)
    after = metrics(port)
  finally:
    server.send_signal(signal.SIGTERM)
  served = tally.tokens / seconds
  report(tally, before, after, resident)
  rate = len(tally.whole) / seconds
  print(f'exit code {server.wait(60)}; served {served:,.0f} tokens/s in whole answers, {rate:.0f} answers/s')
  alone = offline(LENGTH.value, sorted(tally.whole), tally)
  print(f'engine alone {alone:,.0f} tokens/s; served / alone = {served / alone:.0%}')


def ask(i: int, length: str) -> str:
  """The user's message of request i."""
  if length == 'long':
    return 'Practice.'
  problems = _problems()
  return problems[i % len(problems)].prompt


@functools.cache
def _problems() -> list:
  return [p for d in synthetic.DOMAINS for p in synthetic.problems(d, 'test', 64, seed=0)]


async def load(port: int, pid: int, seconds: float) -> tuple[Tally, float, list[float]]:
  """What happened in so many seconds (in how many, for the last answers too), and the resident MiB once a second."""
  tally, numbers, resident = Tally(), iter(range(2**31)), []
  begin = time.monotonic()
  end = begin + seconds

  async def watch():
    while True:
      resident.append(int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1]) * 4096 / 2**20)
      await asyncio.sleep(1)

  watching = asyncio.create_task(watch())
  await asyncio.gather(*(client(port, numbers, end, LENGTH.value, tally) for _ in range(CLIENTS.value)))
  seconds = time.monotonic() - begin
  watching.cancel()
  read(tally)
  return tally, seconds, resident


def read(tally: Tally) -> None:
  """The answers out of the bytes received, once the time is over."""
  for i, data in tally.raw.items():
    chunks, at = [], 0
    while at < len(data):  # HTTP's chunks: a size in hexadecimal, and so many bytes
      end = data.index(b'\r\n', at)
      size = int(data[at:end], 16)
      chunks.append(data[end + 2 : end + 2 + size])
      at = end + 4 + size
    events = [event[6:] for event in b''.join(chunks).split(b'\n\n') if event]
    if not events or events[-1] != b'[DONE]':
      tally.lost.append(f'request {i}: ends with {events[-1:]}')
      continue
    parts = [json.loads(event) for event in events[:-1]]
    tally.whole[i] = ''.join(choice['delta'].get('content', '') for part in parts for choice in part['choices'])
    tally.tokens += parts[-1]['usage']['completion_tokens']


async def client(port: int, numbers, end: float, length: str, tally: Tally) -> None:
  """One connection after the other; each is kept for as many requests as it lives."""
  connection = None
  while time.monotonic() < end:
    i = next(numbers)
    if connection is None:
      connection = await asyncio.open_connection('127.0.0.1', port)
    reader, writer = connection
    body = json.dumps(
      {
        'messages': [{'role': 'user', 'content': ask(i, length)}],
        'stream': True,
        'stream_options': {'include_usage': True},
        'seed': i,
        'separate_reasoning': False,
        'max_tokens': 160,
      }
    ).encode()
    asked = time.monotonic()
    head = (
      f'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}'
    )
    writer.write(head.encode() + b'\r\n\r\n' + body)
    status = (await reader.readuntil(b'\r\n\r\n')).split(b' ', 2)[1]
    if status != b'200':
      tally.lost.append(f'request {i}: status {status.decode()}')
      writer.close()
      connection = None
      continue
    leaves, data = random.Random(i).random() < 0.1, b''
    while not data.endswith(b'\r\n0\r\n\r\n'):
      part = await reader.read(1 << 16)
      if not data:
        tally.first.append(time.monotonic() - asked)
      data += part
      if leaves or not part:
        break
    if leaves or not part:
      writer.close()
      connection = None
    if leaves:
      tally.left += 1
    else:
      tally.raw[i] = data
  if connection is not None:
    connection[1].close()


def report(tally: Tally, before: dict, after: dict, resident: list[float]) -> None:
  """What the clients and the metrics say."""
  first = sorted(tally.first)
  print(f'{len(tally.whole)} whole answers, {tally.left} left in the middle, {len(tally.lost)} lost {tally.lost[:3]}')
  late = first[len(first) * 99 // 100]
  print(f'seconds to the first piece: median {first[len(first) // 2]:.3f}, 99 of 100 below {late:.3f}')
  names = ('rows_in_use', 'samples_waiting', 'samples_open', 'engine_restarts_total')
  print('metrics afterwards:', ', '.join(f'{name} {after[name]:g}' for name in names), end='')
  print(f', clients_gone {after["clients_gone_total"] - before["clients_gone_total"]:g}')
  marks = [resident[min(len(resident) - 1, len(resident) * k // 4)] for k in range(5)]
  print('resident MiB over the time:', ', '.join(f'{m:.0f}' for m in marks))


def offline(length: str, numbers: list[int], tally: Tally) -> float:
  """Tokens per second of the engine alone on these requests; says how many texts are the same."""
  tokenizer, model = load_chat_tokenizer(TINY_BASE), hf.load(TINY_BASE)
  engine = Engine(model.config, tokenizer.stop_ids, ROWS, BLOCK, max_length=LONGEST, vocabulary=tokenizer.size)
  engine.row_sizes = [size for size in engine.row_sizes if size >= 16]
  prompts = {
    message: tuple(tokenizer.chat([{'role': 'user', 'content': message}]))
    for message in {ask(i, length) for i in numbers}
  }
  requests = [Request(prompts[ask(i, length)], 160, seed=i) for i in numbers]
  for _ in engine.generate(model, requests[:512]):
    pass  # compiles
  begin, drawn, texts = time.monotonic(), 0, {}
  for c in engine.generate(model, requests):
    drawn += len(c.tokens)
    texts[numbers[c.request]] = c.tokens
  seconds = time.monotonic() - begin
  same = sum(_said(tokenizer, texts[i].tolist()) == tally.whole[i] for i in numbers)
  print(
    f'{same} of {len(numbers)} served texts equal those of the engine alone ({drawn / len(numbers):.0f} tokens each)'
  )
  return drawn / seconds


def _said(tokenizer: ChatTokenizer, ids: Sequence[int]) -> str:
  """What a chat says of these tokens."""
  detokenizer = Detokenizer(tokenizer, Wanted(thinking=True))
  return detokenizer.feed(ids, [0.0] * len(ids))[0] + detokenizer.end()[0]


def health(port: int) -> dict:
  with urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=10) as answer:
    return json.load(answer)


def metrics(port: int) -> dict[str, float]:
  with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=10) as answer:
    return {
      name: float(value) for name, value in re.findall(r'^vibethinker_(\w+) (\S+)$', answer.read().decode(), re.M)
    }


def wait(port: int, server: subprocess.Popen, ready) -> None:
  """Until `ready`. Raises SystemExit where the server ends meanwhile."""
  while server.poll() is None:
    try:
      if ready():
        return
    except OSError:
      pass
    time.sleep(0.1)
  raise SystemExit(f'the server ended with exit code {server.returncode}')


if __name__ == '__main__':
  run_app(main)
