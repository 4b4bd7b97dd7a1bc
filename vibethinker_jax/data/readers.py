r"""The shapes that published data sets come in: each reader makes one Problem of one row.

A prompt is the statement alone. What a file appends to it ("Please reason step by step ...") is an instruction of some
evaluation's, and is taken off, so that the same problem from two files is the same text; whoever asks a model adds the
instruction of his own protocol. Two shapes cannot be asked without more: a function to be written from examples (MBPP)
and a contest's program (LiveCodeBench) keep the format part that their authors print.

Where a row has an id of its own that is unique, it is kept; else the id is a digest of prompt and answer, so that it
stays the same when a file is filtered, sharded or put in another order.
"""

import base64
import hashlib
import io
import json
import pickle
import posixpath
import random
import re
import zlib
from collections.abc import Callable

from vibethinker_jax.boxes import last_box
from vibethinker_jax.data.problem import Problem, Solution, answer_text, field, problem_from, words
from vibethinker_jax.errors import BadInput

INSTRUCTIONS = (
  "Let's think step by step and output the final answer within \\boxed{}.",
  'Please reason step by step, and put your final answer within \\boxed{}.',
  'Please reason step-by-step and put your choice letter without any other text with \\boxed{} in the end.',
)

# What the data sets call a subject, and the sub-domain of the report it counts to.
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
  return Problem(_digest('gsm8k', prompt, answer), 'algebra', prompt, answer, solutions=(Solution(text, 'gsm8k'),))


def math(row: dict, where: str) -> Problem:
  """Statement and answer: MATH, MATH-500, AIME, AMC, HMMT, OlymMATH, and rllm's files.

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
    id=own if isinstance(own, str) and own else _digest('math', prompt, answer),
    domain=SUBJECTS.get(subject, ''),
    prompt=prompt,
    answer=answer,
    solutions=() if text is None else (Solution(text, 'reference'),),
    difficulty=_difficulty(row.get('level', row.get('difficulty'))),
  )


def verl(row: dict, where: str) -> Problem:
  """The schema of verl: a chat in "prompt", {"ground_truth"} in "reward_model", the rest in "extra_info".

  The ground truth is the answer, or {"target": answer, "solution"}, where an empty target yields to the solution's box.
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
    id=_digest('math', prompt, answer),
    domain=SUBJECTS.get(subject, ''),
    prompt=prompt,
    answer=answer,
    solutions=(Solution(text, 'reference'),) if text else (),
    difficulty=_difficulty(row.get('level')),
  )


