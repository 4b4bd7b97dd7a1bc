"""Batches of RL: responses sorted, grouped by prompt, and padded to a few lengths."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from vibethinker_jax.engine.engine import Completion

Row = tuple[Sequence[int], Completion, float]  # prompt ids, completion, advantage


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['prompts', 'lengths', 'tokens', 'targets', 'mask', 'old_logps', 'ref_logps', 'advantages'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Responses:
  """B responses to N prompts: B / N responses, one after the other, share a prompt.

  The last token of a prompt is the first of `tokens` of each of its responses, so that the model predicts every target
  from a position of the response.
  """

  prompts: np.ndarray  # int32 [N,S]: the prompts without their last tokens, padded
  lengths: np.ndarray  # int32 [N]: how many tokens of `prompts` are no padding
  tokens: np.ndarray  # int32 [B,T]
  targets: np.ndarray  # int32 [B,T]: the token after each of `tokens`
  mask: np.ndarray  # float32 [B,T]: 1 where there is a target
  old_logps: np.ndarray  # float32 [B,T]: ln p of the targets when the engine sampled them
  ref_logps: np.ndarray  # float32 [B,T]: ln p under the stage's first model; 0 where no divergence is computed
  advantages: np.ndarray  # float32 [B]


def informative(pass_rate: np.ndarray, most: int, least: int) -> np.ndarray:
  """The numbers of the first `most` groups that are neither all right nor all wrong; `pass_rate` [P] is by group.

  Where there are fewer than `least` (each update needs a group), the first of the other groups are added; where there
  are none, these are the first `most` groups.
  """
  mixed = (pass_rate > 0) & (pass_rate < 1)
  chosen, others = np.flatnonzero(mixed)[:most], np.flatnonzero(~mixed)
  if len(chosen) == 0:
    return others[:most]
  return np.concatenate([chosen, others[: max(0, least - len(chosen))]])


def sharing(rows: list[Row], n: int) -> list[list[Row]]:
  """The rows in lists of at most `n`, each with one prompt and with responses of similar lengths: less padding.

  The lists are sorted by their longest response.
  """
  by_prompt: dict[tuple, list[Row]] = {}
  for row in rows:
    by_prompt.setdefault(tuple(row[0]), []).append(row)
  length = lambda row: len(row[1].tokens)
  groups = [sorted(group, key=length) for group in by_prompt.values()]
  shares = [group[i : i + n] for group in groups for i in range(0, len(group), n)]
  return sorted(shares, key=lambda share: length(share[-1]))


def responses(shares: list[list[Row]], N: int, n: int, S: int, unit: int) -> Responses:
  """Lists of rows (`sharing`) as padded arrays.

  Args:
    shares: at most N lists of at most n rows.
    N: prompts of the batch.
    n: responses for each prompt; the batch has B = N n.
    S: positions for prompts, without their last tokens.
    unit: S + T becomes a multiple of it (attention.unit).
  """
  longest = max(len(completion.tokens) for share in shares for _, completion, _ in share)
  T = rounded_up(S + longest, unit) - S
  prompts, lengths = np.zeros((N, S), np.int32), np.zeros(N, np.int32)
  tokens, targets = np.zeros((N, n, T), np.int32), np.zeros((N, n, T), np.int32)
  mask, old_logps = np.zeros((N, n, T), np.float32), np.zeros((N, n, T), np.float32)
  advantages = np.zeros((N, n), np.float32)
  for p, share in enumerate(shares):
    *prompt, last = share[0][0]
    prompts[p, : len(prompt)], lengths[p] = prompt, len(prompt)
    for g, (_, completion, advantage) in enumerate(share):
      m = len(completion.tokens)
      tokens[p, g, :m], targets[p, g, :m] = [last, *completion.tokens[:-1]], completion.tokens
      mask[p, g, :m], old_logps[p, g, :m] = 1, completion.sampler_logps
      advantages[p, g] = advantage
  flat = lambda x: x.reshape(N * n, *x.shape[2:])
  rows = [flat(x) for x in (tokens, targets, mask, old_logps, np.zeros_like(mask), advantages)]
  return Responses(prompts, lengths, *rows)


def rounded_up(n: int, unit: int) -> int:
  """The next multiple of `unit`, or of a power of two between n / 16 and n / 8 where that is larger.

  Every length is compiled, so there are to be few: at most one eighth is padding, beyond the unit.
  """
  step = -(-max(1 << n.bit_length() >> 4, 1) // unit) * unit
  return max(step, -(-n // step) * step)
