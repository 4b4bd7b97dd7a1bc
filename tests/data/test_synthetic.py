"""The embedded world: true answers, disjoint splits, slips that show, spans that fit."""

import os
import re
import subprocess
import sys

import pytest

from vibethinker_jax.data import synthetic
from vibethinker_jax.data.synthetic import DOMAINS, FAMILIES, LEVELS, MATH_DOMAINS, PATHS, SPLITS
from vibethinker_jax.data.world.geometry import EDGES

ALIKE = dict.fromkeys(PATHS, 1.0)


@pytest.fixture(scope='module')
def world():
  """{(domain, split): problems}: 80 of each but 2,000 to train on."""
  return {(d, s): synthetic.problems(d, s, 1000 if s == 'train' else 64, seed=1) for d in DOMAINS for s in SPLITS}


@pytest.fixture(scope='module')
def everything(world):
  return [problem for rows in world.values() for problem in rows]


def boxed(text):
  return re.search(r'\\boxed\{([^{}]*)\}$', text).group(1)


def passes(text, tests):
  """Whether the program in the text passes; ours by construction, so it runs in this process."""
  names = {}
  exec(re.search(r'```python\n(.*?)```$', text, re.S).group(1), names)
  try:
    for line in tests['asserts']:
      exec(line, names)
  except (AssertionError, ArithmeticError):
    return False
  return True


def right(problem, solution):
  if problem.tests:
    return passes(solution.text, problem.tests)
  return boxed(solution.text) == problem.answer


def test_families_are_several_and_told_in_several_ways():
  names = [family.name for families in FAMILIES.values() for family in families]
  assert len(names) == len(set(names)), 'the digest that splits tells families by name'
  for domain in DOMAINS:
    assert len(FAMILIES[domain]) >= 4
    for family in FAMILIES[domain]:
      assert 'mental' in family.paths and len(family.paths) >= 2
      assert set(family.paths) & {'steps', 'split', 'loop'}, family.name


def test_phrasings(world):
  """Three texts for one instance, compared as three skeletons without their numbers."""
  for domain in DOMAINS:
    for family in FAMILIES[domain]:
      prompts = [p.prompt for p in world[domain, 'train'] if p.id.split('/')[1] == family.name]
      assert len({re.sub(r'\d+', '#', prompt) for prompt in prompts}) >= 3, family.name


def test_clean_solutions_are_right(everything):
  for problem in everything:
    assert (problem.answer is None) != (problem.tests is None)
    for solution in problem.solutions:
      assert right(problem, solution), (problem.id, solution.text)


def test_answers_are_whole_numbers_or_reduced_fractions(everything):
  for problem in everything:
    if problem.answer is not None:
      assert re.fullmatch(r'\d+|[1-9]\d*/[1-9]\d*', problem.answer), (problem.id, problem.answer)


def test_splits_are_disjoint(world):
  for domain in DOMAINS:
    ids = [problem.id.replace(f'/{problem.difficulty}/', '/') for s in SPLITS for problem in world[domain, s]]
    assert len(ids) == len(set(ids))


def test_order_of_numbers_does_not_cross_splits():
  for a in range(2, 40):
    assert synthetic.split_of(EDGES, (a, 3, 50)) == synthetic.split_of(EDGES, (50, a, 3))


def test_families_and_levels_are_balanced(world):
  for (domain, split), rows in world.items():
    for level in LEVELS:
      for family in FAMILIES[domain]:
        count = sum(f'/{family.name}/{level}/' in problem.id for problem in rows)
        assert abs(count - len(rows) / len(FAMILIES[domain]) / len(LEVELS)) < 1, (family.name, level, split)
    if split == 'test':
      assert len(rows) / len(FAMILIES[domain]) >= 12


