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

  def __init__(self, tmp_path, *flags: str, port: int = 0, page_port: int = 0):
    self.port, self.page_port = port or free_port(), page_port or free_port()
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
    with pytest.raises(httpx.HTTPError):  # refused with 503, or with a closed port
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


@pytest.fixture
def opened(site, browser):
  """The page of the shared server, wide."""
  page = browser.new_page(viewport={'width': 1280, 'height': 860})
  page.goto(f'http://127.0.0.1:{site.page_port}')
  page.wait_for_selector('#box textarea')
  yield page
  page.close()
  assert site.idle()


def test_a_refused_question_locks_nothing(opened):
  """Too long, then empty, then one that can be answered; the same of the spectrum."""
  long = 'x ' * 4200
  opened.fill('#box textarea', long)
  opened.click('#send')
  opened.wait_for_selector('#notice .notice:visible')
  assert 'shorten the prompt' in opened.inner_text('#notice') and '4096 tokens' in opened.inner_text('#notice')
  assert opened.locator('#send:visible').count() == 1 and opened.locator('#stop:visible').count() == 0
  assert opened.input_value('#box textarea') == long and opened.locator('#talk .user').count() == 0
  opened.fill('#box textarea', ' ')
  opened.click('#send')
  opened.get_by_text('Nothing was asked').wait_for()
  opened.fill('#box textarea', 'Find the slope of 2x^2 + 10x at x = 5.')
  opened.click('#send')
  opened.wait_for_selector('#talk .answer .katex', timeout=120_000)
  opened.wait_for_selector('#send:visible')
  assert opened.locator('.notice:visible').count() == 0

  opened.get_by_role('tab', name='Spectrum').click()
  opened.fill('#problem textarea', long)
  opened.click('#draw')
  opened.wait_for_selector('#warning .notice:visible')
  assert 'shorten the prompt' in opened.inner_text('#warning')
  assert opened.locator('#draw:visible').count() == 1 and opened.locator('#halt:visible').count() == 0
  opened.fill('#problem textarea', '')
  opened.click('#draw')
  opened.get_by_text('Nothing was asked').wait_for()
  opened.fill('#problem textarea', 'Find the slope of 2x^2 + 10x at x = 5.')
  opened.fill('#expected input', '30')
  opened.click('#draw')
  opened.wait_for_selector('[data-solution]', timeout=120_000)
  assert opened.locator('.notice:visible').count() == 0 and 'Right: ' in opened.inner_text('#picture')


def test_a_number_out_of_range_locks_nothing(opened):
  opened.get_by_text('Sampling').click()
  for value in ('5', '', '-1'):
    field = opened.get_by_label('number input for Temperature')
    field.fill(value)
    opened.fill('#box textarea', 'Solve 7x + 12 = 61.')
    opened.click('#send')  # the field may put itself right; else the page says what is wrong
    opened.wait_for_selector('#talk .answer, .notice:visible, .toast-body', timeout=120_000)
    opened.wait_for_selector('#send:visible')
    opened.reload()
    opened.wait_for_selector('#box textarea')
    opened.get_by_text('Sampling').click()


def test_dollars_code_and_names_in_the_page(opened):
  opened.fill('#box textarea', 'Say $5 and $6, `a < b`, \\boxed{a_b_c}, \\boxed{50%} and $x < y$.')
  opened.get_by_text('Sampling').click()
  opened.get_by_label('number input for New tokens at most').fill('1')
  opened.get_by_label('number input for New tokens at most').press('Enter')
  opened.click('#send')
  opened.wait_for_selector('#talk .user .katex')
  said = opened.locator('#talk .user').first
  assert 'Say $5 and $6' in said.inner_text() and said.locator('code').inner_text() == 'a < b'
  assert said.locator('.katex').count() == 3 and said.locator('.katex-error').count() == 0
  opened.wait_for_selector('#send:visible')


def test_the_width_does_not_jump(opened):
  width = lambda: opened.evaluate("document.querySelector('.gradio-container').getBoundingClientRect().width")
  widths = [width()]
  for tab in ('Spectrum', 'Chat'):
    opened.get_by_role('tab', name=tab).click()
    widths.append(width())
  opened.fill('#box textarea', 'word ' * 300)
  opened.click('#send')
  opened.wait_for_selector('#talk .user')
  widths.append(width())
  assert set(widths) == {960}
  opened.locator('#stop:visible').or_(opened.locator('#send:visible')).first.wait_for()
  if opened.locator('#stop:visible').count():
    opened.locator('#stop').dispatch_event('click')
  opened.wait_for_selector('#send:visible')


@pytest.mark.parametrize('sign', [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize('field, begin, stop', [('box', 'send', 'stop'), ('problem', 'draw', 'halt')])
def test_a_server_that_goes_away_in_the_middle(browser, tmp_path, sign, field, begin, stop):
  """When the server stops, the page says so; after a kill the page says that it is gone, and works when it is back."""
  server = Started(tmp_path, '--block', '2', '--grace', '0')
  page = browser.new_page(viewport={'width': 1280, 'height': 860})
  page.goto(f'http://127.0.0.1:{server.page_port}')
  page.wait_for_selector('#box textarea')
  page.get_by_text('Exploration').click()
  page.get_by_text('Sampling').click()
  for name, value in (('Temperature', '2'), ('Top-p', '1')):
    page.get_by_label(f'number input for {name}').fill(value)
    page.get_by_label(f'number input for {name}').press('Enter')
  if field == 'problem':
    page.get_by_role('tab', name='Spectrum').click()
    page.get_by_label('number input for Solutions').fill('32')
    page.get_by_label('number input for Solutions').press('Enter')
  page.fill(f'#{field} textarea', 'x' * 40)
  page.click(f'#{begin}')
  page.wait_for_selector(f'#{stop}:visible')
  page.wait_for_timeout(300)
  server.process.send_signal(sign)
  if sign == signal.SIGTERM:
    page.wait_for_selector('.notice:visible')
    assert 'shut' in page.inner_text('.notice:visible')
    page.wait_for_selector(f'#{begin}:visible')
    assert page.locator(f'#{stop}:visible').count() == 0
    assert server.process.wait(120) == 0
  else:
    page.wait_for_selector('.toast-body')
    assert 'was lost' in page.inner_text('.toast-body')
    server.process.wait(120)
    again = Started(tmp_path, '--block', '2', port=server.port, page_port=server.page_port)
    page.wait_for_selector('#send:visible', timeout=60_000)
    page.wait_for_selector('#stop', state='hidden')
    assert again.end() == 0
  page.close()


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
