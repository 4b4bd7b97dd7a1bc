"""Probing problems written by a language model, for `data.probe_files` of a config.

OPENAI_API_KEY=... python experiments/make_probes.py --url=http://localhost:8000/v1 --model=NAME --each=256 --out=F

The same command continues the same file. The key is read from the environment, where the server needs one.
"""

import json
import os
import pathlib
import re

from absl import flags

from vibethinker_jax import runtime
from vibethinker_jax.config_io import run_app
from vibethinker_jax.data.probes import complete, solving, writing, written
from vibethinker_jax.data.problem import Problem, problem_from, read_rows, row_of
from vibethinker_jax.disk import append, beginning
from vibethinker_jax.errors import BadInput
from vibethinker_jax.verify.grader import Grader

URL = flags.DEFINE_string('url', None, 'The address of the server, up to /v1.', required=True)
MODEL = flags.DEFINE_string('model', None, 'The name of the model at the server.', required=True)
DOMAINS = flags.DEFINE_list('domains', ['algebra', 'geometry', 'calculus', 'statistics'], 'Domains of the problems.')
EACH = flags.DEFINE_integer('each', 256, lower_bound=1, help='Problems of each domain, for both halves together.')
OUT = flags.DEFINE_string('out', None, 'The file of problems, JSON Lines.', required=True)
TRIES = flags.DEFINE_integer('tries', 4, lower_bound=1, help='Requests for each problem, at most.')


def make(out: pathlib.Path, domains: list[str], each: int, tries: int, ask) -> int:
  """Append problems to `out` until each domain has `each` of them; returns the number of problems in the file.

  Args:
    out: the file.
    domains: the domains of the problems.
    each: problems of each domain.
    tries: requests for each problem, at most.
    ask: a function (messages, temperature) -> text of the language model.

  Raises:
    BadInput: the file or the server cannot be used.
  """
  held = [problem_from(row, where) for where, row in read_rows(out)] if out.exists() and out.stat().st_size else []
  seen = {p.prompt for p in held}
  with Grader(workers=1) as grader:
    for domain in domains:
      own = [p for p in held if p.domain == domain]
      first = max((_number(p, out) + 1 for p in own), default=0)
      with runtime.bar(each, domain, 'problem', len(own)) as bar:
        for number in range(first, first + tries * each):
          if bar.n >= each:
            break
          try:
            problem = written(ask(writing(domain, number), 1.0), domain, number)
          except BadInput as error:
            if not str(error).startswith('reply'):
              raise
            continue
          (verdict,) = grader.grade([(ask(solving(problem), 0.6), problem.answer, None)])
          if verdict.score and problem.prompt not in seen:
            seen.add(problem.prompt)
            append(out, json.dumps(row_of(problem), ensure_ascii=False))
            bar.update()
  return len(seen)


def _number(problem: Problem, out: pathlib.Path) -> int:
  """The number of the request that a problem came from, within its domain. Raises BadInput."""
  number = problem.id.rpartition('/')[2]
  if not re.fullmatch('[0-9]{1,9}', number):
    raise BadInput(f'{out}: holds the problem {problem.id!r}, expected a new file or one of this program')
  return int(number)


def main(_):
  out = pathlib.Path(OUT.value)
  if not re.match('https?://[^/]', URL.value):
    raise BadInput(f'--url {URL.value}: expected an address such as http://localhost:8000/v1')
  if not all(domain.strip() for domain in DOMAINS.value or ['']):
    raise BadInput('--domains: expected names with commas between them')
  with beginning(out):
    out.parent.mkdir(parents=True, exist_ok=True)
  key = os.environ.get('OPENAI_API_KEY', '')
  ask = lambda messages, temperature: complete(URL.value, MODEL.value, messages, key, temperature, 600.0)
  count = make(out, DOMAINS.value, EACH.value, TRIES.value, ask)
  print(f'{OUT.value}: {count} problems')


if __name__ == '__main__':
  run_app(main)
