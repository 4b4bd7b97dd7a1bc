"""Every shape of file ends as the Problems it holds, and a malformed row is named."""

import base64
import csv
import gzip
import json
import os
import pathlib
import pickle
import zlib

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from vibethinker_jax.boxes import last_box
from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.data import records
from vibethinker_jax.data.problem import Problem, Solution, merge, problem_from, row_of
from vibethinker_jax.data.readers import mapped
from vibethinker_jax.data.sources import Source, load, load_all
from vibethinker_jax.errors import BadInput

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))

PROBLEMS = [
  Problem(
    'a', 'algebra', 'What is 1 + 1?', answer='2', solutions=(Solution('It is \\boxed{2}.', 'short', ((6, 15, 2.0),)),)
  ),
  Problem('b', '', 'Name a root of 4.', answer=('2', '-2'), difficulty=3, date='2025-01-31'),
  Problem('c', 'code', 'Echo.', tests=[{'input': 'x', 'output': 'x'}]),
]


def lines(path, *rows) -> pathlib.Path:
  path.parent.mkdir(exist_ok=True)
  path.write_text(''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in rows))
  return path


# ---- forms of files --------------------------------------------------------------------------------------------------


def test_the_same_problems_from_every_form_of_file(tmp_path):
  """The file's form changes nothing: JSON Lines, JSON, both compressed, Parquet, `datasets` and ArrayRecord agree."""
  rows = [row_of(p) for p in PROBLEMS]
  plain = lines(tmp_path / 'p.jsonl', *rows)
  (tmp_path / 'p.json').write_text(json.dumps(rows))
  for name in ('p.jsonl', 'p.json'):
    (tmp_path / f'{name}.gz').write_bytes(gzip.compress((tmp_path / name).read_bytes()))
  for path in (plain, tmp_path / 'p.json', tmp_path / 'p.jsonl.gz', tmp_path / 'p.json.gz'):
    assert load(path) == PROBLEMS
  # columns are typed: what differs between rows does not fit into one
  flat = [{'q': f'What is {i} + 1?', 'a': i + 1} for i in range(5)]
  wanted = load(lines(tmp_path / 'flat.jsonl', *flat), 'fields', {'prompt': 'q', 'answer': 'a'})
  pq.write_table(pa.Table.from_pylist(flat), tmp_path / 'flat.parquet')
  datasets.Dataset.from_list(flat).save_to_disk(tmp_path / 'one')
  datasets.DatasetDict(test=datasets.Dataset.from_list(flat)).save_to_disk(tmp_path / 'split')
  for path in ('flat.parquet', 'one', 'split'):
    assert load(tmp_path / path, 'fields', {'prompt': 'q', 'answer': 'a'}, split='test') == wanted
  with pytest.raises(BadInput, match="no split 'train', it has test"):
    load(tmp_path / 'split', 'fields', {'prompt': 'q', 'answer': 'a'})


def test_array_records_give_back_what_was_written(tmp_path):
  many = [Problem(str(i), 'algebra', f'What is {i}?', answer=str(i)) for i in range(20)]
  directory = tmp_path / 'set'
  records.write({'train': many, 'test': many}, directory)
  records.write({'train': [*PROBLEMS, *many], 'test': PROBLEMS}, directory, shards=3)  # in its place
  assert list(tmp_path.iterdir()) == [directory]
  assert len(list(directory.glob('*train*array_record*'))) == 3
  rows = records.Records(directory)
  assert len(rows) == 23 and rows[2] == PROBLEMS[2] and rows[22] == many[-1]
  assert load(directory) == [*PROBLEMS, *many]
  assert load(directory, split='test') == PROBLEMS
  with pytest.raises(BadInput, match="split 'few' has 2 problems, expected at least 3"):
    records.write({'few': many[:2]}, directory, shards=3)
  with pytest.raises(BadInput, match="split 'other' cannot be read"):
    load(directory, split='other')


def test_names_of_hubs_reach_what_lies_on_this_machine(tmp_path, monkeypatch):
  """Without a network: `hf:` a folder of data files, `tfds:` a data set that was prepared below a known folder."""
  monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)
  flat = [{'q': f'What is {i} + 1?', 'a': i + 1} for i in range(5)]
  lines(tmp_path / 'hub' / 'train.jsonl', *flat)
  wanted = load(tmp_path / 'hub' / 'train.jsonl', 'fields', {'prompt': 'q', 'answer': 'a'})
  for name in (f'hf:{tmp_path}/hub', tmp_path / 'hub'):
    assert load(name, 'fields', {'prompt': 'q', 'answer': 'a'}) == wanted
  with pytest.raises(BadInput, match='hf:nobody/knows: cannot be loaded'):
    load('hf:nobody/knows')
  tfds.core.add_data_dir(str(tmp_path))
  records.write({'train': PROBLEMS}, tmp_path / 'problems' / '1.0.0')
  assert load('tfds:problems') == load('tfds:problems:1.0.0') == PROBLEMS
  with pytest.raises(BadInput) as error:
    load('tfds:nobody_knows')
  assert 'nobody_knows' in str(error.value) and '\n' not in str(error.value)


