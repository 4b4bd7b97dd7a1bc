"""{"id", "tokens" or "text"} -> {"id", "logprobs"}: ln p(tokens[i+1] | tokens[:i+1]) at temperature 1."""

import argparse
import dataclasses
import pathlib

from vibethinker_jax.cli import files, flags, models
from vibethinker_jax.cli.tokens import ids_of
from vibethinker_jax.errors import BadInput

_TOKENS = 4096  # that a forward pass holds, padding included
_LOGITS = 1024  # of them, how many have their logits in memory at the same time


def arguments(parser: argparse.ArgumentParser) -> None:
  flags.add_model(parser)
  flags.add_rows(parser)


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.model.config import read_config

  files.apart([('--in', args.input), ('--model', args.model)], [('--out', args.output)])
  rows = files.rows(args.input, {'id', 'tokens', 'text'})
  with files.output(args.output) as out:
    config = read_config(args.model)
    text = models.text_of(args.model) if any('text' in row for _, row in rows) else None
    sequences = []
    for where, row in rows:
      name = files.one_of(row, ('tokens', 'text'), where)
      ids = ids_of(row, name, where, config.V, text, args.model)
      if not ids:
        raise BadInput(f'{where}: "{name}" is empty, expected at least one token')
      if len(ids) > config.positions:
        raise BadInput(f'{where}: {len(ids)} tokens, the model has {config.positions} positions')
      sequences.append(ids)
    logprobs = _score(models.load(args.model, args.dtype), sequences, args.model)
    for (_, row), values in zip(rows, logprobs):
      files.write(out, {'id': row['id'], 'logprobs': values})


def _score(model, sequences: list[list[int]], directory: pathlib.Path) -> list[list[float]]:
  """ln p of every token but the first of each sequence, under a model read from `directory`."""
  import jax
  import numpy as np

  from vibethinker_jax import host
  from vibethinker_jax.engine.engine import bucket

  logps = jax.jit(lambda m, tokens, *at: m.token_logps(m(tokens[:, :-1], *at), tokens[:, 1:])[0])
  by_length: dict[int, list[int]] = {}
  for i, ids in enumerate(sequences):
    if len(ids) > 1:
      by_length.setdefault(bucket(len(ids) - 1), []).append(i)
  out: list[list[float]] = [[] for _ in sequences]
  with host.bar(len(sequences), 'score', 'row') as bar:
    bar.update(sum(len(ids) == 1 for ids in sequences))
    for T, members in sorted(by_length.items()):
      B = min(max(1, _TOKENS // T), len(members))
      model.config = dataclasses.replace(model.config, logit_chunk=max(1, _LOGITS // B))
      positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
      for begin in range(0, len(members), B):
        batch = members[begin : begin + B]
        tokens, segments = np.zeros((B, T + 1), np.int32), np.zeros((B, T), np.int32)
        for row, i in enumerate(batch):
          tokens[row, : len(sequences[i])] = sequences[i]
          segments[row, : len(sequences[i])] = 1
        values = np.asarray(logps(model, tokens, positions, segments))
        for row, i in enumerate(batch):
          own = values[row, : len(sequences[i]) - 1]
          if not np.isfinite(own).all():
            raise BadInput(f'{directory}: log-probabilities are not finite, the weights are broken')
          out[i] = own.tolist()
        bar.update(len(batch))
  return out
