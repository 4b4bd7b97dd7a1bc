"""Probing problems from a server: what is asked, what is kept, going on after a stop."""

import http.server
import json
import pathlib
import subprocess
import sys
import threading

import pytest

from vibethinker_jax.data.probes import complete, written
from vibethinker_jax.data.sources import load
from vibethinker_jax.errors import BadInput

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def server():
  """Writes sums as problems; every third reply is no JSON, the answer of every fifth problem is wrong."""
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
      asked.append((self.path, self.headers['Authorization'], body))
      content = body['messages'][-1]['content']
      if content.startswith('Write'):
        n = len(asked)
        reply = json.dumps({'problem': f'What is {n} + 1?', 'answer': n + 1 + (n % 5 == 0)}) if n % 3 else 'I will not.'
      else:
        n = int(content.split()[2])
        reply = f'It is \\boxed{{{n + 1}}}.'
      out = json.dumps({'choices': [{'message': {'content': f'<think>{{}}</think>{reply}'}}]}).encode()
      self.send_response(200 if self.path == '/v1/chat/completions' else 404)
      self.send_header('Content-Length', str(len(out)))
      self.end_headers()
      self.wfile.write(out)

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as web:
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{web.server_port}/v1', asked
    web.shutdown()


def test_only_problems_answered_twice_alike_are_kept(server, tmp_path):
  url, asked = server
  out = tmp_path / 'p.jsonl'
  command = [sys.executable, 'experiments/make_probes.py', f'--url={url}', '--model=m', f'--out={out}']
  env = {'PYTHONPATH': str(ROOT), 'OPENAI_API_KEY': 'k', 'PATH': ''}
  run = lambda each: subprocess.run(
    [*command, '--domains=algebra,geometry', f'--each={each}'], cwd=ROOT, env=env, check=True
  )
  run(3)
  first = load(out)
  assert len(first) == 6 and {p.domain for p in first} == {'algebra', 'geometry'}
  assert all(int(p.answer) == int(p.prompt.split()[2]) + 1 for p in first)
  assert {(path, key) for path, key, _ in asked} == {('/v1/chat/completions', 'Bearer k')}
  run(4)
  again = load(out)
  assert again[:6] == first and len(again) == 8 and len({p.id for p in again}) == 8


def test_what_goes_wrong_is_named(server):
  url, _ = server
  with pytest.raises(BadInput, match='/v2/chat/completions: 404'):
    complete(url.replace('v1', 'v2'), 'm', [{'content': 'Write'}], '', 1.0, 5.0)
  with pytest.raises(BadInput, match='no completion'):
    complete('http://127.0.0.1:9/v1', 'm', [], '', 1.0, 5.0)
  for reply in ('none', '{"problem": "What?"}', '{"problem": "", "answer": 1}', '[1]'):
    with pytest.raises(BadInput, match='^reply 3: '):
      written(reply, 'algebra', 2)
