"""What users get wrong, for every verb and every experiment: one line, exit code 2, and nothing left behind.

Each case is a command line in a folder of odd things (`folder`), and a part of the line that it ends in.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from vibethinker_jax.cli.__main__ import VERBS, main
from vibethinker_jax.cli.parser import Help, VerbParser
from vibethinker_jax.config import TINY_BASE

ROOT = pathlib.Path(__file__).parents[1]
ROWS = {
  'text.jsonl': {'id': 'a', 'text': 'What is 2 + 2?'},
  'prompt.jsonl': {'id': 'a', 'prompt': 'What is 2 + 2?'},
  'no_prompt.jsonl': {'id': 'a', 'prompt': ''},
  'chat.jsonl': {'id': 'a', 'messages': [{'role': 'user', 'content': 'hi'}]},
  'graded.jsonl': {'id': 'a', 'response': '\\boxed{4}', 'answer': '4'},
  'problems.jsonl': {'id': '1', 'domain': 'algebra', 'prompt': 'Solve 2x + 3 = 11.', 'answer': '4'},
}
CONFIGS = {
  'empty.py': '',
  'three.py': 'def get_config(): return 3',
  'broken.py': 'def get_config(:',
  'needs.py': 'import nosuchmodule',
  'exits.py': 'raise SystemExit(3)',
  'fields.py': 'import ml_collections\ndef get_config(): return ml_collections.ConfigDict()',
}
SCORE, GENERATE = 'score --out o --in text.jsonl --model', 'generate --max-tokens 4 --out o'
PROBLEMS = 'decontaminate --train problems.jsonl --out o --report r'
PLAN = 'plan --estimate --topology cpu:2 --config tiny.py'
VERB_CASES = (
  ('', 'expected a verb, one of score, generate'),
  ('scroe', 'unknown verb scroe, did you mean score?'),
  ('xyz', 'unknown verb xyz (see'),
  ('SERVE', 'unknown verb SERVE, did you mean serve?'),
  ('help', 'unknown verb help, did you mean --help?'),
  ('--versoin', 'unknown flag --versoin, did you mean --version?'),
  # ---- flags
  ('score', 'the following arguments are required: --model, --in, --out'),
  ('score --modle model', 'unknown flag --modle, did you mean --model?'),
  ('generate --max-token 4', 'unknown flag --max-token, did you mean --max-tokens?'),
  ('generate -n 4', 'unknown flag -n, did you mean --n?'),
  ('serve --prot 80', 'unknown flag --prot, did you mean --port?'),
  ('score --mod model --in text.jsonl --out o', 'unknown flag --mod, did you mean --model?'),
  (f'{SCORE} model extra', 'unrecognized arguments: extra'),
  (f'{SCORE} model --dtype float16', "invalid choice: 'float16'"),
  (f"{SCORE} ''", 'argument --model: expected a text, found none'),
  ("score --model model --in '' --out o", 'argument --in: expected a text, found none'),
  ("score --model model --in text.jsonl --out ''", 'argument --out: expected a text, found none'),
  # ---- models
  (f'{SCORE} nowhere', 'nowhere/config.json: not found'),
  (f'{SCORE} text.jsonl', 'text.jsonl/config.json: not found'),
  (f'{SCORE} folder', 'folder/config.json: not found'),
  (f'{SCORE} no_tokenizer', '"text" needs a tokenizer'),
  (f'{SCORE} tokenizer.json=empty', 'tokenizer.json: not a tokenizer'),
  (f'{SCORE} tokenizer.json=folder', 'tokenizer.json: not a tokenizer (a directory'),
  (f'{SCORE} config.json=empty', 'config.json: not JSON'),
  (f'{SCORE} config.json=folder', 'config.json: not found'),
  (f'{SCORE} model.safetensors=empty', 'model.safetensors: not a whole safetensors file'),
  (f'{SCORE} model.safetensors=folder', 'model.safetensors: not a whole safetensors file'),
  # ---- rows in, rows out
  ('score --model model --out o --in nowhere', 'nowhere: cannot be read (No such file'),
  ('score --model model --out o --in folder', 'folder: cannot be read (Is a directory)'),
  ('score --model model --out o --in loop', 'loop: cannot be read (Too many levels'),
  ('score --model model --in text.jsonl --out loop/o', 'loop is not a directory'),
  ('score --model model --out o --in empty.jsonl', 'empty.jsonl: no rows'),
  ('score --model model --out o --in blank.jsonl', 'blank.jsonl: no rows'),
  ('score --model model --out o --in binary.jsonl', 'binary.jsonl, line 1: not UTF-8'),
  ('score --model model --in text.jsonl --out folder', 'folder: is a directory'),
  ('score --model model --in text.jsonl --out text.jsonl/o', 'text.jsonl is not a directory'),
  ('score --model model --in text.jsonl --out text.jsonl/deep/o', 'text.jsonl is not a directory'),
  (f'{GENERATE} --model model --in no_prompt.jsonl', 'line 1: empty prompt'),
  (f'{GENERATE} --model no_template --in chat.jsonl', 'needs a chat template'),
  (f'{GENERATE} --model model --in prompt.jsonl --n -1', '--n -1: expected 1 to'),
  (f'{GENERATE} --model model --in prompt.jsonl --n 2000000000', '--n 2000000000: expected 1 to'),
  (f'{GENERATE} --model model --in prompt.jsonl --rows -4', '--rows -4: expected 1 to'),
  (f'{GENERATE} --model model --in prompt.jsonl --top-k 0', 'top_k 0: expected -1 (off) or at least 1'),
  (f'{GENERATE} --model model --in prompt.jsonl --min-p 2', 'min_p 2.0: expected 0 to 1'),
  ('generate --model model --in prompt.jsonl --out o --max-tokens -4', '--max-tokens -4: expected 1 to'),
  ('generate --model model --in prompt.jsonl --out o --max-tokens 1e3', "invalid int value: '1e3'"),
  # ---- the other verbs
  ('fuse --out f', 'the following arguments are required: DIR'),
  ('fuse --out f nowhere', 'nowhere/config.json: not found'),
  ('fuse --out - model model', '-: expected a directory'),
  ('fuse --out text.jsonl/f model model', 'text.jsonl is not a directory'),
  ('fuse --out f --weights , model model', "',' is no list of numbers"),
  ('fuse --out f --weights nan,1 model model', 'expected finite numbers of 0 or more'),
  ('fuse --out f tokenizer.json=folder model', 'tokenizer.json: cannot be read as JSON'),
  ('grade --in graded.jsonl --out o --workers 0', '--workers 0: expected 1 to'),
  ('grade --in graded.jsonl --out o --deadline nan', '--deadline nan: expected more than 0'),
  ('grade --in graded.jsonl --out o --problems empty.jsonl', 'empty.jsonl: no rows'),
  ('evaluate --model model --out e', 'expected exactly one of --benchmark and --data'),
  ('evaluate --model model --out e --benchmark aime', "unknown benchmark 'aime'"),
  ('evaluate --model model --out e --benchmark aime25 --data-dir folder', 'aime25.jsonl: cannot be read'),
  ('evaluate --model model --out e --data problems.jsonl --file problems.jsonl', '--file goes with --benchmark'),
  ('evaluate --model model --out e --data problems.jsonl --reader nosuch', "unknown reader 'nosuch'"),
  ('evaluate --model model --out problems.jsonl/e --data problems.jsonl', 'problems.jsonl is not a directory'),
  ('evaluate --model no_tokenizer --out e --data problems.jsonl', 'needs a tokenizer with a chat template'),
  ('evaluate --model model --out e --data problems.jsonl --limit 0', '--limit 0: expected 1 to'),
  ('prepare --in nowhere --out p', 'nowhere: expected .jsonl'),
  ('prepare --in empty.jsonl --out p', 'empty.jsonl: no rows'),
  ("prepare --in '' --out p", 'argument --in: expected a text'),
  ('prepare --in problems.jsonl --out problems.jsonl/p', 'problems.jsonl is not a directory'),
  ('prepare --in problems.jsonl --out folder', 'folder: expected a new directory'),
  ('prepare --in problems.jsonl --out p --shards 0', '--shards 0: expected 1 or more'),
  *(
    (f"prepare --in problems.jsonl --out p --split '{split}'", f'--split {split}'.strip())
    for split in ('', '../x', 'a b', 'a-b', '1', 'all')
  ),
  ('decontaminate --train empty.jsonl --eval problems.jsonl --out o --report r', 'empty.jsonl: no rows'),
  ('decontaminate --train loop --eval problems.jsonl --out o --report r', 'loop: expected .jsonl'),
  (f'{PROBLEMS} --eval nowhere.jsonl', 'nowhere.jsonl: cannot be read'),
  (f'{PROBLEMS} --eval empty.jsonl', 'empty.jsonl: no rows'),
  (f'{PROBLEMS} --eval problems.jsonl --n 0', 'expected n of 2 or more'),
  (f'{PROBLEMS} --eval problems.jsonl --threshold nan', 'a threshold of 0.5 to 1'),
  (f'{PROBLEMS} --eval problems.jsonl --stock folder', 'folder: cannot be read'),
  ('decontaminate --train text.jsonl --eval problems.jsonl --out o --report text.jsonl/r', 'is not a directory'),
  ('serve --model nowhere', 'nowhere/config.json: not found'),
  ('serve --model no_tokenizer', 'needs a tokenizer with a chat template'),
  ('serve --model model --port 99999', '--port 99999: expected 0 to 65535'),
  ('serve --model model --port 9000 --page-port 9000', '--port and --page-port are both 9000'),
  ('serve --model model --host=', 'argument --host: expected a text'),
  ('serve --model model --name=', 'argument --name: expected a text'),
  ('serve --model model --keys empty.jsonl', 'empty.jsonl: no keys in it'),
  ('serve --model model --cors nope', '--cors nope: expected * or an origin'),
  ('serve --model model --grace -1', '--grace -1.0: expected 0 or more seconds'),
  ('serve --model model --cache text.jsonl', 'text.jsonl: expected a directory'),
  ('chat --model model --cache text.jsonl/c', 'text.jsonl is not a directory'),
  ('chat --model model --preset nosuch', "invalid choice: 'nosuch'"),
  # ---- runs and plans
  ('report folder', 'folder: no run is in it'),
  ('report nowhere', 'nowhere: not found, expected the workdir'),
  ('report text.jsonl', 'text.jsonl: not a directory, expected the workdir'),
  (f'report {"x" * 5000}', 'x: File name too long'),
  ('report model', 'model: no run is in it'),
  ('report evaluation', 'evaluation: no run is in it'),
  ('report run folder', 'folder: no run is in it'),
  ('report run run', 'run: this run is named twice'),
  ('report run --out page.html', 'page.html: expected several runs'),
  ('report run sweep', 'sweep: holds a sweep'),
  ('report sweep', "study is 'nosuch', expected ablation"),
  ('report no_sweep', 'sweep.json: expected "study" and "config"'),
  ('reproduce folder', 'folder/config.json: not found'),
  ('reproduce .', 'config.json: not found'),
  ('reproduce loop', 'loop/config.json: not found'),
  ('reproduce folder --out text.jsonl', 'text.jsonl: expected a directory'),
  ('plan --estimate --topology cpu:2 --config nowhere.py', 'not found (configs/ and experiments/ are in'),
  ('plan --estimate --topology cpu:2 --config folder', '--config folder: a directory, expected a file'),
  ('plan --estimate --topology cpu:2 --config=', 'argument --config: expected a text'),
  *((f'plan --estimate --topology cpu:2 --config {name}', f'--config {name}: no config') for name in [*CONFIGS][:-1]),
  ('plan --estimate --topology cpu:2 --config fields.py', "field 'name' is missing"),
  ('plan --estimate --topology cpu:2 --config tiny.py:preset', '--config tiny.py:preset: no config'),
  *(
    (f'plan --estimate --config tiny.py --topology {name}', 'expected CHIP:GRID')
    for name in ("''", 'v5e', 'v5e:', 'v5e:-4', 'v5e:0', 'V5E:4x4', 'b200:8', 'v5e:٤x٤', 'cpu:1x')
  ),
  ('plan --estimate --config tiny.py --topology v5e:4x4x4', 'expected 2 sides at most'),
  ('plan --estimate --config tiny.py --topology v5p:3x5', 'each 1, 2 or a multiple of 4'),
  ('plan --estimate --config tiny.py --topology cpu:1000000000', '1,000,000,000 devices, expected 65,536 at most'),
  ('plan --estimate --config tiny.py --topology cpu:64', 'no mesh of 64 devices goes with'),
  ('plan --config tiny.py --topology cpu:1000', 'beyond 256 devices there is --estimate only'),
  (f'{PLAN} --out folder', 'folder: is a directory'),
  (f'{PLAN} --out text.jsonl/o', 'text.jsonl is not a directory'),
  (f'{PLAN} --cache text.jsonl', 'text.jsonl: expected a directory'),
  (f'{PLAN} --set mgpo.lam', '--set mgpo.lam: expected NAME=VALUE'),
  (f'{PLAN} --set sft.rows=27', 'does not divide sft.rows, 27'),
  *(
    (f'{PLAN} --set {field}={value}', f'config.{field}: {value!r}')
    for field, value in (
      *(('sft.rows', -28), ('sft.length', 0), ('sft.save_every', 0), ('rl.micro_rows', 0), ('rl.share', 0)),
      *(('engine.rows', 0), ('plan.utilization', 0), ('plan.response', -5), ('cost.price_per_hour', -5)),
      *(('mesh.data', 0), ('model.dtype', 'float99'), ('model.remat', 'nosuch'), ('model.attention', 'nosuch')),
    )
  ),
  (f'{PLAN} --set model.path=nowhere --out o', 'nowhere/config.json: not found'),
)
SSP, STUDY = 'ssp.py --config tiny.py', '--config {root}/configs/ablate_lambda.py'
ACCELERATOR = 'accelerator.py --config {root}/configs/accelerator.py:tiny'
PROBES = 'make_probes.py --url http://localhost:9/v1 --model m'
EXPERIMENT_CASES = (
  ('ssp.py --workdir w', '--config is not given'),
  ('ssp.py --workdir w --config nowhere.py', 'nowhere.py: no'),
  ('ssp.py --workdir w --config folder', 'folder: no config'),
  (f'{SSP} --workdir=', '--workdir is empty, expected a directory'),
  (f'{SSP} --workdir text.jsonl', 'text.jsonl: is a file'),
  (f'{SSP} --workdir text.jsonl/w', 'text.jsonl/w: cannot be written (Not a directory)'),
  (f'{SSP} --workdir w extra', "unexpected argument 'extra'"),
  (f'{SSP} --wrokdir w', 'Did you mean: workdir'),
  (f'{SSP} --workdir w --stages=', '--stages: expected some of sft'),
  (f'{SSP} --workdir w --stages=sft,nosuch', "unknown stage 'nosuch'"),
  (f'{SSP} --workdir w --processes 0', '--processes=0: 0 is not a positive'),
  (f'{SSP} --workdir w --processes 2', 'expected --coordinator or --distributed'),
  (f'{SSP} --workdir w --processes 2 --process 7 --coordinator localhost:1', '--process 7: expected 0 to 1'),
  (f'{SSP} --workdir w --coordinator nonsense', '--coordinator nonsense: expected HOST:PORT'),
  (f'{SSP} --workdir w --distributed', '--distributed: the other processes cannot be found'),
  (f'ablate_lambda.py {STUDY} --workdir text.jsonl', 'text.jsonl: is a file'),
  (f'ablate_lambda.py {STUDY} --workdir w --points x', '--points x: expected whole numbers'),
  (f'ablate_lambda.py {STUDY} --workdir w --points 99', '--points 99: there are'),
  ('sweep_fusion.py --config nowhere.py --workdir w', 'nowhere.py: no'),
  ('study_selection.py --config {root}/configs/study_selection.py --workdir text.jsonl', 'text.jsonl: is a file'),
  ('evaluate.py --config {root}/configs/evaluate.py --workdir w', 'config.model'),
  ('pretrain_tiny.py --config {root}/configs/pretrain_tiny.py --workdir text.jsonl', 'text.jsonl: is a file'),
  ('benchmark.py --config {root}/configs/benchmark.py --workdir text.jsonl', 'text.jsonl: cannot be written'),
  ('benchmark.py --config {root}/configs/benchmark.py:huge --workdir w', 'expected tiny or 1p5b'),
  ('benchmark.py --workdir w --config {root}/configs/benchmark.py --config.grpo_step.micro_rows=24', 'does not divide'),
  ('benchmark.py --workdir w --config {root}/configs/benchmark.py --config.mesh.tensor=64', 'does not divide'),
  ('accelerator.py --config nowhere.py', 'nowhere.py: no'),
  ('accelerator.py --config {root}/configs/accelerator.py:huge', 'expected 1p5b or tiny'),
  ('accelerator.py --config tiny.py', 'config: unknown field'),
  (f'{ACCELERATOR} --config.lengths=', 'config.lengths: (), expected one or more'),
  *((f'{ACCELERATOR} --config.lengths={n}', f'config.lengths: {n}, expected a multiple of 128') for n in (1, 100)),
  *((f'{ACCELERATOR} --config.lengths={n}', 'expected a whole number of 1 or more') for n in ('x', 0, -128)),
  (f'{ACCELERATOR} --config.repeats=0', 'config.repeats: 0, expected a whole number of 1 or more'),
  (f'{ACCELERATOR} --config.mesh.data=8', 'config.decode.rows: 4, expected a multiple of the devices of the mesh, 8'),
  (f'{ACCELERATOR} --config.mesh.fsdp=2 --config.sft_rows=3', 'does not divide sft_rows, 3'),
  (f'{ACCELERATOR} --minutes=-1', '--minutes=-1'),
  (f'{ACCELERATOR} --parts=rates,nosuch', '--parts nosuch: expected some of rates, attention_128'),
  (f'{ACCELERATOR} --out folder', '--out folder: is a directory'),
  (f'{ACCELERATOR} --out a.md', '--out a.md: the table goes there'),
  (f'{ACCELERATOR} --out text.jsonl/o', 'text.jsonl/o: cannot be written'),
  ('make_probes.py', 'must have a value other than None'),
  ('make_probes.py --url nonsense --model m --out o', '--url nonsense: expected an address'),
  (f'{PROBES} --out folder', 'folder: cannot be read'),
  (f'{PROBES} --out text.jsonl/o', 'text.jsonl/o: cannot be written'),
  (f'{PROBES} --out o --each=0', '--each=0: 0 is not a positive'),
  (f'{PROBES} --out o --domains=', '--domains: expected names'),
  ('benchmark_decontaminate.py --rows=0', '--rows=0: 0 is not a positive'),
  ('benchmark_decontaminate.py --against=0', '--against=0: 0 is not a positive'),
  ('audit_judges.py --data nowhere', 'nowhere/math/math_test_5000.jsonl: cannot be read'),
  ('benchmark_serving.py --clients=0', '--clients=0: 0 is not a positive'),
  ('benchmark_serving.py --seconds=-1', '--seconds=-1: -1.0 is not'),
)
# Imports what all experiments want once, and forks for each of them: cases come and results go as JSON.
FORKS = """
import json, os, runpy, sys, tempfile
import absl.app, jax, vibethinker_jax.study.pages, vibethinker_jax.plan.plan

