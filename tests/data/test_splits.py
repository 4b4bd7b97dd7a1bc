"""Sets from files: disjoint, without leaks from one into another, every problem in its domain."""

import dataclasses
import json
import os
import pathlib
import random

import pytest

from vibethinker_jax.data.decontaminate import Decontaminate, Index
from vibethinker_jax.data.domain_classifier import train_classifier
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.sources import Source, load
from vibethinker_jax.data.splits import Data, load_sets
from vibethinker_jax.errors import BadInput

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))
WORDS = {
  'algebra': ['solve', 'equation', 'root', 'polynomial', 'factor', 'variable'],
  'geometry': ['circle', 'triangle', 'angle', 'radius', 'square', 'area'],
}


def problems(domain: str, n: int, seed: int) -> list[dict]:
  rng = random.Random(f'{domain}/{seed}')
  text = lambda: ' '.join(rng.choice(WORDS[domain]) + rng.choice('abcdefgh') * rng.randint(1, 4) for _ in range(15))
  return [{'id': f'{domain}/{seed}/{i}', 'domain': domain, 'prompt': text(), 'answer': i} for i in range(n)]


@pytest.fixture
def data(tmp_path):
  """20 training, 6 test problems of two domains; in train, two leaks of each test set."""

  def write(name, rows):
    (tmp_path / name).write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return Source(str(tmp_path / name))

  train, test = [], []
  for domain in WORDS:
    own, final = problems(domain, 20, 0), problems(domain, 6, 1)
    own[3]['prompt'] = f'{own[3]["prompt"]} {final[0]["prompt"].upper()}!'
    own[5]['prompt'] = final[1]['prompt']
    train, test = train + own, test + final
  files = dict(train_files=(write('train.jsonl', train),), test_files=(write('test.jsonl', test),))
  return Data('files', tuple(WORDS), (), train=100, probe=3, test=100, **files, decontaminate=Decontaminate())


def all_texts(sets, *names):
  return [p.prompt for name in names for group in vars(sets)[name].values() for p in group]


def test_no_set_leaks_into_another(data):
  sets = load_sets(data, seed=0)
  assert (
    {d: len(g) for d, g in sets.probe_a.items()}
    == {d: len(g) for d, g in sets.probe_b.items()}
    == dict.fromkeys(WORDS, 3)
  )
  assert {d: len(g) for d, g in sets.train.items()} == dict.fromkeys(WORDS, 20 - 2 - 6)
  for inner, outer in ((['train', 'probe_a', 'probe_b'], ['test']), (['train'], ['probe_a', 'probe_b'])):
    against = Index([(t, t) for t in all_texts(sets, *outer)], Decontaminate())
    assert not any(against.find([(t, t) for t in all_texts(sets, *inner)]))
  # without it, only what is the same text is taken out
  plain = load_sets(dataclasses.replace(data, decontaminate=None), seed=0)
  assert {d: len(g) for d, g in plain.train.items()} == dict.fromkeys(WORDS, 20 - 1 - 6)


def test_an_instruction_follows_what_has_an_answer(data):
  plain, asked = (load_sets(d, seed=0) for d in (data, dataclasses.replace(data, instruction='Think.')))
  for name in ('train', 'probe_a', 'probe_b', 'test'):
    assert all_texts(asked, name) == [f'{text} Think.' for text in all_texts(plain, name)]


def test_training_does_not_give_away_probes(data, tmp_path):
  """Every problem stands in train a second time, with more words around it."""
  path = tmp_path / 'twice.jsonl'
  rows = [row for domain in WORDS for row in problems(domain, 20, 0)]
  path.write_text(''.join(json.dumps({**row, 'prompt': f'Now {row["prompt"]} please'}) + '\n' for row in rows))
  sets = load_sets(dataclasses.replace(data, train_files=(*data.train_files, Source(str(path)))), seed=0)
  index = Index([(t, t) for t in all_texts(sets, 'probe_a', 'probe_b')], Decontaminate())
  assert not any(index.find([(t, t) for t in all_texts(sets, 'train')])) and all(map(len, sets.train.values()))


