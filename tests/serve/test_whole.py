"""The server as it is started from a command line: under arbitrary requests, under SIGTERM, in a browser."""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

pytestmark = pytest.mark.slow
LONG = {'prompt': [5, 6, 7] * 5, 'temperature': 2.0, 'max_tokens': 4000, 'stream': True}


def free_port() -> int:
  with socket.create_server(('127.0.0.1', 0)) as sock:
    return sock.getsockname()[1]


class Started:
  """`vibethinker serve` with these flags, as a process."""

  def __init__(self, tmp_path, *flags: str):
    self.port, self.page_port = free_port(), free_port()
    ports = ['--port', str(self.port), '--page-port', str(self.page_port)]
    self.url, self.log = f'http://127.0.0.1:{self.port}', tmp_path / 'log'
    with self.log.open('w') as log:
      self.process = subprocess.Popen(
        [sys.executable, '-m', 'vibethinker_jax.cli', 'serve', *ports, '--warm', '0', *flags], stderr=log
      )
    end = time.monotonic() + 300
    while 'ready' not in self.log.read_text():
      assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
      time.sleep(0.1)

  def metrics(self) -> dict[str, float]:
    text = httpx.get(f'{self.url}/metrics').text
    return {name: float(value) for name, value in re.findall(r'^vibethinker_(\w+) (\S+)$', text, re.M)}

  def idle(self) -> bool:
    for _ in range(500):
      now = self.metrics()
      if now['samples_open'] == now['rows_in_use'] == now['samples_waiting'] == 0:
        return True
      time.sleep(0.02)
    return False

  def end(self) -> int:
    self.process.send_signal(signal.SIGTERM)
    return self.process.wait(120)


def test_arbitrary_requests_break_nothing(live, tmp_path):
  """What schemathesis makes of the server's own description, right and wrong: no answer is 5xx."""
  run = subprocess.run(
    [
      pathlib.Path(sys.executable).with_name('schemathesis'),
      *('run', f'{live.url}/openapi.json', '--checks', 'not_a_server_error', '--max-examples', '30'),
      *('--phases', 'examples,coverage,fuzzing', '--seed', '1', '--request-timeout', '60', '--no-color'),
    ],
    capture_output=True,
    text=True,
    cwd=tmp_path,  # it leaves a cache where it runs
  )
  assert run.returncode == 0, run.stdout[-3000:] + run.stderr
  assert 'not_a_server_error' not in run.stdout or 'No issues found' in run.stdout, run.stdout[-3000:]
  assert live.idle()


def test_sigterm_under_load(tmp_path):
  """Every stream ends whole or with an error object, within the grace period, and the exit code is 0."""
  server = Started(tmp_path, '--no-page', '--grace', '2', '--rows', '16', '--waiting', '8')
  ends, begun = [], threading.Semaphore(0)

  def client(i: int) -> None:
    # the even ones are short
    body = {**LONG, 'seed': i} | ({'max_tokens': 20} if i % 2 == 0 else {})
    with httpx.Client(timeout=120) as http, http.stream('POST', f'{server.url}/v1/completions', json=body) as answer:
      lines = (line for line in answer.iter_lines() if line)
      events = [next(lines)]
      begun.release()
      events += lines
    ends.append((i, answer.status_code, events[-1]))

  threads = [threading.Thread(target=client, args=(i,)) for i in range(20)]
  for thread in threads:
    thread.start()
  for _ in range(10):
    assert begun.acquire(timeout=120)
  told = time.monotonic()
  server.process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  if server.process.poll() is None:
    with pytest.raises(httpx.HTTPError):  # turned away with 503, or not let in any more
      httpx.post(f'{server.url}/v1/completions', json={**LONG, 'max_tokens': 1}).raise_for_status()
  for thread in threads:
    thread.join(60)
  assert server.process.wait(60) == 0, server.log.read_text()
  assert time.monotonic() - told < 2 + 3 + 10  # grace, parting, and the rest of a busy machine's time
  assert sorted(i for i, _, _ in ends) == list(range(20))
  for _, status, last in ends:
    error = json.loads(last.removeprefix('data: ')) if last != 'data: [DONE]' else None
    assert error is None or error['error']['code'] == 'shutting_down'
    assert status in (200, 503)


def test_a_taken_port_is_said_in_one_line():
  with socket.create_server(('127.0.0.1', 0)) as sock:
    port = str(sock.getsockname()[1])
    run = subprocess.run(
      [sys.executable, '-m', 'vibethinker_jax.cli', 'serve', '--port', port, '--no-page'],
      capture_output=True,
      text=True,
    )
  assert run.returncode == 2 and port in run.stderr.split('\n')[-2]


