"""Planted leaks are found however they are hidden, and other rows stay."""

import json
import os
import pathlib
import random
import re

import numpy as np
import pytest

from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.data import decontaminate
from vibethinker_jax.data.decontaminate import Decontaminate, Index, find_leaks
from vibethinker_jax.data.hashed import Block
from vibethinker_jax.data.instructions import MATH
from vibethinker_jax.data.problem import read_rows
from vibethinker_jax.data.words import normal, words

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))

TRAIN = (
  'A baker sells 12 rolls every morning and 30 loaves every evening. Rolls cost \\$2 and loaves cost \\$5. '
  'How much does he earn in a week of 6 days?'
)
CIRCLE = (
  'Let $ABC$ be a triangle with $AB = 13$, $BC = 14$ and $CA = 15$. The circle through $A$ that touches $BC$ at its '
  'midpoint meets $AB$ again at $D$. The length $AD$ is $\\frac{m}{n}$, where $m$ and $n$ are relatively prime '
  'positive integers. Find $m+n$.'
)
ROOT = 'Find the largest real $x$ with $\\dfrac{x^2-3x}{x+7}\\,=\\left(2x-5\\right)^{3}$ and $x^{2}+4x\\le 12$.'
SHORT = 'Compute $\\sin 75^\\circ$.'
EVALUATION = [('baker', TRAIN), ('circle', CIRCLE), ('root', ROOT), ('short', SHORT)]

LEAKS = {
  'word for word': ('baker', 'ngram', TRAIN),
  'case and punctuation': ('baker', 'ngram', TRAIN.upper().replace('.', ' !').replace(',', ';')),
  'inside a longer text': ('baker', 'ngram', f'Here is a task for you. {TRAIN} Please explain each step.'),
  'words put in outside ten': ('baker', 'ngram', TRAIN.replace('Rolls cost', 'As you know, rolls cost')),
  'LaTeX spacing': (
    'root',
    'ngram',
    ROOT.replace('\\dfrac', '\\frac')
    .replace('\\,', '')
    .replace('\\left', '')
    .replace('\\right', '')
    .replace('3x', '3\\, x'),
  ),
  'full-width letters': ('baker', 'ngram', TRAIN.replace('A baker sells', 'Ａ ｂａｋｅｒ ｓｅｌｌｓ')),
  'other numbers': ('baker', 'near_duplicate', re.sub('[0-9]+', lambda m: str(int(m[0]) + 3), TRAIN)),
  'Cyrillic letters': ('baker', 'ngram', TRAIN.replace('e', 'е').replace('A', 'А').replace('o', 'о').replace('p', 'р')),
  'Greek letters in a command': ('root', 'ngram', ROOT.replace('o', 'ο').replace('left', 'lеft')),
  'accents and no width': ('baker', 'ngram', TRAIN.replace('e', 'é').replace('ll', 'l\u200bl').replace('r', 'r\u00ad')),
  'short, with something before': ('short', 'ngram', f'Here is a task for you. {SHORT}'),
  'short, right after a word': ('short', 'ngram', f'Question 7 {SHORT} Explain each step.'),
  'short, in other signs': ('short', 'ngram', 'Please: compute \\(\\sin{75}^{\\circ}\\), and say how.'),
  'a chat with an instruction': ('short', 'ngram', f'{SHORT} {MATH}'),
}


def find(*texts: str, against=EVALUATION, **settings):
  return Index(against, Decontaminate(**settings)).find([(str(i), text) for i, text in enumerate(texts)])