results = {}
for argv in json.load(sys.stdin):
  said = tempfile.TemporaryFile()
  child = os.fork()
  if child == 0:
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.argv, code = argv, 99
    try:
      runpy.run_path(argv[0], run_name='__main__')
      code = 0
    except SystemExit as end:
      code = end.code
    except BaseException as error:
      print(f'Traceback: {error!r}')
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  _, status = os.waitpid(child, 0)
  said.seek(0)
  results[json.dumps(argv)] = os.waitstatus_to_exitcode(status), said.read().decode()
print(json.dumps(results))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with rows, configs, models and runs that lack something."""
  folder = tmp_path_factory.mktemp('odd')
  for name, row in ROWS.items():
    (folder / name).write_text(f'{json.dumps(row)}\n')
  for name, code in CONFIGS.items():
    (folder / name).write_text(code)
  for name, content in {'empty.jsonl': b'', 'blank.jsonl': b'\n\n', 'binary.jsonl': b'\xff\xfe\0x'}.items():
    (folder / name).write_bytes(content)
  shutil.copy(ROOT / 'configs' / 'tiny.py', folder)
  for name in ('folder', 'run', 'sweep', 'no_sweep', 'evaluation'):
    (folder / name).mkdir()
  (folder / 'run' / 'metrics.jsonl').write_text('')
  (folder / 'sweep' / 'sweep.json').write_text('{"study": "nosuch", "config": {}}')
  (folder / 'no_sweep' / 'sweep.json').write_text('{}')
  for name in ('config.json', 'summary.json'):
    (folder / 'evaluation' / name).write_text('{"benchmark": "aime25"}')
  (folder / 'loop').symlink_to('pool')
  (folder / 'pool').symlink_to('loop')
  shutil.copytree(TINY_BASE, folder / 'model')
  shutil.copytree(TINY_BASE, folder / 'no_template')
  (folder / 'no_template' / 'chat_template.jinja').unlink()
  shutil.copytree(TINY_BASE, folder / 'no_tokenizer', ignore=shutil.ignore_patterns('tokenizer*', 'chat*'))
  for name in ('tokenizer.json', 'config.json', 'model.safetensors'):
    for what in ('empty', 'folder'):
      shutil.copytree(TINY_BASE, folder / f'{name}={what}', ignore=shutil.ignore_patterns(name))
    (folder / f'{name}=empty' / name).write_text('')
    (folder / f'{name}=folder' / name).mkdir()
  return folder


def everything(folder: pathlib.Path) -> list[str]:
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


@pytest.mark.parametrize('line, expected', VERB_CASES)
def test_verbs(folder, monkeypatch, capsys, line, expected):
  monkeypatch.chdir(folder)
  before = everything(folder)
  assert main(shlex.split(line)) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and expected in err
  assert everything(folder) == before


@pytest.fixture(scope='module')
def experiments(folder):
  """What every case of the experiments ends in: exit code and text, by its command line; and what was left behind."""
  before = everything(folder)
  cases = [_argv(line) for line, _ in EXPERIMENT_CASES]
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
  command = [sys.executable, '-c', FORKS]
  done = subprocess.run(
    command, cwd=folder, env=env, input=json.dumps(cases), text=True, capture_output=True, check=True
  )
  return json.loads(done.stdout), sorted({*everything(folder)} - {*before})


def _argv(line: str) -> list[str]:
  return shlex.split(f'{ROOT}/experiments/{line.format(root=ROOT)}')


@pytest.mark.parametrize('line, expected', EXPERIMENT_CASES)
def test_experiments(experiments, line, expected):
  results, left = experiments
  code, said = results[json.dumps(_argv(line))]
  assert code == 2 and said.count('\n') == 1 and expected in said, said
  assert left == []


@pytest.mark.parametrize('verb', VERBS)
def test_help_says_what_flags_are_and_their_defaults(verb, capsys):
  name = verb.__name__.rpartition('.')[2].replace('_', '-')
  with pytest.raises(SystemExit) as end:
    main([name, '--help'])
  assert end.value.code == 0
  said = ''.join(capsys.readouterr().out.split())
  parser = VerbParser(name, formatter_class=Help)
  verb.arguments(parser)
  for action in parser._actions:
    told = parser._get_formatter()._expand_help(action) if action.help else ''
    assert ''.join(told.split()) in said and told, f'{action.dest}: no help'
    if action.option_strings and action.nargs != 0 and not action.required and action.default != []:
      default = 'default' if action.default is None else f'{action.default}'
      assert default in told or ' or --' in told, f'{action.dest}: no default in its help'


def test_version(capsys):
  with pytest.raises(SystemExit) as end:
    main(['--version'])
  version = re.search(r"__version__ = '(.*?)'", (ROOT / 'vibethinker_jax' / '__init__.py').read_text())[1]
  assert end.value.code == 0 and capsys.readouterr().out == f'vibethinker {version}\n'
