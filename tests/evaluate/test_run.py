"""Evaluation by protocol: resumed = uninterrupted, what the summary says = what the samples say, samples re-graded."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl.flags import FLAGS
from safetensors.numpy import load_file, save_file

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data import synthetic
from vibethinker_jax.data.problem import row_of
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import benchmarks
from vibethinker_jax.evaluate.benchmarks import BENCHMARKS
from vibethinker_jax.evaluate.protocol import Protocol

ROOT = pathlib.Path(__file__).parents[2]


def write(path: pathlib.Path, rows) -> pathlib.Path:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def read(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


@pytest.fixture(scope='module')
def test_set(tmp_path_factory):
  """Three problems of the tiny model's own world, one of them of code."""
  problems = [*synthetic.problems('algebra', 'test', 2, 0), *synthetic.problems('code', 'test', 1, 0)]
  return write(tmp_path_factory.mktemp('data') / 'test.jsonl', map(row_of, problems))


def arguments(data: pathlib.Path, out: pathlib.Path, *more) -> list[str]:
  own = {'--model': TINY_BASE, '--data': data, '--n': 4, '--max-tokens': 48, '--rows': 8, '--out': out}
  flags = [part for flag, value in own.items() if flag not in more for part in (flag, value)]
  return [str(flag) for flag in ('evaluate', *flags, *more)]


@pytest.fixture(scope='module')
def whole(test_set, tmp_path_factory):
  out = tmp_path_factory.mktemp('whole') / 'out'
  assert main(arguments(test_set, out)) == 0
  return out


def test_the_files_agree(whole, test_set):
  rows, summary = read(whole / 'samples.jsonl'), json.loads((whole / 'summary.json').read_text())
  ids = [json.loads(line)['id'] for line in test_set.read_text().split('\n')[:-1]]
  assert [(row['problem'], row['sample']) for row in rows] == [(i, s) for i in ids for s in range(4)]
  assert [row['id'] for row in rows] == [f'{row["problem"]}#{row["sample"]}' for row in rows]
  score = np.array([row['score'] for row in rows])
  assert summary['pass@1'] == pytest.approx(score.mean())
  assert summary['pass@4'] == pytest.approx((score.reshape(3, 4).sum(1) > 0).mean())
  assert summary['mean_tokens'] == pytest.approx(np.mean([row['tokens'] for row in rows]))
  assert summary['truncated'] == pytest.approx(np.mean([row['finish_reason'] == 'length' for row in rows]))
  assert set(summary['domains']) == {'algebra', 'code'}
  assert summary['domains']['algebra']['pass@1'] == pytest.approx(score[:8].mean())
  assert 'maj@4' not in summary  # programs are not voted on


