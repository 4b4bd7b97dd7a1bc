"""Summaries by hand."""

import pytest

from vibethinker_jax.data.problem import Problem
from vibethinker_jax.evaluate.benchmarks import Task
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.evaluate.scores import summarise, table
from vibethinker_jax.verify.answer import vote_key


def judged(problem: str, answers: list[str | None], right: str) -> list[dict]:
  return [
    {
      'problem': problem,
      'sample': i,
      'score': int(answer == right),
      'extracted': answer,
      'vote': None if answer is None else vote_key(answer),
      'tokens': 10 + i,
      'finish_reason': 'length' if answer is None else 'stop',
    }
    for i, answer in enumerate(answers)
  ]


def test_summary_by_hand():
  problems = [Problem('a', 'algebra', '?', '1', difficulty=2), Problem('b', '', '?', '7')]
  rows = judged('a', ['1', '1', '2', None], '1') + judged('b', ['3', '3.0', '7', '4'], '7')
  s = summarise(Task('aime24', problems, Protocol(4, 4, 64)), 'mine', rows)
  assert s['pass@1'] == pytest.approx((2 / 4 + 1 / 4) / 2)
  assert s['pass@2'] == pytest.approx((1 - 1 / 6 + 1 - 3 / 6) / 2)
  assert s['pass@4'] == 1
  # a: 1 wins with two votes; b: "3" and "3.0" are one answer, which outvotes the right one
  assert s['maj@4'] == pytest.approx(1 / 2)
  assert s['truncated'] == pytest.approx(1 / 8) and s['no_answer'] == pytest.approx(1 / 8)
  assert s['mean_tokens'] == pytest.approx(11.5)
  assert s['domains']['algebra']['pass@1'] == 0.5 and s['domains']['unlabelled']['pass@1'] == 0.25
  assert set(s['levels']) == {'2', 'unlabelled'}
  assert s['pass@1_ci'][0] <= s['pass@1'] <= s['pass@1_ci'][1]
  assert s['published']['VibeThinker-1.5B'] == 80.3
  text = table([s])
  assert '| VibeThinker-1.5B | 80.3 |' in text and '| **mine** | 37.5 [25.0, 50.0] |' in text
