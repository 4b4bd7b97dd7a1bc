r"""The published grader's rules where a restatement is likely to go wrong; the verdicts are that grader's own."""

import pytest

from vibethinker_jax.verify import official
from vibethinker_jax.verify.grader import Grader

PAIRS = [  # gold, answer, verdict
  # Python reads 1200_7 as a number and sympy x_1 as a name
  ('(1200_7)', '1200_7', 1),
  ('152A_{11}', '152.0A_{11}', 1),
  ('x_2+x_1', 'x_1+x_2', 1),
  ('2x_1', 'x_1*2', 1),
  # a number with commas is cut off, one without is rounded
  ('1,999.99999999', '2000', 0),
  ('1,999.99999999', '1999', 1),
  ('1999.99999999', '2000', 1),
  # what the first normalisation cannot do leaves the text as it was
  ('\\frac', '\\frac', 1),
  ('\\dfrac', '\\frac', 1),
  ('2\\sqrt', '2 \\sqrt', 1),
  ('\\frac1', '\\frac{1}', 1),
  ('\\frac12\\frac3', '\\frac{1}{2}\\frac3', 1),
  ('5\\text{ m}\\text{ s}', '5', 0),
  ('01/2', '\\frac{01}{2}', 1),
  ('-1/2', '\\frac{-1}{2}', 1),
  # the second one takes `\text{}` off where nothing stands before it
  (' \\text{yes}', 'YES', 1),
  ('1e5', '100000', 1),
  ('1e400', 'inf', 0),
  # neither length nor nesting is a reason to say no
  ('5', '{' * 26 + '5' + '}' * 26, 1),
  ('5', '5' + ' ' * 5000, 1),
  ('5', '5\\text{' + ' very' * 800 + ' many}', 1),
  ('5', '5.' + '0' * 3000, 1),
  ('5', '5' * 3000, 0),
]


def test_what_the_published_grader_says_of_pairs():
  with Grader(workers=1, strict=True) as strict:
    verdicts = strict.grade([(f'</think>\\boxed{{{answer}}}', gold, None) for gold, answer, _ in PAIRS])
  assert [(*pair[:2], v.score) for pair, v in zip(PAIRS, verdicts)] == PAIRS


@pytest.mark.parametrize(
  'answer, golds',
  [
    ('5', ['5']),
    ('\\boxed{5}', ['5']),
    ('\\boxed 5', []),
    ('\\boxed{5', []),
    ('\\fbox{5}', ['\\fbox{5}']),
    ('a </think> \\boxed{1} \\boxed{2}', ['2']),
    (('\\boxed{4}', '\\boxed{5', '6'), ['4', '6']),
  ],
)
def test_references_are_unboxed_by_the_same_rules(answer, golds):
  assert official.golds(answer) == golds


def test_a_reference_that_cannot_be_unboxed_is_never_met():
  with Grader(workers=1, strict=True) as strict:
    verdicts = strict.grade([('</think>\\boxed{5}', gold, None) for gold in ('\\boxed 5', ('\\boxed{4}', '\\boxed{5'))])
  assert [v.score for v in verdicts] == [0, 0]


@pytest.mark.parametrize('name', ['a__1', 'a_\N{FULLWIDTH LOW LINE}1'])
def test_the_way_out_of_an_expression_is_closed(name):
  """The one verdict that is ours: text with a double underscore, however written, is not evaluated as Python."""
  assert official._equal('a', 'a+0*a_1')
  assert not official._equal('a', f'a+0*{name}')
