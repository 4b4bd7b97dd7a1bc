r"""The shapes in which published data sets come: each reader makes one Problem of one row.

A prompt is the statement alone: an instruction that a file appends to it ("Please reason step by step ...") is removed
(instructions.py). A row keeps its id if that is unique; otherwise the id is a digest of prompt and answer.

A reader takes the row and `where`, which names the row in messages. It raises BadInput for a row of another shape.
"""

import json
import random
import re
from collections.abc import Callable

from vibethinker_jax.boxes import last_box
from vibethinker_jax.data.code_readers import code_contests, humaneval, kattis, livecodebench, mbpp
from vibethinker_jax.data.instructions import statement
from vibethinker_jax.data.problem import Problem, Solution, answer_text, digest_id, field, problem_from, words
from vibethinker_jax.errors import BadInput

# The subjects of the data sets, and to which domain of the report each belongs.
SUBJECTS = {
  'Algebra': 'algebra',
  'Intermediate Algebra': 'algebra',
  'Prealgebra': 'algebra',
  'Geometry': 'geometry',
  'Precalculus': 'calculus',
  'Calculus': 'calculus',
  'Counting & Probability': 'statistics',
  'Combinatorics': 'statistics',
  'Number Theory': 'number_theory',
}

LETTERS = 'ABCDEFGHIJ'


def gsm8k(row: dict, where: str) -> Problem:
  """GSM8K: {"question", "answer"}; the final answer after `####`, calculator marks `<<...>>` removed."""
  steps, mark, final = words(row, 'answer', where).rpartition('####')
  if not mark:
    raise BadInput(f'{where}: "answer" has no "####" before the final answer')
  prompt, answer = words(row, 'question', where).strip(), answer_text(final.replace(',', ''), where)
  text = f'{_CALCULATOR.sub("", steps).strip()}\nThe answer is \\boxed{{{answer}}}.'
  return Problem(digest_id('gsm8k', prompt, answer), 'algebra', prompt, answer, solutions=(Solution(text, 'gsm8k'),))


def math(row: dict, where: str) -> Problem:
  """Statement and answer: MATH, MATH-500, AIME, AMC, HMMT, OlymMATH, and the files of rllm.

  The statement is in "problem", "prompt" or "question"; the answer in "answer", or in the last box of "solution"; the
  subject in "subject" or "type"; the difficulty in "level" (3 or "Level 3") or "difficulty" (a number).
  """
  name = next((n for n in ('problem', 'prompt', 'question') if n in row), 'problem')
  prompt = statement(words(row, name, where))
  text = words(row, 'solution', where) if row.get('solution') is not None else None
  if 'answer' in row:
    answer = answer_text(field(row, 'answer', (str, int, float), where), where)
  elif text is None:
    raise BadInput(f'{where}: no answer (expected "answer", or "solution" with a \\boxed{{}})')
  elif (span := last_box(text)) is None:
    raise BadInput(f'{where}: no answer ("solution" has no \\boxed{{}})')
  else:
    answer = answer_text(text[slice(*span)], where)
  subject = row.get('subject') or row.get('type') or ''
  own = row.get('unique_id')
  return Problem(
    id=own if isinstance(own, str) and own else digest_id('math', prompt, answer),
    domain=SUBJECTS.get(subject, ''),
    prompt=prompt,
    answer=answer,
    solutions=() if text is None else (Solution(text, 'reference'),),
    difficulty=_difficulty(row.get('level', row.get('difficulty'))),
  )


def verl(row: dict, where: str) -> Problem:
  """The schema of verl: a chat in "prompt", {"ground_truth"} in "reward_model", the rest in "extra_info".

  The ground truth is the answer, or {"target": answer, "solution": text}. If the target is empty, the answer is the
  last box of the solution.
  """
  prompt, truth = statement(_asked(row, where)), _ground_truth(row, where)
  text = None
  if isinstance(truth, dict):
    text = truth.get('solution')
    truth = field(truth, 'target', (str, int, float), f'{where}, ground_truth')
    if truth == '' and text and (span := last_box(text)) is not None:
      truth = text[slice(*span)]
  answer, extra = answer_text(truth, where), row.get('extra_info') or {}
  subject = row.get('type') or next(iter(extra.get('problem_type') or ()), '')
  return Problem(
    id=digest_id('math', prompt, answer),
    domain=SUBJECTS.get(subject, ''),
    prompt=prompt,
    answer=answer,
    solutions=(Solution(text, 'reference'),) if text else (),
    difficulty=_difficulty(row.get('level')),
  )


