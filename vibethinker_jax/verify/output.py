"""Is the output of a program the expected one?"""

import decimal


def same_output(printed: str, expected: str) -> bool:
  """Whether a program printed the expected output, by LiveCodeBench's rule, for all programs that read stdin.

  Both texts are stripped and split into lines, which are stripped too; the numbers of lines must be equal. Two lines
  are
  the same if their texts are equal, or if both consist of numbers that are equal as decimals, one by one: `1.0` equals
  `1`, `0.33` does not equal `0.333`.
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
