"""One run at a time in a workdir, which config may go on there, and file systems that refuse to be written."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from vibethinker_jax import disk, lock, provenance
from vibethinker_jax.errors import BadInput, CannotWrite
from vibethinker_jax.shared_files import read_json, write_json
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.workdir import check_claim, claim

ROOT = pathlib.Path(__file__).parents[1]
HOLD = """
import sys, time
from vibethinker_jax.lock import held
with held(sys.argv[1]):
  print('held', flush=True)
  time.sleep(600)
"""


def python(code: str, *arguments, **how) -> subprocess.Popen:
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return subprocess.Popen([sys.executable, '-c', code, *arguments], env=environment, text=True, **how)


def test_a_second_run_is_refused_and_a_killed_one_locks_nobody_out(tmp_path):
  workdir = tmp_path / 'räume mit blanks'
  with lock.held(workdir):
    pass
  assert not workdir.exists()  # made for a run that left nothing
  first = python(HOLD, workdir, stdout=subprocess.PIPE)
  try:
    assert first.stdout.readline() == 'held\n'
    who = f'another run is at work here .host .*, process {first.pid}, since 20..-'
    with pytest.raises(BadInput, match=who), lock.held(workdir):
      pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (workdir / '.lock').exists()
    again = pytest.raises(BadInput, match=f'process {os.getpid()},')  # nor twice in one process
    with lock.held(workdir), again, lock.held(workdir):
      pass
    assert not (workdir / '.lock').exists()
  finally:
    first.kill()


def left_over(path, **changes) -> dict:
  record = {'host': 'elsewhere', 'boot': 'another', 'process': 1, 'since': '2026-01-01 00:00:00', 'beats': 7, **changes}
  path.write_text(json.dumps(record))
  return record


def test_on_another_host_the_count_tells_whether_it_lives(tmp_path, monkeypatch, capsys):
  """Where the file system's locks do not reach: one that stands still for a while is gone; one that counts is not."""
  monkeypatch.setattr(lock, '_WATCHED_S', 0.2)
  monkeypatch.setattr(lock, '_BEAT_S', 0.05)
  path = tmp_path / '.lock'
  left_over(path)
  with lock.held(tmp_path):
    assert json.loads(path.read_text())['process'] == os.getpid()
  assert 'host elsewhere, process 1, since 2026-01-01 00:00:00 was at work here' in capsys.readouterr().err
  assert not path.exists() and tmp_path.exists()
  left_over(path)
  read, beats = lock._record, iter(range(100))
  monkeypatch.setattr(lock, '_record', lambda p: read(p) and {**read(p), 'beats': next(beats)})
  with pytest.raises(BadInput, match='host elsewhere, process 1'), lock.held(tmp_path):
    pass
  assert json.loads(path.read_text())['host'] == 'elsewhere'


def test_without_locks_the_count_is_all_there_is(tmp_path, monkeypatch):
  """On this machine too, unless the process is gone."""
  monkeypatch.setattr(lock, '_locked', lambda file, path: False)
  monkeypatch.setattr(lock, '_WATCHED_S', 0.5)
  monkeypatch.setattr(lock, '_BEAT_S', 0.02)
  with lock.held(tmp_path), pytest.raises(BadInput, match=f'process {os.getpid()},'), lock.held(tmp_path):
    pass
  gone = subprocess.Popen([sys.executable, '-c', ''])
  gone.wait()
  left_over(tmp_path / '.lock', boot=lock._boot(), process=gone.pid)
  monkeypatch.setattr(lock, '_WATCHED_S', 3600)
  with lock.held(tmp_path):
    pass


def test_a_lock_file_of_garbage_locks_nobody_out(tmp_path):
  for garbage in (b'', b'\x00\xff', b'[]', b'{"host": 1}'):
    (tmp_path / '.lock').write_bytes(garbage)
    with lock.held(tmp_path):
      pass


