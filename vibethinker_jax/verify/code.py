"""Does the program in a response pass its tests?

This file runs in the trainer's process: it takes the program out of a response and makes a sandbox job of its tests.
`tests` is `[{'input': text, 'output': text}, ...]` for programs that read stdin, or `{'entry_point': name or None,
'setup': code, 'asserts': [code, ...]}` for functions. Of functions, the program runs first; then setup and each assert
run in another process (asserts.py), and the first that fails ends the run. Programs that read stdin, and programs whose
entry point is `Solution`, run as LiveCodeBench runs them (docs/judges.md).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from vibethinker_jax.verify import sandbox
from vibethinker_jax.verify.answer import Verdict
from vibethinker_jax.verify.asserts import CONTEST
from vibethinker_jax.verify.pool import Failure, Pool

_TEST_S = 6.0  # LiveCodeBench's limit for a test
_GRACE_S = 5.0  # the supervisor watches the deadline; the pool kills the worker only if the sandbox itself hangs
_CLOSE = '</think>'
_BLANK = ' \t\r\f\v\ufeff\u200b\u200c\u200d\u2060'  # invisible characters before and after a fence
_TICKS = re.compile('`{3,}')
_TAG = re.compile(r'\{?\s*\.?([\w+#-]*+)(?!\s*=)')  # `python3`, `{.python .wide}`; of `title="a.py"` nothing
_PYTHON = re.compile(r'(?:i?python|pypy|py)-?\d*', re.IGNORECASE)


class _Fence(NamedTuple):
  """The line that began a block. ticks: its backticks, 0 outside any block. python: whether its tag is Python's."""

  ticks: int
  python: bool


_OUTSIDE = _Fence(0, False)


def extract_code(text: str) -> str | None:
  """The last closed fenced block after the thinking that is tagged as Python, or has no tag; None without one.

  A block begins with a line that ends with three or more backticks, with or without a tag. A line that begins with as
  many backticks closes it, whatever follows on that line. The indentation of the fence is removed from the lines.
  """
  found, lines, fence, margin = None, [], _OUTSIDE, ''
  for line in text[_answer_begins(text) :].split('\n'):
    now = _after_line(line, fence)
    if now is None:
      lines.append(line.removesuffix('\r'))
      continue
    if now == _OUTSIDE and fence.python:
      found = _without_margin(lines, margin)
    fence, lines, margin = now, [], line[: len(line) - len(line.lstrip())]
  return found


def _answer_begins(text: str) -> int:
  """Where the answer begins: after the `</think>` that closes the thinking. One within a block of code does not."""
  first = text.find(_CLOSE)
  if first < 0:
    return 0
  if text.lstrip(_BLANK + '\n').startswith('<think>'):
    return first + len(_CLOSE)
  # The prompt may have opened the thinking, so the tag may be real; but a program may contain these characters too.
  at, fence, doubtful = 0, _OUTSIDE, None
  for line in text.split('\n'):
    now, tag = _after_line(line, fence), line.find(_CLOSE)
    if tag >= 0 and (fence == _OUTSIDE or line.lstrip(_BLANK).startswith(_CLOSE)):
      return at + tag + len(_CLOSE)
    if tag >= 0 and doubtful is None:
      doubtful = at + tag + len(_CLOSE)
    if now is not None:
      if now != _OUTSIDE and doubtful is not None:
        return doubtful  # a block begins within a block: the thinking ended without closing the outer one
      fence, doubtful = now, None
    at += len(line) + 1
  return doubtful or 0


def _after_line(line: str, fence: _Fence) -> _Fence | None:
  """The fence that is current after this line, if the line begins or ends a block; None if it is an ordinary line."""
  line = line.strip(_BLANK)
  ticks = _TICKS.search(line)
  if ticks is None or (fence.ticks and (ticks.start() or len(ticks[0]) < fence.ticks)):
    return None
  rest = line[ticks.end() :]
  tag = _TAG.match(rest.strip(_BLANK))
  word = tag[1] if tag else ''
  if _PYTHON.fullmatch(word) and '`' not in rest:
    # Within a block of Python this says that the block was not closed; another block may contain such a line.
    return None if fence.ticks and not fence.python else _Fence(len(ticks[0]), True)
  if fence.ticks:
    return _OUTSIDE
  if rest == '' or (word == '' and '=' in rest and '`' not in rest):
    return _Fence(len(ticks[0]), True)
  if word and rest.startswith((word, '{')) and ticks.start() == 0 and '`' not in rest:
    return _Fence(len(ticks[0]), False)
  return None


def _without_margin(lines: list[str], margin: str) -> str:
  if margin and all(line.startswith(margin) for line in lines if line.strip()):
    lines = [line[len(margin) :] for line in lines]
  return '\n'.join(lines)


def check_tests(tests: object) -> None:
  """Raises ValueError, which says what is wrong, if `tests` has neither of the two forms."""
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


def job(code: str, tests: Sequence[dict[str, str]] | dict, deadline_s: float, memory: int) -> list[object]:
  """The sandbox job that runs `code` on all `tests`.

  Args:
    code: the program.
    tests: in one of the two forms.
    deadline_s: seconds for all tests together. If that is less than 6 for each test of a contest, each of these has 6,
      or `deadline_s` if that is less.
    memory: bytes of a process.
  """
  function = isinstance(tests, dict)
  contest = CONTEST if not function or tests['entry_point'] == CONTEST else None
  count = 1 if contest is None else len(tests['asserts'] if function else tests)
  limit_s = max(min(_TEST_S, deadline_s), deadline_s / count)
  head = {'code': code, 'contest': contest, 'tests': count, 'limit_s': limit_s, 'memory': memory}
  if function:
    return [head | {'kind': 'function'}, tests]
  return [head | {'kind': 'stdin'}, *(part for test in tests for part in (test['input'], test['output']))]


def make_pool(n: int) -> Pool:
  """A pool of n sandboxes."""
  return Pool(n, sandbox.command(), sandbox.environment())


def judge_many(
  pairs: Sequence[tuple[str, Sequence[dict[str, str]] | dict]],
  pool: Pool,
  deadline_s: float,
  memory: int = 1 << 30,
) -> list[Verdict]:
  """Verdicts for (response, tests) pairs, in order.

  Args:
    pairs: the text of a response, and its tests in one of the two forms.
    pool: from `make_pool`.
    deadline_s: seconds that a program has for its tests; more if there are many (`job`).
    memory: bytes of a process.

  Raises:
    ValueError: tests of neither form.
    RuntimeError: the sandbox itself failed, so there is no verdict.
  """
  programs = [extract_code(response) for response, _ in pairs]
  for _, tests in pairs:
    check_tests(tests)
  verdicts = [Verdict(0, None, 'no code block')] * len(pairs)
  rows = [i for i, code in enumerate(programs) if code is not None]
  jobs = [job(programs[i], pairs[i][1], deadline_s, memory) for i in rows]
  longest = max((head['tests'] * head['limit_s'] for head, *_ in jobs), default=0.0)
  for i, answer in zip(rows, pool.map(jobs, longest + _GRACE_S), strict=True):
    if isinstance(answer, Failure):
      verdicts[i] = Verdict(0, programs[i], answer.reason)
    elif 'broken' in answer:
      raise RuntimeError(f'the sandbox failed: {answer["broken"]}')
    else:
      verdicts[i] = Verdict(int(answer['passed']), programs[i], answer['reason'])
  return verdicts
