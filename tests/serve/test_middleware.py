"""HEAD, OPTIONS, browsers of other origins, the type of a body, and keys that cannot be sent in a header."""

import httpx
import pytest

from vibethinker_jax.cli import engines, serve
from vibethinker_jax.cli.__main__ import main

BODY = b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}'


def test_head_is_get_without_a_body(live):
  for path in ('health', 'metrics', 'v1/models', 'v1/models/vibethinker'):
    head, get = httpx.head(f'{live.url}/{path}'), httpx.get(f'{live.url}/{path}')
    assert (head.status_code, head.content) == (200, b'') and get.content
    assert head.headers['content-type'] == get.headers['content-type']
  assert httpx.head(f'{live.url}/v1/completions').status_code == 405
  assert httpx.head(f'{live.url}/nowhere').status_code == 404


def test_options_say_what_a_path_allows(live):
  for path, allowed in (('health', 'GET, HEAD, OPTIONS'), ('v1/models/x', 'GET, HEAD, OPTIONS'), ('v1/solve', None)):
    answer = httpx.options(f'{live.url}/{path}')
    assert (answer.status_code, answer.headers['allow']) == (204, allowed or 'OPTIONS, POST')
  assert httpx.options(f'{live.url}/nowhere').status_code == 404


PREFLIGHT = {'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,content-type'}


def test_pages_of_other_origins(make_service, served):
  own, other = 'http://localhost:3000', 'http://elsewhere'
  with served(make_service(keys=('key',)), cors=(own,)) as live:
    preflight = httpx.options(f'{live.url}/v1/chat/completions', headers={'Origin': own, **PREFLIGHT})
    assert preflight.status_code == 200 and preflight.headers['access-control-allow-origin'] == own
    assert 'authorization' in preflight.headers['access-control-allow-headers']
    asked = httpx.get(f'{live.url}/v1/models', headers={'Origin': own, 'Authorization': 'Bearer key'})
    assert asked.headers['access-control-allow-origin'] == own
    for path in ('v1/models', 'nowhere'):  # errors are shown to a page too
      assert httpx.get(f'{live.url}/{path}', headers={'Origin': own}).headers['access-control-allow-origin'] == own
    refused = httpx.options(f'{live.url}/v1/chat/completions', headers={'Origin': other, **PREFLIGHT})
    assert 'access-control-allow-origin' not in refused.headers
    assert 'access-control-allow-origin' not in httpx.get(f'{live.url}/health', headers={'Origin': other}).headers


def test_without_the_flag_no_other_origin_is_let_in(live):
  answer = httpx.options(f'{live.url}/v1/chat/completions', headers={'Origin': 'http://elsewhere', **PREFLIGHT})
  assert answer.status_code == 204 and 'access-control-allow-origin' not in answer.headers


@pytest.mark.parametrize(
  'kind, status, says',
  [
    ('application/json', 200, None),
    ('Application/JSON; charset=utf-8', 200, None),
    ('application/vnd.api+json', 200, None),
    (None, 415, 'The header Content-Type is missing: send "Content-Type: application/json"'),
    ('text/plain', 415, 'The header Content-Type is \'text/plain\': send "Content-Type: application/json"'),
    ('application/x-www-form-urlencoded', 415, 'form-urlencoded'),
    ('', 415, 'Content-Type'),
  ],
)
def test_a_body_says_that_it_is_json(live, kind, status, says):
  headers = {} if kind is None else {'Content-Type': kind}
  answer = httpx.post(f'{live.url}/v1/chat/completions', content=BODY, headers=headers, timeout=120)
  assert answer.status_code == status
  if says:
    assert says in answer.json()['error']['message']
    assert answer.json()['error']['type'] == 'invalid_request_error'


@pytest.mark.parametrize(
  'content, says',
  [
    ('right\nclé\n', 'line 2: a key may have ASCII'),
    ('two words\n', 'line 1: a key may'),
    ('tab\there\n', 'line 1: a key may'),
    ('right\n\nключ\n', 'line 3: a key may'),
    ('a\x0cb\n', 'line 1: a key may'),
    ('a\u2028b\n', 'line 1: a key may'),
    ('a\x00b\n', 'line 1: a key may'),
    ('', 'no keys in it'),
    (' \n\n\t\n', 'no keys in it'),
    (b'\xff\xfe', 'cannot be read'),
  ],
)
def test_keys_that_no_header_can_carry(tmp_path, capsys, monkeypatch, content, says):
  monkeypatch.setattr(engines, 'load', lambda args: pytest.fail('taken'))  # a server would wait for SIGTERM
  path = tmp_path / 'keys'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  assert main(['serve', '--keys', str(path), '--no-page', '--port', '0']) == 2
  said = capsys.readouterr().err
  assert says in said and str(path) in said and said.count('\n') == 1
  assert 'clé' not in said and 'words' not in said, 'no key is shown'


def test_a_mark_of_the_encoding_is_no_part_of_a_key(tmp_path):
  (tmp_path / 'keys').write_bytes('\ufefffirst\r\nsecond\n'.encode())
  assert serve._keys(tmp_path / 'keys') == ('first', 'second')


@pytest.mark.parametrize('origin', ['', 'localhost', 'http://a/', 'http://a b', 'http://', 'http://a/path', 'null'])
def test_what_is_no_origin(capsys, monkeypatch, origin):
  monkeypatch.setattr(engines, 'load', lambda args: pytest.fail('taken'))
  assert main(['serve', '--cors', origin, '--no-page', '--port', '0']) == 2
  assert f'--cors {origin}'.strip() in capsys.readouterr().err
