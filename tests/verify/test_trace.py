from fractions import Fraction

import pytest

from vibethinker_jax.verify import trace
from vibethinker_jax.verify.trace import Claim, Trace, claims


def traces_of(grader, texts: list[str]) -> list[Trace]:
  return grader.check_traces([(text, '', None) for text in texts])


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ('She sells 16 - 3 - 4 = 9 eggs.', [('16 - 3 - 4', '9')]),
    ('so 9 * 2 = $18 a day', [('9 * 2', '$18')]),
    ('1. 3 + 4 = 7\n2. 7 * 2 = 14', [('3 + 4', '7'), ('7 * 2', '14')]),
    ('3 + 4 = 7. 5 + 6 = 11.', [('3 + 4', '7'), ('5 + 6', '11')]),
    ('12 * 3 = 36 = 6^2', [('12 * 3', '36'), ('36', '6^2')]),
    ('1,000 + 500 = 1,500, which is', [('1,000 + 500', '1,500')]),
    ('10 / 3 ≈ 3.33', [('10 / 3', '3.33')]),
    ('50% of 20 = 10', []),
    ('2x + 3 = 11', []),
    ('x = 5', []),
    ('3 * 4 = 12x', []),
    ('n(3 + 4) = 7', []),
    ('2x + 3 + 4 = 11', []),
    ('in 2 hours = 120 minutes', []),
    ('20 x 20/100 = 4 and 120 – 80 - 15 = 25', [('20 × 20/100', '4'), ('120 - 80 - 15', '25')]),
    ('¾ x 3/3 = 9/12', []),
    ('60 / 3/4 = 80', []),
    (r'$3 \cdot 4 = 12$', [(r'3 \cdot 4', '12')]),
    (r'\[2x + 3 = 11\]', []),
    (r'$f(x) = (x+1)^2 = x^2 + 2x + 1$', [('(x+1)^2', 'x^2 + 2x + 1')]),
    (r'$y = 2x = 10$', []),
    (r'$\frac{1}{2} + \frac{1}{3} = \frac{5}{6}$, so', [(r'\frac{1}{2} + \frac{1}{3}', r'\frac{5}{6}')]),
    (r'\begin{align*} 2 + 2 &= 4 \\ &= 2^2 \end{align*}', [('2 + 2 &', '4')]),
    (r'$\sum_{k=1}^{3} k = 6$', []),
    (r'$7 \equiv 1 = 3$', []),
    (r'$1\frac{1}{2} = 2$', []),
    (r'$101_2 = 5$', []),
    (r'$x = \pm 2 = 3$', []),
    (r'$-\sqrt{3} = \tan 120^\circ$', []),
    (r'$3 \star 4 = 3 + 2 \cdot 4 = 11$', []),
    (r'$z = (1+i)^2 = 2i$', []),
    (r'$\boxed{2 + 3 = 5}$', [('2 + 3', '5')]),
    ('', []),
  ],
)
def test_claims(text, found):
  assert [(c.left, c.right) for c in claims(text)] == found


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('3 + 4 * 2', 11),
    (r'\frac{1}{2}', Fraction(1, 2)),
    (r'2 \times (3 - 1)', 4),
    ('20%', Fraction(1, 5)),
    ('$1,250', 1250),
    ('0.1 + 0.2', Fraction(3, 10)),
    ('2^10', 1024),
    ('-3 - -4', 1),
    ('2^2^2^2^9', None),
    ('10^(10^10)', None),
    ('1/0', None),
    ('2(3)', 6),
    (r'\dfrac{1}{2}(4)(1 + 2)', 6),
    ('f(3)', None),
    ('x', None),
    ('', None),
  ],
)
def test_exact_values(text, value):
  assert trace._value(text) == value


def test_verdicts(grader):
  cases = [
    ('16 - 3 - 4 = 9', True),
    ('16 - 3 - 4 = 8', False),
    ('10 / 3 = 3.33', True),
    ('10 / 3 = 3.34', False),
    ('10 / 3 ≈ 3', True),
    ('10 / 3 ≈ 4', False),
    (r'$\sqrt{16} = 4$', True),
    (r'$\sqrt{2} \approx 1.414$', True),
    (r'$\sqrt{2} = 1.5$', False),
    (r'$\binom{5}{2} = 10$', True),
    (r'$5! = 60$', False),
    (r'$f(x) = (x+1)^2 = x^2 + 2x + 1$', True),
    (r'$f(x) = (x+1)^2 = x^2 + x + 1$', False),
    (r'$y = \frac{x^2-1}{x-1} = x + 1$', True),
    (r'$180^\circ - 60^\circ = 120^\circ$', True),
    (r'$\sqrt{4}(5)(3) = 30$', True),
    (r'$2(5) - \sqrt{9} = 7$', True),
    (r'$\log_2(8) = 3$', True),
    (r'$\dfrac{5}{\sqrt{400}} = \tfrac{1}{4}$', True),
    ('100 - 60 = 40%', None),
    ('40 / 80 = 50%', True),
    ('40% + 20% = 50%', False),
    (r'$\cos\frac{\pi}{3} = \frac{1}{2}$', True),
    (r'$9^{9^{9^{9^{9}}}} = 3$', None),
  ]
  traces = traces_of(grader, [text for text, _ in cases])
  assert {text: t.holds for (text, _), t in zip(cases, traces)} == {text: (holds,) for text, holds in cases}


def test_the_share_counts_what_was_settled(grader):
  texts = ['1 + 1 = 2 and 2 + 2 = 4', '1 + 1 = 2 but 2 + 2 = 5 and $9^{9^{9^9}} = 3$', 'no']
  good, bad, none = traces_of(grader, texts)
  assert (good.share, good.checked) == (1.0, 2)
  assert (bad.share, bad.checked) == (0.5, 2) and len(bad.claims) == 3
  assert (none.share, none.checked) == (None, 0)


def test_programs_claim_nothing(grader):
  rows = [('1 + 1 = 3', '3', None), ('1 + 1 = 3', None, [{'input': '', 'output': ''}])]
  assert grader.steps(rows) == [0.0, None]


def test_a_hostile_text_is_read_in_time():
  for text in (
    '$' * 100_000,
    '\\[' * 100_000,
    '(' * 100_000 + '=',
    '1+' * 100_000 + '=1',
    '=' * 100_000,
    '1. ' * 90_000,
  ):
    assert len(claims(text)) <= 1000


def test_solutions_hold(grader, read_data):
  rows = read_data('gsm8k/test.jsonl')[:200]
  traces = traces_of(grader, [row['answer'] for row in rows])
  checked, held = sum(t.checked for t in traces), sum(h is True for t in traces for h in t.holds)
  assert checked > 500 and held / checked > 0.98


def test_right_traces_hold_more_often(grader, read_data):
  rows = read_data('cot_multi/qwen25math_math100_8samples.jsonl')
  traces = [(text, score) for row in rows for text, score in zip(row['code'], row['score'])]
  shares = {True: [], False: []}
  for one, (_, score) in zip(traces_of(grader, [text for text, _ in traces]), traces):
    if one.share is not None:
      shares[bool(score)].append(one.share)
  mean = {score: sum(values) / len(values) for score, values in shares.items()}
  assert mean[True] > mean[False]


def test_a_claim_is_a_value():
  assert Claim('1', '2') == Claim('1', '2') != Claim('1', '2', about=True)
