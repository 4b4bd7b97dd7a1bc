import json
import os
import pathlib
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.model import hf

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"
BOX = '\\boxed'
WORDS = ['?', '<|endoftext|>', '<|im_start|>', '<|im_end|>', *'abcdefghijklmnopqrstuvwxyz']


def write(path: pathlib.Path, *rows) -> pathlib.Path:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def read(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def make_tokenizer(directory: pathlib.Path, words=WORDS, template: str | None = TEMPLATE) -> None:
  """One token a character; 0 is unknown."""
  tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='?'))
  tokenizer.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
  tokenizer.decoder = decoders.Fuse()
  wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token='?', eos_token=words[1])
  wrapped.add_special_tokens({'additional_special_tokens': [w for w in words if w.startswith('<|im')]})
  wrapped.chat_template = template
  wrapped.save_pretrained(str(directory))


@pytest.fixture(scope='module')
def talking(make_model, tmp_path_factory):
  """A model directory with a tokenizer."""
  directory = tmp_path_factory.mktemp('models') / 'talking'
  hf.save(make_model(scale=0.3, positions=64), directory, None, eos_ids=(5,))
  make_tokenizer(directory)
  return directory


@pytest.fixture
def cli(tmp_path):
  """cli(verb, rows or file, *flags) -> the rows written."""

  def run(verb: str, rows, *flags) -> list[dict]:
    source = rows if isinstance(rows, pathlib.Path) else write(tmp_path / 'in.jsonl', *rows)
    out = tmp_path / 'deep' / 'out.jsonl'
    assert main([verb, '--in', str(source), '--out', str(out), *map(str, flags)]) == 0
    assert [p.name for p in out.parent.iterdir()] == ['out.jsonl']
    return read(out)

  return run


def test_a_tokenizer_with_more_ids_than_the_model_has_rows(make_model, tmp_path, capsys):
  """Its last ids would be read as the last row of the embedding."""
  hf.save(make_model(V=len(WORDS) - 1), tmp_path / 'm', None)
  make_tokenizer(tmp_path / 'm')
  rows = write(tmp_path / 'in.jsonl', {'id': '1', 'text': 'a'})
  assert main(['score', '--model', str(tmp_path / 'm'), '--in', str(rows), '--out', str(tmp_path / 'out.jsonl')]) == 2
  assert f'ids up to {len(WORDS) - 1}, {tmp_path / "m"} has' in capsys.readouterr().err
  assert not (tmp_path / 'out.jsonl').exists()


def test_score_equals_torch(cli, transformers_qwen2, tmp_path, monkeypatch):
  monkeypatch.setattr('vibethinker_jax.engine.score._TOKENS', 64)  # several batches of a length, the last one not full
  monkeypatch.setattr('vibethinker_jax.engine.score._LOGITS', 50)
  theirs = transformers_qwen2.make(tmp_path / 'm')
  rng = np.random.default_rng(0)
  rows = [{'id': f'r{n}', 'tokens': rng.integers(0, 48, n).tolist()} for n in (300, 1, 2, 33, 64, 34, 5, 100)]
  rows[-1]['tokens'][3:6] = [0, 0, 0]  # what a pad id would be
  out = cli('score', rows, '--model', tmp_path / 'm')
  assert [r['id'] for r in out] == [r['id'] for r in rows]
  for ours, row in zip(out, rows):
    logits = transformers_qwen2.logits(theirs, [row['tokens']])[0].astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = logp[np.arange(len(logp) - 1), row['tokens'][1:]]
    assert len(ours['logprobs']) == len(row['tokens']) - 1
    np.testing.assert_allclose(ours['logprobs'], expected, atol=2e-4)


