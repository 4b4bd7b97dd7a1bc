"""What the page's buttons do, without a browser: every error is shown and gives the buttons back."""

import asyncio
import math

import pytest

from vibethinker_jax.serve import markup, page, page_actions, solve, terminal
from vibethinker_jax.serve.errors import ApiError
from vibethinker_jax.serve.service import Sample
from vibethinker_jax.serve.worker import Closing, EngineFailure
from vibethinker_jax.verify.answer import Verdict

HOW = page_actions.How('math', 0.6, 0.95, 40)


class Written:
  """A detokenizer that has come so far."""

  def __init__(self, text):
    self.text = text


def grown(texts, error=None, n=1):
  """A stand-in for service.grow: n equal samples, step by step, and an error after them."""

  async def grow(service, messages, samples, sampling, most):
    grow.asked.append(messages)
    for i, text in enumerate(texts, 1):
      yield [Sample(Written(text), finish='stop' if i == len(texts) and error is None else '')] * samples
    if error is not None:
      raise error

  grow.asked = []
  return grow


@pytest.fixture
def service(make_service):
  return make_service()


def turns(service, question, shown=(), said=(), how=HOW):
  async def all_of_them():
    return [
      turn async for turn in page_actions.converse(service, question, list(shown), list(said), how, asyncio.Event())
    ]

  return asyncio.run(all_of_them())


def views(service, problem, expected='', n=3, how=HOW):
  async def all_of_them():
    return [view async for view in page_actions.explore(service, problem, expected, n, how, asyncio.Event())]

  return asyncio.run(all_of_them())


def test_an_answered_question_enters_the_conversation(service, monkeypatch):
  monkeypatch.setattr(page_actions, 'grow', grown(['6 * 7 = 42\n', '6 * 7 = 42\n\\boxed{42}']))
  first, *between, last = turns(service, 'What is 6 * 7?')
  assert first.busy and first.box == '' and first.said == [] and all(turn.busy for turn in between)
  assert not last.busy and last.notice == ''
  assert [m['content'] for m in last.said] == ['What is 6 * 7?', '6 * 7 = 42\n\\boxed{42}']
  assert all(turn.box is None for turn in (*between, last)), 'what is typed meanwhile is left alone'
  assert '6 \\* 7 = 42 <b title="holds">✓</b>' in last.shown[-1]['content']


def test_a_refused_question_is_said_and_leaves_the_conversation_as_it_was(service, monkeypatch):
  said = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]
  long = 'x ' * 300  # of 256 tokens
  for before in ([], said):
    _, last = turns(service, long, said=before)
    assert not last.busy and last.said == before and last.box == long
    assert 'This model takes 256 tokens in all. The prompt has ' in last.notice
    assert ('begins a new one' in last.notice) == bool(before)
  grow = grown(['\\boxed{1}'])
  monkeypatch.setattr(page_actions, 'grow', grow)
  *_, last = turns(service, 'And now?', last.shown, last.said)
  assert [m['content'] for m in last.said] == ['a', 'b', 'And now?', '\\boxed{1}']
  assert long not in str(grow.asked), 'the next question does not carry the refused one'


@pytest.mark.parametrize('question', ['', '  \n'])
def test_nothing_asked_is_said(service, question):
  (turn,) = turns(service, question)
  assert not turn.busy and turn.notice == 'Nothing was asked: type a problem.' and turn.box == question
  (view,) = views(service, question)
  assert not view.busy and view.notice == 'Nothing was asked: type a problem.'


@pytest.mark.parametrize(
  'how, says',
  [
    (page_actions.How('math', None, 0.9, 40), 'Temperature is empty, expected 0 to 2.'),
    (page_actions.How('math', 5, 0.9, 40), 'Temperature is 5, expected 0 to 2.'),
    (page_actions.How('math', math.nan, 0.9, 40), 'Temperature is nan, expected 0 to 2.'),
    (page_actions.How('math', 0.5, 0, 40), 'Top-p is 0, expected 0.05 to 1.'),
    (page_actions.How('math', 0.5, 0.9, None), 'New tokens at most is empty, expected 1 to 256.'),
    (page_actions.How('math', 0.5, 0.9, 1e9), 'New tokens at most is 1000000000.0, expected 1 to 256.'),
  ],
)
def test_sampling_that_cannot_be_is_said(service, how, says):
  (turn,) = turns(service, 'q', how=how)
  (view,) = views(service, 'q', how=how)
  assert (turn.notice, turn.busy, turn.box, turn.said) == (says, False, 'q', [])
  assert (view.notice, view.busy) == (says, False)


