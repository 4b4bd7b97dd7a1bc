"""Probing problems written by a language model, behind any server that speaks OpenAI's chat completions.

The report (arXiv 2511.06221, section 3.3) has its probing sets built by a language model and says no more; the wording
of the request is ours. What comes back is a problem with a final answer, asked for again on its own: only where the
second answer, worked out without the first in sight, is the same, the problem is kept.
"""

import json
import re
import urllib.error
import urllib.request

from vibethinker_jax.data.problem import Problem, problem_from
from vibethinker_jax.errors import BadInput

LEVELS = ('an easy', 'a middling', 'a hard', 'a competition')


def writing(domain: str, number: int) -> list[dict]:
  """The messages that ask for problem `number` of a domain; numbers go through the levels."""
  level = LEVELS[number % len(LEVELS)]
  return [
    {
      'role': 'user',
      'content': f'Write {level} problem of {domain.replace("_", " ")} that has exactly one final answer: a number or '
      'a short formula. It must be new, complete in itself and without a figure. Reply with one JSON object, nothing '
      f'else: {{"problem": the statement, "answer": the final answer in LaTeX}}. This is problem {number + 1} of '
      'many: choose a subject that is seldom chosen.',
    }
  ]


def solving(problem: Problem) -> list[dict]:
  """The messages that ask for a solution."""
  content = f'{problem.prompt}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.'
  return [{'role': 'user', 'content': content}]


def written(reply: str, domain: str, number: int) -> Problem:
  """The Problem in a reply to `writing`: its last JSON object. Raises BadInput."""
  where = f'reply {number + 1}'
  objects = re.findall(r'\{.*\}', reply.rpartition('</think>')[2], re.DOTALL)
  try:
    row = json.loads(objects[-1])
    row = {'prompt': row['problem'], 'answer': row['answer']}
  except (IndexError, KeyError, TypeError, ValueError):
    raise BadInput(f'{where}: expected a JSON object with "problem" and "answer", found {reply[:80]!r}') from None
  return problem_from({'id': f'probe/{domain}/{number}', 'domain': domain, **row}, where)


def complete(url: str, model: str, messages: list[dict], key: str, temperature: float, timeout_s: float) -> str:
  """The text of one completion from `url`/chat/completions. Raises BadInput naming the address and what went wrong."""
  address = f'{url.rstrip("/")}/chat/completions'
  body = json.dumps({'model': model, 'messages': messages, 'temperature': temperature}).encode()
  headers = {'Content-Type': 'application/json', **({'Authorization': f'Bearer {key}'} if key else {})}
  try:
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=timeout_s) as response:
      return json.load(response)['choices'][0]['message']['content'] or ''
  except urllib.error.HTTPError as error:
    raise BadInput(f'{address}: {error.code} {error.reason} ({error.read(200).decode(errors="replace")})') from None
  except (OSError, ValueError) as error:
    raise BadInput(f'{address}: no completion ({error})') from None
  except (KeyError, IndexError, TypeError):
    raise BadInput(f'{address}: expected choices[0].message.content in the reply') from None