@pytest.mark.parametrize('name', LEAKS)
def test_planted_leaks_are_found(tmp_path, name):
  match, kind, text = LEAKS[name]
  train, out, report = (tmp_path / f'{n}.jsonl' for n in ('train', 'out', 'report'))
  innocent = {'id': 'innocent', 'prompt': 'A farmer has three fields and sows one of them. What is left?', 'more': [1]}
  chat = [{'role': 'user', 'content': text}] if 'chat' in name else text
  train.write_text(json.dumps(innocent) + '\n' + json.dumps({'id': 'leak', 'prompt': chat}) + '\n')
  evaluation = tmp_path / 'eval.jsonl'
  evaluation.write_text(''.join(json.dumps({'id': i, 'problem': t}) + '\n' for i, t in EVALUATION))
  files = ['--train', str(train), '--eval', str(evaluation), '--out', str(out), '--report', str(report)]
  assert main(['decontaminate', *files]) == 0
  assert [json.loads(line) for line in out.read_text().splitlines()] == [innocent]
  (row,) = (json.loads(line) for line in report.read_text().splitlines())
  assert (row['id'], row['match_id'], row['kind']) == ('leak', match, kind) and row['evidence']


@pytest.mark.parametrize(
  'text',
  [
    'Two dice are thrown. The probability that the sum is prime is $\\frac{m}{n}$, where $m$ and $n$ are relatively '
    'prime positive integers. Find $m+n$.',
    'The area of the region can be written as $\\frac{p}{q}$ where $p$ and $q$ are relatively prime positive '
    'integers. Find $p + q$.',
    'Compute $\\sin 15^\\circ$.',
    'Compute it.',
    '',
    'Compute $\\sin 75^\\circ \\cos 15^\\circ$.',  # goes on
    'Find $x$ when $x$ compute $\\sin 75^\\circ + 1$.',
  ],
)
def test_stock_phrases_and_short_texts_are_no_leaks(text):
  assert find(text) == [None]


CONIC = 'an ellipse $\\frac{x^2}{a^2}+\\frac{y^2}{b^2}=1$ with $a>b>0$'
COSINES = 'Since $c^2=a^2+b^2-2ab\\cos C$ and $\\sin^2 C+\\cos^2 C=1$,'
OWN = 'the polynomial $x^4-3x^3+7x^2-11x+13$'


@pytest.mark.parametrize(
  'problem, row, kept',
  [
    (
      f'Let {CONIC} touch the line $4x+5y=41$ in the point with $x=4$. How far are its two foci from each other?',
      f'Show that the tangents to {CONIC} from a point of its director circle meet at a right angle.',
      True,
    ),
    (
      f'In triangle $ABC$ two sides are 7 and 9 and the area is 20. {COSINES} how long can the third side be at most?',
      f'{COSINES} prove that the area of every triangle is half of the product of two sides and a sine.',
      True,
    ),
    (f'Find the sum of all the squares of the complex roots of {OWN}.', f'How many real zeros has {OWN}?', False),
    (
      f'Prove {COSINES[6:-1]}.',
      f'Is it so that {COSINES[6:-1]}, whatever triangle we take and wherever it may lie?',
      False,
    ),
  ],
)
def test_a_formula_that_anybody_may_write_is_no_leak(problem, row, kept):
  assert len(set(words(problem)) & set(words(row))) > 5
  assert (find(row, against=[('p', problem)]) == [None]) is kept


@pytest.mark.parametrize(
  'short, row, found',
  [
    ('Compute $2+3$.', 'First compute $2+3$. Then rest.', True),
    ('Compute $2+3$.', 'First compute $2-3$. Then rest.', False),
    ('Compute $2+3$.', 'First compute $2+3x$. Then rest.', False),
    ('Compute $2+3$.', 'First compute $2+3.5$. Then rest.', False),
    ('Compute $2+3$.', 'Compute $2+3$ and rest.', True),
    ('Compute 2 + 3.', 'Will you compute $2 + 3$?', True),
    ('$17+4=x$. Solve for $x$.', 'A riddle: $17+4=x$. Solve for $x$!', True),
    ('$17+4=x$. Solve for $x$.', 'A riddle: $3\\cdot17+4=x$. Solve for $x$!', False),
    ('How many whole-number divisors has 196?', 'Q: how many whole number divisors has 196? Answer:', True),
    ('Write a function to sort a list.', 'Write a function to sort a list. It must be quick.', True),
    ('Write a function to sort a list.', 'Write a function to sort a list of tuples. It must be quick.', False),
    ('Why is the sky blue', 'Tell me why is the sky blue or red', True),
    ('Find $x$.', 'A square has a side of $x$ and an area of 9. Find $x$.', False),  # too little to say
  ],
)
def test_short_problems_are_found_whole_in_longer_texts(short, row, found):
  assert (find(row, against=[('s', short)]) != [None]) is found