def test_keys_guard_both_doors(tmp_path):
  (tmp_path / 'keys').write_text('right\n')
  server = Started(tmp_path, '--keys', str(tmp_path / 'keys'))
  page = f'http://127.0.0.1:{server.page_port}'
  assert httpx.get(f'{server.url}/v1/models').status_code == 401
  assert httpx.get(f'{server.url}/v1/models', headers={'authorization': 'Bearer right'}).status_code == 200
  assert httpx.get(f'{page}/config').status_code == 401
  for password, status in (('wrong', 400), ('right', 200)):
    with httpx.Client() as client:
      assert client.post(f'{page}/login', data={'username': 'any', 'password': password}).status_code == status
      assert client.get(f'{page}/config').status_code == (200 if status == 200 else 401)
  assert server.end() == 0


def test_the_terminal(tmp_path):
  said = 'Solve 7x + 12 = 61.\n/n 8 Solve 7x + 12 = 61.\n/preset explore\n/what\n/quit\n'
  command = [sys.executable, '-m', 'vibethinker_jax.cli', 'chat']
  run = subprocess.run(command, input=said, capture_output=True, text=True, timeout=600)
  assert run.returncode == 0, run.stderr
  assert re.search(r'\[ \d+ \]', run.stdout) and '█' in run.stdout and 'explore> ' in run.stdout


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  server = Started(tmp_path_factory.mktemp('site'), '--block', '2')
  yield server
  assert server.end() == 0


@pytest.fixture(scope='module')
def browser():
  sync_api = pytest.importorskip('playwright.sync_api', reason='the page is driven with playwright')
  chromium = shutil.which('chromium')
  if chromium is None:
    pytest.skip('the page is driven in chromium, which is not installed')
  flags = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync']
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=flags)
    yield browser
    browser.close()


@pytest.mark.parametrize('width, height', [(1280, 860), (390, 844)])
def test_the_page(site, browser, width, height, tmp_path):
  """Ask, watch it come, stop, and the spectrum; screenshots lie in pytest's directory for this test."""
  playwright = pytest.importorskip('playwright.sync_api')
  page = browser.new_page(viewport={'width': width, 'height': height})
  elsewhere = []
  page.on('request', lambda r: elsewhere.append(r.url) if f':{site.page_port}' not in r.url else None)
  page.goto(f'http://127.0.0.1:{site.page_port}')
  page.fill('#box textarea', 'Solve 7x + 12 = 61.')
  page.click('#send')
  page.wait_for_selector('#talk .answer .katex', timeout=120_000)
  assert page.locator('#talk .step').count() > 0
  page.wait_for_selector('#send:visible')
  page.screenshot(path=tmp_path / f'asked-{width}.png')

  # an answer that goes on, stopped: what there was stays, and the row is free
  page.get_by_text('Sampling').click()
  for name, value in (('Temperature', '2'), ('Top-p', '1')):
    page.get_by_label(f'number input for {name}').fill(value)
    page.get_by_label(f'number input for {name}').press('Enter')
  for _ in range(20):  # now and then one ends by itself
    page.fill('#box textarea', 'x' * 40)
    page.click('#send')
    page.wait_for_selector('#stop:visible')
    lengths: set[int] = set()
    while len(lengths) < 4 and page.locator('#stop:visible').count():
      lengths.add(len(page.inner_text('#talk')))
    if page.locator('#stop:visible').count():
      with contextlib.suppress(playwright.TimeoutError):
        page.click('#stop', timeout=1000)
        break
    page.wait_for_selector('#send:visible')
  assert len(lengths) == 4, 'it came in pieces'
  page.wait_for_selector('#send:visible')
  page.screenshot(path=tmp_path / f'stopped-{width}.png')
  assert site.idle()
  length = len(page.inner_text('#talk'))
  page.wait_for_timeout(500)
  said = page.inner_text('#talk')
  assert len(said) == length and 'x' * 40 in said and 'Error' not in said

  page.get_by_text('Exploration').click()  # its own values again
  page.get_by_text('Sampling').click()
  page.get_by_role('tab', name='Spectrum').click()
  page.fill('#problem textarea', 'Find the slope of 5x^2 + 5x at x = 4.')
  page.click('#draw')
  page.wait_for_selector('[data-solution]', timeout=120_000)
  assert page.locator('[data-solution]').count() == 8
  for i in (0, 7):
    page.click(f'[data-solution="{i}"]')
    page.get_by_text(f'Solution {i + 1}', exact=True).wait_for()
  page.screenshot(path=tmp_path / f'spectrum-{width}.png', full_page=True)
  assert page.evaluate('document.documentElement.scrollWidth') <= width, 'nothing sticks out'
  assert not elsewhere, 'nothing is loaded from elsewhere'
  page.close()
  assert site.idle()
