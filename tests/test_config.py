"""Every field of every config has a range: odd values end in one line that names the field, before anything is touched.

Fields and what they may be are walked as they are declared (fields.py), so that no field is left out.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import types
import typing

import annotated_types
import jax
import pytest

from vibethinker_jax import config_docs, fields
from vibethinker_jax.config import TINY_BASE, RunConfig
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.errors import BadInput, Failure
from vibethinker_jax.run_data import load_run_data
from vibethinker_jax.ssp import Pipeline
from vibethinker_jax.study import ablation, selection, simplex
from vibethinker_jax.tasks import (
  Benchmarking,
  Evaluation,
  Pretraining,
  check_benchmarking,
  check_evaluation,
  check_pretraining,
)

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / 'configs' / 'tiny.py'
ONE = jax.devices()[:1]  # the session has eight
SMALL = {
  'model': dict(random=dict(V=512, D=16, L=1, K=1, G=2, H=8, F=32, positions=512), tokenizer=str(TINY_BASE)),
  'mesh.data': 1,
  **{f'data.{name}': n for name, n in dict(train=20, probe=4, test=4).items()},
  **{f'sft.{name}': n for name, n in dict(steps=3, save_every=2, rows=4).items()},
  'sft.optim.warmup': 1,
  'probe': dict(samples=2, k=2, max_tokens=8),
  'evaluate': dict(samples=2, k=2, max_tokens=8),
  **{f'rl.{name}': n for name, n in dict(prompts=2, num_generations=4, micro_rows=8, share=4, save_every=2).items()},
  'rl.optim.warmup': 1,
  'rl.stages': (
    dict(name='math', domains=('algebra', 'geometry'), steps=2, max_tokens=8),
    dict(name='code', domains=('code',), steps=1, max_tokens=8),
  ),
  'engine': dict(rows=16, block=8),
}


def small(**changes) -> dict:
  """The values of configs/tiny.py, small, with changes: 'rl__stages[0]__steps' is rl.stages[0].steps."""
  return load_config(TINY, SMALL | {name.replace('__', '.'): v for name, v in changes.items()})


# ---- values that were met --------------------------------------------------------------------------------------------

WHOLE, FINITE = 'expected a whole number of 1 or more$', 'that is finite$'
CASES = [
  ('sft.save_every', 0, WHOLE),
  ('sft.length', 3, 'expected [0-9]+ or more: the shortest solution of sft/all'),
  ('sft.accumulation', 0, WHOLE),
  ('sft.steps', -3, WHOLE),
  ('sft.rows', 0, 'expected a whole number of 1 to 1048576$'),
  ('sft.optim.learning_rate', -1e-3, 'expected a number of more than 0$'),
  ('sft.optim.learning_rate', math.nan, FINITE),
  ('sft.optim.b1', 2.0, 'expected a number of 0 or more, and less than 1$'),
  ('sft.optim.clip', math.inf, FINITE),
  ('rl.optim.eps', 0.0, 'expected a number of more than 0$'),
  ('rl.micro_rows', 0, 'expected a whole number of 1 to'),
  ('rl.micro_rows', 6, 'expected a multiple of rl.share, 4$'),
  ('rl.temperature', 0, 'expected a number of 0.01 to 100$'),
  ('rl.share', 0, WHOLE),
  ('rl.num_generations', 1, 'expected a whole number of 2 to'),
  ('rl.seed', 100, 'expected a whole number of 0 to 99$'),
  ('rl.stages[0].steps', 0, WHOLE),
  ('rl.stages[1].max_tokens', 5000, 'expected at most [0-9]+: no prompt of rl/code, code, leaves more of the 512'),
  ('rl.stages[0].name', '../../x', 'is no plain one'),
  ('rl.stages[1].name', 'math', 'are one on some disks'),
  ('mgpo.minibatches', 0, WHOLE),
  ('mgpo.minibatches', 3, 'expected at most rl.prompts, 2$'),
  ('mgpo.refills', -1, 'expected a whole number of 0 to 1000$'),
  ('mgpo.lam', math.inf, FINITE),
  ('mgpo.clip_low', 2.0, 'expected a number of more than 0 and less than 1$'),
  ('mgpo.kl_coef', -1.0, 'expected a number of 0 or more$'),
  ('mgpo.overlong', -3, 'expected a whole number of 0 or more$'),
  ('mgpo.overlong', 9, "expected at most max_tokens of stage 'math', 8$"),
  ('mgpo.band', (0.8, 0.2), 'expected two rates, the lower one first$'),
  ('mgpo.band', (0.2,), 'expected a list of 2 numbers$'),
  ('mgpo.p0', 1.0, 'expected a number of 0.01 to 0.99$'),
  ('mgpo.weight', 'entropy', "expected 'maxent' or 'variance' or 'band'$"),
  ('probe.max_tokens', 5000, 'expected at most [0-9]+: no prompt of probe_a, algebra, leaves more of the 512'),
  ('probe.top_p', 2.0, 'expected a number of more than 0, at most 1$'),
  ('probe.top_k', 0, 'expected -1, or a whole number of 1 or more$'),
  ('probe.k', 3, 'expected at most probe.samples, 2$'),
  ('evaluate.temperature', 0, 'samples: 2, expected 1 with evaluate.temperature 0'),
  ('engine.block', 0, 'expected a whole number of 1 to'),
  ('engine.rows', -4, 'expected a whole number of 1 to'),
  ('engine.pages', 3, 'expected 0, or 4 or more of 128 positions'),
  ('model.dtype', 'float99', "expected 'float32' or 'bfloat16'$"),
  ('model.attention', 'splash', "expected 'xla' on a cpu"),
  ('model.path', 'somewhere', 'expected none beside model.random'),
  ('model.random.H', 3, 'expected a whole number of 2 to 65536, a multiple of 2$'),
  ('model.random.dtype', 'bfloat16', 'expected it in config.model.dtype'),
  ('data.probe', 0, WHOLE),
  ('data.train', 100_000, 'expected fewer'),
  ('data.source', 'web', "expected 'synthetic' or 'files'$"),
  ('data.source', 'files', "train_files: .*expected one source or more with data.source 'files'$"),
  ('data.domains', ('algebra', 'algebra'), 'are one on some disks'),
  ('data.extra_domains', ('algebra', 'code'), 'are one on some disks'),
  ('data.domains', ('algebra', 'x\0'), 'expected a text of Unicode characters'),
  ('experts', 'both', "expected 'one_run' or 'per_domain'$"),
  ('fusion.weights', (0.5, 0.5), 'expected one for each of data.domains, with a sum of 1'),
  ('grader.workers', 0, 'expected a whole number of 1 to 1024$'),
  ('grader.deadline_s', math.inf, FINITE),
  ('mesh.data', 0, 'expected a whole number of 1 to'),
  ('mesh.data', 3, 'wants 3 devices, there are 1'),
  ('cost.price_per_hour', -1.0, 'expected a number of 0 or more$'),
  ('seed', -1, 'expected a whole number of 0 or more$'),
  ('seed', True, 'True, expected a whole number'),
  ('seed', 10**5000, 'expected a whole number of at most 2147483647 in size$'),
  ('sft.steps', 10**12, 'expected a whole number of at most 2147483647 in size$'),
  ('sft.steps', '3', "'3', expected a whole number of 1 or more$"),
  ('sft.steps', 3.0, '3.0, expected a whole number of 1 or more$'),
]


@pytest.mark.parametrize('name, value, expected', CASES, ids=[name for name, *_ in CASES])
def test_odd_values_are_refused_by_name(name, value, expected):
  with pytest.raises(BadInput) as refused:
    load_run_data(freeze(RunConfig, small(**{name.replace('.', '__'): value})), ONE)
  line = str(refused.value)
  assert re.search(expected, line) and '\n' not in line and len(line) < 400, line
  assert line.startswith(f'config.{name.split("[")[0].split(".")[0]}'), line


def test_a_refusal_is_one_line_and_leaves_nothing(tmp_path):
  """By the command, as a user meets it: exit code 2."""
  command = [sys.executable, 'experiments/ssp.py', '--config=configs/tiny.py', f'--workdir={tmp_path / "w"}']
  env = {**os.environ, 'PYTHONPATH': str(ROOT)}
  for flag, expected in (
    ('--config.sft.save_every=0', 'error: config.sft.save_every: 0, expected a whole number of 1 or more\n'),
    ('--config.rl.temperature=1e999', 'error: config.rl.temperature: inf, expected a number of 0.01 to 100 that is f'),
  ):
    done = subprocess.run([*command, flag], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(expected) and done.stderr.count('\n') == 1, done.stderr
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
  'read, config, name, value, expected',
  [
    (ablation.read, 'ablate_lambda', 'ablation.lambdas', (-1.0,), r'lambdas\[0\]: -1.0, expected a number of 0 to'),
    (ablation.read, 'ablate_lambda', 'ablation.seeds', (), 'expected one or more, each once'),
    (ablation.read, 'ablate_lambda', 'ablation.seeds', (1, 1), 'expected one or more, each once'),
    (ablation.read, 'ablate_lambda', 'ablation.controls', (dict(name='../x'),), 'is no plain one'),
    (ablation.read, 'ablate_lambda', 'ablation.controls', (dict(name='GRPO'),), 'are one on some disks'),
    (
      ablation.read,
      'ablate_lambda',
      'ablation.controls',
      (dict(name='a', rl=dict(num_generations=1)),),
      'a: rl.num_generations: 1, exp',
    ),
    (
      ablation.read,
      'ablate_lambda',
      'ablation.controls',
      (dict(name='a', rl=dict(share=5)),),
      'a: .*rl.micro_rows: 64, ',
    ),
    (simplex.read, 'sweep_fusion', 'simplex.parts', 900, 'expected fewer: of 4 domains they make'),
    (simplex.read, 'sweep_fusion', 'simplex.search', 'guess', "expected 'grid' or 'dirichlet' or 'coordinate'"),
    (selection.read, 'study_selection', 'selection.seeds', (100,), r'seeds\[0\]: 100, expected a whole number of 0 to'),
  ],
)
def test_studies_refuse_by_name(read, config, name, value, expected):
  with pytest.raises(BadInput, match=expected):
    read(load_config(ROOT / 'configs' / f'{config}.py', {name: value}))


@pytest.mark.parametrize(
  'kind, look, config, name, value, expected',
  [
    (Evaluation, check_evaluation, 'evaluate', 'model', '', 'expected a Hugging Face directory'),
    (Evaluation, check_evaluation, 'evaluate', 'benchmarks', ('aime99',), "'aime99', expected some of aime24"),
    (Evaluation, check_evaluation, 'evaluate', 'benchmarks', ('aime24',) * 2, 'expected one or more, each once'),
    (Evaluation, check_evaluation, 'evaluate', 'deadline_s', 0.0, 'expected a number of more than 0, at most 86400'),
    (Pretraining, check_pretraining, 'pretrain_tiny', 'model.V', 100, 'expected 261 or more'),
    (Pretraining, check_pretraining, 'pretrain_tiny', 'sft.length', 9000, 'expected at most model.positions, 4096'),
    (Pretraining, check_pretraining, 'pretrain_tiny', 'corpus.path_weights', {'area': 1.0}, 'no weight to a path of'),
    (Benchmarking, check_benchmarking, 'benchmark', 'grpo_step.new_tokens', 5000, 'expected at most 4032 of 4096'),
    (Benchmarking, check_benchmarking, 'benchmark', 'grpo_step.micro_rows', 7, 'expected a multiple of grpo_step'),
    (Benchmarking, check_benchmarking, 'benchmark', 'mesh.fsdp', 3, 'config.mesh: fsdp is 3, which does not divide'),
  ],
)
def test_the_other_experiments_refuse_by_name(kind, look, config, name, value, expected):
  changes = {name: value} if kind is not Evaluation or name == 'model' else {'model': 'm', name: value}
  with pytest.raises(BadInput, match=expected):
    look(freeze(kind, load_config(ROOT / 'configs' / f'{config}.py', changes)))


# ---- problems that do not fit ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
  """files(n) -> changes that read problems of one domain from files; prompts of test problems 20 to n - 1 are long."""

  def write(n: int) -> dict:
    row = lambda name, i, words: {
      'id': f'{name}{i}', 'domain': 'algebra', 'prompt': f'What is {i} + 1? ' + 'x ' * words, 'answer': str(i + 1),
      'solutions': [{'text': f'\\boxed{{{i + 1}}}'}],
    }  # fmt: skip
    for name, rows in (
      ('train', [row('train', i, 600 * (i == 3)) for i in range(20)]),
      ('test', [row('test', i, 600 * (i < n)) for i in range(20, 26)]),
      ('probe', [row('probe', i, 0) for i in range(30, 40)]),
    ):
      rows = [r | {'prompt': f'{name} {r["prompt"]}'} for r in rows]
      (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    source = lambda name: (dict(path=str(tmp_path / f'{name}.jsonl')),)
    sources = {f'data__{name}_files': source(name) for name in ('train', 'test', 'probe')}
    stages = (dict(name='math', domains=('algebra',), steps=1, max_tokens=8),)
    return dict(data__source='files', data__domains=('algebra',), data__extra_domains=(), rl__stages=stages, **sources)

  return write


def test_prompts_too_long_are_left_out_counted_and_named(files, tmp_path, capsys):
  pipeline = Pipeline(freeze(RunConfig, small(data__test=6, **files(22))), tmp_path / 'w', ONE)
  assert sorted(p.id for p in pipeline.sets.test['algebra']) == ['test22', 'test23', 'test24', 'test25']
  assert len(pipeline.rolled['math']) == 19 and 'train3' not in {p.id for p in pipeline.rolled['math']}
  test, stage = pipeline.left_out
  assert test.startswith('test: 2 of 6 problems left out') and test.endswith(('the first is test20', 'is test21'))
  assert stage.startswith('rl/math: 1 of 20 problems left out') and stage.endswith('the first is train3')
  assert capsys.readouterr().out.count('left out') == 2


def test_where_nothing_is_left_the_budget_is_refused(files, tmp_path):
  with pytest.raises(BadInput, match='config.evaluate.max_tokens: 8, expected at most 0: no prompt of test, algebra'):
    Pipeline(freeze(RunConfig, small(data__test=6, **files(26))), tmp_path / 'w', ONE)
  assert not (tmp_path / 'w').exists()


# ---- the page of all fields ------------------------------------------------------------------------------------------


def test_docs_are_made_of_the_declarations():
  """Every field has its line there, and a meaning. Else: python -m vibethinker_jax.config_docs > docs/config.md"""
  assert (ROOT / 'docs' / 'config.md').read_text() == config_docs.document()
  for _, _, kind in config_docs.CONFIGS:
    for one in {kind, *fields.dataclasses_in(tuple[tuple(fields.kinds(kind).values())])}:
      assert {*fields.meanings(one)} == {*fields.kinds(one)}, one


# ---- values drawn from the declarations ------------------------------------------------------------------------------

ODD = (None, True, 'x', '3', b'x', (), [], [[]], {}, {'x': 1}, {3: 1}, 1.5, 1j, object(), lambda: 1, math.nan, math.inf)
NUMBERS = (-1, 0, 1, 2, 7, 10**6, 10**12, -(10**12), 10**400, 2**31 - 1, 2**31, -math.inf, 1e300, -1e300, 1e-300, 0.5)
TEXTS = (
  *('', ' ', 'x', 'é', 'e\u0301', '\u202e', '\U0001f600', '中文', 'x' * 300, 'x' * 5000, 'a\nb', 'a\0b', '\ud800'),
  *('.', '..', '../../x', '/', '/etc/passwd', '/nowhere/x', '~', 'a\\b', '-', '{}', '%s', '<b>', '<|im_end|>'),
)


def leaves(kind, above=''):
  """Every field of a dataclass and of those in it that holds no other field: its dotted name and its type."""
  for name, own in fields.kinds(kind).items():
    inner = [k for k in fields.union(own) or (own,) if dataclasses.is_dataclass(k)]
    for k in inner:
      yield from leaves(k, f'{above}{name}.')
    if not inner:
      yield f'{above}{name}', own


def bounds(kind):
  """The bounds of a number's type: (bound, whether it is itself within, whether it is the lower one)."""
  parts = typing.get_args(kind)[1:]
  flat = [c for part in parts for c in (part if isinstance(part, annotated_types.Interval) else [part])]
  names = {'Ge': (True, True), 'Gt': (False, True), 'Le': (True, False), 'Lt': (False, False)}
  return [(dataclasses.astuple(c)[0], *names[type(c).__name__]) for c in flat if type(c).__name__ in names]