@pytest.mark.parametrize('n', [None, 0, 65])
def test_a_count_that_cannot_be_is_said(service, n):
  (view,) = views(service, 'q', n=n)
  assert view.notice.startswith('Solutions is ') and 'expected 1 to 16' in view.notice and not view.busy


FAILURES = [
  (ApiError(429, 'the queue is full'), 'The queue is full.'),
  (EngineFailure('the engine failed, it starts anew'), 'The engine failed, it starts anew.'),
  (Closing('the server is shutting down'), 'The server is shutting down.'),
]


@pytest.mark.parametrize('error, says', FAILURES)
def test_a_failure_before_and_in_the_middle_of_an_answer(service, monkeypatch, error, says):
  monkeypatch.setattr(page_actions, 'grow', grown([], error))
  *_, last = turns(service, 'q')
  assert (last.notice, last.busy, last.box, last.shown, last.said) == (says, False, 'q', [], [])
  monkeypatch.setattr(page_actions, 'grow', grown(['half an ans'], error))
  *_, last = turns(service, 'q')
  assert last.notice.startswith(says) and 'no part of the conversation' in last.notice and not last.busy
  assert last.said == [] and [m['content'] for m in last.shown] == ['q', 'half an ans']
  *_, view = views(service, 'q')
  assert (view.notice, view.busy, view.solutions) == (says, False, [])


def test_what_nobody_foresaw_gives_the_buttons_back_and_reaches_the_log(service, monkeypatch):
  monkeypatch.setattr(page_actions, 'grow', grown(['half'], KeyError('secret')))
  for begun in (
    lambda stop: page_actions.converse(service, 'q', [], [], HOW, stop),
    lambda stop: page_actions.explore(service, 'q', '', 2, HOW, stop),
  ):
    seen = []

    async def drive(begun=begun, seen=seen):
      async for step in begun(asyncio.Event()):
        seen.append(step)

    with pytest.raises(KeyError):
      asyncio.run(drive())
    assert not seen[-1].busy and seen[-1].notice.startswith('The page failed (KeyError).')


def stopped(begun, after):
  """All steps of `begun(stop)`, stopped after the one numbered `after`, while nothing more comes."""

  async def drive():
    stop, seen = asyncio.Event(), []
    async for step in begun(stop):
      seen.append(step)
      if len(seen) == after:
        asyncio.get_running_loop().call_later(0.01, stop.set)
    return seen

  return asyncio.run(asyncio.wait_for(drive(), 60))


def test_stopped_it_ends_at_once_and_keeps_what_came(service, monkeypatch):
  closed = []

  def waiting(texts):
    async def grow(service, messages, samples, sampling, most):
      try:
        for text in texts:
          yield [Sample(Written(text))] * samples
        await asyncio.Event().wait()  # for ever
      finally:
        closed.append(True)

    return grow

  converse = lambda stop: page_actions.converse(service, 'q', [], [], HOW, stop)
  monkeypatch.setattr(page_actions, 'grow', waiting(['half an ans']))
  *_, last = stopped(converse, 2)
  assert (last.busy, last.notice, last.shown[-1]['content']) == (False, '', 'half an ans')
  assert [m['content'] for m in last.said] == ['q', 'half an ans']
  *_, view = stopped(lambda stop: page_actions.explore(service, 'q', '', 3, HOW, stop), 2)
  assert not view.busy and 'Stopped, with 0 of 3 solutions complete' in view.picture
  monkeypatch.setattr(page_actions, 'grow', waiting([]))
  *_, last = stopped(converse, 1)
  assert last == page_actions.Turn('q', [], []), 'as if it had not been asked'
  assert closed == [True] * 3, 'the rows are given back'


def test_a_judge_that_fails_is_said(service, monkeypatch):
  async def broken(*_):
    raise RuntimeError('the sandbox does not start')

  monkeypatch.setattr(page_actions, 'grow', grown(['\\boxed{1}']))
  monkeypatch.setattr(solve, 'take_apart', broken)
  *_, last = turns(service, 'q')
  assert last.notice.startswith('The sandbox does not start.') and not last.busy and '{1}' in last.shown[-1]['content']


