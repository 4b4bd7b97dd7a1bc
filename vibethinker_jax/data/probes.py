"""Probing problems written by a language model, on any server with OpenAI's chat completions.

In the report (arXiv 2511.06221, section 3.3) a language model builds the probing sets; how it is asked is not said, so
the wording of the request is ours. The reply is a problem with a final answer. The model then solves the problem
without seeing that answer, and the problem is kept only if both answers are the same.
"""

import json
import re
import urllib.error
import urllib.request

from vibethinker_jax.data.instructions import STEP_BY_STEP
from vibethinker_jax.data.problem import Problem, problem_from
from vibethinker_jax.errors import BadInput

LEVELS = ('an easy', 'a middling', 'a hard', 'a competition')


def writing(domain: str, number: int) -> list[dict]:
  """The messages that ask for problem `number` of a domain. Successive numbers ask for successive levels."""
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
  """The messages that ask for a solution of a problem."""
  return [{'role': 'user', 'content': f'{problem.prompt}\n\n{STEP_BY_STEP}'}]


def written(reply: str, domain: str, number: int) -> Problem:
  """The Problem in a reply to `writing`, which is the last JSON object in it. Raises BadInput."""
  where = f'reply {number + 1}'
  objects = re.findall(r'\{.*\}', reply.rpartition('</think>')[2], re.DOTALL)
  try:
    row = json.loads(objects[-1])
    row = {'prompt': row['problem'], 'answer': row['answer']}
  except (IndexError, KeyError, TypeError, ValueError):
    raise BadInput(f'{where}: expected a JSON object with "problem" and "answer", found {reply[:80]!r}') from None
  return problem_from({'id': f'probe/{domain}/{number}', 'domain': domain, **row}, where)


def complete(url: str, model: str, messages: list[dict], key: str, temperature: float, timeout_s: float) -> str:
  """The text of one completion from `url`/chat/completions.

  Args:
    url: of the server's API, such as http://localhost:8000/v1.
    model: its name there.
    messages: the conversation.
    key: an API key, '' for none.
    temperature: of the sampling.
    timeout_s: seconds to wait for the reply.

  Raises:
    BadInput: names the address and what went wrong.
  """
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