def test_generate_equals_transformers(cli, transformers_qwen2, tmp_path):
  theirs = transformers_qwen2.make(tmp_path / 'm', seed=1)
  (tmp_path / 'm' / 'generation_config.json').write_text('{"eos_token_id": [5, 9]}')
  rng = np.random.default_rng(1)
  rows = [{'id': i, 'tokens': [0, *rng.integers(0, 48, n).tolist()]} for i, n in enumerate((3, 20, 1, 8))]
  out = cli('generate', rows, '--model', tmp_path / 'm', '--temperature', 0, '--max-tokens', 10, '--rows', 3)
  for ours, row in zip(out, rows, strict=True):
    assert (ours['id'], ours['sample'], ours['text']) == (row['id'], 0, None)
    assert ours['tokens'] == transformers_qwen2.greedy(theirs, row['tokens'], 10, [5, 9])
    assert ours['finish_reason'] == ('stop' if ours['tokens'][-1] in (5, 9) else 'length')


def test_generated_log_probs_equal_scored_ones(cli, talking, tmp_path):
  rows = [
    {'id': 'raw', 'prompt': 'abc?'},
    {'id': 'chat', 'messages': [{'role': 'user', 'content': 'hi'}]},
    {'id': 'ids', 'tokens': [2, 11, 12, 3, 2]},
  ]
  flags = ('--model', talking, '--max-tokens', 12, '--n', 3, '--seed', 4)
  out = cli('generate', rows, *flags)
  assert [(r['id'], r['sample']) for r in out] == [(row['id'], s) for row in rows for s in range(3)]
  # the chat is the ids by another name, but another request: same law, other draws
  prompts = {'raw': [4, 5, 6, 0], 'chat': [2, 11, 12, 3, 2], 'ids': [2, 11, 12, 3, 2]}
  for r in out:
    # the files' eos 5, and the tokenizer's <|endoftext|> and <|im_end|>; the unknown token is none
    assert r['finish_reason'] == ('stop' if r['tokens'][-1] in (1, 3, 5) else 'length')
    assert not {1, 3, 5} & set(r['tokens'][:-1])
    assert r['text'] == ''.join(WORDS[i] for i in r['tokens'] if 4 <= i < len(WORDS))  # no special ones
  scored = cli('score', [{'id': i, 'tokens': prompts[r['id']] + r['tokens']} for i, r in enumerate(out)], *flags[:2])
  for r, s in zip(out, scored):
    np.testing.assert_allclose(r['logprobs'], s['logprobs'][-len(r['tokens']) :], atol=1e-4)
  rows = [{'id': 'text', 'text': 'abc?'}, {'id': 'ids', 'tokens': [4, 5, 6, 0]}]
  text, ids = cli('score', rows, *flags[:2])
  assert text['logprobs'] == ids['logprobs'] and len(ids['logprobs']) == 3
  alone = cli('generate', [{'id': 'raw', 'prompt': 'abc?'}], *flags, '--rows', 1)
  assert [r['tokens'] for r in alone] == [r['tokens'] for r in out[:3]]


def test_bfloat16(cli, talking):
  rows = [{'id': 0, 'tokens': [4, 5, 6, 7, 8]}]
  exact, rough = (cli('score', rows, '--model', talking, '--dtype', d)[0]['logprobs'] for d in ('float32', 'bfloat16'))
  assert exact != rough
  np.testing.assert_allclose(exact, rough, atol=0.3)


def test_fuse_is_the_mean_of_the_files(make_model, tmp_path):
  for i, name in enumerate('ab'):
    hf.save(make_model(seed=i, tied=False), tmp_path / name, None, eos_ids=(5, 6))
    make_tokenizer(tmp_path / name)
  a, b = (tmp_path / n / 'model.safetensors' for n in 'ab')
  save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(a).items()}, a)
  assert main(['fuse', '--out', str(tmp_path / 'f'), '--weights', '0.3,0.7', str(a.parent), str(b.parent)]) == 0
  fused, first, second = (load_file(p) for p in (tmp_path / 'f' / 'model.safetensors', a, b))
  assert set(fused) == set(first)
  for name, x in fused.items():
    mean = np.float32(0.3) * first[name].astype(np.float32) + np.float32(0.7) * second[name]
    assert x.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(x, mean.astype(ml_dtypes.bfloat16), err_msg=name)
  assert hf.read_config(tmp_path / 'f') == hf.read_config(tmp_path / 'a')
  assert json.loads((tmp_path / 'f' / 'generation_config.json').read_text())['eos_token_id'] == [5, 6]
  assert (tmp_path / 'f' / 'tokenizer.json').read_bytes() == (tmp_path / 'a' / 'tokenizer.json').read_bytes()


