"""The benchmarks: where the problems are, how a model is asked and sampled, and the published scores.

The sampling of AIME, HMMT, MATH-500, LiveCodeBench and GPQA is that of the VibeThinker-1.5B report (arXiv 2511.06221).
For the others nothing was published, and their sampling is ours. The scores are from the same report: Pass@1 in per
cent. GPQA and LiveCodeBench are read from the user's own files only, because their authors ask that the questions not
be spread.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from vibethinker_jax.data import sources
from vibethinker_jax.data.instructions import CHOICE, COMPLETE, MATH, PROGRAM, STDIN
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """A published test set.

  file: of the problems, below the data folder; '' where it has to be the user's own.
  reader: the shape of the file's rows (data/readers.py).
  expected: how many problems the published scores are of.
  protocol: how a model is sampled.
  instruction: what follows the statement of every problem.
  since, until: only problems published from the first day on and before the second, as 'YYYY-MM-DD'; '' is no bound.
  """

  file: str
  reader: str
  expected: int
  protocol: Protocol
  instruction: str = ''
  since: str = ''
  until: str = ''


@dataclasses.dataclass(frozen=True)
class Task:
  """Problems and how a model is asked and sampled on them: a benchmark, or problems of the user's own.

  name: of the benchmark or of the data.
  problems: [P], without the instruction; their ids differ.
  protocol: how a model is sampled.
  instruction: what follows the statement of every problem.
  """

  name: str
  problems: Sequence[Problem]
  protocol: Protocol
  instruction: str = ''

  @property
  def asked(self) -> list[Problem]:
    """The problems [P] as the model is asked them: the instruction follows the statement."""
    if not self.instruction:
      return list(self.problems)
    return [dataclasses.replace(p, prompt=f'{p.prompt} {self.instruction}') for p in self.problems]

  def record(self) -> dict:
    """The protocol as the files of an evaluation hold it."""
    p = self.protocol
    sampling = {'n': p.samples, 'temperature': p.temperature, 'top_p': p.top_p, 'top_k': p.top_k}
    return sampling | {'max_tokens': p.max_tokens, 'instruction': self.instruction}

  def changed(
    self,
    n: int | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    instruction: str | None = None,
  ) -> 'Task':
    """The task with other values; None keeps what it has.

    Args:
      n: samples of each problem; Pass@k is then told for k up to n.
      max_tokens, temperature, top_p, top_k: as in Protocol.
      instruction: what follows the statement of every problem.

    Raises BadInput for a value that is out of range.
    """
    given = dict(samples=n, k=n, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k)
    given = {field: value for field, value in given.items() if value is not None}
    protocol = dataclasses.replace(self.protocol, **given)
    for name, value in (('n', protocol.samples), ('max_tokens', protocol.max_tokens)):
      if value < 1:
        raise BadInput(f'evaluate: {name} is {value}, expected 1 or more')
    if (fault := protocol.sampling.fault()) is not None:
      raise BadInput(f'evaluate: {fault}')
    instruction = self.instruction if instruction is None else instruction
    return dataclasses.replace(self, protocol=protocol, instruction=instruction)


def _report(samples: int, temperature: float = 1.0) -> Protocol:
  """The report's sampling, Pass@k for every k up to the number of samples."""
  return Protocol(samples, samples, max_tokens=40960, temperature=temperature, top_p=0.95)


_64, _16, _CODE = _report(64), _report(16), _report(8, temperature=0.6)

BENCHMARKS: dict[str, Benchmark] = {
  'aime24': Benchmark('competition/aime24.jsonl', 'math', 30, _64, MATH),
  'aime25': Benchmark('competition/aime25.jsonl', 'math', 30, _64, MATH),
  'hmmt25': Benchmark('competition/hmmt25.jsonl', 'math', 30, _64, MATH),
  'math500': Benchmark('math/math500.jsonl', 'math', 500, _64, MATH),
  'amc23': Benchmark('competition/amc23.jsonl', 'math', 40, _64, MATH),
  'olymmath-easy': Benchmark('competition/olymmath_en_easy.jsonl', 'math', 100, _16, MATH),
  'olymmath-hard': Benchmark('competition/olymmath_en_hard.jsonl', 'math', 100, _16, MATH),
  'gsm8k': Benchmark('gsm8k/test.jsonl', 'gsm8k', 1319, _16, MATH),
  'humaneval': Benchmark('code/HumanEval.jsonl.gz', 'humaneval', 164, _CODE, COMPLETE),
  'mbpp': Benchmark('code/mbpp.jsonl', 'mbpp', 974, _CODE, PROGRAM),
  'codecontests': Benchmark('code/code_contests_test_165.json', 'code_contests', 165, _CODE, STDIN),
  'mmlu-stem': Benchmark('stem_mcq/mmlu_stem_3018.jsonl', 'multiple_choice', 3018, _16, CHOICE),
  'livecodebench-v5': Benchmark('', 'livecodebench', 279, _CODE, since='2024-08-01', until='2025-02-01'),
  'livecodebench-v6': Benchmark('', 'livecodebench', 131, _CODE, since='2025-02-01', until='2025-05-01'),
  'gpqa-diamond': Benchmark('', 'gpqa', 198, _16, CHOICE),
  'gpqa-diamond-in-order': Benchmark('', 'gpqa_verl_in_order', 198, _16, CHOICE),
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


def published(name: str, folder: pathlib.Path, files: Sequence[pathlib.Path] = (), skip_bad: bool = False) -> Task:
  """The task of a benchmark.

  Args:
    name: a key of BENCHMARKS.
    folder: the data folder.
    files: where the problems are, in place of the benchmark's own file below `folder`.
    skip_bad: malformed rows are left out and counted, not refused.

  Raises BadInput.
  """
  b = named(name)
  return Task(name, load(name, folder, files, skip_bad), b.protocol, b.instruction)


def own(name: str, problems: Sequence[Problem]) -> Task:
  """The task of problems of one's own: 64 samples each as for AIME, no instruction. Raises BadInput."""
  return Task(name, distinct(problems), _64)


def load(name: str, folder: pathlib.Path, files: Sequence[pathlib.Path] = (), skip_bad: bool = False) -> list[Problem]:
  """The problems of a benchmark; the arguments are those of `published`.

  GPQA in verl's schema (.parquet) is read too. Where there are not as many problems as the published scores are of,
  the data is of another version, and a line on stderr says so. Raises BadInput.
  """
  b = named(name)
  if not files and not b.file:
    raise BadInput(f'benchmark {name}: needs a file of your own: its authors ask that the questions not be spread')
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


def distinct(problems: Sequence[Problem]) -> list[Problem]:
  """The problems with ids that differ: where a problem is there twice, the second one is called `id~2`, and so on.

  Raises BadInput where two different problems have the same id, because random numbers and samples go by the id.
  """
  seen: dict[str, list[Problem]] = {}
  out = []
  for p in problems:
    same = seen.setdefault(p.id, [])
    same.append(p)
    if (p.prompt, p.answer, p.tests) != (same[0].prompt, same[0].answer, same[0].tests):
      raise BadInput(f'problem {p.id}: two problems that differ have this id, expected an id for each')
    out.append(p if len(same) == 1 else dataclasses.replace(p, id=f'{p.id}~{len(same)}'))
  if len({p.id for p in out}) < len(out):
    raise BadInput('problems: one is called as the second of two equal ones would be (id~2), expected ids that differ')
  return out