def cot_multi(row: dict, where: str) -> Problem:
  """Qwen2.5-Math's samples: the texts in "code" that are right by the file's own "score" become the solutions."""
  prompt, answer = words(row, 'question', where), answer_text(field(row, 'gt', (str, int, float), where), where)
  traces, scores = field(row, 'code', list, where), field(row, 'score', list, where)
  if len(traces) != len(scores):
    raise BadInput(f'{where}: {len(traces)} traces in "code" and {len(scores)} verdicts in "score"')
  right = [Solution(t, f'sample {i}') for i, (t, good) in enumerate(zip(traces, scores)) if good]
  return Problem(
    digest_id('math', prompt, answer),
    SUBJECTS.get(row.get('type', ''), ''),
    prompt,
    answer,
    solutions=tuple(right),
    difficulty=_difficulty(row.get('level')),
  )


def multiple_choice(row: dict, where: str) -> Problem:
  """{"question", "choices", "answer"}: the answer is the index of the right choice from 0; the domain is "type"."""
  choices, index = field(row, 'choices', list, where), field(row, 'answer', int, where)
  if not 2 <= len(choices) <= len(LETTERS) or not 0 <= index < len(choices):
    raise BadInput(f'{where}: answer {index} of {len(choices)} choices, expected an index from 0')
  return _choice(words(row, 'question', where), choices, index, row.get('type') or '')


def gpqa(row: dict, where: str) -> Problem:
  """GPQA's official CSV: "Question", "Correct Answer", "Incorrect Answer 1" to 3.

  The options are shuffled with a seed made from the question, so their order is the same in every run.
  """
  question = words(row, 'Question', where).strip()
  names = ('Correct Answer', *(f'Incorrect Answer {i}' for i in (1, 2, 3)))
  return _shuffled(question, [words(row, n, where).strip() for n in names], 0, _topic(row))


def gpqa_verl(row: dict, where: str) -> Problem:
  """GPQA in verl's schema, options as lines "A. ..." to "D. ..." of the prompt; shuffled as in `gpqa`.

  In the official file A is the right option in every row: without shuffling, a model that prefers A scores 100%.
  """
  question, options, index = _options(row, where)
  return _shuffled(question, options, index, '')


def gpqa_verl_in_order(row: dict, where: str) -> Problem:
  """GPQA in verl's schema, with the options in the order of the file: to reproduce published scores, not to measure."""
  question, options, index = _options(row, where)
  return _choice(question, options, index, 'gpqa')


def mapped(fields: dict) -> Callable[[dict, str], Problem]:
  """A reader for any other shape. `fields` maps the fields of a problem to those of a row.

  For example {"prompt": "input.question", "answer": "target"}; a dot leads into an object. "prompt" is needed, and one
  of "answer", "tests" and "solution"; "id", "domain", "difficulty" and "date" may be given. Without an answer, the
  answer is the last box of the solution. Raises BadInput for other fields.
  """
  known = ('prompt', 'answer', 'tests', 'id', 'domain', 'solution', 'difficulty', 'date')
  if unknown := sorted(set(fields) - set(known)):
    raise BadInput(f'fields: unknown {unknown[0]!r}, expected some of {", ".join(known)}')
  if 'prompt' not in fields or not {'answer', 'tests', 'solution'} & set(fields):
    raise BadInput('fields: expected "prompt", and "answer" or "tests" or "solution"')

  def read(row: dict, where: str) -> Problem:
    found = {name: value for name, path in fields.items() if (value := _at(row, path)) is not None}
    prompt = statement(words({**found, fields['prompt']: found.get('prompt')}, fields['prompt'], where))
    if 'solution' in found:
      found['solutions'] = [{'text': found.pop('solution'), 'path': 'reference'}]
    if 'answer' not in found and 'tests' not in found:
      text = found['solutions'][0]['text'] if 'solutions' in found else ''
      if not isinstance(text, str) or (span := last_box(text)) is None:
        wanted = [fields[n] for n in ('answer', 'tests', 'solution') if n in fields]
        raise BadInput(f'{where}: no answer (expected one in "{", ".join(wanted)}")')
      found['answer'] = text[slice(*span)]
    found['difficulty'] = _difficulty(found.get('difficulty'))
    if 'domain' in found:
      found['domain'] = SUBJECTS.get(found['domain'], found['domain'])
    found.setdefault('id', digest_id('row', prompt, json.dumps(found.get('answer', found.get('tests')))))
    return problem_from({**found, 'prompt': prompt}, where)

  return read