def test_a_workdir_that_cannot_be(tmp_path):
  (tmp_path / 'file').write_text('')
  file = tmp_path / 'file'
  for workdir, why in ((file, 'is a file'), (file / 'w', 'cannot be written .Not a directory')):
    with pytest.raises(BadInput, match=why), lock.held(workdir):
      pass
  with pytest.raises(BadInput, match='cannot be written'), lock.held(pathlib.Path('/proc/nowhere')):
    pass


CONFIG = {
  'name': 'x',
  'sft': {'steps': 3},
  'probe': {'k': 2},
  'mgpo': {'lam': 1.0},
  'rl': {'prompts': 2, 'micro_rows': 4},
  'evaluate': {'max_tokens': 500},
}


def other(field, value=9) -> dict:
  part, _, name = field.partition('.')
  return {**CONFIG, part: {**CONFIG[part], name: value} if name else value}


def test_fields_are_bound_by_the_stages_that_have_read_them(tmp_path, capsys):
  claim(tmp_path, CONFIG)
  claim(tmp_path, other('sft.steps'))  # nothing has begun
  claim(tmp_path, CONFIG)
  (tmp_path / 'sft').mkdir()
  free = ['probe.k', 'mgpo.lam', 'rl.prompts', 'evaluate.max_tokens']
  for left, bound in (
    ('sft', {'sft.steps', 'name'}),
    ('probe', {'probe.k'}),
    ('rl', {'mgpo.lam', 'rl.prompts'}),
    ('evaluate', {'evaluate.max_tokens'}),
  ):
    (tmp_path / left).mkdir(exist_ok=True)
    for field in bound:
      with pytest.raises(BadInput, match=f'holds a run with another config .{field} differ'):
        check_claim(tmp_path, other(field))
    free = [field for field in free if field not in bound]
    for field in free:
      claim(tmp_path, other(field))
      assert f'other values of {field}: no stage that reads them has begun' in capsys.readouterr().out
      assert read_json(tmp_path / 'config.json') == other(field)
      claim(tmp_path, CONFIG)
  assert free == []
  capsys.readouterr()
  claim(tmp_path, other('rl.micro_rows'))
  assert 'other values of rl.micro_rows: the same run' in capsys.readouterr().out
  assert read_json(tmp_path / 'config.json') == CONFIG


@pytest.mark.parametrize(
  'content, why',
  [
    (b'{"a": 1,\n "b": }\n', 'line 2: damaged .Expecting value., expected JSON'),
    (b'{"a":\n "\xff"}', 'line 2: damaged .not UTF-8.'),
    (b'', 'line 1: damaged'),
    (b'[1]', 'expected a JSON object, found list'),
  ],
)
def test_a_damaged_file_is_named_with_its_line(content, why, tmp_path):
  (tmp_path / 'config.json').write_bytes(content)
  with pytest.raises(BadInput, match=f'config.json.*{why}'):
    check_claim(tmp_path, CONFIG)


def test_data_that_changed_is_noticed(tmp_path):
  provenance.record(tmp_path, {'a.jsonl': '1', 'b.jsonl': '2'})
  provenance.check_data(tmp_path, {'a.jsonl': '1', 'b.jsonl': '2', 'new.jsonl': '3'})
  with pytest.raises(BadInput, match='b.jsonl: has changed since this run read it .20'):
    provenance.check_data(tmp_path, {'a.jsonl': '1', 'b.jsonl': '3'})
  with (tmp_path / 'provenance.jsonl').open('a') as file:
    file.write('{"torn')
  provenance.record(tmp_path, {'a.jsonl': '1'})
  assert [session['data'] for session in provenance.sessions(tmp_path)] == [
    {'a.jsonl': '1', 'b.jsonl': '2'},
    {'a.jsonl': '1'},
  ]


# ---- disks -----------------------------------------------------------------------------------------------------------


