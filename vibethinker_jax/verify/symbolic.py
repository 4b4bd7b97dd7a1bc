"""The slow half of comparing answers: math-verify, run as a worker of `pool.Pool` and nowhere else.

Computer algebra on text a model wrote may take forever or eat all memory (`10^{10^{10}}` is a dozen
characters), so this file is a program of its own: it is started by path, shares nothing with the trainer
and may be killed at any moment. math-verify's own timeouts are signals that cannot interrupt a long C call;
they are switched off.
"""

import json
import logging
import os
import resource
import signal
import sys

MEMORY = 4 << 30
CACHE_JOBS = 200  # sympy's caches only grow; emptied now and then, a worker may live for a whole training run


def command() -> list[str]:
  """The argument list that starts a worker."""
  return [sys.executable, '-I', os.path.abspath(__file__)]


def job(
  golds: list[str],
  pred: str,
  targets: tuple[str, ...] = ('latex', 'expr'),
  precision: int = 6,
  strict: bool = True,
  set_relations: bool = False,
  limit_s: int = 60,
) -> list[object]:
  """A job for the pool: is `pred` the same as one of `golds`? Its answer is a bool.

  Args:
    golds, pred: texts that hold an expression the way a response does (`\\boxed{..}`, `$..$`, a bare number).
    targets: what to look for in them, 'latex' and 'expr' in order.
    precision: decimal places for numbers.
    strict: variables matter and sets differ from tuples.
    set_relations: an inequality may equal the set of its solutions.
    limit_s: a worker nobody kills (its parent died) ends itself after that many seconds.
  """
  return [[golds, pred, list(targets), precision, strict, set_relations, limit_s]]


def same(golds, pred, targets, precision, strict, set_relations) -> bool:
  """Whether math-verify holds `pred` equal to one of `golds`; arguments as in `job`."""
  import math_verify

  kinds = {
    'latex': math_verify.LatexExtractionConfig(boxed_match_priority=0),
    'expr': math_verify.ExprExtractionConfig(),
  }
  config = [kinds[target] for target in targets]
  parsed = math_verify.parse(pred, config, parsing_timeout=None)
  return any(
    math_verify.verify(
      math_verify.parse(gold, config, parsing_timeout=None),
      parsed,
      float_rounding=precision,
      strict=strict,
      allow_set_relation_comp=set_relations,
      timeout_seconds=None,
    )
    for gold in golds
  )


def _serve() -> None:
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), 'wb')
  os.dup2(2, 1)  # what a library prints must not land among the answers
  logging.disable(logging.CRITICAL)
  same(['$x^2$'], '$x$', ['latex', 'expr'], 6, True, False)  # imports and regexes, before the clock runs
  from sympy.core.cache import clear_cache

  def answer(value: object) -> None:
    data = json.dumps(value).encode()
    answers.write(len(data).to_bytes(4, 'big') + data)
    answers.flush()

  answer('math-verify')
  done = 0
  while size := jobs.read(4):
    *question, limit_s = json.loads(jobs.read(int.from_bytes(size, 'big')))
    signal.alarm(limit_s)
    verdict = same(*question)
    signal.alarm(0)
    answer(bool(verdict))
    done += 1
    if done % CACHE_JOBS == 0:
      clear_cache()


if __name__ == '__main__':
  _serve()
