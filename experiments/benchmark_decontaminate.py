"""Rows per second of decontamination on synthetic rows, with planted leaks that must all be found.

python experiments/benchmark_decontaminate.py --rows=100000

Measured on 2 shared cores at low priority: 100,000 rows of 200 words against 10,000 problems, index 4.3 s, search
10.8 s (9,260 rows a second: a million in 108 s), at most 1.04 GiB, all 100 planted leaks found.
"""

import resource
import time

import numpy as np
from absl import flags

from vibethinker_jax.config_io import run_app
from vibethinker_jax.data.decontaminate import Decontaminate, Index, find_leaks

ROWS = flags.DEFINE_integer('rows', 100_000, lower_bound=1, help='training rows')
WORDS = flags.DEFINE_integer('words', 200, lower_bound=60, help='words in a row')
AGAINST = flags.DEFINE_integer('against', 10_000, lower_bound=1, help='evaluation problems')


def measure(rows: int, words: int, against: int, seed: int = 0) -> dict:
  """Times the index and the search. One row in 1000 repeats ten words of an evaluation problem in its middle."""
  rng = np.random.default_rng(seed)
  letters = rng.integers(97, 123, (50_000, 8), dtype=np.uint8)
  vocabulary = np.array([bytes(w[: 2 + i % 7]).decode() for i, w in enumerate(letters)])
  text = lambda n: ' '.join(vocabulary[np.minimum(rng.zipf(1.2, n), len(vocabulary)) - 1])  # words are unequally common
  problems = [(str(i), text(words)) for i in range(against)]

  def stream():
    for i in range(rows):
      own = text(words)
      if i % 1000 == 0:
        leak = ' '.join(problems[i % against][1].split()[50:60])
        own = f'{own[: len(own) // 2]} {leak} {own[len(own) // 2 :]}'
      yield str(i), own

  begin = time.perf_counter()
  index = Index(problems, Decontaminate())
  indexed = time.perf_counter()
  made, found, texts = 0.0, 0, stream()
  for first in range(0, rows, 10_000):
    start = time.perf_counter()
    block = [next(texts) for _ in range(min(10_000, rows - first))]
    made += time.perf_counter() - start
    found += sum(leak is not None and int(leak.id) % 1000 == 0 for leak in find_leaks(block, index))
  seconds = time.perf_counter() - indexed - made
  return {
    'rows': rows,
    'planted': -(-rows // 1000),
    'found': found,
    'index_s': indexed - begin,
    'search_s': seconds,
    'rows_per_s': rows / seconds,
    'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }


def main(_):
  for name, value in measure(ROWS.value, WORDS.value, AGAINST.value).items():
    print(f'{name:12} {value:,.1f}' if isinstance(value, float) else f'{name:12} {value:,}')


if __name__ == '__main__':
  run_app(main)
