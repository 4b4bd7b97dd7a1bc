"""Values drawn from the declarations: each is taken, or refused in one line; and what is taken runs.

Fields and their types are read from the declarations (fields.py), so that no field is left out.
"""

import contextlib
import dataclasses
import math
import random
import re
import signal
import types
import typing

import annotated_types
import pytest
from small_config import ONE, ROOT, SMALL, TINY, problem_files

from vibethinker_jax import fields
from vibethinker_jax.config import RunConfig
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
  if origin is tuple and parts == (str, ...) and isinstance(value, str):
    return within(str, value)
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
def test_any_value_of_any_field_is_taken_or_refused_in_a_line(seed, n, tmp_path):
  """Of experiments/ssp.py: on the embedded world, and on files. What is taken has gone through all that is loaded."""
  dotted = {name.replace('__', '.'): value for name, value in problem_files(tmp_path, 22).items()}
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
def test_what_is_taken_runs_to_its_end_or_ends_in_a_line(seed, tmp_path):
  """Four fields at a time, through every stage."""
  rng = random.Random(seed)
  names = [(name, kind) for name, kind in leaves(RunConfig) if name not in NOT_DRAWN and 'sizes' not in name]
  settings = None
  base = SMALL | ({name.replace('__', '.'): v for name, v in problem_files(tmp_path, 22).items()} if seed % 2 else {})
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
