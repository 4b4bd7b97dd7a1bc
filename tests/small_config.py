"""configs/tiny.py made small, and problems in files: what the tests of configs share."""

import json
import pathlib

import jax

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.config_io import load_config

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


def problem_files(folder: pathlib.Path, n: int) -> dict:
  """Changes that read problems of one domain from files in `folder`; prompts of test problems 20 to n - 1 are long."""
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
    (folder / f'{name}.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
  source = lambda name: (dict(path=str(folder / f'{name}.jsonl')),)
  sources = {f'data__{name}_files': source(name) for name in ('train', 'test', 'probe')}
  stages = (dict(name='math', domains=('algebra',), steps=1, max_tokens=8),)
  return dict(data__source='files', data__domains=('algebra',), data__extra_domains=(), rl__stages=stages, **sources)
