"""The claim of an evaluation on its directory: config.json holds everything that decides a sample or a verdict.

Samples and verdicts of a directory are used again only if they would come out the same: for the same weights, sizes and
dtype, the same tokenizer and chat template, the same problems, protocol and seed, and the same graders. Otherwise the
evaluation is refused, and the message names what differs. The number of rows decoded at a time, the number of workers
and the paths of the files make no difference.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Sequence

from vibethinker_jax import verify
from vibethinker_jax.data.problem import Problem, row_of
from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate.benchmarks import Task
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.shared_files import write_json, write_text
from vibethinker_jax.verify.grader import Grader

_LIBRARIES = ('math-verify', 'latex2sympy2_extended', 'sympy', 'pylatexenc')
_SIZES = ('V', 'D', 'L', 'K', 'G', 'H', 'F', 'rope_theta', 'norm_eps', 'tied')


@dataclasses.dataclass(frozen=True)
class Subject:
  """The model that is evaluated.

  name: what the tables call it.
  weights: their fingerprint (hf.fingerprint); '' where the directory is not kept.
  engine: draws the tokens.
  model: placed on the engine's devices.
  tokenizer: has a chat template.
  """

  name: str
  weights: str
  engine: Engine
  model: Qwen2
  tokenizer: ChatTokenizer


def claim(subject: Subject, task: Task, grader: Grader, seed: int) -> dict:
  """What config.json holds, of a model on a task, with its grader and the seed of its samples."""
  tokenizer = subject.tokenizer.hf
  said = (tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, subject.tokenizer.system)
  config = dataclasses.asdict(subject.engine.config)
  return {
    'benchmark': task.name,
    'protocol': task.record(),
    'seed': seed,
    'problems': _sha256(_text_of(task.asked)),
    'weights': subject.weights,
    'dtype': config['dtype'],
    'model': {size: config[size] for size in _SIZES},
    'tokenizer': _sha256(json.dumps(said)),
    'stop_ids': list(subject.engine.stop_ids),
    'max_length': subject.engine.max_length,
    'grader': _judged_with(grader),
  }


def _judged_with(grader: Grader) -> dict:
  """What decides a verdict: the rules, the time limit, the code of the graders, and the libraries that they call."""
  sources = sorted(pathlib.Path(verify.__path__[0]).glob('*.py'))
  versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
  code = _sha256(''.join(path.read_text(encoding='utf-8') for path in sources))
  return {'strict': grader.strict, 'deadline_s': grader.deadline_s, 'code': code, **versions}


def check(directory: pathlib.Path, mine: dict, regrade: bool) -> None:
  """Raises BadInput where `directory` holds another evaluation than the claim `mine`, or something else.

  The message names what differs. With `regrade` the grader may differ.
  """
  path = directory / 'config.json'
  if not path.exists():
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
      raise BadInput(f'{directory}: expected a new directory or that of an evaluation')
    return
  theirs = _read(path)
  keys = {*mine, *theirs} - {'benchmark'}  # only a name: `problems` tells what is asked
  differing = sorted(key for key in keys if mine.get(key) != theirs.get(key))
  if not differing or (regrade and differing == ['grader']):
    return
  mend = 'use a new one, or regrade to grade its samples again' if differing == ['grader'] else 'use a new one'
  raise BadInput(f'{path}: the directory holds another evaluation ({_changes(differing, theirs, mine)}); {mend}')


def take(directory: pathlib.Path, mine: dict, task: Task) -> None:
  """From now on the directory belongs to the evaluation of the claim `mine`. All processes call this."""
  write_json(directory / 'config.json', mine)
  write_text(directory / 'problems.jsonl', _text_of(task.asked))


def _text_of(problems: Sequence[Problem]) -> str:
  return ''.join(json.dumps(row_of(problem)) + '\n' for problem in problems)


def _read(path: pathlib.Path) -> dict:
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise BadInput(f'{path}: cannot be read as JSON ({error})') from None
  if not isinstance(found, dict) or 'protocol' not in found:
    raise BadInput(f'{path}: not of an evaluation, expected a new directory or that of an evaluation')
  return found


def _changes(differing: Sequence[str], theirs: dict, mine: dict) -> str:
  """What differs: 'seed is 1, was 0'. The fields of an object are compared one by one; a long value is shortened."""
  said = []
  for key in differing:
    was, now = theirs.get(key), mine.get(key)
    if isinstance(was, dict) and isinstance(now, dict):
      fields = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
      said += [f'{key}.{name} is {_short(now.get(name))}, was {_short(was.get(name))}' for name in fields]
    else:
      said.append(f'{key} is {_short(now)}, was {_short(was)}')
  return '; '.join(said)


def _short(value) -> str:
  text = 'not recorded' if value is None else json.dumps(value)
  return text if len(text) <= 60 else f'{text[:13]}...'


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
