"""Probing problems by a language model, for `data.probe_files` of a config.

OPENAI_API_KEY=... python experiments/make_probes.py --url=http://localhost:8000/v1 --model=NAME --each=256 --out=F

Run again on the same file it goes on where it stopped. The key is read from the environment, if the server wants one.
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

URL = flags.DEFINE_string('url', None, 'address of the server, up to /v1', required=True)
MODEL = flags.DEFINE_string('model', None, 'name of the model there', required=True)
DOMAINS = flags.DEFINE_list('domains', ['algebra', 'geometry', 'calculus', 'statistics'], 'what to ask for')
EACH = flags.DEFINE_integer('each', 256, lower_bound=1, help='problems of each domain: both halves together')
OUT = flags.DEFINE_string('out', None, 'JSON Lines of problems', required=True)
TRIES = flags.DEFINE_integer('tries', 4, lower_bound=1, help='requests for each problem wanted, at most')


def make(out: pathlib.Path, domains: list[str], each: int, tries: int, ask) -> int:
  """Appends problems to `out` until each domain has `each`; `ask` is messages, temperature -> text. How many it has."""
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
  """Which of its domain's requests a problem came from. Raises BadInput."""
  number = problem.id.rpartition('/')[2]
  if not re.fullmatch('[0-9]{1,9}', number):
    raise BadInput(f'{out}: holds the problem {problem.id!r}, expected a new file or one that was made here')
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
