import asyncio
import itertools

import httpx
import pytest

from vibethinker_jax.data import synthetic
from vibethinker_jax.serve import markup, solve
from vibethinker_jax.verify.answer import extract_boxed
from vibethinker_jax.verify.grader import Grader

TEXT = """Let us see.
3 * 4 = 12
\\[
x = 3 + 4 = 8
\\]
So x is not 8.
```python
y = 1
```
Therefore $x = 7$, \\boxed{7}"""


@pytest.fixture(scope='module')
def grader(graders):
  return graders._graders[0]


def apart(graders, texts, finishes=None, **more):
  return asyncio.run(solve.take_apart(graders, texts, finishes or ['stop'] * len(texts), **more))


def test_key_steps_stand_where_they_say_and_hold_or_not(graders):
  (solution,), _ = apart(graders, [TEXT])
  assert [(s.kind, s.holds) for s in solution.key_steps] == [('equation', True), ('equation', False), ('result', None)]
  assert [TEXT[s.begin : s.end] for s in solution.key_steps] == [s.text for s in solution.key_steps]
  assert solution.key_steps[1].text == '\\[\nx = 3 + 4 = 8\n\\]'
  assert (solution.answer, solution.code, solution.format_ok, solution.steps_share) == ('7', 'y = 1', True, 0.5)


@pytest.mark.parametrize(
  'text, finish, answer, ok',
  [
    ('\\boxed{7}', 'stop', '7', True),
    ('\\boxed{7}', 'length', '7', False),
    ('<think>\\boxed{6}</think> so \\boxed{7}', 'stop', '7', True),
    ('<think> it goes on, \\boxed{6}', 'stop', None, False),
    ('no box', 'stop', None, False),
    ('\\boxed{}', 'stop', None, False),
    ('```python\nprint(1)\n```', 'stop', 'print(1)', True),
  ],
)
def test_format(graders, text, finish, answer, ok):
  (solution,), _ = apart(graders, [text], [finish])
  assert (solution.answer, solution.format_ok) == (answer, ok)


def test_clusters_are_what_the_grader_takes_for_equal(grader):
  kinds = [['1/2', '0.5', '\\frac{1}{2}', '\\frac12'], ['\\sqrt{8}', '2\\sqrt{2}'], ['x+1', '1 + x'], ['(1,2)'], ['7']]
  answers = [None, *(a for a in itertools.chain(*itertools.zip_longest(*kinds)) if a), '']
  spectrum = solve.cluster(grader, answers)
  assert spectrum.unanswered == (0, len(answers) - 1)
  assert [{answers[i] for i in c.members} for c in spectrum.clusters] == [set(kind) for kind in kinds]
  assert spectrum.majority == '1/2' and spectrum.agreement == 4 / len(answers)
  assert sorted(itertools.chain(*(c.members for c in spectrum.clusters))) == list(range(1, len(answers) - 1))
  assert solve.cluster(grader, [None]).majority is None and solve.cluster(grader, []).agreement == 0


def test_parts():
  assert solve.parts('<think>\nhm\n</think>\n\nso') == ('hm', 'so')
  assert solve.parts('hm</think>so') == ('hm', 'so'), 'templates may open the thinking themselves'
  assert solve.parts('a<think>hm') == ('hm', 'a')
  assert solve.parts('so') == ('', 'so')


def post(live, **body) -> dict:
  answer = httpx.post(f'{live.url}/v1/solve', json=body, timeout=300)
  assert answer.status_code == 200, answer.text
  return answer.json()


@pytest.mark.parametrize('count', [5, pytest.param(50, marks=pytest.mark.slow)])
def test_solve_agrees_with_the_grader(live, count):
  """Answers, verdicts and clusters are the grader's own, on problems of the embedded world."""
  problems = [p for d in synthetic.MATH_DOMAINS for p in synthetic.problems(d, 'test', -(-count // 4), seed=3)][:count]
  right = 0
  with Grader(1) as grader:
    for i, problem in enumerate(problems):
      got = post(live, problem=problem.prompt, answer=problem.answer, n=4, seed=i, max_tokens=80)
      texts = [s['text'] for s in got['solutions']]
      verdicts = grader.grade([(text, problem.answer, None) for text in texts])
      assert [s['answer'] for s in got['solutions']] == [extract_boxed(text) or None for text in texts]
      assert [s['verdict']['score'] for s in got['solutions']] == [v.score for v in verdicts]
      clusters, unanswered = got['spectrum']['clusters'], got['spectrum']['unanswered']
      assert sorted([*unanswered, *itertools.chain(*(c['members'] for c in clusters))]) == [0, 1, 2, 3]
      home = {i: n for n, c in enumerate(clusters) for i in c['members']}
      pairs = [(i, j) for i, j in itertools.combinations(home, 2)]
      same = grader.grade([(texts[i], extract_boxed(texts[j]), None) for i, j in pairs])
      assert [home[i] == home[j] for i, j in pairs] == [bool(v.score) for v in same]
      for c in clusters:
        assert len({verdicts[i].score for i in c['members']}) == 1, 'a cluster is right or wrong as one'
      right += sum(v.score for v in verdicts)
  assert right, 'the tiny base solves some of them'
  assert live.idle()


def test_solve_judges_programs(live):
  scores = set()
  for problem in synthetic.problems('code', 'test', 4, seed=0):
    got = post(live, problem=problem.prompt, tests=problem.tests, n=4, seed=0, max_tokens=80)
    for solution in got['solutions']:
      assert solution['answer'] == solution['code']
      assert (solution['verdict']['score'] == 1) <= solution['format_ok']
      scores.add(solution['verdict']['score'])
  assert scores == {0, 1}, 'the tiny base writes some of them right'


@pytest.mark.parametrize(
  'body, says',
  [
    ({'problem': 'x', 'answer': '1', 'tests': [{'input': '', 'output': ''}]}, 'at most one'),
    ({'problem': 'x', 'tests': []}, 'tests'),
    ({'problem': 'x', 'tests': {'entry_point': 'f'}}, 'tests'),
    ({'problem': ''}, 'problem'),
  ],
)
def test_solve_names_what_is_wrong(live, body, says):
  answer = httpx.post(f'{live.url}/v1/solve', json=body)
  assert answer.status_code == 400 and says in answer.json()['error']['message']


# ---- the page's writing


def test_marks_and_dots(graders):
  texts = ['<think>\n2 + 2 = 5\n</think>\n1 + 1 = 2\n\\boxed{<2>}', '\\boxed{3}', 'none']
  solutions, spectrum = apart(graders, texts)
  said = markup.messages(texts[0], solutions[0])
  assert said[0]['metadata'] == {'title': 'Thinking', 'status': 'done'} and '2 + 2 = 5' in said[0]['content']
  assert '<span class="step holds">1 + 1 = 2 <b title="holds">✓</b></span>' in said[1]['content']
  assert '<div class="answer"><small>Answer</small>\\(&lt;2&gt;\\)</div>' in said[1]['content']
  assert markup.messages('<think>hm', None)[0]['metadata']['status'] == 'pending'
  picture = markup.drawing(solutions, spectrum)
  assert [picture.count(f'data-solution="{i}"') for i in range(4)] == [1, 1, 1, 0]
  assert '&lt;2&gt;' in picture and '<2>' not in picture and 'no answer' in picture