def test_the_spectrum_is_judged_by_the_expected_answer(service, monkeypatch):
  monkeypatch.setattr(page_actions, 'grow', grown(['\\boxed{0.5}']))
  *_, last = views(service, 'q', ' 1/2 ', n=2)
  assert not last.busy and [s.verdict.score for s in last.solutions] == [1, 1]
  assert 'Right: 2 of 2.' in last.picture and 'aria-label="Solution 1, right"' in last.picture
  *_, last = views(service, 'q', '7', n=2)
  assert 'Right: 0 of 2.' in last.picture and 'Solution 1, wrong' in last.picture and '✗' in last.picture
  *_, last = views(service, 'q', ' ', n=2)
  assert 'Right' not in last.picture and '✗' not in last.picture


def test_the_header_names_the_checkpoint(service):
  assert page.checkpoint(service).endswith('vibethinker_jax/tiny_base')


# ---- how it looks


@pytest.mark.parametrize(
  'text, shown',
  [
    ('a < b <script>', 'a &lt; b &lt;script&gt;'),
    ('```\na < b $1$\n```', '```\na < b $1$\n```'),
    ('2 * 3 * 4 and a_b_c', '2 \\* 3 \\* 4 and a\\_b\\_c'),
    ('so \\boxed{\\frac{1}{2}} it is', 'so \\(\\boxed{\\frac{1}{2}}\\) it is'),
    ('$x * y * z$ \\boxed{1}', '\\(x * y * z\\) \\(\\boxed{1}\\)'),
    ('$5 and $6', '&#36;5 and &#36;6'),
    ('between $5 and $10.', 'between &#36;5 and &#36;10.'),
    ('$3 for apples and more for $pears$', '&#36;3 for apples and more for \\(pears\\)'),
    ('it costs $5, so $x = 5$.', 'it costs &#36;5, so \\(x = 5\\).'),
    ('$x < y$', '\\(x &lt; y\\)'),
    ('$$\nx = 1\n$$', '\\[x = 1\\]'),
    ('\\[\nx = 1\n\\]', '\\[x = 1\\]'),
    ('\\(x\\)', '\\(x\\)'),
    ('`a < b`', '<code>a &#60; b</code>'),
    ('`$a$ and $b$`', '<code>&#36;a&#36; and &#36;b&#36;</code>'),
    ('``a ` b``', '<code>a &#96; b</code>'),
    ('\\boxed{a_b}', '\\(\\boxed{a_b}\\)'),
    ('\\boxed{a_b_c}', '\\(\\boxed{\\mathtt{a\\_b\\_c}}\\)'),
    ('\\boxed{\\text{max_value}}', '\\(\\boxed{\\text{max\\_value}}\\)'),
    ('\\boxed{my_var}', '\\(\\boxed{\\mathtt{my\\_var}}\\)'),
    ('$\\log_2 8$', '\\(\\log_2 8\\)'),
    ('\\boxed{50%}', '\\(\\boxed{50\\%}\\)'),
    ('\\boxed{50\\%}', '\\(\\boxed{50\\%}\\)'),
    ('$a}$', '<code>a&#125;</code>'),
    ('\\boxed{{{{x}}}}', '\\(\\boxed{{{{x}}}}\\)'),
    ('unfinished \\boxed{3', 'unfinished &#92;boxed{3'),
  ],
)
def test_what_a_model_writes_is_shown_as_text(text, shown):
  assert markup.written(text) == shown


@pytest.mark.parametrize(
  'answer, shown',
  [
    ('<2>', '\\(&lt;2&gt;\\)'),
    ('$5$', '\\(5\\)'),
    ('\\$5', '\\(\\$5\\)'),
    ('$5', '\\(\\$5\\)'),
    ('a & b', '\\(a \\&amp; b\\)'),
    ('\\begin{matrix}1 & 2\\end{matrix}', '\\(\\begin{matrix}1 &amp; 2\\end{matrix}\\)'),
    ('\\frac{1}{', '<code>&#92;frac&#123;1&#125;&#123;</code>'),
  ],
)
def test_an_answer_is_a_formula_that_katex_reads(answer, shown):
  assert markup._answer(answer) == shown