def test_grade(cli):
  tests = [{'input': '2\n', 'output': '4\n'}]
  program = 'print(int(input()) ** 2)'
  rows = [
    {'id': 'list', 'response': r'\boxed{12}', 'answer': ['13', 12]},
    {'id': 'number', 'response': r'so \boxed{0.5}', 'answer': 0.5},
    {'id': 'wrong', 'response': r'\boxed{7}', 'answer': '8'},
    {'id': 'code', 'response': f'```python\n{program}\n```', 'tests': tests},
    {'id': 'none', 'response': 'no', 'tests': tests},
  ]
  out = cli('grade', rows, '--workers', 1)
  assert [(r['id'], r['score'], r['extracted']) for r in out] == [
    ('list', 1, '12'),
    ('number', 1, '0.5'),
    ('wrong', 0, '7'),
    ('code', 1, program),
    ('none', 0, None),
  ]
  assert all(set(r) == {'id', 'score', 'extracted', 'reason'} for r in out)


def test_numbers_are_graded_digit_by_digit(cli, tmp_path):
  pairs = [('0.00001', '0.00001'), ('1e16', '10000000000000000'), ('12345678901234567.5', '12345678901234567.5')]
  pairs.append(('12345678901234567.5', '12345678901234568'))
  row = lambda i, answer, said: f'{{"id": {i}, "response": {json.dumps(f"{BOX}{{{said}}}")}, "answer": {answer}}}\n'
  (tmp_path / 'numbers.jsonl').write_text(''.join(row(i, *pair) for i, pair in enumerate(pairs)))
  found = [(r['score'], r['reason']) for r in cli('grade', tmp_path / 'numbers.jsonl')]
  assert found == [(1, 'exact')] * 3 + [(0, 'wrong')]


def test_a_part_of_a_file_gives_what_the_whole_gave(cli, talking):
  rows = [{'id': i, 'prompt': 'abc'} for i in ('x', 'y', 7, '7', 'z')]
  flags = ('--model', talking, '--max-tokens', 12, '--n', 2)
  whole = {(json.dumps(r['id']), r['sample']): r for r in cli('generate', rows, *flags)}
  assert len({str(r['tokens']) for r in whole.values()}) > 5  # one prompt, other numbers for each id
  for part in (rows[1:3], rows[:0:-2]):
    for r in cli('generate', part, *flags):
      want = whole[json.dumps(r['id']), r['sample']]
      np.testing.assert_allclose(r.pop('logprobs'), want['logprobs'], atol=1e-5)
      assert r == {k: v for k, v in want.items() if k != 'logprobs'}


def test_report(tmp_path, capsys):
  (tmp_path / 'metrics.jsonl').write_text('{"stage": "sft/all", "step": 1, "loss": 1.5}\n')
  assert main(['report', str(tmp_path)]) == 0
  path = pathlib.Path(capsys.readouterr().out.strip())
  assert path == tmp_path / 'report.html' and path.stat().st_size > 0


def test_help_loads_nothing_heavy():
  code = (
    'import sys; from vibethinker_jax.cli.__main__ import main\n'
    'try: main(["--help"])\n'
    'except SystemExit as end: print(end.code, {"jax", "transformers", "numpy"} & set(sys.modules))'
  )
  root = pathlib.Path(__file__).parents[1]
  out = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout
  assert out.endswith('0 set()\n') and 'generate' in out