def drawn(kind, rng: random.Random):
  """A value for a field of this type: of another type, at its bounds or beyond them, or one that it may be."""
  if rng.random() < 0.2:
    return rng.choice(ODD)
  if branches := fields.union(kind):
    return drawn(rng.choice(branches), rng)
  origin, parts = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Literal:
    return rng.choice(parts)
  if origin is typing.Annotated or kind in (int, float):
    near = [b + d for b, *_ in bounds(kind) for d in (0, 1, -1, 1e-9, -1e-9)]
    return rng.choice([*near, *near, *NUMBERS])
  if origin is tuple:
    n = rng.randrange(5) if parts[1:] == (...,) else len(parts)
    return tuple(drawn(k, rng) for k in (parts[:1] * n if parts[1:] == (...,) else parts))
  if origin is dict:
    return {rng.choice(TEXTS): drawn(parts[1], rng) for _ in range(rng.randrange(3))}
  if dataclasses.is_dataclass(kind):
    return {name: drawn(own, rng) for name, own in fields.kinds(kind).items() if rng.random() < 0.8}
  return {bool: True, str: rng.choice(TEXTS), dict: {}, types.NoneType: None}[kind]


def within(kind, value) -> bool:
  """Whether a field of this type may have the value, by the declaration alone."""
  if branches := fields.union(kind):
    return any(within(k, value) for k in branches)
  origin, parts = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Literal:
    return any(type(value) is type(p) and value == p for p in parts)
  base = parts[0] if origin is typing.Annotated else kind
  if base in (int, float):
    if type(value) not in ((int,) if base is int else (int, float)) or not -1e400 < value < 1e400:
      return False
    if (base is int and abs(value) >= 2**31) or (base is float and value and not 1e-30 <= abs(value) <= 1e30):
      return False
    multiples = [p.multiple_of for p in parts[1:] if isinstance(p, annotated_types.MultipleOf)]
    beyond = lambda b, itself, lower: (value < b if lower else value > b) or (value == b and not itself)
    return not any(beyond(*b) for b in bounds(kind)) and not any(value % m for m in multiples)
  if origin is tuple:
    each = parts[:1] * len(value) if parts[1:] == (...,) and isinstance(value, tuple | list) else parts
    return isinstance(value, tuple | list) and len(value) == len(each) and all(map(within, each, value))
  if origin is dict or kind is dict:
    fits = lambda name, v: within(str, name) and (not parts or within(parts[1], v))
    return isinstance(value, dict) and all(fits(*item) for item in value.items())
  if dataclasses.is_dataclass(kind):
    own, declared = fields.kinds(kind), {f.name: f for f in dataclasses.fields(kind)}
    needed = {n for n, f in declared.items() if f.default is f.default_factory is dataclasses.MISSING}
    given = isinstance(value, dict) and needed <= {*value} <= {*own}
    return given and all(within(own[n], v) for n, v in value.items())
  if kind is str:
    return isinstance(value, str) and '\0' not in value and '\ud800' not in value
  return type(value) is kind


