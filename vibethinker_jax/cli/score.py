"""{"id", "tokens" or "text"} -> {"id", "logprobs"}: ln p(tokens[i+1] | tokens[:i+1]) at temperature 1."""

import argparse
import pathlib

from vibethinker_jax.cli import files, flags
from vibethinker_jax.cli.tokens import ids_of
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  flags.add_model(parser)
  flags.add_rows(parser)


def run(args: argparse.Namespace) -> None:
  from vibethinker_jax.model.config import read_config
  from vibethinker_jax.model_directory import load_model, load_tokenizer

  files.apart([('--in', args.input), ('--model', args.model)], [('--out', args.output)])
  rows = files.rows(args.input, {'id', 'tokens', 'text'})
  with files.output(args.output) as out:
    config = read_config(args.model)
    tokenizer = load_tokenizer(args.model) if any('text' in row for _, row in rows) else None
    sequences = []
    for where, row in rows:
      name = files.one_of(row, ('tokens', 'text'), where)
      ids = ids_of(row, name, where, config.V, tokenizer)
      if not ids:
        raise BadInput(f'{where}: "{name}" is empty, expected at least one token')
      if len(ids) > config.positions:
        raise BadInput(f'{where}: {len(ids)} tokens, the model has {config.positions} positions')
      sequences.append(ids)
    logprobs = _score(load_model(args.model, args.dtype), sequences, args.model)
    for (_, row), values in zip(rows, logprobs):
      files.write(out, {'id': row['id'], 'logprobs': values})


def _score(model, sequences: list[list[int]], directory: pathlib.Path) -> list[list[float]]:
  """ln p of every token but the first of each sequence. directory: of the model, for messages."""
  import numpy as np

  from vibethinker_jax import runtime
  from vibethinker_jax.engine.score import score

  out: list[list[float]] = [[] for _ in sequences]
  with runtime.bar(len(sequences), 'score', 'row') as bar:
    for i, scored in score(model, sequences):
      if not np.isfinite(scored.logps).all():
        raise BadInput(f'{directory}: log-probabilities are not finite, the weights are broken')
      out[i] = scored.logps.tolist()
      bar.update()
  return out