def test_prepare_writes_what_a_config_reads(tmp_path, capsys):
  rows = [{'problem': 'What is 1 + 2?', 'solution': text} for text in ('So \\boxed{3}', 'Thus \\boxed{3}')]
  sums = [{'question': f'What is {i}?', 'answer': f'It is {i}.\n#### {i}'} for i in range(3)]
  files = [lines(tmp_path / 'math.jsonl', *rows), lines(tmp_path / 'gsm.jsonl', *sums)]
  sources = [Source(str(files[0]), 'math'), Source(str(files[1]), 'gsm8k')]
  command = ['prepare', '--in', files[0], '--in', files[1], '--reader', 'math', '--reader', 'gsm8k']
  command += ['--out', tmp_path / 'set', '--shards', 2]
  for _ in range(2):  # and again, in its place
    assert main([str(c) for c in command]) == 0
    assert '4 problems with 5 solutions, of 5 rows' in capsys.readouterr().out
  assert load_all([Source(str(tmp_path / 'set'))]) == merge(load_all(sources))
  for change, message in (
    (['--reader', 'math'], '3 times --reader for 2 times --in'),
    (['--out', str(tmp_path)], 'expected a new directory'),
    (['--shards', '0'], '--shards 0'),
    (['--shards', '9'], 'expected at least 9'),
  ):
    given = [*map(str, command)]
    if change[0] != '--reader':  # which may be given for each file
      at = given.index(change[0])
      del given[at : at + 2]
    assert main([*given, *change]) == 2
    assert message in capsys.readouterr().err


# ---- malformed rows --------------------------------------------------------------------------------------------------

TESTS = {'entry_point': 'f', 'setup': '', 'asserts': ['assert f() == 1']}
GOOD = {'id': 'x', 'prompt': 'What is 2 + 2?', 'answer': 4}