def cot_multi(row: dict, where: str) -> Problem:
  """Qwen2.5-Math's samples: the traces ("code") that the file's own "score" calls right become the solutions."""
  prompt, answer = words(row, 'question', where), answer_text(field(row, 'gt', (str, int, float), where), where)
  traces, scores = field(row, 'code', list, where), field(row, 'score', list, where)
  if len(traces) != len(scores):
    raise BadInput(f'{where}: {len(traces)} traces in "code" and {len(scores)} verdicts in "score"')
  right = [Solution(t, f'sample {i}') for i, (t, good) in enumerate(zip(traces, scores)) if good]
  return Problem(
    _digest('math', prompt, answer),
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

  The options are shuffled, by a seed made of the question: the same order in every run, the right one anywhere.
  """
  question = words(row, 'Question', where).strip()
  names = ('Correct Answer', *(f'Incorrect Answer {i}' for i in (1, 2, 3)))
  return _shuffled(question, [words(row, n, where).strip() for n in names], 0, _topic(row))


def gpqa_verl(row: dict, where: str) -> Problem:
  """GPQA in verl's schema, options as lines "A. ..." to "D. ..." of the prompt; shuffled as in `gpqa`.

  The official file has the right option at A in every row, so unshuffled a model that likes A is at 100%.
  """
  question, options, index = _options(row, where)
  return _shuffled(question, options, index, '')


def gpqa_verl_in_order(row: dict, where: str) -> Problem:
  """GPQA in verl's schema with the options as they stand: to reproduce published scores, not to measure."""
  question, options, index = _options(row, where)
  return _choice(question, options, index, 'gpqa')


def humaneval(row: dict, where: str) -> Problem:
  """HumanEval: a signature with its docstring to be completed; `check(entry_point)` after "test" must not raise.

  What the prompt defines above that signature belongs to the tests too: a program may not put its own in the place of
  the `poly` or `encode_cyclic` that checks it.
  """
  prompt, entry = words(row, 'prompt', where), words(row, 'entry_point', where)
  begin = prompt.rfind(f'def {entry}')
  if begin < 0:
    raise BadInput(f'{where}: "prompt" must end in the definition of {entry}')
  setup = prompt[:begin] + words(row, 'test', where)
  tests = {'entry_point': entry, 'setup': setup, 'asserts': [f'check({entry})']}
  code = prompt + words(row, 'canonical_solution', where)
  return Problem(words(row, 'task_id', where), 'code', prompt, tests=tests, solutions=(_program(code),))


def mbpp(row: dict, where: str) -> Problem:
  """MBPP: the task with its asserts, without which the wanted names could not be known."""
  asserts = field(row, 'test_list', list, where)
  if not asserts or not all(isinstance(a, str) for a in asserts):
    raise BadInput(f'{where}: "test_list" must be a list of asserts with at least one')
  shown = '\n'.join(asserts)
  return Problem(
    f'mbpp/{field(row, "task_id", int, where)}',
    'code',
    f'{words(row, "text", where)}\nYour code should pass these tests:\n\n{shown}',
    tests={'entry_point': None, 'setup': field(row, 'test_setup_code', str, where), 'asserts': asserts},
    solutions=(_program(words(row, 'code', where).replace('\r\n', '\n')),),
  )


def code_contests(row: dict, where: str) -> Problem:
  """CodeContests as {"problem", "tests": {"inputs", "outputs"}}: programs from stdin to stdout."""
  prompt, tests = words(row, 'problem', where).strip(), field(row, 'tests', dict, where)
  inputs, outputs = (field(tests, name, list, f'{where}, tests') for name in ('inputs', 'outputs'))
  if not inputs or len(inputs) != len(outputs):
    raise BadInput(f'{where}: {len(inputs)} inputs and {len(outputs)} outputs, expected as many of both, at least one')
  tests = [{'input': a, 'output': b} for a, b in zip(inputs, outputs)]
  return Problem(_digest('code_contests', prompt, json.dumps(tests)), 'code', prompt, tests=tests)


def kattis(row: dict, where: str) -> Problem:
  """Kattis packages as {"id", "statement_tex", "tests", "accepted_py"}; accepted programs are the solutions."""
  named = {t['name']: t for t in field(row, 'tests', list, where)}
  tests = []
  for name, test in named.items():
    # packages link one test to another; where links were read as files, their text is the way: ../subtask1/1.in
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), test['input'].removesuffix('.in')))
    test = named.get(target, test) if test['input'].startswith('../') else test
    tests.append({'input': test['input'], 'output': test['output']})
  accepted = field(row, 'accepted_py', dict, where)
  return Problem(
    f'kattis/{words(row, "id", where)}',
    'code',
    words(row, 'statement_tex', where),
    tests=tests,
    solutions=tuple(_program(code, name) for name, code in accepted.items()),
  )


def livecodebench(row: dict, where: str) -> Problem:
  """LiveCodeBench's test*.jsonl: public and private tests, on stdin or of a method of `Solution`; `date` is set.

  Private tests are JSON, or base64 of a compressed pickle of JSON; of the pickle, nothing but plain values is read.
  """
  question, starter = words(row, 'question_content', where), field(row, 'starter_code', str, where)
  cases = [*_cases(row, 'public_test_cases', where), *_cases(row, 'private_test_cases', where)]
  if not cases:
    raise BadInput(f'{where}: no test cases')
  if starter.strip():
    ask = 'You will use the following starter code to write the solution to the problem and enclose your code within '
    ask, shown = ask + 'delimiters.', starter
  else:
    ask = 'Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the '
    ask, shown = ask + 'sample inputs). Enclose your code within delimiters as follows.', '# YOUR CODE HERE'
  return Problem(
    f'livecodebench/{words(row, "question_id", where)}',
    'code',
    f'### Question:\n{question}\n\n### Format: {ask}\n```python\n{shown}\n```\n\n'
    '### Answer: (use the provided format with backticks)\n\n',
    tests=_functional(row, cases, where) if cases[0]['testtype'] == 'functional' else _plain_tests(cases),
    difficulty={'easy': 1, 'medium': 3, 'hard': 5}.get(row.get('difficulty')),
    date=words(row, 'contest_date', where)[:10],
  )