@pytest.mark.slow
def test_a_wheel_works_outside_the_clone(tmp_path):
  """It has the tiny base, and says that configs are not in it."""
  root, source, wheels, site = (
    pathlib.Path(__file__).parents[1],
    *(tmp_path / name for name in ('src', 'wheels', 'site')),
  )
  for name in ('vibethinker_jax', 'setup.py', 'pyproject.toml'):  # a build leaves files in its sources
    copy = shutil.copytree if (root / name).is_dir() else shutil.copy
    source.mkdir(exist_ok=True)
    copy(root / name, source / name)
  pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(wheels), '.']
  subprocess.run(pip, cwd=source, check=True)
  (wheel,) = wheels.glob('vibethinker_jax-*.whl')
  shutil.unpack_archive(wheel, site, 'zip')
  shutil.rmtree(source)
  write(tmp_path / 'in.jsonl', {'id': 'a', 'prompt': 'What is 2 + 3?'})

  def run(*argv: str) -> subprocess.CompletedProcess:
    command, env = [sys.executable, '-m', 'vibethinker_jax.cli', *argv], {**os.environ, 'PYTHONPATH': str(site)}
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

  where = 'configs/ and experiments/ are in a clone of the repository, not in the installed package'
  assert where in ' '.join(run('--help').stdout.split())
  refused = run('plan', '--config=configs/tiny.py', '--topology=cpu:1')
  assert refused.returncode == 2 and refused.stderr == f'vibethinker: --config configs/tiny.py: not found ({where})\n'
  base = str(site / 'vibethinker_jax' / 'tiny_base')
  done = run('generate', '--model', base, '--in', 'in.jsonl', '--out', 'out.jsonl', '--max-tokens', '8')
  assert done.returncode == 0 and read(tmp_path / 'out.jsonl')[0]['text'], done.stderr
  planned = run('plan', f'--config={root / "configs" / "tiny.py"}', '--topology=cpu:1', '--estimate')
  assert planned.returncode == 0 and 'fits' in planned.stdout


ROW = {'id': 'a', 'tokens': [1, 2]}
PROMPT = {'id': 'a', 'prompt': 'ab'}