def test_key_spans_mark_results_and_the_answer(everything):
  for problem in everything:
    for solution in problem.solutions:
      end = 0
      for start, stop, weight in solution.key_spans:
        assert end <= start < stop <= len(solution.text) and weight in (1.5, 2.0)
        end = stop
      start, stop, weight = solution.key_spans[-1]
      assert weight == 2.0
      if problem.answer is not None:
        assert solution.text[start:stop] == f'\\boxed{{{problem.answer}}}'
      else:
        assert solution.text[start:stop].startswith('return ')


def test_texts_are_short(everything):
  for problem in everything:
    assert len(problem.prompt) <= 100, problem.prompt
    for solution in problem.solutions:
      limit = 75 if solution.path == 'mental' else 110
      assert len(solution.text) <= limit, (problem.id, len(solution.text), solution.text)


def test_words_are_few():
  words = {word for text in synthetic.text_lines(4000, seed=0) for word in re.findall('[A-Za-z]+', text)}
  assert len(words) <= 150, sorted(words)


def test_paths_open_differently_and_can_be_chosen():
  for domain in DOMAINS:
    for problem in synthetic.problems(domain, 'train', 60, seed=2):
      openings = [solution.text.split(':')[0] for solution in problem.solutions]
      assert len(openings) == len(set(openings))
  rows = synthetic.problems('algebra', 'train', 30, seed=2, paths=('split', 'mental'))
  assert {tuple(s.path for s in p.solutions) for p in rows} == {('mental', 'split')}


def test_fewer_problems_are_a_prefix():
  assert synthetic.problems('code', 'test', 30, seed=3) == synthetic.problems('code', 'test', 60, seed=3)[:30]
  assert synthetic.problems('code', 'test', 30, seed=3) != synthetic.problems('code', 'test', 30, seed=4)


def test_the_same_in_another_process():
  code = (
    'from vibethinker_jax.data import synthetic as s\n'
    'print([*s.problems("statistics", "test", 40, 5), *s.corpus(40, 5, dict.fromkeys(s.PATHS, 1.0), 0.5)])'
  )
  rows = [*synthetic.problems('statistics', 'test', 40, 5), *synthetic.corpus(40, 5, ALIKE, 0.5)]
  for hash_seed in ('1', '2'):
    environment = {**os.environ, 'PYTHONHASHSEED': hash_seed}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(rows)


def test_corpus_slips_show_in_the_answer():
  rows = list(synthetic.corpus(4000, 7, ALIKE, slip_rate=1.0))
  assert {p.domain for p in rows} == set(DOMAINS) and {p.difficulty for p in rows} == set(LEVELS)
  by_domain = {domain: [right(p, *p.solutions) for p in rows if p.domain == domain] for domain in DOMAINS}
  for domain, verdicts in by_domain.items():
    assert sum(verdicts) <= 0.05 * len(verdicts), domain
  assert not any(any(by_domain[domain]) for domain in MATH_DOMAINS)


def test_corpus_slip_rate_and_path_weights():
  rows = list(synthetic.corpus(3000, 8, {'mental': 3.0, 'split': 1.0, 'drop': 1.0, 'loop': 1.0}, slip_rate=0.2))
  assert 0.16 < sum(not right(p, *p.solutions) for p in rows) / len(rows) < 0.24
  linear = [p.solutions[0].path for p in rows if '/linear/' in p.id]
  assert set(linear) == {'mental', 'split'} and 0.6 < linear.count('mental') / len(linear) < 0.9
  assert all(right(p, *p.solutions) for p in synthetic.corpus(500, 8, ALIKE, slip_rate=0.0))


def test_bad_requests_say_what_is_wrong():
  with pytest.raises(ValueError, match="unknown domain 'physics'"):
    synthetic.problems('physics', 'train', 1, seed=0)
  with pytest.raises(ValueError, match="unknown path 'mentl'"):
    synthetic.problems('algebra', 'train', 1, seed=0, paths=('mentl',))
  with pytest.raises(ValueError, match='no further instance of split'):
    synthetic.problems('calculus', 'probe_a', 5000, seed=0)
  with pytest.raises(ValueError, match='no weight to a path of'):
    list(synthetic.corpus(50, 0, {'area': 1.0}, slip_rate=0.0))