def test_resumed_equals_uninterrupted(whole, test_set, tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  for name in ('config.json', 'problems.jsonl'):
    (out / name).write_bytes((whole / name).read_bytes())
  lines = (whole / 'samples.jsonl').read_text().split('\n')[:-1]
  kept = [
    {k: v for k, v in json.loads(lines[i]).items() if k not in ('score', 'extracted', 'reason')} for i in (9, 2, 5)
  ]
  marked = [row | {'response': 'already drawn'} for row in kept]
  write(out / 'samples.jsonl', marked)
  with (out / 'samples.jsonl').open('a') as file:
    file.write(lines[7][:25])  # the line at which the kill came
  assert main(arguments(test_set, out)) == 0
  want, got = read(whole / 'samples.jsonl'), read(out / 'samples.jsonl')
  drawn_again = [i for i in (2, 5, 9) if got[i]['response'] != 'already drawn']
  assert drawn_again == []
  assert [g for i, g in enumerate(got) if i not in (2, 5, 9)] == [w for i, w in enumerate(want) if i not in (2, 5, 9)]


def test_what_other_processes_had_drawn_is_taken_up(whole, test_set, tmp_path):
  """Parts become samples.jsonl, a judged row stays judged, and files with other names are nobody's parts."""
  out = tmp_path / 'out'
  shutil.copytree(whole, out)
  rows = read(whole / 'samples.jsonl')
  marked = lambda i: (
    {key: rows[i][key] for key in ('id', 'problem', 'sample', 'tokens', 'finish_reason')}
    | {'response': 'drawn elsewhere', **({'answer': rows[i]['answer']} if 'answer' in rows[i] else {})}
  )
  write(out / 'samples.jsonl', rows[:4])
  write(out / 'samples.1.jsonl', [marked(0), marked(5)])
  write(out / 'samples.strict.jsonl', [{'id': 1, 'score': 0}])
  assert main(arguments(test_set, out)) == 0
  got = read(out / 'samples.jsonl')
  assert [row['response'] == 'drawn elsewhere' for row in got] == [i == 5 for i in range(12)]
  assert [row for i, row in enumerate(got) if i != 5] == [row for i, row in enumerate(rows) if i != 5]
  assert not (out / 'samples.1.jsonl').exists() and (out / 'samples.strict.jsonl').exists()


def test_a_finished_evaluation_is_not_run_again(whole, test_set):
  before = (whole / 'samples.jsonl').read_bytes()
  assert main(arguments(test_set, whole)) == 0
  assert (whole / 'samples.jsonl').read_bytes() == before


def test_steps_of_a_finished_evaluation_can_still_be_checked(whole, test_set, tmp_path):
  out = tmp_path / 'out'
  shutil.copytree(whole, out)
  before = read(out / 'samples.jsonl')
  assert main(arguments(test_set, out, '--steps')) == 0
  rows, summary = read(out / 'samples.jsonl'), json.loads((out / 'summary.json').read_text())
  assert [{k: v for k, v in row.items() if not k.startswith('steps')} for row in rows] == before
  shares = [row['steps_share'] for row in rows if row['steps_share'] is not None]
  assert all((row['steps'] == 0) == (row['steps_share'] is None) for row in rows) and len(shares) > 0
  assert all(row['steps'] == 0 for row in rows[8:])  # programs
  assert summary['steps_share'] == pytest.approx(np.mean(shares))
  assert '| steps that hold |' in (out / 'table.md').read_text()
  again = ['grade', '--in', out / 'samples.jsonl', '--problems', out / 'problems.jsonl', '--out', tmp_path / 'again']
  assert main(list(map(str, again))) == 0


@pytest.mark.parametrize(
  ('flags', 'named'),
  [
    (['--seed', 1], 'seed is 1, was 0'),
    (['--n', 5], 'protocol.n is 5, was 4'),
    (['--max-tokens', 47], 'protocol.max_tokens is 47, was 48'),
    (['--temperature', 0.5], 'protocol.temperature is 0.5, was 1.0'),
    (['--instruction', 'Think.'], 'problems is "'),
    (['--limit', 2], 'problems is "'),
    (['--dtype', 'bfloat16'], 'dtype is "bfloat16", was "float32"'),
    (['--strict'], 'grader.strict is true, was false'),
    (['--deadline', 9], 'grader.deadline_s is 9.0, was 10.0'),
    (['--strict', '--seed', 1, '--regrade'], 'grader.strict is true, was false; seed is 1, was 0'),
  ],
)
def test_a_directory_belongs_to_one_evaluation(whole, test_set, capsys, flags, named):
  before = {path: path.read_bytes() for path in whole.iterdir()}
  assert main(arguments(test_set, whole, *flags)) == 2
  said = capsys.readouterr().err
  assert named in said and said.count('\n') == 1
  assert {path: path.read_bytes() for path in whole.iterdir()} == before


def change_weights(model: pathlib.Path) -> None:
  tensors = load_file(model / 'model.safetensors')
  save_file({k: v * 1.001 if k.endswith('norm.weight') else v for k, v in tensors.items()}, model / 'model.safetensors')


def change_json(name: str, **fields):
  def change(model: pathlib.Path) -> None:
    path = model / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))

  return change


def change_template(model: pathlib.Path) -> None:
  for path in (model / 'tokenizer_config.json', model / 'chat_template.jinja'):
    if path.exists() and 'im_start' in path.read_text():
      path.write_text(path.read_text().replace('<|im_start|>', '<|im_start|> ', 1))


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    (change_weights, '(weights is "'),
    (change_json('config.json', rope_theta=5e4, rope_parameters=None), '(model.rope_theta is 50000.0'),
    (change_json('generation_config.json', eos_token_id=[7]), '(stop_ids is ['),
    (change_template, '(tokenizer is "'),
  ],
)
def test_another_model_at_the_same_path_is_another(test_set, tmp_path, capsys, change, named):
  model, out = tmp_path / 'model', tmp_path / 'out'
  shutil.copytree(TINY_BASE, model)
  flags = [*arguments(test_set, out, '--n', 1, '--max-tokens', 2, '--limit', 1), '--model', str(model)]
  assert main(flags) == 0
  moved = tmp_path / 'moved'  # the path makes no difference
  model.rename(moved)
  flags[-1] = str(moved)
  assert main(flags) == 0
  change(moved)
  capsys.readouterr()
  assert main(flags) == 2
  said = capsys.readouterr().err
  assert named in said and said.count('\n') == 1


