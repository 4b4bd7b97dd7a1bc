"""What machines do to a run: full disks, signals, strange surroundings. It ends in a line, and goes on to its bits."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"""
import sys

sys.path.insert(0, {str(ROOT / 'tests')!r})
from shrunken import config, shrink


def get_config():
  return shrink(config('tiny'))
"""
SIZES_KB = (40, 90, 150, 300, 500, 700, 850, 1000, 1300, 1600, 1900, 2300)

pytestmark = pytest.mark.slow


class Command:
  """experiments/ssp.py on a small config, for any workdir."""

  def __init__(self, folder: pathlib.Path):
    (folder / 'config.py').write_text(CONFIG)
    self.config = folder / 'config.py'
    self.environment = os.environ | {
      'PYTHONPATH': str(ROOT),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_backend_optimization_level=0',
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
    }

  def start(self, workdir: pathlib.Path, *python: str) -> subprocess.Popen:
    command = [sys.executable, *python, 'experiments/ssp.py', f'--config={self.config}', f'--workdir={workdir}']
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    hear = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background are deaf to it
    return subprocess.Popen(command, cwd=ROOT, env=self.environment, preexec_fn=hear, **pipes)

  def run(self, workdir: pathlib.Path, *python: str) -> tuple[int, list[str]]:
    """Its exit code, and the lines on standard error without progress bars."""
    return self.end(self.start(workdir, *python))

  def end(self, process: subprocess.Popen) -> tuple[int, list[str]]:
    said = process.communicate(timeout=1200)[1].replace('\r', '\n').split('\n')
    return process.returncode, [line for line in said if line.strip() and '|' not in line]


def catches(pid: int, number: int) -> bool:
  """Whether a process has a handler for the signal: it is past its start."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  caught = next(line.split()[1] for line in status.splitlines() if line.startswith('SigCgt'))
  return bool(int(caught, 16) >> (number - 1) & 1)


def digest(workdir: pathlib.Path) -> str:
  return hashlib.sha256((workdir / 'final' / 'model.safetensors').read_bytes()).hexdigest()


@pytest.fixture(scope='module')
def command(tmp_path_factory):
  return Command(tmp_path_factory.mktemp('command'))


@pytest.fixture(scope='module')
def whole(command, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole') / 'w'
  assert command.run(workdir) == (0, [])
  return digest(workdir)


@pytest.fixture
def small_disk(tmp_path):
  """resize(KB) of a file system of its own, and its folder."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = lambda *options: subprocess.run(['mount', *options, str(disk)], capture_output=True)
  if mount('-t', 'tmpfs', '-o', 'size=40k', 'tmpfs').returncode:
    pytest.skip('no file system may be mounted here')
  yield lambda options: mount('-o', f'remount,{options}'), disk
  subprocess.run(['umount', '-l', str(disk)], check=True)


def test_a_full_disk_in_every_stage(command, whole, small_disk):
  """It grows from 40 KB, and is full again and again: each time one line, exit 1; at last the same bits."""
  resize, disk = small_disk
  stages = set()
  for size in SIZES_KB:
    resize(f'size={size}k')
    code, said = command.run(disk / 'w')
    assert code == 1 and len(said) == 1, said
    assert said[0].startswith(f'error: {disk}/w') and f'the file system at {disk} has' in said[0], said
    assert 'cannot be written (No space left on device)' in said[0], said
    stages.add(said[0].removeprefix(f'error: {disk}/w/').split('/')[0].split(':')[0])
    assert not [p for p in (disk / 'w').rglob('.*') if p.name != '.lock'], 'half a file is left'
  assert {'sft', 'rl'} < stages
  resize('size=16m')
  assert command.run(disk / 'w') == (0, []) and digest(disk / 'w') == whole


def test_a_disk_that_may_only_be_read(command, small_disk):
  resize, disk = small_disk
  resize('ro')
  code, said = command.run(disk / 'w')
  assert code == 2 and len(said) == 1 and 'cannot be written (Read-only file system)' in said[0], said
  file = disk.parent / 'file'
  file.write_text('')
  for workdir in (file, file / 'w'):
    code, said = command.run(workdir)
    assert code == 2 and len(said) == 1 and said[0].startswith(f'error: {workdir}: '), said


def test_signals_in_every_stage_and_strange_surroundings(command, whole, tmp_path):
  """SIGTERM and Ctrl-C; blanks and letters of anywhere in the path, no HOME, python -O: the same bits at last."""
  workdir = tmp_path / 'läufe mit blanks' / '実験'
  command.environment.pop('HOME', None)
  metrics = lambda mark: (workdir / 'metrics.jsonl').exists() and mark in (workdir / 'metrics.jsonl').read_text()
  marks = {
    'sft': lambda: metrics('"stage": "sft/all", "step": 2'),
    'probe': lambda: list(workdir.glob('probe/*/*')),
    'rl': lambda: metrics('"stage": "rl/math_long", "step": 1'),
    'evaluate': lambda: (workdir / 'evaluate' / 'base.json').exists(),
  }
  for stage, there in marks.items():
    for sent, code, line in (
      (signal.SIGTERM, 0, 'the same command continues'),
      (signal.SIGINT, 130, 'interrupted; the same command continues'),
    ):
      process = command.start(workdir, '-O')
      while process.poll() is None and not (catches(process.pid, signal.SIGTERM) and there()):
        time.sleep(0.01)
      process.send_signal(sent)
      ended, said = command.end(process)
      # what falls into a callback of the garbage collector is told by Python, and raised again
      dropped = [i for i, text in enumerate(said) if text.startswith('Exception ignored in')]
      assert ended == code and line in said[-1] and (len(said) == 1 or dropped == [0]), (stage, sent, ended, said)
  assert command.run(workdir, '-O') == (0, []) and digest(workdir) == whole


def test_two_at_once_and_a_killed_one(command, whole, tmp_path):
  workdir = tmp_path / 'w'
  first = command.start(workdir)
  while not (workdir / 'sft' / 'all').exists():
    assert first.poll() is None
    time.sleep(0.02)
  code, said = command.run(workdir)
  assert code == 2 and len(said) == 1 and f'process {first.pid}, since' in said[0], said
  first.kill()
  first.wait()
  assert (workdir / '.lock').exists() and command.run(workdir) == (0, []) and digest(workdir) == whole