READERS: dict[str, Callable[[dict, str], Problem]] = {
  'problems': problem_from,
  'gsm8k': gsm8k,
  'math': math,
  'verl': verl,
  'cot_multi': cot_multi,
  'multiple_choice': multiple_choice,
  'gpqa': gpqa,
  'gpqa_verl': gpqa_verl,
  'gpqa_verl_in_order': gpqa_verl_in_order,
  'humaneval': humaneval,
  'mbpp': mbpp,
  'code_contests': code_contests,
  'kattis': kattis,
  'livecodebench': livecodebench,
}


_CALCULATOR = re.compile(r'<<[^>]*>>')


def _difficulty(level) -> int | None:
  """1 to 5 for 3, 3.5, "3" or "Level 3"; None for anything else, such as 0 or "Level ?"."""
  try:
    number = float(str(level).removeprefix('Level '))
  except ValueError:
    return None
  return min(5, max(1, round(number))) if 0 < number < float('inf') else None


def _asked(row: dict, where: str) -> str:
  """The last user message of the chat in "prompt"."""
  said = [m for m in field(row, 'prompt', list, where) if isinstance(m, dict) and m.get('role') == 'user']
  if not said:
    raise BadInput(f'{where}: "prompt" has no message of role "user"')
  return words(said[-1], 'content', f'{where}, prompt')


def _ground_truth(row: dict, where: str):
  model = field(row, 'reward_model', dict, where)
  return field(model, 'ground_truth', (str, int, float, dict), f'{where}, reward_model')


def _choice(question: str, options: list[str], index: int, domain: str) -> Problem:
  lines = '\n'.join(f'{letter}. {option}' for letter, option in zip(LETTERS, options))
  prompt = f'{question.strip()}\n\n{lines}'
  return Problem(digest_id(domain or 'choice', prompt, LETTERS[index]), domain, prompt, LETTERS[index])


def _shuffled(question: str, options: list[str], index: int, domain: str) -> Problem:
  order = list(range(len(options)))
  random.Random(question).shuffle(order)
  return _choice(question, [options[i] for i in order], order.index(index), domain or 'gpqa')


def _topic(row: dict) -> str:
  return (row.get('High-level domain') or '').strip().lower()


def _options(row: dict, where: str) -> tuple[str, list[str], int]:
  """Question, options and the index of the right one; the options are lines "A. ..." to "D. ..." of the prompt."""
  text, parts = statement(_asked(row, where)), []
  for letter in 'DCBA':  # from the end: an option seldom holds a line that begins like another option
    text, mark, option = text.rpartition(f'\n{letter}. ')
    if not mark:
      raise BadInput(f'{where}: no line "{letter}. ..." in the prompt, expected options A to D')
    parts.insert(0, option.strip())
  letter = _ground_truth(row, where)
  if letter not in tuple('ABCD'):
    raise BadInput(f'{where}: ground truth {letter!r}, expected A, B, C or D')
  return text, parts, 'ABCD'.index(letter)


def _at(row, path: str):
  for name in path.split('.'):
    if not isinstance(row, dict):
      return None
    row = row.get(name)
  return row