def test_samples_are_judged_again_by_another_grader(whole, test_set, tmp_path, capsys):
  out = tmp_path / 'out'
  shutil.copytree(whole, out)
  rows = read(out / 'samples.jsonl')
  rows[0] |= {'response': f'</think> \\boxed{{{rows[0]["answer"]}}}'}
  write(out / 'samples.jsonl', rows)
  strict = arguments(test_set, out, '--strict')
  assert main([*strict, '--regrade']) == 0
  again = read(out / 'samples.jsonl')
  drawn = ('id', 'problem', 'sample', 'response', 'tokens', 'finish_reason')
  assert [[row[k] for k in drawn] for row in again] == [[row[k] for k in drawn] for row in rows]
  assert [row['score'] for row in again[:8]] == [1] + [0] * 7  # of answers, none but this one closes its thinking
  assert [row['score'] for row in again[8:]] == [row['score'] for row in rows[8:]]  # programs are judged as ever
  summary = json.loads((out / 'summary.json').read_text())
  assert summary['strict'] is True and summary['domains']['algebra']['pass@1'] == pytest.approx(1 / 8)
  assert main(strict) == 0 and main(arguments(test_set, out)) == 2
  assert 'grader.strict is false, was true' in capsys.readouterr().err
  assert main(arguments(test_set, out, '--regrade')) == 0
  assert [row['score'] for row in read(out / 'samples.jsonl')[1:]] == [row['score'] for row in rows[1:]]


def test_verdicts_of_other_judges_are_not_kept(whole, test_set, tmp_path, capsys):
  """A judge that has been mended since is another judge; what it costs is a flag."""
  out = tmp_path / 'out'
  shutil.copytree(whole, out)
  config = json.loads((out / 'config.json').read_text())
  config['grader']['code'] = '0' * 64
  (out / 'config.json').write_text(json.dumps(config))
  assert main(arguments(test_set, out)) == 2
  assert 'grader.code is "' in capsys.readouterr().err
  assert main(arguments(test_set, out, '--regrade')) == 0
  assert read(out / 'samples.jsonl') == read(whole / 'samples.jsonl')


def test_a_config_of_another_kind_is_refused(test_set, tmp_path, capsys):
  for content in ('{"V": 1}', '[]', '{'):
    (tmp_path / 'config.json').write_text(content)
    assert main(arguments(test_set, tmp_path)) == 2
    said = capsys.readouterr().err
    assert 'config.json' in said and said.count('\n') == 1


def test_a_part_of_the_problems_gives_what_all_gave(whole, test_set, tmp_path):
  lines = test_set.read_text().split('\n')[:-1]
  (tmp_path / 'test.jsonl').write_text(f'{lines[2]}\n{lines[1]}\n')
  assert main(arguments(tmp_path / 'test.jsonl', tmp_path / 'out')) == 0
  want = {row['id']: row for row in read(whole / 'samples.jsonl')}
  got = read(tmp_path / 'out' / 'samples.jsonl')
  assert len(got) == 8 and all(want[row['id']] == row for row in got)


def test_ids_name_one_problem(tmp_path, capsys):
  rows = [{'id': 'a', 'prompt': '1 + 1', 'answer': '2'}, {'id': 'a', 'prompt': '1 + 2', 'answer': '3'}]
  assert main(arguments(write(tmp_path / 'd.jsonl', rows), tmp_path / 'out')) == 2
  assert 'problem a: two problems that differ have this id' in capsys.readouterr().err


def test_the_experiment_refuses_what_the_command_refuses(test_set, tmp_path, monkeypatch):
  spec = importlib.util.spec_from_file_location('evaluate_experiment', ROOT / 'experiments' / 'evaluate.py')
  module, known = importlib.util.module_from_spec(spec), set(FLAGS)
  spec.loader.exec_module(module)
  for name in set(FLAGS) - known:  # every experiment has a --config
    delattr(FLAGS, name)
  monkeypatch.setitem(BENCHMARKS, 'mine', benchmarks.Benchmark(test_set.name, 'problems', 3, Protocol(1, 1, 40960)))
  monkeypatch.setitem(BENCHMARKS, 'also', benchmarks.Benchmark(test_set.name, 'problems', 3, Protocol(1, 1, 40960)))
  s = module.Evaluation(
    str(TINY_BASE), 'float32', ('mine',), str(test_set.parent), {}, 0, 8, 0, 0, 8, 1, 10.0, False, False, False
  )
  module.evaluate(s, tmp_path)
  for change, named in (({'strict': True}, 'grader.strict'), ({'dtype': 'bfloat16'}, 'dtype'), ({'seed': 1}, 'seed')):
    with pytest.raises(BadInput, match=named):  # before anything of a benchmark that comes first is drawn
      module.evaluate(dataclasses.replace(s, benchmarks=('also', 'mine'), **change), tmp_path)
    assert not (tmp_path / 'also').exists()
  module.evaluate(dataclasses.replace(s, strict=True, regrade=True), tmp_path)
  for seconds in (float('inf'), float('nan'), 0.0):
    with pytest.raises(BadInput, match='deadline_s'):
      module.evaluate(dataclasses.replace(s, deadline_s=seconds), tmp_path)