def solution(answer, score=None, code=None):
  verdict = None if score is None else Verdict(score, answer, '')
  return solve.SampledSolution(str(answer), 'stop', answer, True, (), None, code, verdict)


def drawn(graders, *solutions):
  programs = [i for i, s in enumerate(solutions) if s.answer == s.code]
  spectrum = solve.cluster(graders._graders[0], [s.answer for s in solutions], programs)
  return spectrum, markup.drawing(list(solutions), spectrum)


def test_columns_have_heads_and_shares(graders):
  _, text = drawn(graders, *map(solution, ['1', '1', '1', '2']))
  assert all(f'role="columnheader">{head}<' in text for head in ('Answer', 'Solutions', 'Share'))
  assert '3 · 75%' in text and '1 · 25%' in text and '75% agree on 1.' in text


def test_a_tie_is_called_a_tie(graders):
  spectrum, text = drawn(graders, *map(solution, ['1', '2', '1', '2', '3']))
  assert [c.answer for c in spectrum.leaders] == ['1', '2']
  assert '5 solutions, 3 different answers; a tie: 1 and 2 have 2 solutions each (40%).' in text
  assert 'agree' not in text
  _, text = drawn(graders, *map(solution, ['1', '2', '3', '4', '5', '6']))
  assert 'a tie: 1, 2, 3, 4 and others have 1 solution each (17%).' in text
  assert '2 solutions, none with an answer.' in drawn(graders, solution(None), solution(None))[1]


def test_right_and_wrong_have_signs(graders):
  _, text = drawn(graders, solution('1', 1), solution('1', 1), solution('2', 0), solution(None, 0))
  right, wrong = (text.index(f'aria-label="Solution {i}, {said}"') for i, said in ((1, 'right'), (3, 'wrong')))
  assert text[right:].split('</button>')[0].endswith('>1<i>✓</i>')
  assert text[wrong:].split('</button>')[0].endswith('>3<i>✗</i>')
  assert 'title="right">✓</span>1</div>' in text and 'title="wrong">✗</span>2</div>' in text
  assert 'Right: 2 of 4.' in text


PROGRAM = 'def f(x):\n  if x < 2:\n    return 1\n  return x'


def test_programs_keep_their_lines_and_equal_ones_are_one_cluster(graders):
  same = PROGRAM.replace('  ', '    ') + '  # done\n\n'
  other = PROGRAM.replace('return 1\n  return', 'return 1\n    return')
  spectrum, text = drawn(graders, *(solution(code, code=code) for code in (PROGRAM, same, other)))
  assert [c.members for c in spectrum.clusters] == [(0, 1), (2,)]
  assert '<pre>def f(x):\n  if x &lt; 2:\n    return 1\n  return x</pre>' in text and 'agree on one program' in text


def test_the_terminals_picture(graders):
  solutions = [solution('\\frac{1}{2}'), solution('1/2'), solution(PROGRAM, code=PROGRAM), solution(None)]
  spectrum, _ = drawn(graders, *solutions)
  said, head, *rows = terminal.pictured(solutions, spectrum).split('\n')
  assert said == '4 solutions, 2 different answers; 50% agree on 1/2.' and head.split()[0] == 'answer'
  assert rows[0].split() == ['1/2', '█' * 20, '2', '·', '50%']
  assert rows[1].split()[:2] == ['program', '2']
  assert [row[len('  program 2 ') :] for row in rows[2:6]] == PROGRAM.split('\n')
  assert rows[6].split() == ['(no', 'answer)', '█' * 10, '1', '·', '25%']


@pytest.mark.parametrize(
  'a, b, same',
  [
    ('x = 1', 'x=1  # one', True),
    ("x = 'a'", 'x = "a"', True),
    ('x = 1', 'x = 2', False),
    ('return  x', 'return x', True),
    ('def f(:', 'def f(:  ', True),
    ('def f(:', 'def g(:', False),
    ('(' * 5000, '(' * 5000, True),
    ('x = ab', 'x = a b', False),
  ],
)
def test_programs_are_compared_as_python_reads_them(a, b, same):
  assert (solve.program_key(a) == solve.program_key(b)) == same


def luminance(colour):
  channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_numbers_on_the_dots_can_be_read():
  for colour in (*markup._COLOURS, markup._OTHERS, markup._NONE):
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5, colour  # white on it
