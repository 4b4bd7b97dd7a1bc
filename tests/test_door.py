"""`import vibethinker_jax as vt`: quick, and each name gives what the command of that name, or the function, gives."""

import importlib
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

import vibethinker_jax as vt
from vibethinker_jax import api
from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.cli.plan import NO_TPU
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data import synthetic
from vibethinker_jax.data.problem import row_of
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model import hf
from vibethinker_jax.spectrum import passk
from vibethinker_jax.train import mgpo

ROOT = pathlib.Path(__file__).parents[1]
QUESTION = [{'role': 'user', 'content': 'Solve 3x + 12 = 69.'}]


def write(path: pathlib.Path, rows) -> pathlib.Path:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def read(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def python(code: str) -> str:
  """What a new interpreter prints."""
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
  return done.stdout.strip()


@pytest.fixture(scope='module')
def tiny():
  """The tiny base: model and tokenizer."""
  return vt.load(TINY_BASE)


@pytest.fixture
def command(tmp_path):
  """command(verb, rows, *flags) -> the rows that the command writes."""

  def run(verb: str, rows, *flags) -> list[dict]:
    source, out = write(tmp_path / 'in.jsonl', rows), tmp_path / 'out.jsonl'
    assert main([verb, '--in', str(source), '--out', str(out), *map(str, flags)]) == 0
    return read(out)

  return run


# ---- the package -----------------------------------------------------------------------------------------------------


def test_the_import_loads_nothing():
  code = 'import sys, vibethinker_jax as vt; dir(vt); vt.__version__, vt.__doc__; print(*sys.modules)'
  loaded = python(code).split()
  assert 'vibethinker_jax' in loaded
  assert not {'jax', 'numpy', 'transformers', 'vibethinker_jax.api'} & {*loaded}


def test_a_function_is_not_hidden_by_the_subpackage_of_its_name():
  """Python binds an imported subpackage to its parent: `vt.plan` would be a module here, and `vt.evaluate` after it."""
  code = (
    'import vibethinker_jax as vt, vibethinker_jax.plan, vibethinker_jax.evaluate\n'
    'vt.plan\n'
    'from vibethinker_jax.evaluate import compare\n'
    'from vibethinker_jax import disk, plan\n'
    'print(vt.plan.__module__, vt.evaluate.__module__, plan is vt.plan, compare.__name__, disk.__name__)'
  )
  assert python(code) == (
    'vibethinker_jax.api vibethinker_jax.api True vibethinker_jax.evaluate.compare vibethinker_jax.disk'
  )


def test_names():
  assert len({*vt.__all__}) == len(vt.__all__) and {*vt.__all__} <= {*dir(vt)}
  for name in {*vt.__all__} - {'__version__'}:
    value = getattr(vt, name)
    assert callable(value) and value.__doc__, name
    assert getattr(importlib.import_module(value.__module__), name) is value
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    vt.lode


def test_one_version():
  assert python('import runpy, sys; sys.argv = ["setup.py", "--version"]; runpy.run_path("setup.py")') == vt.__version__


# ---- models ----------------------------------------------------------------------------------------------------------


def test_generate_is_the_command(tiny, command):
  prompts = {'raw': 'Steps:\n3 * 4 =', 7: QUESTION, 'ids': [40, 41, 42]}
  rows = [
    {'id': 'raw', 'prompt': prompts['raw']},
    {'id': 7, 'messages': QUESTION},
    {'id': 'ids', 'tokens': prompts['ids']},
  ]
  law = dict(temperature=0.8, top_p=0.9, top_k=20, min_p=0.01, seed=5)
  flags = [part for name, value in law.items() for part in (f'--{name.replace("_", "-")}', value)]
  written = command('generate', rows, '--model', TINY_BASE, '--n', 2, '--max-tokens', 24, *flags)
  ours = vt.generate(*tiny, [*prompts.values()], n=2, max_tokens=24, names=[*prompts], rows=3, **law)
  assert [len(group) for group in ours] == [2, 2, 2]
  assert {s.finish_reason for group in ours for s in group} == {'stop', 'length'}
  for row, sample in zip(written, (s for group in ours for s in group), strict=True):
    assert row['tokens'] == sample.tokens.tolist() and row['text'] == sample.text
    assert row['finish_reason'] == sample.finish_reason
    np.testing.assert_allclose(row['logprobs'], sample.logprobs, atol=1e-5)
  counted = command('generate', [{'id': 0, 'messages': QUESTION}], '--model', TINY_BASE, '--max-tokens', 24)
  assert vt.generate(*tiny, [QUESTION], max_tokens=24)[0][0].tokens.tolist() == counted[0]['tokens']


def test_a_model_without_a_tokenizer_ends_where_it_is_told(tmp_path, command):
  """Its files name the end of text and of a turn."""
  for name in ('config.json', 'generation_config.json', 'model.safetensors'):
    shutil.copy(TINY_BASE / name, tmp_path / name)
  model, tokenizer = vt.load(tmp_path)
  assert tokenizer is None
  ends = json.loads((TINY_BASE / 'generation_config.json').read_text())['eos_token_id']
  rows = [{'id': i, 'tokens': [40, 41, 42 + i]} for i in range(4)]
  written = command('generate', rows, '--model', tmp_path, '--max-tokens', 24)
  ours = vt.generate(model, None, [row['tokens'] for row in rows], max_tokens=24, stop_ids=ends)
  assert [row['tokens'] for row in written] == [group[0].tokens.tolist() for group in ours]
  assert 'stop' in {group[0].finish_reason for group in ours}
  assert [group[0].text for group in ours] == [None] * 4


def test_what_ends_a_response_is_the_files_and_the_tokenizers(make_model, tmp_path):
  """The command stops at both; a tokenizer without <|im_end|> does not stop at its unknown token."""
  hf.save(make_model(V=512), tmp_path / 'm', TINY_BASE, eos_ids=(77,))
  _, tokenizer = vt.load(tmp_path / 'm')
  own = PreTrainedTokenizerFast.from_pretrained(str(TINY_BASE))
  assert {*tokenizer.stop_ids} == {77, own.eos_token_id, own.convert_tokens_to_ids('<|im_end|>')}


def test_score_is_the_command(tiny, command):
  text, ids = 'Steps:\n3 * 4 = 12', [40, 41, 42, 43]
  written = command('score', [{'id': 0, 'text': text}, {'id': 1, 'tokens': ids}], '--model', TINY_BASE)
  ours = vt.score(*tiny, [text, np.array(ids)])
  for row, logps in zip(written, ours, strict=True):
    np.testing.assert_allclose(row['logprobs'], logps, atol=1e-6)
  assert ours[1].shape == (3,)
  sample = vt.generate(*tiny, [ids], max_tokens=12)[0][0]
  scored = vt.score(*tiny, [[*ids, *sample.tokens]])[0][len(ids) - 1 :]
  np.testing.assert_allclose(scored, sample.logprobs, atol=1e-4)


def test_bfloat16_is_the_commands(command):
  model, tokenizer = vt.load(TINY_BASE, dtype='bfloat16')
  assert model.embed[...].dtype == jnp.bfloat16 and model.config.dtype == 'bfloat16'
  written = command('score', [{'id': 0, 'text': '3 * 4 = 12'}], '--model', TINY_BASE, '--dtype', 'bfloat16')
  np.testing.assert_allclose(vt.score(model, tokenizer, ['3 * 4 = 12'])[0], written[0]['logprobs'], atol=1e-6)


def test_fuse_and_save_are_the_command(make_model, tmp_path):
  for i, name in enumerate('ab'):
    hf.save(make_model(seed=i, V=512, positions=64 * (i + 1)), tmp_path / name, TINY_BASE, eos_ids=(5,))
  flags = ('fuse', '--weights', '0.25,0.75', '--out', tmp_path / 'theirs', tmp_path / 'a', tmp_path / 'b')
  assert main([str(flag) for flag in flags]) == 0
  (a, tokenizer), (b, _) = vt.load(tmp_path / 'a'), vt.load(tmp_path / 'b')
  vt.save(vt.fuse([a, b], [0.25, 0.75]), tokenizer, tmp_path / 'ours')
  files = sorted(path.name for path in (tmp_path / 'theirs').iterdir())
  assert files == sorted(path.name for path in (tmp_path / 'ours').iterdir())
  for name in files:
    assert (tmp_path / 'ours' / name).read_bytes() == (tmp_path / 'theirs' / name).read_bytes(), name
  halves = vt.fuse([a, b])
  np.testing.assert_allclose(halves.embed[...], (a.embed[...] + b.embed[...]) / 2, atol=1e-7)
  assert a.config.positions == 64 and b.config.positions == 128, 'what is given stays as it was'


def test_save_replaces_a_model_and_nothing_else(tiny, tmp_path):
  model, tokenizer = tiny
  vt.save(model, tokenizer, tmp_path / 'm')
  again, same = vt.load(tmp_path / 'm')
  assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), model, again)))
  vt.save(again, same, tmp_path / 'm')  # over the directory that it was loaded from
  assert vt.load(tmp_path / 'm')[1].stop_ids == tokenizer.stop_ids
  other = tmp_path / 'thesis'
  other.mkdir()
  (other / 'chapter.tex').write_text('years')
  for where in (other, other / 'chapter.tex'):
    with pytest.raises(BadInput, match='not replaced'):
      vt.save(model, tokenizer, where)
  with pytest.raises(BadInput, match='cannot be written'):
    vt.save(model, tokenizer, other / 'chapter.tex' / 'm')
  assert (other / 'chapter.tex').read_text() == 'years'
  (tmp_path / 'm' / 'tokenizer.json').unlink()
  with pytest.raises(BadInput, match='the file is gone'):
    vt.save(again, same, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


# ---- judging ---------------------------------------------------------------------------------------------------------


def test_grade_is_the_command(command):
  responses = ['so \\boxed{12}', '\\boxed{0.5}', '\\boxed{3}', 'none', '\\boxed{7}']
  answers = ['12', ['1/2', '0.50'], 4, 1.5, np.int64(7)]
  rows = [
    {'id': i, 'response': response, 'answer': answer if i < 4 else 7}
    for i, (response, answer) in enumerate(zip(responses, answers))
  ]
  ours = vt.grade(responses, answers)
  assert [verdict.score for verdict in ours] == [1, 1, 0, 0, 1]
  assert [{'id': i, **vars(verdict)} for i, verdict in enumerate(ours)] == command('grade', rows)
  strict = vt.grade(['<think></think>\\boxed{12}', '\\boxed{12}'], ['12', '12'], strict=True)
  assert [verdict.score for verdict in strict] == [1, 0]
  tests = [{'entry_point': 'f', 'setup': '', 'asserts': ['assert f(2) == 4']}, [{'input': '3\n', 'output': '6\n'}]]
  programs = ['```python\ndef f(x):\n  return 2 * x\n```', '```python\nprint(int(input()) + 2)\n```']
  assert [verdict.score for verdict in vt.grade(programs, tests=tests)] == [1, 0]


def test_evaluate_is_the_command(tiny, tmp_path):
  problems = synthetic.problems('algebra', 'test', 3, 0)
  data = write(tmp_path / 'problems.jsonl', map(row_of, problems))
  flags = ('evaluate', '--model', TINY_BASE, '--data', data, '--n', 4, '--max-tokens', 48, '--out', tmp_path / 'theirs')
  assert main([str(flag) for flag in flags]) == 0
  theirs = json.loads((tmp_path / 'theirs' / 'summary.json').read_text())
  ask = dict(n=4, max_tokens=48, rows=8, name=str(TINY_BASE))
  assert vt.evaluate(*tiny, data, **ask) == theirs
  kept = vt.evaluate(*tiny, problems, **ask, out=tmp_path / 'ours')
  assert kept | {'benchmark': 'problems.jsonl'} == theirs
  ours = tmp_path / 'ours' / 'samples.jsonl'
  assert ours.read_bytes() == (tmp_path / 'theirs' / 'samples.jsonl').read_bytes()
  rows = read(ours)
  write(ours, rows[:5])  # as after a kill
  assert vt.evaluate(*tiny, problems, **ask, out=tmp_path / 'ours') == kept and read(ours) == rows
  other = vt.fuse([tiny[0], jax.tree.map(lambda x: x * 1.01, tiny[0])])
  with pytest.raises(BadInput, match='weights is'):
    vt.evaluate(other, tiny[1], problems, **ask, out=tmp_path / 'ours')


def test_plan_is_the_command(tmp_path, monkeypatch):
  for name, value in NO_TPU.items():  # which the command sets for good
    monkeypatch.setenv(name, value)
  config = ROOT / 'configs' / 'ssp_1p5b.py'
  out = tmp_path / 'plan.json'
  flags = [
    'plan',
    f'--config={config}:v5e-16',
    '--topology=v5e:4x4',
    '--set=rl.num_generations=8',
    '--estimate',
    f'--out={out}',
  ]
  code = main(flags)
  report = vt.plan(f'{config}:v5e-16', 'v5e:4x4', {'rl.num_generations': 8})
  assert report == json.loads(out.read_text()) and report['fits'] == (code == 0)
  assert vt.plan(f'{config}:v5e-16', 'v5e:4x4') != report


def test_the_functions_of_arrays_are_the_trainers():
  assert vt.maxent_weight is mgpo.maxent_weight and vt.advantages is mgpo.advantages
  assert vt.policy_loss is mgpo.policy_loss and vt.pass_at_k is passk.pass_at_k


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_one_line(tiny, tmp_path):
  model, tokenizer = tiny
  generate = lambda prompts, **more: vt.generate(model, tokenizer, prompts, **{'max_tokens': 4, **more})
  problem = synthetic.problems('algebra', 'test', 1, 0)
  broken = jax.tree.map(lambda x: x * np.nan, model)
  for said, call in {
    'prompts: expected a list, found str': lambda: generate('abc'),
    'prompts[1]: expected a text, a conversation, or token ids, found int': lambda: generate(['a', 7]),
    'prompts[0]: expected a text, a conversation, or token ids, found bytes': lambda: generate([b'abc']),
    'prompts[0]: expected a text, a conversation, or token ids, found dict': lambda: generate(QUESTION),
    'prompts[0][0]: expected': lambda: generate([[{'role': 'user'}]]),
    'prompts[0][0]: "content" must be a text': lambda: generate([[{'role': 'user', 'content': 1}]]),
    'prompts[0] must be whole numbers from 0 to': lambda: generate([[10**6]]),
    'prompts[0]: empty prompt': lambda: generate([[]]),
    'lone surrogate': lambda: generate(['\ud800']),
    'prompts[0] needs a tokenizer': lambda: vt.generate(model, None, ['a'], max_tokens=4),
    'exceed the length': lambda: generate([[1]], max_tokens=10**6),
    'n 0: expected 1 or more': lambda: generate(['a'], n=0),
    'rows 0: expected 1 or more': lambda: generate(['a'], rows=0),
    'temperature -1': lambda: generate(['a'], temperature=-1),
    'seed -1': lambda: generate(['a'], seed=-1),
    'names: expected 2 that differ': lambda: generate(['a', 'b'], names=[1, 1]),
    'the weights are broken': lambda: vt.generate(broken, tokenizer, ['a'], max_tokens=4),
    'sequences[0]: 0 tokens': lambda: vt.score(model, tokenizer, ['']),
    'sequences[0]: 100000 tokens': lambda: vt.score(model, tokenizer, [[1] * 100_000]),
    "dtype 'float16'": lambda: vt.load(TINY_BASE, dtype='float16'),
    'config.json: not found': lambda: vt.load(tmp_path),
    'exactly one of answers and tests': lambda: vt.grade(['a']),
    '1 answers for 2 responses': lambda: vt.grade(['a', 'b'], ['1']),
    'answers: expected a list, found str': lambda: vt.grade(['a'], '1'),
    'answers[0]: expected a text, a number': lambda: vt.grade(['a'], [True]),
    'answers[1]: expected a text, a number': lambda: vt.grade(['a', 'b'], ['1', []]),
    'responses[0]: expected a text': lambda: vt.grade([None], ['1']),
    'tests[0]: ': lambda: vt.grade(['a'], tests=[[{'input': '1'}]]),
    'more than 0 seconds': lambda: vt.grade(['a'], ['1'], deadline_s=0),
    'weights: ': lambda: vt.fuse([model, model], [0.5, 0.6]),
    'weights: weights []': lambda: vt.fuse([]),
    "unknown benchmark 'aime99'": lambda: vt.evaluate(model, tokenizer, 'aime99'),
    'problems: expected a list': lambda: vt.evaluate(model, tokenizer, 7),
    'n is 0': lambda: vt.evaluate(model, tokenizer, problem, n=0),
    'top_p 2': lambda: vt.evaluate(model, tokenizer, problem, top_p=2),
    'a tokenizer with a chat template': lambda: vt.evaluate(model, None, problem),
    'not of an evaluation': lambda: vt.evaluate(model, tokenizer, problem, n=1, out=TINY_BASE),
    'no config': lambda: vt.plan(tmp_path / 'none.py', 'v5e:4x4'),
    'expected CHIP:GRID': lambda: vt.plan(ROOT / 'configs' / 'tiny.py', 'mine'),
  }.items():
    with pytest.raises(BadInput) as error:
      call()
    assert said in str(error.value), said


def test_models_that_differ_in_their_function_are_not_fused(make_model):
  for field, changed in (('rope_theta', 1e6), ('L', 3), ('tied', False), ('norm_eps', 1e-5)):
    with pytest.raises(BadInput, match=rf'models\[1\]: {field} is'):
      vt.fuse([make_model(), make_model(**{field: changed})])


def test_the_annotations_name_what_is_returned(tiny):
  sample = vt.generate(*tiny, [QUESTION], max_tokens=3)[0][0]
  assert isinstance(sample, api.Sample)
  assert (sample.tokens.dtype, sample.logprobs.dtype) == (np.int32, np.float32)
  assert sample.tokens.shape == sample.logprobs.shape == (3,) and sample.finish_reason == 'length'