def test_samples_can_be_graded_again(whole, tmp_path):
  out = tmp_path / 'verdicts.jsonl'
  flags = ['--in', whole / 'samples.jsonl', '--problems', whole / 'problems.jsonl', '--out', out]
  assert main(['grade', *map(str, flags)]) == 0
  want = [{k: row[k] for k in ('id', 'score', 'extracted', 'reason')} for row in read(whole / 'samples.jsonl')]
  assert read(out) == want


def test_steps_of_a_response(tmp_path):
  rows = [
    {'id': 1, 'response': '2 + 2 = 4, 2 + 3 = 6, so \\boxed{6}', 'answer': 6},
    {'id': 2, 'response': '', 'answer': 6},
  ]
  out = tmp_path / 'out.jsonl'
  assert main(['grade', '--in', str(write(tmp_path / 'in.jsonl', rows)), '--out', str(out), '--steps']) == 0
  assert [(r['score'], r['steps'], r['steps_share']) for r in read(out)] == [(1, 2, 0.5), (0, 0, None)]


@pytest.mark.slow
def test_killed_at_any_moment(whole, test_set, tmp_path):
  out = tmp_path / 'out'
  command = [sys.executable, '-m', 'vibethinker_jax.cli', *arguments(test_set, out, '--n', 16)]
  env = {**os.environ, 'PYTHONPATH': str(ROOT)}
  seen: list[bytes] = []
  for lines in (3, 12):
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples = out / 'samples.jsonl'
    while process.poll() is None and (not samples.exists() or samples.read_bytes().count(b'\n') < lines):
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    data = samples.read_bytes()
    seen = data[: data.rfind(b'\n') + 1].split(b'\n')[:-1]
  assert len(seen) >= 12
  subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  rows = {row['id']: row for row in read(out / 'samples.jsonl')}
  assert len(read(out / 'samples.jsonl')) == len(rows) == 48
  assert all(json.loads(line).items() <= rows[json.loads(line)['id']].items() for line in seen)


def test_a_prompt_without_room_counts_as_wrong(tmp_path, capsys):
  long = {'id': 'long', 'prompt': '1 + ' * 3000 + '1', 'answer': '1'}
  assert main(arguments(write(tmp_path / 'd.jsonl', [long]), tmp_path / 'out', '--n', 1)) == 0
  (row,) = read(tmp_path / 'out' / 'samples.jsonl')
  assert row['finish_reason'] == 'no room' and row['score'] == 0 and row['response'] == ''


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--benchmark', 'aime99'], "unknown benchmark 'aime99'"),
    (['--benchmark', 'gpqa-diamond'], 'needs a file of your own'),
    ([], 'exactly one of --benchmark and --data'),
    (['--benchmark', 'aime24', '--data', 'x'], 'exactly one of --benchmark and --data'),
    (['--benchmark', 'aime24', '--data-dir', 'nowhere'], 'nowhere/competition/aime24.jsonl'),
    (['--data', 'FILE', '--n', '0'], '--n 0'),
    (['--data', 'FILE', '--top-p', '2'], 'top_p'),
    (['--data', 'BROKEN'], 'broken.jsonl, line 2'),
  ],
)
def test_bad_input_is_one_line(flags, message, test_set, tmp_path, capsys):
  broken = tmp_path / 'broken.jsonl'
  broken.write_text(test_set.read_text().split('\n')[0] + '\n{"id": \n')
  flags = [str({'FILE': test_set, 'BROKEN': broken}.get(flag, flag)) for flag in flags]
  assert main(['evaluate', '--model', str(TINY_BASE), '--out', str(tmp_path / 'out'), *flags]) == 2
  said = capsys.readouterr().err
  assert message in said and said.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_skip_bad_goes_on_and_counts(test_set, tmp_path, capsys):
  broken = tmp_path / 'broken.jsonl'
  broken.write_text(test_set.read_text().split('\n')[0] + '\n{"id": \n')
  assert main(arguments(broken, tmp_path / 'out', '--n', 1, '--skip-bad')) == 0
  assert '1 of 2 rows left out' in capsys.readouterr().err
