from fractions import Fraction

import pytest

from vibethinker_jax.boxes import extract_boxed
from vibethinker_jax.verify import symbolic
from vibethinker_jax.verify.answer import Verdict, judge_answer, judge_exactly
from vibethinker_jax.verify.grader import Grader
from vibethinker_jax.verify.latex import tidy
from vibethinker_jax.verify.pool import Pool
from vibethinker_jax.verify.quantity import number, quantity


@pytest.mark.parametrize(
  'text, inside',
  [
    (r'so \boxed{42}.', '42'),
    (r'first \boxed{1}, then \boxed{2}', '2'),
    (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'),
    (r'\boxed {7}', '7'),
    (r'\fbox{7}', '7'),
    (r'\boxed{1} and \fbox{2}', '2'),
    (r'\boxed{\boxed{3}}', '3'),
    (r'\boxed{\{1, 2\}}', r'\{1, 2\}'),
    (r'\boxed{\left\{ 1 \right.}', r'\left\{ 1 \right.'),
    (r'\boxed{a \\}', r'a \\'),
    (r'<think>\boxed{1}</think> it is \boxed{2}', '2'),
    (r'<think>\boxed{1}</think> it is 2', None),
    (r'<think>a</think>\boxed{1}</think>\boxed{2}', '2'),
    (r'<think>\boxed{1}', None),
    (r'\boxed{1} or \boxed{2', None),
    (r'\boxed{\frac{1}{2}', None),
    (r'\boxed{1} and \boxedly{2}', '1'),
    (r'\boxed{5} by \boxed', '5'),
    (r'so $\boxed 7$.', '7'),
    (r'\boxed{1}, no: \boxed -2.5.', '-2.5'),
    (r'\boxed{5} is what \boxed means', '5'),
    (r'\boxed{17\boxed{23}}', r'17\boxed{23}'),  # not the inner one alone
    (r'\boxed{\boxed{17}23}', r'\boxed{17}23'),
    (r'\boxed 3.5', '3.5'),
    (r'\boxed x', 'x'),
    (r'\boxed\frac{1}{2}.', r'\frac{1}{2}'),
    (r'\\boxed{5}', '5'),  # a text that was escaped twice
    (r'</think>\boxed{4} <think>no, \boxed{5}', None),
    ('the answer is 5', None),
    ('', None),
  ],
)
def test_extract_boxed(text, inside):
  assert extract_boxed(text) == inside


def test_extraction_of_a_hostile_text_is_linear():
  assert extract_boxed('\\boxed' * 50_000) is None
  assert extract_boxed('\\boxed{' * 50_000) is None
  assert extract_boxed('\\boxed\\frac{' * 10_000) is None
  assert extract_boxed('\\boxed{' * 50_000 + '}' * 50_000).startswith('\\boxed')


@pytest.mark.parametrize(
  'text, value',
  [
    ('7', 7),
    ('-7', -7),
    ('−7', -7),
    ('+7', 7),
    ('007', 7),
    ('0.5', Fraction(1, 2)),
    ('.5', Fraction(1, 2)),
    ('-.25', Fraction(-1, 4)),
    ('3.', 3),
    ('7.0', 7),
    ('1/2', Fraction(1, 2)),
    ('-1/2', Fraction(-1, 2)),
    (r'\frac{1}{2}', Fraction(1, 2)),
    (r'\dfrac{1}{2}', Fraction(1, 2)),
    (r'\tfrac12', Fraction(1, 2)),
    (r'\frac1{2}', Fraction(1, 2)),
    (r'-\frac{3}{4}', Fraction(-3, 4)),
    (r'\frac{-3}{4}', Fraction(-3, 4)),
    (r'-\frac{-3}{4}', Fraction(3, 4)),
    ('1,000', 1000),
    ('1{,}000', 1000),
    (r'1,\!000', 1000),
    (r'1\,000', 1000),
    ('10 000', 10000),
    ('1,234,567.5', Fraction('1234567.5')),
    (r'$12$', 12),
    (r'\$12', 12),
    (r'\text{12}', 12),
    ('12.', 12),
    (r'90^\circ', 90),
    (r'90^{\circ}.', 90),
    ('{12}', 12),
    ('(12)', 12),
    (r'\textbf{(051)}', 51),
    ('(1,234)', None),
    ('{1}/{2}', None),
    ('1,00', None),
    ('1, 000', None),
    ('1 2', None),
    ('1/0', None),
    ('2x', None),
    ('1e5', 100000),
    ('1.2.3', None),
    (r'\sqrt{2}', None),
    ('', None),
    ('9' * 100_000, None),
  ],
)
def test_number(text, value):
  assert number(quantity(tidy(text)).value) == value


@pytest.mark.parametrize(
  'pred, answer, score',
  [
    ('70', '70', 1),
    ('70', '71', 0),
    ('070', '70', 1),
    ('0.5', r'\frac{1}{2}', 1),
    (r'\frac{2}{4}', '1/2', 1),
    ('0.3333', '1/3', 0),
    ('3.14', '3.1400', 1),
    ('1{,}000', '1000', 1),
    ('999999999999999999999', '1000000000000000000000', 0),  # equal as floats
    ('(1,2)', '(1, 2)', 1),
    (r'\left( \frac12, 0.5 \right)', r'(0.5, \dfrac{1}{2})', 1),
    (r'x+1', 'x + 1', 1),
    (r'\text{east}', 'east', 1),
    (r'\text{A, C}', '{A,C}', 1),
    (r'60^\circ, 120^{\circ}', '60,120', 1),
    (r'37.5\%', '37.5', 1),
    ('4', ('2', '4'), 1),
    ('3', ('2', '4'), 0),
    (r'\frac{3}{4}', r'The sum is $\boxed{\frac34}$.', 1),
  ],
)
def test_exact_verdicts_need_no_library(pred, answer, score):
  assert judge_exactly(f'So \\boxed{{{pred}}}', answer) == Verdict(score, pred, 'exact' if score else 'wrong')


@pytest.mark.parametrize(
  'pred, answer',
  [('x^2', 'y^2'), (r'\sqrt2', '2'), ('2', r'\sqrt{4}'), ('x', ('1', 'y'))],
)
def test_the_rest_is_left_to_algebra(pred, answer):
  assert judge_exactly(f'\\boxed{{{pred}}}', answer) is None


def test_no_answer_is_wrong():
  assert judge_answer('it is 5', '5') == Verdict(0, None, 'no boxed answer')
  assert judge_answer(r'\boxed{}', '5') == Verdict(0, '', 'no boxed answer')
  assert judge_answer('\\boxed{' + '(' * 5000 + '}', 'x').reason == 'answer too long'


def test_an_answer_much_deeper_than_the_accepted_ones_is_not_parsed():
  fraction = lambda n: '\\frac{1}{1+' * n + 'x' + '}' * n
  assert judge_exactly(f'\\boxed{{{fraction(30)}}}', 'x') == Verdict(0, fraction(30), 'answer nested too deeply')
  assert judge_exactly(f'\\boxed{{{fraction(30)}}}', fraction(12)) is None
  assert judge_exactly(f'\\boxed{{{fraction(15)}}}', 'x') is None


@pytest.mark.parametrize('answer, error', [(5, TypeError), ((), ValueError), ((5,), TypeError), (None, TypeError)])
def test_answers_of_another_type_are_refused(answer, error):
  with pytest.raises(error):
    judge_exactly(r'\boxed{5}', answer)


def test_algebra(grader):
  rows = [
    (r'\frac{\sqrt{2}}{2}', r'\frac{1}{\sqrt{2}}', 1),
    (r'\frac{\sqrt{2}}{2}', r'\frac{1}{\sqrt{3}}', 0),
    (r'x^2+2x+1', '(x+1)^2', 1),
    ('[0,1)', '(0,1)', 0),
    (r'2\sqrt{3}', r'\sqrt{12}', 1),
    (r'\sqrt{4}', '2', 1),
    ('5 or 6', '5', 0),
    (r'7 \text{ hours}', '7', 1),
    ("__import__('os').system('exit')", '0', 0),
  ]
  verdicts = grader.grade([(f'\\boxed{{{pred}}}', gold, None) for pred, gold, _ in rows])
  assert [v.score for v in verdicts] == [score for *_, score in rows]
  assert {v.reason for v in verdicts} == {'exact', 'math_verify', 'wrong'}


def test_judge_answer_alone():
  assert judge_answer(r'\boxed{\sqrt{8}}', (r'1', r'2\sqrt{2}')) == Verdict(1, r'\sqrt{8}', 'math_verify')


@pytest.mark.parametrize(
  ('pred', 'gold', 'score'),
  [
    ('B', 'B', 1),
    ('(B)', 'B', 1),
    ('B.', 'B', 1),
    (r'\text{B}', 'B', 1),
    (r'\textbf{(B)}', 'B', 1),
    ('B. 12', 'B', 1),
    ('(B) 12', 'B', 1),
    ('B: the second', 'B', 1),
    ('C', 'B', 0),
    ('(C) B', 'B', 0),
    ('A. B', 'B', 0),
    ('12', 'B', 0),
  ],
)
def test_multiple_choice(grader, pred, gold, score):
  assert grader.grade([(f'\\boxed{{{pred}}}', gold, None)])[0].score == score


def test_structures(grader):
  rows = [
    ('[0,1)', '[0,1)', 1),
    (r'\left[0,1\right)', '[0, 1)', 1),
    (r'(-\infty, 2] \cup [3, \infty)', r'(-\infty,2]\cup[3,\infty)', 1),
    ('(0,1]', '[0,1)', 0),
    (r'\{3,1,2\}', r'\{1,2,3\}', 1),
    (r'\{1,2\}', r'\{1,2,3\}', 0),
    (r'\left(3, \frac{\pi}{2}\right)', r'(3,\pi/2)', 1),
    (r'\left(\frac{\pi}{2}, 3\right)', r'(3,\pi/2)', 0),
    (r'\begin{pmatrix} 1 \\ 2 \end{pmatrix}', r'\begin{pmatrix}1\\2\end{pmatrix}', 1),
    (r'\frac{10}{4}', '2.5', 1),
  ]
  verdicts = grader.grade([(f'\\boxed{{{pred}}}', gold, None) for pred, gold, _ in rows])
  assert [v.score for v in verdicts] == [score for *_, score in rows]
  assert grader.grade([(r'\boxed{2\sqrt{3}}', ('1', r'\sqrt{12}', '7'), None)])[0].score == 1


STRICT = [
  (r'</think>\boxed{\frac{1}{2}}', r'\frac12', 1),
  (r'\boxed{5}', '5', 0),  # no </think>
  (r'<think>\boxed{5}</think>so 5', '5', 0),
  (r'<think>\boxed{4}</think>\boxed{1}, no, \boxed{5}', '5', 1),
  (r'</think>\boxed{4}</think>\boxed{5}', '4', 1),  # what comes after a second </think> is not read
  (r'</think>\fbox{5}', '5', 0),
  (r'</think>\boxed{0.5}', r'\frac{1}{2}', 1),
  (r'</think>\boxed{x = 5}', '5', 1),
  (r'</think>\boxed{1,000}', '1000', 1),
  (r'</think>\boxed{5.0}', '5', 1),
  (r'</think>\boxed{2\sqrt{3}}', r'\sqrt{12}', 1),
  (r'</think>\boxed{\frac{2}{6}}', r'\frac{1}{3}', 0),  # fractions are compared as texts
  (r'</think>\boxed{2^{10}}', '1024', 0),  # not evaluated
  (r'</think>\boxed{90^\circ}', '90', 1),
  (r'</think>\boxed{(1,2)}', '(1, 2)', 1),
  (r'</think>\boxed{(1,2]}', '(1,2)', 0),
  (r'</think>\boxed{12 \text{ cm}}', '12', 1),
  (r'</think>\boxed{\text{east}}', 'east', 1),
  (r'</think>\boxed{6}', '5', 0),
  (r"</think>\boxed{__import__('os')}", '5', 0),
]


def test_the_published_graders_rules():
  with Grader(workers=1, strict=True) as strict:
    verdicts = strict.grade([(response, gold, None) for response, gold, _ in STRICT])
  assert [(r, v.score) for (r, _, _), v in zip(STRICT, verdicts)] == [(r, score) for r, _, score in STRICT]


def test_golden_cases_of_math_verify(read_data):
  rows = read_data('golden/math_verify_cases.jsonl')
  jobs = [
    symbolic.engine_job(
      [row['gold']],
      row['pred'],
      tuple(row.get('match_types', ('latex', 'expr'))),
      row.get('precision', 6),
      row.get('strict', True),
      row.get('allow_set_relation_comp', False),
    )
    for row in rows
  ]
  with Pool(2, symbolic.command()) as pool:
    answers = symbolic.ask(pool, jobs, 10.0)
  wrong = [row for row, answer in zip(rows, answers, strict=True) if answer is not bool(row['expected'])]
  assert len(rows) == 134 and wrong == []


def test_agreement_on_real_traces(read_data, grader):
  rows = read_data('cot_multi/qwen25math_math100_8samples.jsonl')
  pairs = [(trace, row['gt'], score) for row in rows for trace, score in zip(row['code'], row['score'])]
  verdicts = grader.grade([(trace, gold, None) for trace, gold, _ in pairs])
  differ = {(v.extracted, gold, v.score) for v, (_, gold, score) in zip(verdicts, pairs) if v.score != score}
  assert len(pairs) == 800
  assert differ <= {('10000', '10{,}000', 1)}  # the file calls this one wrong
