"""The lines of `vibethinker chat` can be edited and are remembered, in a terminal of the test."""

import os
import pty
import stat
import subprocess
import sys
import time

import pytest

CODE = """
import pathlib, sys
from vibethinker_jax.cli.chat import edited_lines

with edited_lines(pathlib.Path(sys.argv[1])):
  for _ in range(int(sys.argv[2])):
    print(f'<{input("ask> ")}>')
"""
UP, HOME = b'\x1b[A', b'\x01'


def typed(history, *lines: bytes) -> str:
  """What a terminal shows when the lines are typed, each once it is asked for."""
  ours, theirs = pty.openpty()
  command = [sys.executable, '-c', CODE, str(history), str(len(lines))]
  with subprocess.Popen(
    command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, 'TERM': 'xterm'}
  ) as run:
    os.close(theirs)
    shown, deadline = b'', time.monotonic() + 60
    for number, line in enumerate(lines, 1):
      while shown.count(b'ask> ') < number and time.monotonic() < deadline:
        shown += os.read(ours, 4096)
      os.write(ours, line + b'\r')
      while shown.count(b'>\r\n') < number and time.monotonic() < deadline:
        shown += os.read(ours, 4096)
    assert run.wait(60) == 0
  os.close(ours)
  return shown.decode()


@pytest.mark.parametrize('folder', ['.', 'deep/er'])
def test_lines_are_edited_and_remembered(tmp_path, folder):
  pytest.importorskip('readline')
  history = tmp_path / folder / 'history'
  shown = typed(history, b'23 + 4' + HOME + b'1', UP + b' = ?')
  assert '<123 + 4>' in shown and '<123 + 4 = ?>' in shown
  assert stat.S_IMODE(history.stat().st_mode) == 0o600
  assert '<123 + 4 = ?!>' in typed(history, UP + b'!'), 'another day'


def test_a_history_that_cannot_be_kept_stops_nobody(tmp_path):
  (tmp_path / 'file').write_text('')
  assert '<2 + 2>' in typed(tmp_path / 'file' / 'history', b'2 + 2')