@pytest.mark.parametrize(
  'verb, rows, expected',
  [
    ('score', [], 'in.jsonl: no rows'),
    ('score', '{"id": "a", "tokens": [1]}\n{', 'in.jsonl, line 2: not JSON'),
    ('score', '[1]', 'in.jsonl, line 1: expected a JSON object'),
    ('score', None, 'in.jsonl: cannot be read'),
    ('score', [ROW, ROW], "line 2: id 'a' was given in"),
    ('score', [{'tokens': [1]}], 'line 1: field "id" is missing'),
    ('score', [{'id': 1.5, 'tokens': [1]}], 'line 1: field "id" must be str or int'),
    ('score', [ROW | {'prompt': 'x'}], 'line 1: unknown field "prompt"'),
    ('score', [ROW | {'text': 'x'}], 'line 1: expected exactly one of "tokens", "text", found 2'),
    ('score', [{'id': 1}], 'line 1: expected exactly one of "tokens", "text", found 0'),
    ('score', [ROW, {'id': 1, 'tokens': 'ab'}], 'line 2: field "tokens" must be list, found str'),
    ('score', [{'id': 1, 'tokens': [1, 48]}], 'line 1: "tokens" must be whole numbers from 0 to 47, found 48'),
    ('score', [{'id': 1, 'tokens': [1, True]}], 'line 1: "tokens" must be whole numbers from 0 to 47, found true'),
    ('score', [{'id': 1, 'tokens': []}], 'line 1: "tokens" is empty'),
    ('score', [{'id': 1, 'text': ''}], 'line 1: "text" is empty'),
    ('score', [{'id': 1, 'text': '\ud800'}], 'line 1: "text" is no text'),
    ('score', [{'id': 1, 'tokens': [1] * 65}], 'line 1: 65 tokens, the model has 64 positions'),
    ('generate', [{'id': 1, 'tokens': []}], 'line 1: empty prompt'),
    ('generate', [PROMPT, {'id': 1, 'tokens': [1] * 60}], 'line 2: prompt of 60 and 9 new tokens exceed the length 64'),
    ('generate', [{'id': 1, 'messages': []}], 'line 1: "messages" is empty'),
    ('generate', [{'id': 1, 'messages': [{'role': 'user'}]}], 'line 1: "messages"[0]: expected {"role"'),
    ('generate', [{'id': 1, 'messages': [{'role': 'user', 'content': 3}]}], '"content" must be a text, found int'),
    ('generate --n 0', [PROMPT], '--n 0: expected 1 to'),
    ('generate --n x', [PROMPT], "argument --n: invalid int value: 'x'"),
    ('generate --seed -1', [PROMPT], '--seed -1: expected 0 to'),
    ('generate --top-p 0', [PROMPT], 'top_p 0.0: expected more than 0'),
    ('generate --temperature nan', [PROMPT], 'temperature nan: expected 0 or more'),
    ('grade', [{'id': 1, 'response': 'x'}], 'line 1: expected exactly one of "answer", "tests", found 0'),
    ('grade', [{'id': 1, 'response': 1, 'answer': 'x'}], 'line 1: field "response" must be str, found int'),
    ('grade', [{'id': 1, 'response': 'x', 'answer': []}], 'line 1: field "answer" must be a text, a number'),
    ('grade', '{"id": 1, "response": "x", "answer": NaN}', 'line 1: the answer is NaN'),
    ('grade', '{"id": 1, "response": "x", "answer": [1e999]}', 'line 1: the answer is 1e999'),
    ('grade', [{'id': 1, 'response': 'x', 'answer': ' '}], 'line 1: no answer'),
    ('grade', [{'id': 1, 'response': 'x', 'answer': [['4']]}], 'line 1: field "answer" must be a text, a number'),
    ('grade', [{'id': 1, 'response': 'x', 'answer': None}], 'line 1: field "answer" must be'),
    ('grade', [{'id': 1, 'response': 'x', 'tests': None}], 'line 1: tests must be'),
    ('grade', [{'id': 1, 'response': 'x', 'tests': {'setup': '', 'asserts': ['a']}}], 'line 1: tests must be'),
    ('grade', [{'id': 1, 'response': 'x', 'answer': True}], 'line 1: field "answer" must be str or int or float'),
    ('grade', [{'id': 1, 'response': 'x', 'tests': []}], 'line 1: tests must not be empty'),
    ('grade', [{'id': 1, 'response': 'x', 'tests': [{'input': 1}]}], 'line 1: tests must be'),
  ],
)
def test_bad_rows(talking, tmp_path, capsys, verb, rows, expected):
  source, out = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  if isinstance(rows, str):
    source.write_text(rows)
  elif rows is not None:
    write(source, *rows)
  more = {'score': ['--model', str(talking)], 'generate': ['--model', str(talking), '--max-tokens', '9'], 'grade': []}
  name, *flags = verb.split()
  refused([name, '--in', str(source), '--out', str(out), *more[name], *flags], expected, capsys)
  assert sorted(p.name for p in tmp_path.iterdir()) == (['in.jsonl'] if rows is not None else [])


def refused(argv: list[str], expected: str, capsys) -> None:
  assert main(argv) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and expected in err