def test_probes_from_their_own_file(data, tmp_path):
  path = tmp_path / 'probe.jsonl'
  rows = [row for domain in WORDS for row in problems(domain, 6, 2)]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  sets = load_sets(dataclasses.replace(data, probe_files=(Source(str(path)),)), seed=0)
  assert sorted(all_texts(sets, 'probe_a', 'probe_b')) == sorted(row['prompt'] for row in rows)
  assert {d: len(g) for d, g in sets.train.items()} == dict.fromkeys(WORDS, 20 - 2)
  path.write_text(json.dumps(rows[0]) + '\n')
  with pytest.raises(BadInput, match="probe.jsonl: 1 problems of domain 'algebra' to probe with, expected 6"):
    load_sets(dataclasses.replace(data, probe_files=(Source(str(path)),)), seed=0)


def test_unlabelled_problems_get_a_domain(data, tmp_path):
  path = tmp_path / 'bare.jsonl'
  rows = [{**row, 'domain': ''} for domain in WORDS for row in problems(domain, 10, 3)]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  bare = dataclasses.replace(data, train_files=(*data.train_files, Source(str(path))))
  count = lambda sets: sum(map(len, sets.train.values()))
  assert (
    count(load_sets(dataclasses.replace(bare, labelled=data.train_files), seed=0))
    == count(load_sets(bare, seed=0)) + 20
  )


def test_labeller_learns_and_keeps_what_is_known():
  known = [Problem(r['id'], r['domain'], r['prompt'], '1') for domain in WORDS for r in problems(domain, 40, 0)]
  labeller = train_classifier(known, seed=0)
  assert labeller.accuracy == 1
  asked = [dataclasses.replace(p, domain='') for p in known] + [Problem('x', 'other', known[0].prompt, '1')]
  assert [p.domain for p in labeller.label(asked)] == [*(p.domain for p in known), 'other']
  with pytest.raises(BadInput, match='expected two domains'):
    train_classifier(known[:40], seed=0)


def test_labels_of_math():
  if not (DATA / 'math').exists():
    pytest.skip(f'{DATA}: no data; set VIBETHINKER_DATA')
  labeller = train_classifier(load(DATA / 'math/math_train_7500.parquet', 'verl', skip_bad=True), seed=0)
  test = load(DATA / 'math/math500.jsonl', 'math')
  named = labeller.label([dataclasses.replace(p, domain='') for p in test])
  right = sum(a.domain == b.domain for a, b in zip(named, test)) / len(test)
  assert right > 0.8 and abs(right - labeller.accuracy) < 0.05


def test_what_asks_the_same_is_the_same_however_it_is_written(data):
  """Test problems with other blanks, case or forms of characters do not stay in training, without decontaminate."""
  path = pathlib.Path(data.train_files[0].path)
  tests = [json.loads(line) for line in pathlib.Path(data.test_files[0].path).read_text().splitlines()]
  write = lambda text: ''.join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text)  # full width
  forms = [
    str.upper,
    lambda text: f'  {text.replace(" ", chr(10) + " ")} ',
    lambda text: text.replace(' ', '\u00a0'),
    write,
  ]
  rows = [{**tests[i], 'id': f'leak/{i}', 'prompt': form(tests[i]['prompt'])} for i, form in enumerate(forms)]
  with path.open('a') as file:
    file.write(''.join(json.dumps(row) + '\n' for row in rows))
  sets = load_sets(dataclasses.replace(data, decontaminate=None), seed=0)
  ids = {p.id for group in (sets.train, sets.probe_a, sets.probe_b) for own in group.values() for p in own}
  assert len(ids) == 38 and not any(name.startswith('leak/') for name in ids)


def test_a_problem_written_twice_is_probed_or_trained_on(data):
  """Once: never in both halves, nor in a half and in training."""
  path = pathlib.Path(data.train_files[0].path)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  with path.open('a') as file:
    file.write(
      ''.join(json.dumps({**row, 'id': f'{row["id"]}/2', 'prompt': row['prompt'].upper()}) + '\n' for row in rows)
    )
  for seed in range(5):
    sets = load_sets(dataclasses.replace(data, decontaminate=None), seed=seed)
    texts = [{t.casefold() for t in all_texts(sets, name)} for name in ('train', 'probe_a', 'probe_b', 'test')]
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_sources_have_fingerprints_of_what_was_read(data):
  first = load_sets(data, seed=0).fingerprints
  assert set(first) == {data.train_files[0].path, data.test_files[0].path} and load_sets(data, 1).fingerprints == first
  path = pathlib.Path(data.test_files[0].path)
  path.write_text(path.read_text().replace('"answer": 5', '"answer": 6'))
  second = load_sets(data, seed=0).fingerprints
  assert [name for name in first if first[name] != second[name]] == [str(path)]
