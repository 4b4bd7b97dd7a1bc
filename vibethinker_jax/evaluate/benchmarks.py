"""The benchmarks: where their problems lie, what a model is asked, how it is sampled, and what was published.

The sampling of the first group and of LiveCodeBench and GPQA is the VibeThinker-1.5B report's; that of the others is
ours, for nothing was published. Scores are those of the same report (arXiv 2511.06221, Pass@1 in per cent). GPQA and
LiveCodeBench come from the user's own files only: their authors ask that the questions not be spread.
"""

import dataclasses
import pathlib
import sys

from vibethinker_jax.data import sources
from vibethinker_jax.data.instructions import CHOICE, COMPLETE, MATH, PROGRAM, STDIN
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a model is asked and sampled."""

  n: int  # samples of each problem
  temperature: float = 1.0
  top_p: float = 0.95
  top_k: int = -1
  max_tokens: int = 40960
  instruction: str = ''  # what follows every problem's statement


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """A test set. `file` lies below the data folder; '' is a file of the user's own. `expected`: how many problems."""

  file: str
  reader: str
  expected: int
  protocol: Protocol
  since: str = ''  # problems published from this day on
  until: str = ''  # and before that one


_64 = Protocol(64, instruction=MATH)
_16 = Protocol(16, instruction=MATH)
_CODE = Protocol(8, temperature=0.6)
_ASK = lambda instruction: dataclasses.replace(_CODE, instruction=instruction)

BENCHMARKS: dict[str, Benchmark] = {
  'aime24': Benchmark('competition/aime24.jsonl', 'math', 30, _64),
  'aime25': Benchmark('competition/aime25.jsonl', 'math', 30, _64),
  'hmmt25': Benchmark('competition/hmmt25.jsonl', 'math', 30, _64),
  'math500': Benchmark('math/math500.jsonl', 'math', 500, _64),
  'amc23': Benchmark('competition/amc23.jsonl', 'math', 40, _64),
  'olymmath-easy': Benchmark('competition/olymmath_en_easy.jsonl', 'math', 100, _16),
  'olymmath-hard': Benchmark('competition/olymmath_en_hard.jsonl', 'math', 100, _16),
  'gsm8k': Benchmark('gsm8k/test.jsonl', 'gsm8k', 1319, _16),
  'humaneval': Benchmark('code/HumanEval.jsonl.gz', 'humaneval', 164, _ASK(COMPLETE)),
  'mbpp': Benchmark('code/mbpp.jsonl', 'mbpp', 974, _ASK(PROGRAM)),
  'codecontests': Benchmark('code/code_contests_test_165.json', 'code_contests', 165, _ASK(STDIN)),
  'mmlu-stem': Benchmark('stem_mcq/mmlu_stem_3018.jsonl', 'multiple_choice', 3018, Protocol(16, instruction=CHOICE)),
  'livecodebench-v5': Benchmark('', 'livecodebench', 279, _CODE, '2024-08-01', '2025-02-01'),
  'livecodebench-v6': Benchmark('', 'livecodebench', 131, _CODE, '2025-02-01', '2025-05-01'),
  'gpqa-diamond': Benchmark('', 'gpqa', 198, Protocol(16, instruction=CHOICE)),
  'gpqa-diamond-in-order': Benchmark('', 'gpqa_verl_in_order', 198, Protocol(16, instruction=CHOICE)),
}

PUBLISHED: dict[str, dict[str, float]] = {
  'Qwen2.5-Math-1.5B (base)': {
    'aime24': 6.7, 'aime25': 4.3, 'math500': 58.5, 'hmmt25': 0.6, 'livecodebench-v5': 0.0, 'livecodebench-v6': 0.0,
    'gpqa-diamond': 16.4,
  },
  'DeepScaleR-1.5B': {
    'aime24': 43.1, 'aime25': 31.5, 'math500': 87.8, 'hmmt25': 19.0, 'livecodebench-v6': 16.3, 'gpqa-diamond': 20.5,
  },
  'Qwen3-1.7B': {
    'aime24': 48.3, 'aime25': 36.8, 'math500': 93.4, 'hmmt25': 23.6, 'livecodebench-v5': 33.2,
    'livecodebench-v6': 26.9, 'gpqa-diamond': 40.1,
  },
  'VibeThinker-1.5B': {
    'aime24': 80.3, 'aime25': 74.4, 'math500': 95.0, 'hmmt25': 50.4, 'livecodebench-v5': 55.9,
    'livecodebench-v6': 51.1, 'gpqa-diamond-in-order': 46.7,
  },
  'DeepSeek R1-0120 (671B)': {
    'aime24': 79.8, 'aime25': 70.0, 'hmmt25': 41.7, 'livecodebench-v5': 65.9, 'gpqa-diamond': 71.5,
  },
}  # fmt: skip


def named(name: str) -> Benchmark:
  """The benchmark of that name. Raises BadInput."""
  if name not in BENCHMARKS:
    raise BadInput(f'unknown benchmark {name!r}, expected one of {", ".join(BENCHMARKS)}')
  return BENCHMARKS[name]


def load(
  name: str, folder: pathlib.Path, files: tuple[pathlib.Path, ...] = (), skip_bad: bool = False
) -> list[Problem]:
  """The problems of a benchmark, from `files` or else from its own file below `folder`.

  GPQA in verl's schema (.parquet) is read by its reader. Says on stderr where there are not as many problems as were
  published: another version of the data. Raises BadInput.
  """
  b = named(name)
  if not files and not b.file:
    raise BadInput(f'benchmark {name}: needs a file of your own, its authors ask that the questions not be spread')
  problems = []
  for file in files or (folder / b.file,):
    verl = b.reader == 'gpqa' and file.suffix == '.parquet'
    problems += sources.load(file, 'gpqa_verl' if verl else b.reader, skip_bad=skip_bad)
  problems = [p for p in problems if (not b.since or p.date >= b.since) and (not b.until or p.date < b.until)]
  if not problems:
    raise BadInput(f'benchmark {name}: no problem published from {b.since} to before {b.until} in the files given')
  if len(problems) != b.expected:
    print(f'benchmark {name}: {len(problems)} problems, the published scores are of {b.expected}', file=sys.stderr)
  return distinct(problems)


def distinct(problems: list[Problem]) -> list[Problem]:
  """The problems with ids that differ: of equal problems the second is called `id~2`, and so on. None is left out.

  Raises BadInput where two problems that are not the same have one id: random numbers and samples go by it.
  """
  seen: dict[str, list[Problem]] = {}
  out = []
  for p in problems:
    same = seen.setdefault(p.id, [])
    same.append(p)
    if (p.prompt, p.answer, p.tests) != (same[0].prompt, same[0].answer, same[0].tests):
      raise BadInput(f'problem {p.id}: two problems that differ have this id, expected one for each')
    out.append(p if len(same) == 1 else dataclasses.replace(p, id=f'{p.id}~{len(same)}'))
  if len({p.id for p in out}) < len(out):
    raise BadInput('problems: an id is that of a repeated one with ~2, expected ids that differ')
  return out
