"""Does the program in a response pass its tests?

This is the trainer's side: it takes the program out of the response and turns tests into sandbox jobs.
`tests` is `[{'input': text, 'output': text}, ...]` for programs that read stdin, or `{'entry_point': name
or None, 'setup': code, 'asserts': [code, ...]}` for functions: the program runs first, then, in a process of
their own (examiner.py), setup and each assert; the first that fails ends the run.
"""

from collections.abc import Sequence

from vibethinker_jax.boxes import answer_part
from vibethinker_jax.verify import sandbox
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.pool import Failure, Pool

_TAGS = ('', 'python', 'python3', 'py')
_GRACE_S = 5.0  # the warden keeps the deadline; the pool only steps in when the sandbox itself hangs


def extract_code(text: str) -> str | None:
  """The last closed fenced block after the thinking that is tagged Python or not at all, None without one."""
  found, lines, tag = None, [], None
  for line in (answer_part(text) or '').split('\n'):
    mark = line.strip()
    if tag is None and mark.startswith('```'):
      tag, lines = mark.strip('`').strip().lower(), []
    elif tag is not None and mark == '```':
      if tag in _TAGS:
        found = '\n'.join(lines)
      tag = None
    elif tag is not None:
      lines.append(line)
  return found


def check_tests(tests: object) -> None:
  """Raises ValueError, saying what is wrong, if `tests` has neither of the two forms."""
  if isinstance(tests, dict):
    right = (
      set(tests) == {'entry_point', 'setup', 'asserts'}
      and isinstance(tests['entry_point'], str | None)
      and isinstance(tests['setup'], str)
      and isinstance(tests['asserts'], list | tuple)
      and all(isinstance(line, str) for line in tests['asserts'])
    )
    empty = right and not tests['asserts']
  elif isinstance(tests, list | tuple):
    right = all(
      isinstance(test, dict)
      and set(test) == {'input', 'output'}
      and all(isinstance(text, str) for text in test.values())
      for test in tests
    )
    empty = not tests
  else:
    right, empty = False, False
  if not right:
    raise ValueError(
      "tests must be [{'input': text, 'output': text}, ...] or "
      f"{{'entry_point': name or None, 'setup': code, 'asserts': [code, ...]}}, not {str(tests)[:200]}"
    )
  if empty:
    raise ValueError('tests must not be empty: every program would pass')


def job(code: str, tests: Sequence[dict[str, str]] | dict, limit_s: float, memory: int) -> list[object]:
  """The sandbox job that runs `code` on all `tests` in `limit_s` seconds and `memory` bytes a process."""
  head = {'code': code, 'limit_s': limit_s, 'memory': memory}
  if isinstance(tests, dict):
    return [head | {'kind': 'function', 'tests': 1}, tests]
  parts = [part for test in tests for part in (test['input'], test['output'])]
  return [head | {'kind': 'stdin', 'tests': len(tests)}, *parts]


def make_pool(n: int) -> Pool:
  """A pool of n sandboxes."""
  return Pool(n, sandbox.command(), sandbox.environment())


def judge_many(
  pairs: Sequence[tuple[str, Sequence[dict[str, str]] | dict]],
  pool: Pool,
  deadline_s: float,
  memory: int = 1 << 30,
) -> list[Verdict]:
  """Verdicts for (response, tests) pairs, in order; `pool` from `make_pool`.

  Raises ValueError for tests of neither form, RuntimeError when the sandbox itself fails: that is no verdict.
  """
  programs = [extract_code(response) for response, _ in pairs]
  for _, tests in pairs:
    check_tests(tests)
  verdicts = [Verdict(0, None, 'no code block')] * len(pairs)
  rows = [i for i, code in enumerate(programs) if code is not None]
  jobs = [job(programs[i], pairs[i][1], deadline_s, memory) for i in rows]
  for i, answer in zip(rows, pool.map(jobs, deadline_s + _GRACE_S), strict=True):
    if isinstance(answer, Failure):
      verdicts[i] = Verdict(0, programs[i], answer.reason)
    elif 'broken' in answer:
      raise RuntimeError(f'the sandbox failed: {answer["broken"]}')
    else:
      verdicts[i] = Verdict(int(answer['passed']), programs[i], answer['reason'])
  return verdicts