def test_a_short_problem_that_others_contain_is_a_phrase():
  short = 'What is the area of the shaded region?'
  longer = [(f'p{i}', f'A square of side {i} lies in a circle of radius {i + 7}. {short}') for i in range(4)]
  row = f'Nobody saw the red kite rise above our quiet harbour. {short}'
  assert find(row, against=[('s', short), *longer[:3]])[0].match_id == 's'
  assert find(row, against=[('s', short), *longer]) == [None]


@pytest.mark.parametrize('name, count', [('math/math500.jsonl', 28), ('code/mbpp.jsonl', 51)])
def test_every_short_problem_of_real_sets_is_found_behind_something(name, count):
  if not (DATA / name).exists():
    pytest.skip(f'{DATA / name} is absent; set VIBETHINKER_DATA to the folder of data files')
  problems = [decontaminate.named_text(row, where) for where, row in read_rows(DATA / name)]
  short = [(i, text) for i, text in problems if len(words(text)) < 10]
  index = Index(problems, Decontaminate())
  for form in ('Here is a task for you. {}', 'Q: {}', 'A: 4. Then {} Explain each step.'):
    leaks = index.find([(i, form.format(text)) for i, text in short])
    assert [leak and leak.match_id for leak in leaks] == [i for i, _ in short]
  assert len(short) == count


def test_phrases_of_many_problems_are_stock():
  phrase = 'Give every result as a decimal number rounded up to exactly three places.'
  subjects = ['apples', 'boats', 'clouds', 'doors', 'engines', 'forests']
  against = [(s, f'How many {s} are there in the {s[::-1]} of the story? {phrase}') for s in subjects]
  row = f'Nobody saw the red kite rise above our quiet harbour. {phrase}'
  assert find(row, against=against) == [None]
  assert find(row, against=against, common=7)[0].kind == 'ngram'
  assert find(row, against=against, common=7, stock=(phrase,)) == [None]


def test_evidence_is_the_longest_run_of_shared_words():
  (leak,) = find('Once more: ' + ' '.join(words(TRAIN)[3:21]) + ' and nothing else')
  assert leak.evidence == ' '.join(words(TRAIN)[3:21]) and leak.match_id == 'baker'