@pytest.mark.parametrize(
  ('line', 'wanted'),
  [
    ('{"id": 1, ', 'line 2: not JSON'),
    ('[1, 2]', 'line 2: expected a JSON object, found list'),
    ('[' * 100_000, 'line 2: not JSON'),
    ({'id': 'y', 'answer': 4}, 'line 2: field "prompt" is missing'),
    ({'id': 'y', 'prompt': 'What?'}, 'line 2: exactly one of "answer" and "tests"'),
    ({'id': 'y', 'prompt': 'What?', 'answer': ' '}, 'line 2: no answer'),
    ({'id': 'y', 'prompt': 'What?', 'answer': []}, 'line 2: "answer" must be'),
    ({'id': 'y', 'prompt': 7, 'answer': 4}, 'line 2: field "prompt" must be str, found int'),
    ({'id': 'y', 'prompt': ' ', 'answer': 4}, 'line 2: field "prompt" is empty'),
    ({'id': 'y', 'prompt': 'What?', 'tests': []}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': [{'input': 1, 'output': '1'}]}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {'asserts': ['assert f() == 1']}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {'setup': '', 'asserts': ['assert f()']}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'entry_point': 5}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'entry_point': ''}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'entry_point': 'f()'}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'setup': None}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'asserts': [' ']}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'asserts': [['assert f()']]}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'asserts': 'assert f()'}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {**TESTS, 'timeout': 3}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': [None]}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': [[]]}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': {}}, 'line 2: "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': True}, 'line 2: field "tests" must be'),
    ({'id': 'y', 'prompt': 'What?', 'tests': None}, 'line 2: exactly one of'),
    ('{"id": "y", "prompt": "What?", "answer": NaN}', 'line 2: the answer is NaN'),
    ('{"id": "y", "prompt": "What?", "answer": -Infinity}', 'line 2: the answer is -Infinity'),
    ('{"id": "y", "prompt": "What?", "answer": 1e400}', 'line 2: the answer is 1e400'),
    ('{"id": "y", "prompt": "What?", "answer": 1e-400}', 'line 2: the answer is 1e-400'),
    ('{"id": "y", "prompt": "What?", "answer": ["4", NaN]}', 'line 2: the answer is NaN'),
    ({'id': 'y', 'prompt': 'What?', 'answer': True}, 'line 2: field "answer" must be'),
    ({'id': 'y', 'prompt': 'What?', 'answer': {'4': 4}}, 'line 2: field "answer" must be'),
    ({'id': 'y', 'prompt': 'What?', 'answer': [['4']]}, 'line 2: "answer" must be'),
    ({'id': 'y', 'prompt': 'What?', 'answer': ['4', None]}, 'line 2: "answer" must be'),
    ({'id': 'y', 'prompt': 'What?', 'answer': ['4', False]}, 'line 2: "answer" must be'),
    ({'id': 'y', 'prompt': 'What?', 'answer': ['4', '\u200b ']}, 'line 2: no answer'),
    ({'id': 'y', 'prompt': 'What \ud800?', 'answer': 4}, 'line 2: field "prompt" is no text'),
    ({'id': True, 'prompt': 'What?', 'answer': 4}, 'line 2: field "id" must be'),
    ('{"id": "y", "prompt": "What?", "answer": 4, "difficulty": NaN}', 'line 2: "difficulty" must be'),
    (
      '{"id": "y", "prompt": "What?", "answer": 4, "solutions": [{"text": "4", "key_spans": [[0, Infinity, 1]]}]}',
      'line 2, solution 1: "key_spans" must be',
    ),
    ({**GOOD, 'difficulty': 9}, 'line 2: "difficulty" must be a whole number from 1 to 5, found 9'),
    ({**GOOD, 'solutions': ['4']}, 'line 2, solution 1: expected'),
    ({**GOOD, 'solutions': [{'text': '4', 'key_spans': [[0, 5, 1]]}]}, 'line 2, solution 1: key span'),
    ({**GOOD, 'colour': 'red'}, 'line 2: unknown field "colour"'),
  ],
)
def test_a_malformed_row_is_named_or_skipped(tmp_path, capfd, line, wanted):
  path = lines(tmp_path / 'p.jsonl', GOOD, line, {**GOOD, 'id': 'z'})
  with pytest.raises(BadInput) as error:
    load(path)
  assert str(error.value).startswith(f'{path}, ') and wanted in str(error.value) and '\n' not in str(error.value)
  assert [p.id for p in load(path, skip_bad=True)] == ['x', 'z']
  assert '1 of 3 rows left out' in capfd.readouterr().err


@pytest.mark.parametrize(
  'number, text',
  [
    ('0.00001', '0.00001'),
    ('1e-05', '0.00001'),
    ('1e16', '10000000000000000'),
    ('1E+23', '100000000000000000000000'),
    ('12345678901234567890.0', '12345678901234567890'),
    ('0.1000', '0.1000'),
    ('27.0', '27'),
    ('-0.0', '0'),
    ('3.141592653589793238', '3.141592653589793238'),
    ('12345678901234567890', '12345678901234567890'),
  ],
)
def test_a_number_is_taken_digit_by_digit(tmp_path, number, text):
  row = f'{{"id": "x", "prompt": "What?", "problem": "What?", "answer": {number}}}'
  (tmp_path / 'm.jsonl').write_text(row)
  (tmp_path / 'm.json').write_text(f'[{row}]')
  assert [load(tmp_path / name, 'math')[0].answer for name in ('m.jsonl', 'm.json')] == [text, text]
  (tmp_path / 'p.jsonl').write_text(f'{{"id": "x", "prompt": "What?", "answer": [{number}, "y"]}}')
  assert load(tmp_path / 'p.jsonl')[0].answer == (text, 'y')


def test_a_broken_file_is_named(tmp_path):
  path = tmp_path / 'p.jsonl'
  path.write_bytes(json.dumps(GOOD).encode() + b'\n{"id": "\xff"}\n')
  with pytest.raises(BadInput, match='line 2: not UTF-8 at byte 8'):
    load(path)
  assert len(load(path, skip_bad=True)) == 1
  for content in (b'', b'\n\n'):
    path.write_bytes(content)
    with pytest.raises(BadInput, match='no rows'):
      load(path)
  path.write_bytes(b'{\n')
  with pytest.raises(BadInput, match='no row that could be read'):
    load(path, skip_bad=True)
  with pytest.raises(BadInput, match='absent.jsonl: cannot be read .No such file'):
    load(tmp_path / 'absent.jsonl')
  with pytest.raises(BadInput, match='expected .jsonl'):
    load(tmp_path / 'p.xml')
  with pytest.raises(BadInput, match="unknown reader 'gsm9k'"):
    load(path, 'gsm9k')
  for name in ('p.jsonl.gz', 'p.json.gz', 'p.parquet', 'p.json', 'p.csv'):
    (tmp_path / name).write_bytes(b'\x1f\x8b\x08\xff not one')
    with pytest.raises(BadInput, match=name):
      load(tmp_path / name)
  (tmp_path / 'p.json').write_text('{"a": 1}')
  with pytest.raises(BadInput, match='expected a JSON list of objects, found dict'):
    load(tmp_path / 'p.json')


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_box():
  content = lambda text: None if (span := last_box(text)) is None else text[slice(*span)]
  assert content(r'a \boxed{1} and \boxed{\frac{1}{2}} end') == r'\frac{1}{2}'
  assert content(r'\fbox{\{1\}}') == r'\{1\}'
  assert content(r'it is $\boxed 7$.') == '7'
  assert content(r'\boxed{3} then \boxed{4') is None  # what was meant to be boxed is not known
  assert content(r'\boxed 3.5') == '3.5' and content(r'\boxed x') == 'x'
  assert content('none') is None


