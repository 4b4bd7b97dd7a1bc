"""What every verb's files are, in and out: `grade`, whose plain answers start no worker, stands for them all."""

import gzip
import io
import json
import os
import pathlib
import stat
import subprocess
import sys
import threading

import pytest

from vibethinker_jax.cli import files
from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.data.problem import row_of
from vibethinker_jax.data.sources import load
from vibethinker_jax.errors import BadInput

ROOT = pathlib.Path(__file__).parents[1]
ROW = {'id': 'a', 'response': '\\boxed{4}', 'answer': 4}
LINE = json.dumps(ROW) + '\n'
VERDICT = {'id': 'a', 'score': 1, 'extracted': '4', 'reason': 'exact'}


@pytest.fixture
def source(tmp_path):
  path = tmp_path / 'in.jsonl'
  path.write_text(LINE)
  return path


def grade(source, out) -> int:
  return main(['grade', '--in', str(source), '--out', str(out)])


def refused(argv: list, expected: str, capsys) -> None:
  assert main(list(map(str, argv))) == 2
  said = capsys.readouterr().err
  assert expected in said and said.count('\n') == 1


# ---- out


def test_a_link_is_written_through(source, tmp_path):
  (tmp_path / 'far').mkdir()
  real, link = tmp_path / 'far' / 'real.jsonl', tmp_path / 'link.jsonl'
  real.write_text('old')
  real.chmod(0o640)
  link.symlink_to('far/real.jsonl')
  assert grade(source, link) == 0
  assert link.is_symlink() and json.loads(real.read_text()) == VERDICT and stat.S_IMODE(real.stat().st_mode) == 0o640
  (tmp_path / 'ahead').symlink_to(tmp_path / 'far' / 'new.jsonl')  # to what is not there yet
  assert grade(source, tmp_path / 'ahead') == 0
  assert (tmp_path / 'ahead').is_symlink() and json.loads((tmp_path / 'far' / 'new.jsonl').read_text()) == VERDICT
  assert sorted(p.name for p in (tmp_path / 'far').iterdir()) == ['new.jsonl', 'real.jsonl']


def test_links_that_lead_nowhere_and_devices_are_refused(source, tmp_path, capsys):
  (tmp_path / 'one').symlink_to(tmp_path / 'two')
  (tmp_path / 'two').symlink_to(tmp_path / 'one')
  refused(['grade', '--in', source, '--out', tmp_path / 'one'], 'one: cannot be written', capsys)
  refused(['grade', '--in', source, '--out', '/dev/full'], '/dev/full: cannot be written (No space left', capsys)
  assert (tmp_path / 'one').is_symlink()


def test_a_device_stays_one(source, tmp_path):
  (tmp_path / 'null').symlink_to('/dev/null')
  for path in ('/dev/null', tmp_path / 'null'):
    assert grade(source, path) == 0
    assert stat.S_ISCHR(os.stat(path).st_mode)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['in.jsonl', 'null']


def test_a_pipe_is_written_to(source, tmp_path):
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  got: list[str] = []
  reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
  reader.start()
  assert grade(source, pipe) == 0
  reader.join(timeout=60)
  assert [json.loads(text) for text in got] == [VERDICT] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_ends_in_gz_is_compressed_in_and_out(source, tmp_path):
  packed = tmp_path / 'in.jsonl.gz'
  packed.write_bytes(gzip.compress(source.read_bytes()))
  assert grade(packed, tmp_path / 'out.jsonl.gz') == 0
  first = (tmp_path / 'out.jsonl.gz').read_bytes()
  assert json.loads(gzip.decompress(first)) == VERDICT
  assert grade(source, tmp_path / 'out.jsonl.gz') == 0
  assert (tmp_path / 'out.jsonl.gz').read_bytes() == first  # no time stands in it
  lines = tmp_path / 'lines.txt.gz'
  lines.write_bytes(gzip.compress('\ufeffone\ntwo\n'.encode()))
  assert files.lines(lines) == ['one', 'two']


