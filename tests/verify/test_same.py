"""Which answers the default grader accepts: each row `right or wrong | reference | answer` is an example of a kind."""

import pytest

from vibethinker_jax.verify.answer import judge_exactly

CASES = r"""
0 | 5 | 5 \text{ or } 6
0 | 5 | 5 \text{ or so}
0 | 5 | \text{not } 5
0 | 5 | -5
0 | 5 | 5_6
0 | 1010_2 | 1010_{10}
1 | 1010_2 | 1010_{two}
1 | 1010_2 | 1010_{\text{two}}
1 | 1010_2 | (1010)_2
1 | (1010)_2 | 1010_2
1 | 12_{10} | 12
1 | \text{AB}_{16} | AB_{16}
0 | \text{AB}_{16} | BA_{16}
1 | 52_8 | 52_{\text{eight}}
0 | \frac{1}{3^{70}} | \frac{1}{3^{71}}
1 | \frac{1}{3^{70}} | 3^{-70}
1 | 1.6\times10^{-19} | 1.6 \cdot 10^{-19}
1 | 1.6\times10^{-19} | 1.60\times 10^{-19}
1 | 6.02\times 10^{23} | 6.02e23
0 | 6.02\times 10^{23} | 6.03e23
0 | \frac{1}{52!} | 0
0 | (1,2) | (1,2]
0 | (1,2) | \{1,2\}
1 | (1,2) | \left(1,2\right)
1 | (-\infty,3] | [-\infty,3]
0 | \langle 1,2\rangle | \langle 2,1\rangle
0 | TTH | HTT
1 | TTH | T T H
1 | TTH | \text{TTH}
0 | \text{east} | \text{west}
1 | x=1,y=2 | y=2,x=1
0 | p=2,q=3 | p=3,q=2
0 | 5\text{ billion} | 5\text{ million}
1 | 5\text{ billion} | 5000000000
1 | 2.5\text{ million} | 2{,}500{,}000
1 | 2.5\text{ million} | 2.5\times10^6
0 | 3\text{ dozen} | 3
0 | 10\text{ a.m.} | 10\text{ p.m.}
1 | 10\text{ a.m.} | 10 \text{ AM}
1 | 3\text{ hours} | 3
1 | 3\text{ hours} | 3 \text{ hrs}
1 | 3\text{ hours} | 3\text{ h}
0 | 3\text{ hours} | 3\text{ seconds}
0 | 3\text{ feet} | 3\text{ inches}
1 | 3\text{ feet} | 3\text{ ft}
1 | 12 \text{ cm}^2 | 12 \text{ square centimeters}
0 | 12 \text{ cm}^2 | 12 \text{ cm}^3
0 | 23 | 17 \implies 23
0 | 23 | 17 \text{ then } 23
0 | 23 | 17 \text{ no, } 23
0 | 23 | 23?
0 | 23 | \min(23,40)
0 | 23 | \{23\} \cup \{17\}
0 | 23 | 17 \lor 23
0 | 23 | \text{between } 17 \text{ and } 23
0 | 5 | x \ne 5
0 | 5 | x > 5
0 | 5 | 5 \ge x
0 | 23 | \boxed{17} 23
1 | 23 | \boxed{23}
1 | \frac12 | 0.5
1 | \frac12 | \frac{2}{4}
1 | \frac12 | 1/2
1 | 3.5 | 3\tfrac12
1 | 7/2 | 3 1/2
0 | 31/2 | 3 1/2
1 | 0.1\overline{6} | 1/6
1 | 0.\overline{3} | \frac{1}{3}
0 | 0.\overline{3} | 0.3
1 | \sqrt2 | √2
1 | x\le 5 | x ≤ 5
1 | x^2 | x²
1 | \frac{3}{4} | ¾
1 | \emptyset | \{\}
1 | \emptyset | ∅
1 | 5 | {\color{blue}5}
1 | 5 | \textcolor{blue}{5}
1 | 5 | \underline{5}
1 | 5 | **5**
1 | 5 | \mathbf{5}
1 | 5 | 5 \pmod{7}
1 | C | \text{C. } 12
1 | C | (C)\ 12
1 | C | C) 12
1 | C | \textbf{C}
1 | C | choice C
1 | C | The answer is C
0 | C | not C
0 | C | C or D
0 | C | B
0 | C | C, D
1 | 5 | 5;
1 | 5 | `5`
1 | 5 | answer is 5
1 | 5 | Final answer: 5
1 | 5 | x = 5
1 | 5 | \text{The answer is }5.
1 | \text{Yes} | yes
0 | \text{Yes} | no
1 | \pi/2 | \frac{\pi}{2}
1 | \frac{\pi}{2} | \frac12\pi
1 | 2\sqrt3 | 2√3
1 | \sin^2 x | \sin^2(x)
1 | 2xy | 2yx
0 | 2xy | 2xz
1 | y=2x+1 | 2x-y+1=0
0 | y=2x+1 | y=2x-1
1 | x^2+y^2=1 | y^2+x^2=1
1 | \{1,2,3\} | \{3,2,1\}
1 | 1,2,3 | 3,1,2
0 | 1,2,3 | 1,2,4
1 | 1 \text{ and } 2 | 2, 1
1 | (1,2),(3,4) | (3,4),(1,2)
0 | (1,2),(3,4) | (2,1),(3,4)
1 | \pm5 | 5,-5
1 | \pm5 | \pm 5
0 | \pm5 | 5
1 | x=\pm5 | \pm5
1 | 5,-5 | x=\pm 5
1 | [0,\infty) | [0,+\infty)
1 | x\ge 0 | x \geq 0
1 | x \in [0,1] | [0,1]
1 | [0,1]\cup[2,3] | [2,3]\cup[0,1]
0 | [0,1]\cup[2,3] | [0,1]\cup[2,4]
1 | 10! | 3628800
1 | \binom{10}{5} | 252
1 | 2^{100} | 1267650600228229401496703205376
0 | 2^{100} | 1267650600228229401496703205377
1 | \log_2 8 | 3
1 | e^2 | \mathrm{e}^2
1 | f(x)=x+1 | x+1
1 | f(x)=x+1 | f(x)=1+x
1 | \$20 | 20 \text{ dollars}
1 | \$20 | 20
0 | \$20 | €20
0 | 20\% | 2\%
1 | 20\% | \frac15
1 | 45^\circ | 45 \text{ degrees}
0 | 45^\circ | 45 \text{ radians}
1 | -\frac12 | \frac{-1}{2}
1 | -\frac12 | -0.5
1 | a+b | b+a
0 | a+b | a-b
1 | \frac{a}{b} | a/b
1 | 1{,}234 | 1234
1 | 1,234 | 1234
1 | 12:30 | 12:30
0 | 12:30 | 12:31
1 | 2:3 | 2/3
1 | 2:3 | 4:6
1 | \begin{pmatrix}1\\2\end{pmatrix} | \begin{bmatrix}1\\2\end{bmatrix}
0 | \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}2\\1\end{pmatrix}
1 | \begin{pmatrix}1/2\\2\end{pmatrix} | \frac12\begin{pmatrix}1\\4\end{pmatrix}
1 | \text{Tuesday} | Tuesday
1 | 4\text{ apples} | 4
0 | 4\text{ apples} | 4\text{ oranges}
0 | 4 | \text{four}
1 | \frac{\sqrt{3}}{3} | \frac{1}{\sqrt3}
1 | 2+\sqrt3 | \sqrt3+2
0 | 2+\sqrt3 | 2-\sqrt3
1 | i | \sqrt{-1}
1 | 2i | 2\mathrm{i}
0 | 2i | -2i
1 | 3+4i | 4i + 3
1 | (x-1)(x+2) | x^2+x-2
1 | \text{(B)} | B
1 | 5 | 5.
1 | 5 | 5.0
1 | 5 | +5
0 | 5 | 5.1
1 | \sqrt{2} | 1.41421356
0 | \sqrt{2} | 1.414
0 | 5 | 5\times
0 | 5 | 5+
1 | 5 | (5)
1 | a=5 | 5
0 | a=5 | b=5
1 | x<1 \text{ or } x>2 | x>2 \text{ or } x<1
0 | x<1 \text{ or } x>2 | x>2 \text{ and } x<1
1 | 3, 5, 7 | 3,5,7
1 | \text{5 and 7} | 7, 5
1 | 11\text{ remainder }2 | 11 \text{ remainder } 2
0 | 11\text{ remainder }2 | 11
1 | 8\text{ m/s} | 8
1 | 8\text{ m/s} | 8\text{ meters per second}
0 | 8\text{ m/s} | 8\text{ km/h}
1 | 10^{-3} | 0.001
1 | 0.001 | 1\times10^{-3}
1 | \infty | +\infty
1 | \mathbb{R} | \mathbb R
1 | 1\frac{1}{2}\text{ hours} | 1.5
1 | \frac{3}{2} | 1 \frac12
1 | \text{12 inches} | 12
1 | \overline{AB} | AB
1 | \angle ABC | \angle ABC
0 | \angle ABC | \angle ACB
0 | ABC | \triangle ACB
1 | x+y=3 | y+x=3
0 | x+y=3 | 3
1 | n^2 | n^{2}
0 | n^2 | n^3
1 | 2^n | 2^{n}
1 | a_n=2n+1 | 2n+1
1 | \frac{n(n+1)}{2} | \frac{n^2+n}{2}
1 | 6\text{ (mod }7) | 6
0 | 6\pmod 7 | 6 \pmod 8
1 | -1 | --(-1)
1 | 32349 | 32,\! 349
1 | (1,2),(3,4) | (3,4), (1,2), (3,4)
0 | 2,2,3 | 2,3
"""