def full(*_, **__):
  raise OSError(28, 'No space left on device')


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
  write_json(tmp_path / 'a.json', {'a': 1})
  monkeypatch.setattr(pathlib.Path, 'write_text', full)
  with pytest.raises(CannotWrite) as refused:
    write_json(tmp_path / 'a.json', {'a': 2})
  line = str(refused.value)
  assert line.startswith(f'{tmp_path / "a.json"}: cannot be written (No space left on device); the file system at /')
  assert ' free' in line and '\n' not in line
  assert read_json(tmp_path / 'a.json') == {'a': 1} and [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_what_libraries_make_of_a_full_disk_is_understood(tmp_path):
  """They write in threads and in other languages."""
  inner = OSError(122, 'Disk quota exceeded')
  for error, why in (
    (ValueError('UNKNOWN: pwrite failed [OS error 28: ENOSPC No space left on device]'), 'No space left'),
    (ExceptionGroup('some', [ValueError('x'), inner]), 'quota exceeded'),
  ):
    with pytest.raises(CannotWrite, match=why), disk.writing(tmp_path):
      raise error
  with pytest.raises(CannotWrite, match='quota exceeded'), disk.writing(tmp_path):
    try:
      raise inner
    except OSError as error:
      raise RuntimeError('the writer stopped') from error
  for error in (ValueError('else'), BadInput('x'), OSError(2, 'No such file or directory'), KeyboardInterrupt()):
    with pytest.raises(type(error)) as raised, disk.writing(tmp_path):
      raise error
    assert raised.value is error


def test_a_row_is_appended_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'rows'
  disk.append(path, 'one')
  path.write_bytes(path.read_bytes() + b'cut sh')
  disk.append(path, 'two')
  assert path.read_text() == 'one\ntwo\n'
  limited = (
    'import resource, signal, sys, pathlib; from vibethinker_jax import disk\n'
    'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n'
    'disk.append(pathlib.Path(sys.argv[1]), "three and four")'
  )
  said = python(limited, path, stderr=subprocess.PIPE).communicate()[1]
  assert 'CannotWrite' in said and 'File too large' in said and path.read_text() == 'one\ntwo\n'


def test_damaged_metrics_are_named_and_what_is_whole_goes_on(tmp_path, capsys):
  path = tmp_path / 'metrics.jsonl'
  writer = MetricWriter(path)
  for step in (1, 2, 3):
    writer.write('sft/all', step, {'loss': 1.0})
  writer.close()
  lines = path.read_bytes().split(b'\n')
  path.write_bytes(
    b'\n'.join(
      [
        lines[0],
        b'\x00\xff\xfe',
        b'[3]',
        b'{"step": 2}',
        *lines[1:3],
        b'{"stage": "sft',
      ]
    )
  )
  writer.rewind('sft/all', 3)
  assert [row['step'] for row in writer.rows('sft/all')] == [1, 2, 3]
  assert f'{path}, line 2, 3, 4: no row of metrics; left out, and kept in' in capsys.readouterr().out
  assert path.with_suffix('.damaged').read_bytes() == b'\x00\xff\xfe\n[3]\n{"step": 2}\n'
  assert path.read_bytes().count(b'\n') == 3


def test_a_sink_that_fails_is_told_once_and_the_record_goes_on(tmp_path, capsys, monkeypatch):
  (tmp_path / 'tensorboard').write_text('a file where the folder is to be')
  monkeypatch.setattr('importlib.util.find_spec', lambda name: True)
  monkeypatch.setattr('vibethinker_jax.train.metric_writer._wandb_run', full)
  writer = MetricWriter(tmp_path / 'metrics.jsonl', 'project')
  for step in (1, 2):
    writer.write('sft/all', step, {'loss': 0.5})
  writer.close()
  assert [row['step'] for row in writer.rows('sft/all')] == [1, 2]
  out = capsys.readouterr().out
  assert out.count('WARNING TensorBoard gets no more') == out.count('WARNING Weights & Biases gets no more') == 1
