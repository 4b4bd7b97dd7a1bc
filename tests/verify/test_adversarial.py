"""Answers that try to hang, kill or fill the grader: each is graded within its deadline and delays no other answer."""

import os
import pathlib
import random
import resource

import pytest

from vibethinker_jax.verify.grader import Grader


def tower(rng: random.Random) -> str:
  numbers = [str(rng.randint(2, 99)) for _ in range(rng.randint(3, 7))]
  if rng.random() < 0.5:
    return '**'.join(numbers)
  return '^{'.join(numbers) + '}' * (len(numbers) - 1)


def braces(rng: random.Random) -> str:
  return ''.join(rng.choice(['{', '}', '\\{', '\\}', '\\left(', '\\right]', '(', ')', '1', 'x']) for _ in range(60))


def nested(rng: random.Random) -> str:
  n = rng.randint(20, 300)
  left, right = rng.choice([('(', ')'), ('\\sqrt{', '}'), ('\\frac{1}{1+', '}'), ('\\left(', '\\right)'), ('{', '}')])
  return left * n + str(rng.randint(1, 9)) + right * n


def boxes(rng: random.Random) -> str:
  return '\\boxed{' * rng.randint(2, 2000) + str(rng.randint(0, 9)) + '}' * rng.randint(0, 2000)


def long(rng: random.Random) -> str:
  return rng.choice(['9', '1+', '\\frac12', '(', ' ', '\\\\', '$', 'x^2+', '\u0663', '\\text{a}']) * rng.randint(
    500, 5000
  )


def trap(rng: random.Random) -> str:
  n = rng.randint(10, 10**6)
  return rng.choice(
    [
      f'{n}!!',
      f'{n}!',
      f'\\binom{{{n}}}{{{n // 2}}}',
      f'\\sum_{{k=1}}^{{{n}}} k^{{{n}}}',
      f'\\prod_{{k=1}}^{{{n}}} (x+k)',
      f'\\int_0^1 \\sin(x^{{{n}}}) e^{{x^2}} dx',
      f'(x+1)^{{{n}}}',
      f'(x+y+z+w)^{{{n % 300}}}',
      f'\\sqrt[{n}]{{{n}^{{{n}}}+1}}',
      f'\\log_{{{n}}}({n}^{{{n}^{{3}}}})',
      f'{n}e{n}',
      f'1/{n}e-{n}',
      f'0.{"0" * 400}{n}',
      f'{n}\\%' * 40,
      'lambda: ' + str(n),
      f"__import__('os').system('sleep {n}')",
      f'\\lim_{{x\\to 0}} \\frac{{\\sin {n}x}}{{x}}',
      '\\begin{pmatrix}' + '&'.join(str(n + i) for i in range(60)) + '\\end{pmatrix}',
      '\\{' + ','.join(f'\\sqrt{{{n + i}}}' for i in range(60)) + '\\}',
      '(' * 50 + '\\infty' + ']' * 50,
      '\x00\x07\ud800' + str(n),
      '\u202e' * 30 + str(n),
    ]
  )


FAMILIES = (tower, braces, nested, boxes, long, trap)
GOLDS = ('5', '\\frac{3}{7}', '\\sqrt{2}', '(1,2]', '\\{1,2,3\\}', 'x^2+1', 'A', '\\text{east}')


def rows(n: int) -> list[tuple[str, str, None]]:
  rng = random.Random(0)
  out = []
  for i in range(n):
    inside = FAMILIES[i % len(FAMILIES)](rng)
    out.append((f'</think>so \\boxed{{{inside}}}', rng.choice(GOLDS), None))
  return out


def resident(pids: list[int]) -> list[int]:
  """Bytes of memory that processes hold."""
  return [int(pathlib.Path(f'/proc/{p}/statm').read_text().split()[1]) * resource.getpagesize() for p in pids]


@pytest.mark.parametrize('n', [60, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize('strict', [False, True])
def test_no_answer_costs_a_worker_or_memory(n, strict):
  honest = [('</think>\\boxed{\\frac{\\sqrt{8}}{2}}', '\\sqrt{2}', None)]
  with Grader(workers=2, deadline_s=0.2, strict=strict) as grader:
    grader.grade(honest * 2 + [('</think>\\boxed{\\sqrt{3}}', '\\sqrt{2}', None)])
    workers = grader.pids()
    everybody = [os.getpid(), *workers]
    before = resident(everybody)
    hostile = rows(n)
    for begin in range(0, n, 100):
      verdicts = grader.grade(hostile[begin : begin + 100] + honest)
      # an answer that cannot be stopped would hang the test here; the honest one beside them is graded as always
      assert verdicts[-1].reason in ('math_verify', 'official', 'timeout')
    assert grader.pids() == workers  # what hung or died was a fork of a worker
    assert all(after - was < 64 << 20 for was, after in zip(before, resident(everybody)))


@pytest.mark.parametrize('strict', [False, True])
def test_megabytes(strict):
  texts = [
    '9' * (1 << 20),
    '\\boxed{' * 150_000,
    '\\boxed{' + '(' * (1 << 20) + '}',
    '</think>' * 130_000 + '\\boxed{5}',
  ]
  texts += ['\\boxed' + ' ' * (1 << 20) + '{5}', '{' * (1 << 20), '\\boxed{5' + ' ' * (1 << 20) + '}']
  with Grader(workers=2, deadline_s=2.0, strict=strict) as grader:
    verdicts = grader.grade([(f'</think>{text}', '7', None) for text in texts])
  assert [v.score for v in verdicts] == [0] * len(texts)
