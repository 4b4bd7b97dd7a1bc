"""A made-up run of four domains and its page: what the tests of pages share."""

import html.parser
import json
import math

import numpy as np

from vibethinker_jax.evaluate import report

MATH = ('algebra', 'geometry', 'calculus', 'statistics')
VOID = {'meta', 'br', 'hr', 'img', 'link', 'input'}


class Page(html.parser.HTMLParser):
  """Checks that tags nest, and keeps what the tests ask for."""

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.attributes, self.words = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.stack

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, key, value) for key, value in attrs]
    if tag not in VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, key, value) for key, value in attrs]

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    if self.stack and self.stack[-1] not in ('style', 'script'):
      self.words.append(data)

  @property
  def text(self):
    return ' '.join(' '.join(self.words).split())


def make_summary(rng, k=8):
  levels = {'base': (0.12, 0.40), 'last': (0.31, 0.55), 'uniform': (0.33, 0.60)}
  levels |= {f'expert_{d}': (0.32, 0.58) for d in MATH}
  levels |= {'fused': (0.35, 0.66), 'rl': (0.52, 0.68)}
  models = {}
  for model, (one, wide) in levels.items():
    models[model] = {}
    for domain in (*MATH, 'code', 'math'):
      shift = 0 if domain == 'math' else -0.08 if domain == 'code' else rng.normal(0, 0.04)
      problems = 240 if domain == 'math' else 60
      half = 0.3 / math.sqrt(problems) * 2
      cell = {'n_problems': problems, 'n_samples': 16}
      for key, level in ((1, one), (k, wide)):
        value = min(max(level + shift, 0.01), 0.99)
        cell[f'pass@{key}'] = value
        cell[f'pass@{key}_ci'] = [max(0, value - half), min(1, value + half)]
      models[model][domain] = cell
  steps = list(range(100, 700, 100))
  curves = {d: (0.45 + 0.15 * np.sin(np.arange(6) / 2 + i) + rng.normal(0, 0.02, 6)) for i, d in enumerate(MATH)}
  experts = {
    d: {
      'steps': steps,
      'pass_at_k': c.tolist(),
      'k': k,
      'selected_step': steps[int(c.argmax())],
      'held_out': float(c.max() - 0.03),
    }
    for d, c in curves.items()
  }
  stages = [
    {'name': 'math_short', 'steps': 60, 'max_tokens': 64},
    {'name': 'math_long', 'steps': 40, 'max_tokens': 128, 'note': 'a < b'},
    {'name': 'code', 'steps': 25, 'max_tokens': 128},
  ]
  return {
    'models': models,
    'experts': experts,
    'mgpo': {'lambda': 2.0, 'p0': 0.5, 'stages': stages},
    'seconds': {'sft': 312.4, 'probe': 48.0, 'fuse': 1.2, 'rl/math_short': 4210.0, 'rl/code': 95.0},
    'tokens': {'sft': 1_234_567, 'rl/math_short': 7_654_321},
    'cost': {'device_hours': 1.25, 'price_per_hour': 2.0, 'dollars': 2.5},
    'device': {'kind': 'cpu', 'count': 1},
    'versions': {'jax': '0.10.2'},
  }


def make_metrics(rng):
  rows = [
    {
      'stage': 'sft',
      'step': s,
      'loss': 2 * math.exp(-s / 150) + 0.4 + rng.normal(0, 0.03),
      'grad_norm': 1 + rng.random(),
      'learning_rate': 1e-3 * min(1, s / 50),
      'tokens_per_s': 1e4,
    }
    for s in range(10, 610, 10)
  ]
  total = 0
  for stage, count in (('rl/math_short', 60), ('rl/math_long', 40), ('rl/code', 25)):
    for s in range(1, count + 1):
      total += 1
      rate = 0.35 + 0.2 * total / 125 + rng.normal(0, 0.02)
      rows.append(
        {
          'stage': stage,
          'step': s,
          'reward': rate,
          'pass_rate': rate if s % 7 else math.nan,
          'all_right': 0.1 + 0.2 * total / 125,
          'all_wrong': 0.3 - 0.2 * total / 125,
          'truncated': abs(rng.normal(0.1, 0.03)),
          'mean_length': 40 + 0.2 * total + rng.normal(0, 2),
          'entropy': 0.9 * math.exp(-total / 100) + rng.normal(0, 0.02),
          'ratio_min': 0.9,
          'ratio_max': 1.1,
          'clip_fraction': None,
          'grad_norm': abs(rng.normal(0.5, 0.1)),
          'weight_mean': 0.8 + rng.normal(0, 0.02),
          'kl': 0.001 * total,
        }
      )
  return rows


def make_samples():
  rows = []
  for domain in (*MATH, 'code'):
    for i in range(3):
      for model in ('base', 'fused', 'rl', 'expert_algebra'):
        right = model == 'rl' or (model == 'fused' and i == 0)
        rows.append(
          {
            'model': model,
            'domain': domain,
            'id': f'{domain}-{i}',
            'prompt': f'If x < {i + 5} & x > {i + 3} is a whole number, what is x?',
            'response': f'<script>alert(1)</script> x lies between, so x = \\boxed{{{i + 4}}}. ' * (2 if right else 6),
            'answer': str(i + 4),
            'score': int(right),
            'extracted': str(i + 4) if right else None,
            'reason': 'equal' if right else 'no boxed answer',
          }
        )
  return rows


def write_workdir(path, summary, metrics, samples):
  path.mkdir(parents=True, exist_ok=True)
  (path / 'config.json').write_text(json.dumps({'name': 'tiny <run>', 'seed': 0, 'sft': {'learning_rate': 1e-3}}))
  (path / 'summary.json').write_text(json.dumps(summary))
  for name, rows in (('metrics', metrics), ('samples', samples)):
    (path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def render(workdir):
  path = report.write_report(workdir)
  assert path == workdir / 'report.html'
  return path.read_text(encoding='utf-8')


def section(text, title):
  return text.split(f'<h2>{title}</h2>')[1].split('</section>')[0]