def test_stdin_to_stdout(tmp_path):
  command = [sys.executable, '-m', 'vibethinker_jax.cli']
  run = lambda *argv, **how: subprocess.run(
    [*command, *map(str, argv)], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, **how
  )
  done = run('grade', '--in', '-', '--out', '-', input=LINE.encode())
  assert (done.returncode, json.loads(done.stdout)) == (0, VERDICT) and list(tmp_path.iterdir()) == []
  done = run('grade', '--in', '-', '--out', '/dev/stdout', input=b'{"id": 1}\n')
  assert (done.returncode, done.stdout) == (2, b'') and b'stdin, line 1: field "response"' in done.stderr
  kept = tmp_path / 'kept'
  kept.write_text('before\n')
  with kept.open('a') as file:  # what lies behind /dev/stdout is not replaced
    process = subprocess.run(
      [*command, 'grade', '--in', '-', '--out', '/dev/stdout'],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      input=LINE.encode(),
      stdout=file,
    )
  assert process.returncode == 0 and kept.read_text() == f'before\n{json.dumps(VERDICT)}\n'


def test_nobody_reads_on(source):
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
    [sys.executable, '-m', 'vibethinker_jax.cli', 'grade', '--in', source, '--out', '-'],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=write,
    stderr=subprocess.PIPE,
  )
  os.close(write)
  assert done.returncode == 2 and done.stderr == b'vibethinker: stdout: cannot be written (Broken pipe)\n'


def test_a_failure_leaves_what_was_there(tmp_path):
  out = tmp_path / 'out.jsonl'
  out.write_text('old')
  with pytest.raises(KeyboardInterrupt), files.output(out) as file:
    file.write('new')
    raise KeyboardInterrupt
  assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('out.jsonl', 'old')]


# ---- in


def test_a_byte_order_mark_is_no_text(source, tmp_path):
  source.write_bytes(b'\xef\xbb\xbf' + LINE.encode())
  assert grade(source, tmp_path / 'out.jsonl') == 0
  problem = {'id': 'a', 'prompt': 'What?', 'answer': '4'}
  for name, text in (('p.jsonl', json.dumps(problem)), ('p.json', json.dumps([problem]))):
    (tmp_path / name).write_text('\ufeff' + text)
    assert [row_of(p) for p in load(tmp_path / name)] == [problem]
  (tmp_path / 'empty.jsonl').write_bytes(b'\xef\xbb\xbf')
  with pytest.raises(BadInput, match='no rows'):
    load(tmp_path / 'empty.jsonl')


def test_problems_from_stdin_and_from_a_pipe(tmp_path, monkeypatch):
  line = json.dumps({'id': 'a', 'prompt': 'What?', 'answer': 4}).encode() + b'\n'
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(line)))
  assert [p.answer for p in load('-')] == ['4']
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'')))
  with pytest.raises(BadInput, match='^stdin: no rows'):
    load('-')
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  writer = threading.Thread(target=lambda: pipe.write_bytes(line))
  writer.start()
  assert [p.answer for p in load(pipe)] == ['4']
  writer.join(timeout=60)


# ---- apart


@pytest.mark.parametrize('name', ['in.jsonl', 'sub/../in.jsonl', 'soft', 'hard'])
def test_a_file_is_not_written_over_itself(source, tmp_path, capsys, name):
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'soft').symlink_to('in.jsonl')
  (tmp_path / 'hard').hardlink_to(source)
  refused(['grade', '--in', source, '--out', tmp_path / name], '--in and --out name the same file', capsys)
  refused(['grade', '--in', tmp_path / name, '--out', source], '--in and --out name the same file', capsys)
  assert source.read_text() == LINE