def rows() -> list[tuple[str, str, int]]:
  """(reference, answer, whether it is right)."""
  split = [line.split(' | ', 2) for line in CASES.strip().split('\n')]
  return [(gold, pred, int(score)) for score, gold, pred in split]


def test_wrong_answers_are_not_paid_and_right_ones_are(grader):
  cases = rows()
  verdicts = grader.grade([(f'\\boxed{{{pred}}}', gold, None) for gold, pred, _ in cases])
  assert [(gold, pred) for (gold, pred, score), v in zip(cases, verdicts) if v.score != score] == []


def test_a_verdict_without_algebra_is_the_one_with_it(grader):
  """Where text and structure decide, algebra would decide in the same way."""
  settled = [(g, p, v.score) for g, p, _ in rows() if (v := judge_exactly(f'\\boxed{{{p}}}', g)) is not None]
  verdicts = grader.grade([(f'\\boxed{{{p}}}', g, None) for g, p, _ in settled])
  assert [v.score for v in verdicts] == [score for *_, score in settled] and len(settled) > 100


@pytest.mark.parametrize(
  'gold, pred, score',
  [
    (r'\boxed{1}\boxed{2}', '1,2', 1),
    (r'\boxed{1} papers and \boxed{2} bins', '2', 0),
    (r'so \boxed{840}. **Final** \boxed{840}', '840', 1),
    (r'\boxed 5', '5', 1),
  ],
)
def test_all_boxes_of_a_reference_count(gold, pred, score):
  assert judge_exactly(f'\\boxed{{{pred}}}', gold).score == score


def test_equal_answers_share_their_vote(grader):
  """Two spellings of one answer are one vote; two answers are two."""
  groups = [(r'\pi/2', r'\frac{\pi}{2}', r'\frac12\pi'), ('0.5', r'\frac12', '1/2'), (r'\sqrt{8}', r'2\sqrt2'), ('7',)]
  keys = [grader.vote_keys(group) for group in groups]
  assert [len(set(key)) for key in keys] == [1, 1, 1, 1]
  assert len({key[0] for key in keys}) == len(groups)


def test_an_open_thought_has_not_answered(grader):
  row = lambda text: (text, '42', None)
  texts = [r'<think> maybe \boxed{42}, let me check: no', r'<think>x</think> \boxed{42}', r'\boxed{42}']
  assert [v.score for v in grader.grade(list(map(row, texts)))] == [0, 1, 1]