def test_bad_models(talking, tiny_directory, tmp_path, capsys):
  source, out = write(tmp_path / 'in.jsonl', ROW), tmp_path / 'out.jsonl'

  def score(expected: str, model=tmp_path / 'm', rows=source, verb=('score',), out=out):
    refused([*verb, '--model', str(model), '--in', str(rows), '--out', str(out)], expected, capsys)
    assert not (tmp_path / 'out.jsonl').exists()

  score('m/config.json: not found')
  shutil.copytree(talking, tmp_path / 'm')
  (tmp_path / 'm' / 'model.safetensors').write_bytes(b'x' * 100)
  score('m/model.safetensors: not a whole safetensors file')
  (tmp_path / 'm' / 'tokenizer.json').write_text('{}')
  score('m/tokenizer.json: not a tokenizer', rows=write(tmp_path / 'text.jsonl', {'id': 1, 'text': 'a'}))
  score('"text" needs a tokenizer', model=tiny_directory, rows=tmp_path / 'text.jsonl')
  score('is a directory', out=tmp_path)
  chat = write(tmp_path / 'chat.jsonl', {'id': 1, 'messages': [{'role': 'user', 'content': 'a'}]})
  generate = ('generate', '--max-tokens', '9')
  for template, expected in ((None, 'needs a chat template'), ("{{ raise_exception('no a') }}", '(no a)')):
    shutil.rmtree(tmp_path / 'm')
    shutil.copytree(tiny_directory, tmp_path / 'm')
    make_tokenizer(tmp_path / 'm', template=template)
    score(f'line 1: "messages"{": the chat template refuses" if template else ""}', rows=chat, verb=generate)
    score(expected, rows=chat, verb=generate)
  (tmp_path / 'm' / 'generation_config.json').write_text('{"eos_token_id": "x"}')
  score('eos_token_id', verb=generate)
  hf.save(_broken(hf.load(tiny_directory)), tmp_path / 'nan', None)
  assert main(['score', '--model', str(tmp_path / 'nan'), '--in', str(source), '--out', str(out)]) == 2
  assert 'not finite' in capsys.readouterr().err and not out.exists()


def _broken(model):
  model.norm = model.norm.replace(model.norm[...] * np.nan)
  return model


@pytest.mark.parametrize('length', ['0', '-1', '1000000'])
def test_no_such_length(capsys, length):
  assert main(['chat', '--max-length', length]) == 2
  assert f'--max-length {length}: expected 1 to' in capsys.readouterr().err


def test_fuse_refusals(make_model, tmp_path, capsys):
  for name, sizes in {'a': {}, 'b': {}, 'wide': {'F': 44}, 'base': {'rope_theta': 2e4}}.items():
    hf.save(make_model(**sizes), tmp_path / name, None)
  hf.save(make_model(positions=9), tmp_path / 'short', None)
  for name in ('a', 'b'):
    make_tokenizer(tmp_path / name, WORDS if name == 'a' else WORDS[:-2] + WORDS[-1:] + WORDS[-2:-1])
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'config.json').write_text('{"model_type": "gemma3"}')
  (tmp_path / 'home').mkdir()
  (tmp_path / 'home' / 'thesis.tex').write_text('years')
  before = sorted(tmp_path.rglob('*'))

  def fuse(expected: str, *models: str, weights: str = '0.5,0.5', out: str = 'f'):
    paths = [str(tmp_path / m) for m in models]
    refused(['fuse', '--out', str(tmp_path / out), '--weights', weights, *paths], expected, capsys)
    assert sorted(tmp_path.rglob('*')) == before

  fuse('--weights: weights [0.5, 0.6] sum to 1.1, expected 1', 'a', 'a', weights='0.5,0.6')
  fuse('--weights: 2 weights for 3 models', 'a', 'a', 'a')
  fuse("--weights: '0.5;0.5' is no list of numbers", 'a', 'a', weights='0.5;0.5')
  fuse('wide/config.json: intermediate_size is 44', 'a', 'wide')
  fuse('base/config.json: rope_theta is 20000.0', 'a', 'base')
  fuse('b/tokenizer.json: another vocabulary', 'a', 'b')
  fuse('other/config.json: model_type is', 'a', 'other')
  fuse('missing/config.json: not found', 'a', 'missing')
  fuse('a: expected a new directory', 'a', 'wide', out='a')
  fuse('home: not empty and no model directory', 'a', 'a', out='home')
  assert main(['fuse', '--out', str(tmp_path / 'f'), str(tmp_path / 'a'), str(tmp_path / 'short')]) == 0
  assert hf.read_config(tmp_path / 'f').positions == 512