@contextlib.contextmanager
def no_hang(what: str):
  """Fails where what is done within does not end."""
  before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f'{what}: hangs'))
  signal.alarm(300)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def draw_and_look(kind, prefix: str, bases, look, seed: int, n: int) -> None:
  """`n` times: a field of a config is given a value. What is not refused in a line that names it, is within."""
  rng, names = random.Random(seed), [*leaves(kind)]
  for i in range(n):
    name, own = rng.choice(names)
    value = drawn(own, rng)
    what = f'{i}: {prefix}{name} = {value!r:.200}'
    with no_hang(what):
      try:
        look(bases[i % len(bases)]({f'{prefix}{name}': value}))
      except BadInput as error:
        if not within(own, value):  # or it stands in an object that the base has not
          above = [name[: dot.start()] for dot in re.finditer(r'\.', name)]
          absent = [f'config.{prefix}{outer}: {how}field' for outer in above for how in ('', 'unknown ')]
          assert str(error).startswith((f'config.{prefix}{name}', *absent)), f'{what}: {error}'
      except Exception as error:
        pytest.fail(f'{what}: {type(error).__name__}: {error}')
      else:
        assert within(own, value), f'{what}: taken'


DRAWS = [pytest.param(0, 60), *(pytest.param(seed, 250, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]


@pytest.mark.parametrize('seed, n', DRAWS)
def test_any_value_of_any_field_is_taken_or_refused_in_a_line(seed, n, files):
  """Of experiments/ssp.py: on the embedded world, and on files. What is taken has gone through all that is loaded."""
  dotted = {name.replace('__', '.'): value for name, value in files(22).items()}
  dotted |= {'data.decontaminate': {}, 'plan.sizes': dict(V=9, D=4, L=1, K=1, G=1, H=2, F=4), 'plan.prices': {'cpu': 1}}
  stretched = {'model.random.rope_scaling': dict(factor=2.0, original_max_position_embeddings=256, attention_factor=1)}
  bases = [lambda c: load_config(TINY, SMALL | stretched | c), lambda c: load_config(TINY, SMALL | dotted | c)]
  draw_and_look(RunConfig, '', bases, lambda values: load_run_data(freeze(RunConfig, values), ONE), seed, n)


@pytest.mark.parametrize('seed, n', DRAWS)
@pytest.mark.parametrize('name', ['ablation', 'simplex', 'selection', 'evaluate', 'pretrain_tiny', 'benchmark'])
def test_any_value_of_the_other_configs(name, seed, n):
  of_study = lambda read: lambda values: read(values)
  frozen = lambda kind, look: lambda values: look(freeze(kind, values))
  kind, config, look = {
    'ablation': (ablation.Ablation, 'ablate_lambda', of_study(ablation.read)),
    'simplex': (simplex.Simplex, 'sweep_fusion', of_study(simplex.read)),
    'selection': (selection.Selection, 'study_selection', of_study(selection.read)),
    'evaluate': (Evaluation, 'evaluate', frozen(Evaluation, check_evaluation)),
    'pretrain_tiny': (Pretraining, 'pretrain_tiny', frozen(Pretraining, check_pretraining)),
    'benchmark': (Benchmarking, 'benchmark', frozen(Benchmarking, check_benchmarking)),
  }[name]
  base = lambda change: load_config(
    ROOT / 'configs' / f'{config}.py', {'model': 'm'} | change if kind is Evaluation else change
  )
  prefix = f'{name}.' if name in ('ablation', 'simplex', 'selection') else ''
  draw_and_look(kind, prefix, [base], look, seed, n)


# ---- what is taken runs ----------------------------------------------------------------------------------------------

NOT_DRAWN = ('model.path', 'model.tokenizer', 'data.source', 'data.spectrum.error_rates', 'model.attention')


def modest(kind, rng: random.Random):
  """A value that a field may have and that costs no more than others; None where there is none to be drawn."""
  kind = (*(k for k in fields.union(kind) if k is not types.NoneType), kind)[0]
  if typing.get_origin(kind) is typing.Literal:
    return rng.choice(typing.get_args(kind))
  near = [b + d for b, _, lower in bounds(kind) if lower or b <= 1 for d in (0, 1, 2, 1e-3, -1e-3)]
  values = [v for v in (*near, 1, 2, 3, 0.5, 0.1, True, False, 'é <b>', '') if within(kind, v)]
  return rng.choice(values) if values else None


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(20))
def test_what_is_taken_runs_to_its_end_or_ends_in_a_line(seed, files, tmp_path):
  """Four fields at a time, through every stage."""
  rng = random.Random(seed)
  names = [(name, kind) for name, kind in leaves(RunConfig) if name not in NOT_DRAWN and 'sizes' not in name]
  settings = None
  base = SMALL | ({name.replace('__', '.'): v for name, v in files(22).items()} if seed % 2 else {})
  while settings is None:
    changes = {name: modest(kind, rng) for name, kind in rng.sample(names, 4)}
    with contextlib.suppress(BadInput):
      tried = freeze(RunConfig, load_config(TINY, base | {n: v for n, v in changes.items() if v is not None}))
      load_run_data(tried, ONE)
      settings = tried
  with no_hang(str(changes)):
    try:
      summary = Pipeline(settings, tmp_path / 'w', ONE).run()
      assert summary['models']
    except Failure as error:
      print(changes, error)
    except Exception as error:
      pytest.fail(f'{changes}: {type(error).__name__}: {error}')