def test_no_verb_writes_over_what_it_reads(source, tmp_path, capsys):
  other, out = tmp_path / 'other.jsonl', tmp_path / 'out.jsonl'
  other.write_text(json.dumps({'id': 'p', 'prompt': 'What is the sum of 2 and 3?', 'answer': '5'}) + '\n')
  model = tmp_path / 'model'
  model.mkdir()
  (model / 'config.json').write_text('{}')
  run = tmp_path / 'run'
  for directory in (run, tmp_path / 'again'):
    directory.mkdir()
    (directory / 'metrics.jsonl').write_text('')
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  same = 'name the same file'
  cases = [
    (['score', '--model', model, '--in', source, '--out', source], same),
    (['score', '--model', model, '--in', source, '--out', model / 'config.json'], 'would replace a file of --model'),
    (['generate', '--model', model, '--max-tokens', 1, '--in', source, '--out', source], same),
    (['grade', '--in', source, '--problems', other, '--out', other], same),
    (['decontaminate', '--train', source, '--eval', other, '--out', other, '--report', out], same),
    (['decontaminate', '--train', source, '--eval', other, '--out', out, '--report', other], same),
    (['decontaminate', '--train', source, '--eval', other, '--out', source, '--report', out], same),
    (['decontaminate', '--train', source, '--eval', other, '--out', out, '--report', out], same),
    (['decontaminate', '--train', source, '--eval', other, '--out', '-', '--report', '-'], same),
    (
      ['decontaminate', '--train', source, '--eval', other, '--stock', source, '--out', out, '--report', source],
      same,
    ),
    (['decontaminate', '--train', '-', '--eval', '-', '--out', out, '--report', tmp_path / 'r'], 'are both stdin'),
    (['prepare', '--in', other, '--out', tmp_path], 'does not hold --in'),
    (['prepare', '--in', other, '--out', other], 'does not hold --in'),
    (['prepare', '--in', other, '--out', '-'], '-: expected a directory'),
    (['fuse', '--out', tmp_path, model], 'does not hold a model'),
    (['fuse', '--out', model, model], 'expected a new directory'),
    (['evaluate', '--model', model, '--data', other, '--out', model], 'does not hold --model'),
    (['evaluate', '--model', model, '--data', other, '--out', source], 'expected a directory'),
    (['reproduce', model, '--out', model], 'does not hold DIR'),
    (['report', run, tmp_path / 'again', '--out', run / 'metrics.jsonl'], 'would replace a file of DIR'),
    (['plan', '--config', source, '--topology', 'cpu:1', '--out', source], same),
  ]
  for argv, expected in cases:
    refused(argv, expected, capsys)
    assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before, argv


def test_decontaminate_writes_rows_as_they_came(tmp_path, capsys):
  line = '{"id": 1, "prompt": "Über 3 Äpfel", "answer": 0.00001, "more": [1e16, {"x": 1.50}, null, true]}'
  half = '{"id": 2, "prompt": "half \\\\ud83d", "answer": 1}'.replace('\\\\', '\\')
  (tmp_path / 'train.jsonl').write_text(f'{line}\n{half}\n')
  (tmp_path / 'eval.jsonl').write_text('{"prompt": "Why is the sky as blue as it is?"}\n')
  argv = ['decontaminate', '--train', tmp_path / 'train.jsonl', '--eval', tmp_path / 'eval.jsonl']
  assert main(list(map(str, [*argv, '--out', '-', '--report', '/dev/null']))) == 0
  out, err = capsys.readouterr()
  assert out == f'{line}\n{half}\n' and '0 of 2 rows removed' in err


@pytest.mark.parametrize('value', ['inf', 'nan', '0', '-1', '1e9'])
@pytest.mark.parametrize('verb', ['grade', 'evaluate'])
def test_a_deadline_is_a_time_that_comes(source, tmp_path, capsys, verb, value):
  out, problems = tmp_path / 'out', tmp_path / 'problems.jsonl'
  problems.write_text('{"id": "a", "prompt": "What?", "answer": 4}\n')
  more = {'grade': ['--in', source], 'evaluate': ['--model', tmp_path, '--data', problems]}
  refused([verb, *more[verb], '--out', out, f'--deadline={value}'], '--deadline', capsys)
  assert not out.exists()
