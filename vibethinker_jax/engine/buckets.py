"""Sizes of arrays. XLA compiles a program for every shape, so sizes are rounded up to a few."""

PREFILL_BATCH = 8  # prompts that are prefilled at a time; rounded up to a multiple of the devices


def bucket(n: int) -> int:
  """The smallest of 32, 48, 64, 96, 128, 192, ... that is at least n."""
  size = 32
  while size < n:
    if size * 3 // 2 >= n:
      return size * 3 // 2
    size *= 2
  return size


def bucket_below(size: int) -> int:
  """The bucket just below the bucket `size`."""
  return size * 2 // 3 if size % 3 == 0 else size * 3 // 4


def buckets(longest: int) -> list[int]:
  """All buckets, in ascending order, up to the first that is at least `longest`."""
  sizes = [32]
  while sizes[-1] < longest:
    sizes.append(bucket(sizes[-1] + 1))
  return sizes


def padded_prompt(n: int, prefill_chunk: int) -> int:
  """Positions that a prompt of n tokens takes during prefill: one bucket, or a whole number of prefill chunks."""
  return bucket(n) if n <= prefill_chunk else -(-n // prefill_chunk) * prefill_chunk


def multiple(n: int, devices: int) -> int:
  """The smallest multiple of `devices` that is at least n."""
  return -(-n // devices) * devices


def batch_sizes(rows: int, devices: int) -> list[int]:
  """Sizes of the decode batch, in descending order: `rows`, a quarter of it, and so on, all multiples of `devices`.

  The factor of four keeps the number of compiled shapes small, and still there are never many more rows than samples.
  """
  sizes = {multiple(max(1, rows >> shift), devices) for shift in range(0, rows.bit_length() + 1, 2)}
  return sorted(sizes, reverse=True)