def test_multiple_choice_follows_its_answer(tmp_path):
  """Shuffling moves the options and the answer together, always the same way."""
  row = {'Question': 'Which?', 'Correct Answer': 'right', 'High-level domain': 'Physics'}
  row |= {f'Incorrect Answer {i}': f'wrong {i}' for i in (1, 2, 3)}
  rows = [{**row, 'Question': f'Which of {i}?\nOr so, "maybe"'} for i in range(40)]
  with open(tmp_path / 'g.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, list(row))
    writer.writeheader()
    writer.writerows(rows)
  problems = load(tmp_path / 'g.csv', 'gpqa')
  assert problems == load(tmp_path / 'g.csv', 'gpqa') and {p.domain for p in problems} == {'physics'}
  assert all(f'\n{p.answer}. right' in p.prompt for p in problems)
  assert {p.answer for p in problems} == set('ABCD')
  asked = (
    'Which?\n\n\nA. right\nB. wrong\nof two lines\nC. no\nD. never\n\nPlease reason step-by-step and put your choice '
  )
  asked += 'letter without any other text with \\boxed{} in the end.'
  verl = {'prompt': [{'role': 'user', 'content': asked}], 'reward_model': {'ground_truth': 'A'}}
  path = lines(tmp_path / 'v.jsonl', verl)
  (kept,), (moved,) = load(path, 'gpqa_verl_in_order'), load(path, 'gpqa_verl')
  assert kept.answer == 'A' and kept.prompt == 'Which?\n\nA. right\nB. wrong\nof two lines\nC. no\nD. never'
  assert f'\n{moved.answer}. right' in moved.prompt


class _Evil:
  def __reduce__(self):
    return os.system, ('echo evil > evil',)


def test_livecodebench(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pack = lambda value: base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
  case = lambda a, b, kind: {'input': a, 'output': b, 'testtype': kind}
  row = {
    'question_content': 'Add them.',
    'question_id': '12',
    'starter_code': '',
    'difficulty': 'medium',
    'contest_date': '2025-02-14T00:00:00',
    'public_test_cases': json.dumps([case('1 2', '3', 'stdin')]),
    'private_test_cases': pack(json.dumps([case('5 5', '10', 'stdin')])),
    'metadata': '{}',
  }
  method = {
    **row,
    'starter_code': 'class Solution:\n    def add(self, a: List[int], b: int) -> int:\n        ',
    'public_test_cases': json.dumps([case('[1, 2]\n3', '[4, true]', 'functional')]),
    'private_test_cases': '[]',
    'metadata': '{"func_name": "add"}',
  }
  stdin, functional = load(lines(tmp_path / 'l.jsonl', row, method), 'livecodebench')
  assert stdin.tests == [{'input': '1 2', 'output': '3'}, {'input': '5 5', 'output': '10'}]
  assert (stdin.date, stdin.difficulty, stdin.id) == ('2025-02-14', 3, 'livecodebench/12')
  assert functional.tests['asserts'] == ['assert _json_like(Solution().add(*[[1, 2], 3])) == [4, True]']
  assert 'def add(self' in functional.prompt
  with pytest.raises(BadInput, match='neither JSON nor a compressed text'):
    load(lines(tmp_path / 'e.jsonl', {**row, 'private_test_cases': pack(_Evil())}), 'livecodebench')
  assert not (tmp_path / 'evil').exists()


def test_fields_of_any_shape():
  read = mapped({'prompt': 'in.q', 'solution': 'in.cot', 'domain': 'kind', 'difficulty': 'lvl'})
  p = read({'in': {'q': 'What?', 'cot': 'So \\boxed{3}'}, 'kind': 'Precalculus', 'lvl': 'Level 4'}, 'row 1')
  assert (p.answer, p.domain, p.difficulty, p.solutions[0].text) == ('3', 'calculus', 4, 'So \\boxed{3}')
  with pytest.raises(BadInput, match='row 1: no answer .expected one in "in.cot"'):
    read({'in': {'q': 'What?', 'cot': 'So 3'}}, 'row 1')
  with pytest.raises(BadInput, match="unknown 'promt'"):
    mapped({'promt': 'q'})


# ---- identity --------------------------------------------------------------------------------------------------------


def test_rows_and_problems_are_the_same_thing():
  assert [problem_from(json.loads(json.dumps(row_of(p))), '') for p in PROBLEMS] == PROBLEMS


def test_ids_follow_the_problem_not_its_place(tmp_path):
  rows = [{'question': f'How many is {i}?', 'answer': f'It is {i}.\n#### {i}'} for i in range(5)]
  forward = load(lines(tmp_path / 'a.jsonl', *rows), 'gsm8k')
  backward = load(lines(tmp_path / 'b.jsonl', *rows[:0:-1]), 'gsm8k')
  assert forward[:0:-1] == backward and len({p.id for p in forward}) == 5


def test_duplicates_become_solutions_of_one_problem(tmp_path):
  row = lambda text, answer='3': {'problem': 'What  is\n1 + 2?', 'answer': answer, 'solution': text}
  path = lines(
    tmp_path / 'a.jsonl', row('So \\boxed{3}'), row('Thus \\boxed{3}'), row('So \\boxed{3}'), row('No: 4', '4')
  )
  more = lines(tmp_path / 'b.jsonl', {'problem': 'What is 1 + 2?', 'answer': 3, 'type': 'Prealgebra', 'level': 1})
  three, four = merge(load_all([Source(str(path), 'math'), Source(str(more), 'math')]))
  assert [s.text for s in three.solutions] == ['So \\boxed{3}', 'Thus \\boxed{3}']
  assert (three.domain, three.difficulty, four.answer) == ('algebra', 1, '4')


# ---- the data at hand ------------------------------------------------------------------------------------------------

COUNTS = [  # file, reader, rows, rows without an answer
  ('gsm8k/train.jsonl', 'gsm8k', 7473, 0),
  ('gsm8k/test.jsonl', 'gsm8k', 1319, 0),
  ('math/math500.jsonl', 'math', 500, 0),
  ('math/math_test_5000.jsonl', 'math', 5000, 0),
  ('math/math_train_7500.parquet', 'verl', 7500, 2),
  ('math/math_train_7474_answers.json', 'math', 7474, 4),
  *[(f'competition/{name}.jsonl', 'math', 30, 0) for name in ('aime24', 'aime25', 'hmmt25')],
  *[(f'competition/vibethinker_{name}.parquet', 'verl', 30, 0) for name in ('aime24', 'aime25', 'hmmt25')],
  ('competition/amc23.jsonl', 'math', 40, 0),
  ('competition/olymmath_en_easy.jsonl', 'math', 100, 0),
  ('competition/olymmath_en_hard.jsonl', 'math', 100, 0),
  ('competition/aime_1983_2023_with_solutions.json', 'math', 975, 0),
  ('code/HumanEval.jsonl.gz', 'humaneval', 164, 0),
  ('code/humaneval_example_problem.jsonl', 'humaneval', 1, 0),
  ('code/mbpp.jsonl', 'mbpp', 974, 0),
  ('code/code_contests_test_165.json', 'code_contests', 165, 0),
  ('code/kattis_examples_3.json', 'kattis', 3, 0),
  ('stem_mcq/mmlu_stem_3018.jsonl', 'multiple_choice', 3018, 0),
  ('cot_multi/qwen25math_math100_8samples.jsonl', 'cot_multi', 100, 0),
]


@pytest.mark.parametrize(('name', 'reader', 'count', 'answerless'), COUNTS, ids=[row[0] for row in COUNTS])
def test_real_files_load_whole(name, reader, count, answerless):
  if not (DATA / name).exists():
    pytest.skip(f'{DATA / name} is absent; set VIBETHINKER_DATA to the folder of data files')
  problems = load(DATA / name, reader, skip_bad=True)
  assert len(problems) == count - answerless
  assert not any('\\boxed{}.' in p.prompt[-12:] for p in problems)  # instructions are gone
  if answerless:
    with pytest.raises(BadInput, match=f'{pathlib.Path(name).name}, row .*answer'):
      load(DATA / name, reader)