def test_agrees_with_brute_force():
  """Every row that shares ten words is found and no other, on texts of few words in which much repeats."""
  rng = random.Random(0)
  vocabulary = [f'w{i}' for i in range(7)] + ['3', '14', 'Über', 'ß']
  text = lambda n: ' '.join(rng.choices(vocabulary, k=n))
  against = [(str(i), text(rng.choice([1, 2, *range(10, 40)]))) for i in range(30)]  # none to be looked for inside
  rows = [(str(i), text(rng.randint(0, 60))) for i in range(300)]
  for i in range(0, 300, 10):
    source = against[i // 10][1].split()
    rows[i] = (str(i), f'{rows[i][1]} {" ".join(source[:12])}')
  grams = lambda t: {tuple(words(t)[i : i + 10]) for i in range(len(words(t)) - 9)}
  known = set().union(*(grams(t) for _, t in against))
  whole = {tuple(words(t)) for _, t in against}
  wanted = [bool(grams(t) & known) or tuple(words(t)) in whole for _, t in rows]
  leaks = list(find_leaks(rows, Index(against, Decontaminate(common=1000, threshold=1, least=1000))))
  assert [leak is not None for leak in leaks] == wanted and 20 < sum(wanted) < 300


def test_words_and_their_hashes_are_the_same_words():
  texts = [TRAIN, CIRCLE, ROOT, '', 'naïve “quoted” 3x x3 a_b ÀÉ ß １２ \u0130 ①', '10cm 3.14 w12 12w']
  block = Block([normal(t) for t in texts])
  assert np.diff(block.first).tolist() == [len(words(t)) for t in texts]
  known = {}
  for word, value in zip([w for t in texts for w in words(t)], block.hashes.tolist()):
    assert known.setdefault(word, value) == value
  assert len(set(known.values())) == len(known)
  assert words('Ａ ｂａｋｅｒ １２') == ['a', 'baker', '12']


def test_windows_stay_in_their_text_and_numbers_are_one_number():
  block = Block(['a b c', 'd', 'e f'])
  assert block.grams(2)[1].tolist() == [0, 1, 4]
  one, other = (Block([' '.join(f'{n} w1' for n in range(start, start + 9))]).bands(1)[0] for start in (0, 100))
  assert (one == other).all()


def test_bad_input_leaves_nothing(tmp_path, capsys):
  good, bad = tmp_path / 'good.jsonl', tmp_path / 'bad.jsonl'
  good.write_text(json.dumps({'id': 'a', 'prompt': TRAIN}) + '\n')
  bad.write_text(json.dumps({'id': 'b', 'prompt': SHORT}) + '\n{"id": "c"}\nnot json\n')
  run = lambda *more: main(
    ['decontaminate', '--train', str(bad), '--eval', str(good), '--out', str(tmp_path / 'o'), '--report']
    + [str(tmp_path / 'r'), *more]
  )
  assert run() == 2
  assert 'bad.jsonl, line 2: no statement, expected one of the fields prompt' in capsys.readouterr().err
  assert sorted(p.name for p in tmp_path.iterdir()) == ['bad.jsonl', 'good.jsonl']
  assert run('--threshold', '0.1') == 2 and run('--eval', str(tmp_path / 'absent.jsonl')) == 2
  assert sorted(p.name for p in tmp_path.iterdir()) == ['bad.jsonl', 'good.jsonl']
  assert run('--skip-bad') == 0
  assert '2 malformed rows left out' in capsys.readouterr().err
  assert len((tmp_path / 'o').read_text().splitlines()) == 1


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, capsys):
  def interrupted(rows, index):
    yield index.find([next(rows)])[0]
    raise KeyboardInterrupt

  monkeypatch.setattr(decontaminate, 'find_leaks', interrupted)
  rows = [{'id': i, 'prompt': TRAIN} for i in range(3)]
  (tmp_path / 'r.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  files = {'--train': 'r.jsonl', '--eval': 'r.jsonl', '--out': 'o', '--report': 'why'}
  assert main(['decontaminate', *(str(x) for flag, name in files.items() for x in (flag, tmp_path / name))]) == 130
  assert [path.name for path in tmp_path.iterdir()] == ['r.jsonl']
  assert 'interrupted' in capsys.readouterr().err


def test_math_train_against_math500(tmp_path):
  train, evaluation = DATA / 'math/math_train_7500.parquet', DATA / 'math/math500.jsonl'
  if not train.exists():
    pytest.skip(f'{train} is absent; set VIBETHINKER_DATA to the folder of data files')
  out, report = tmp_path / 'o.jsonl', tmp_path / 'r.jsonl'
  files = ['--train', str(train), '--eval', str(evaluation), '--out', str(out), '--report', str(report)]
  assert main(['decontaminate', *files]) == 0
  removed = [json.loads(line) for line in report.read_text().splitlines()]
  assert len(removed) + len(out.read_text().splitlines()) == 7500
  with open(evaluation) as file:
    statements = {row['unique_id']: ' '.join(words(row['problem'])) for row in map(json.loads, file)}
  assert sum(row['evidence'] == statements[row['match_id']] for row in removed) == 1  # the identical row
  assert sum(row['kind'] == 'ngram' for row in removed) > 100
