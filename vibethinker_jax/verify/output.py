"""Did a program print what it should?"""

import decimal


def same_output(printed: str, expected: str) -> bool:
  """Whether a program printed what it should: LiveCodeBench's rule, for all programs that read stdin.

  Both texts are stripped and taken apart into lines, which are stripped too, and there must be as many. Two lines are
  the same if their texts are, or if both are nothing but numbers and these are equal as decimals, one by one: `1.0` is
  `1`, `0.33` is not `0.333`.
  """
  got, want = ([line.strip() for line in text.strip().split('\n')] for text in (printed, expected))
  return len(got) == len(want) and all(a == b or _same_numbers(a.split(), b.split()) for a, b in zip(got, want))


def _same_numbers(got: list[str], want: list[str]) -> bool:
  if len(got) != len(want):
    return False
  try:
    return all(a == b for a, b in zip(map(decimal.Decimal, got), map(decimal.Decimal, want), strict=True))
  except decimal.InvalidOperation:  # one of them is no number, or a signalling NaN
    return False
