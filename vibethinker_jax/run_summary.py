"""What a run leaves to be read: the verdicts of each model (probe/, evaluate/), summary.json and samples.jsonl."""

import dataclasses
import json
import pathlib
import platform
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from vibethinker_jax.config import RunConfig, sft_runs
from vibethinker_jax.evaluate import samples
from vibethinker_jax.evaluate.graded import Graded
from vibethinker_jax.evaluate.scores import by_domain
from vibethinker_jax.shared_files import read_json, write_json, write_text

_SHOWN = ('base', 'fused', 'rl')  # the models whose samples samples.jsonl has


def write_verdicts(path: pathlib.Path, results: Mapping[str, Graded]) -> None:
  """Write one model's verdicts of every sample, and the first sample of each problem in full.

  The samples that were kept beside the file while it was not there are deleted.

  Args:
    path: the file.
    results: the graded samples of each domain.
  """
  first = [
    {
      'domain': domain,
      'id': problem.id,
      'prompt': problem.prompt,
      'response': one.responses[i][0],
      'answer': problem.answer if problem.tests is None else 'tests',
      'score': one.verdicts[i][0].score,
      'extracted': one.verdicts[i][0].extracted,
      'reason': one.verdicts[i][0].reason,
    }
    for domain, one in results.items()
    for i, problem in enumerate(one.problems)
  ]
  write_json(
    path,
    {
      'correct': {domain: one.correct.astype(int).tolist() for domain, one in results.items()},
      'lengths': {domain: one.lengths.mean(1).tolist() for domain, one in results.items()},
      'tokens': int(sum(one.lengths.sum() for one in results.values())),
      'truncated': float(np.mean([one.truncated.mean() for one in results.values()])),
      'samples': first,
    },
  )
  samples.discard(path)


def verdicts(results: Mapping) -> dict[str, np.ndarray]:
  """The verdicts by domain, bool [P,N], of a file that `write_verdicts` has written."""
  return {domain: np.array(rows, bool) for domain, rows in results['correct'].items()}


def write_summary(
  workdir: pathlib.Path,
  s: RunConfig,
  models: Mapping[str, Mapping],
  left_out: Sequence[str],
  rl_tokens: Mapping[str, int],
  seconds: Mapping[str, float],
) -> None:
  """Write summary.json and samples.jsonl.

  Args:
    workdir: of the run; probe/, evaluate/ and experts.json are read from it.
    s: the run's config.
    models: for each model the content of its file in evaluate/.
    left_out: for each set of problems a line that says what was left out.
    rl_tokens: tokens sampled in each RL stage.
    seconds: time of each stage.
  """
  sampled = lambda folder: sum(read_json(p)['tokens'] for p in sorted((workdir / folder).rglob('*.json')))
  hours = sum(seconds.values()) / 3600 * s.cost.devices
  device = jax.devices()[0]
  summary = {
    'models': {name: by_domain(verdicts(m), s.evaluate.k, s.data.domains) for name, m in models.items()},
    'experts': read_json(workdir / 'experts.json'),
    'left_out': list(left_out),
    'mgpo': {
      'lambda': s.mgpo.lam,
      'p0': s.mgpo.p0,
      'stages': [{**dataclasses.asdict(stage), 'tokens': rl_tokens[stage.name]} for stage in s.rl.stages],
    },
    'seconds': dict(seconds),
    'tokens': {
      'sft': len(sft_runs(s)) * s.sft.steps * s.sft.accumulation * s.sft.rows * s.sft.length,
      'probe': sampled('probe'),
      'rl': sum(rl_tokens.values()),
      'evaluate': sampled('evaluate'),
    },
    'cost': {
      'device_hours': hours,
      'price_per_hour': s.cost.price_per_hour,
      'dollars': hours * s.cost.price_per_hour,
    },
    'device': {'platform': device.platform, 'kind': device.device_kind, 'count': jax.device_count()},
    'versions': {'python': platform.python_version(), 'jax': jax.__version__},
  }
  write_json(workdir / 'summary.json', summary)
  shown = [
    {'model': name, **row} for name in _SHOWN for row in read_json(workdir / 'evaluate' / f'{name}.json')['samples']
  ]
  write_text(workdir / 'samples.jsonl', ''.join(json.dumps(row) + '\n' for row in shown))