def mapped(fields: dict) -> Callable[[dict, str], Problem]:
  """A reader for any other shape: {"prompt": "input.question", "answer": "target", ...} names where fields stand.

  Dots go into objects. "prompt" and one of "answer" and "tests" are needed; "id", "domain", "solution", "difficulty"
  and "date" may be named. Without an answer field, the answer is the last box of the solution.
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
    found.setdefault('id', _digest('row', prompt, json.dumps(found.get('answer', found.get('tests')))))
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


def statement(prompt: str) -> str:
  """A prompt without the instruction at its end."""
  prompt = prompt.strip()
  for instruction in INSTRUCTIONS:
    prompt = prompt.removesuffix(instruction).rstrip()
  return prompt


_CALCULATOR = re.compile(r'<<[^>]*>>')


def _digest(form: str, prompt: str, answer: str) -> str:
  key = f'{" ".join(prompt.split())}\n{answer}'
  return f'{form}/{hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]}'


def _difficulty(level) -> int | None:
  """1 to 5 from 3, 3.5, "3" or "Level 3"; None from anything else, 0 and "Level ?" included."""
  try:
    number = float(str(level).removeprefix('Level '))
  except ValueError:
    return None
  return min(5, max(1, round(number))) if 0 < number < float('inf') else None


def _program(code: str, path: str = 'reference') -> Solution:
  return Solution(f'```python\n{code.rstrip()}\n```', path)


def _asked(row: dict, where: str) -> str:
  """The last message of the user's in a chat."""
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
  return Problem(_digest(domain or 'choice', prompt, LETTERS[index]), domain, prompt, LETTERS[index])


def _shuffled(question: str, options: list[str], index: int, domain: str) -> Problem:
  order = list(range(len(options)))
  random.Random(question).shuffle(order)
  return _choice(question, [options[i] for i in order], order.index(index), domain or 'gpqa')


def _topic(row: dict) -> str:
  return (row.get('High-level domain') or '').strip().lower()


def _options(row: dict, where: str) -> tuple[str, list[str], int]:
  """Question, options and the index of the right one, from a prompt whose options are lines "A. ..." in order."""
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


class _TextOnly(pickle.Unpickler):
  """Reads a pickle that holds plain values; a pickle that names any class or function is refused, not run."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(f'names {module}.{name}')


def _cases(row: dict, name: str, where: str) -> list[dict]:
  raw = field(row, name, str, where)
  try:
    try:
      cases = json.loads(raw)
    except json.JSONDecodeError:
      cases = json.loads(_TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(raw)))).load())
  except (ValueError, TypeError, zlib.error, EOFError, pickle.UnpicklingError) as error:
    raise BadInput(f'{where}: "{name}" is neither JSON nor a compressed text ({error})') from None
  wanted = ('input', 'output', 'testtype')
  if not isinstance(cases, list) or not all(isinstance(c, dict) and set(wanted) <= set(c) for c in cases):
    raise BadInput(f'{where}: "{name}" must be a list of objects with {", ".join(wanted)}')
  return cases


def _plain_tests(cases: list[dict]) -> list[dict]:
  return [{'input': case['input'], 'output': case['output']} for case in cases]


def _functional(row: dict, cases: list[dict], where: str) -> dict:
  """Calls of the method that "metadata" names: arguments one JSON value a line, results compared as JSON values."""
  try:
    name = json.loads(field(row, 'metadata', str, where))['func_name']
    calls = [([json.loads(a) for a in c['input'].split('\n') if a.strip()], json.loads(c['output'])) for c in cases]
  except (ValueError, TypeError, KeyError) as error:
    raise BadInput(
      f'{where}: a functional test needs "func_name" in metadata and JSON in its cases ({error})'
    ) from None
  return {
    'entry_point': 'Solution',
    'setup': _JSON_LIKE,
    'asserts': [f'assert _json_like(Solution().{name}(*{arguments!r})) == {wanted!r}' for arguments, wanted in calls],
  }


# a tuple is as good as a list, as in LiveCodeBench's own comparison
_JSON_LIKE = """def _json_like(value):
  return [_json_like(v) for v in value] if isinstance(value, (list, tuple)) else value
"""


def _at(row, path: str):
  for name in path.split('.'):
    if not isinstance(row, dict):
      return None
    row = row.get(name)
  return row
