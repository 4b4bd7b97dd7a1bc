"""{"id", "tokens" or "prompt" or "messages"} -> n samples of each, in order; the id decides the random numbers."""

import argparse
import dataclasses
import json

from vibethinker_jax.cli import files, flags
from vibethinker_jax.cli.tokens import ids_of
from vibethinker_jax.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
  flags.add_model(parser)
  flags.add_rows(parser)
  parser.add_argument('--n', type=int, default=1, help='samples of each row')
  parser.add_argument('--temperature', type=float, default=1.0, help='0 is greedy')
  parser.add_argument('--top-p', type=float, default=1.0, help='1 is off')
  parser.add_argument('--top-k', type=int, default=-1, help='-1 is off')
  parser.add_argument('--min-p', type=float, default=0.0, help='0 is off')
  parser.add_argument('--max-tokens', type=int, required=True, metavar='N', help='new tokens of a sample at most')
  parser.add_argument('--seed', type=int, default=0, help='another one gives other samples')
  parser.add_argument('--rows', type=int, default=64, help='samples decoded at a time')


def run(args: argparse.Namespace) -> None:
  import jax
  import numpy as np

  from vibethinker_jax import runtime
  from vibethinker_jax.engine.engine import Engine, Request
  from vibethinker_jax.engine.sampling import SamplingParams, number_of
  from vibethinker_jax.model.config import read_config
  from vibethinker_jax.model.mesh import own_mesh
  from vibethinker_jax.model_directory import load_model, load_tokenizer, stop_ids

  flags.check_range('--n', args.n, 1, 2**20)
  flags.check_range('--max-tokens', args.max_tokens, 1, 2**31)
  flags.check_range('--rows', args.rows, 1, 2**20)
  flags.check_range('--seed', args.seed, 0, 2**32)
  sampling = SamplingParams(args.temperature, args.top_k, args.top_p, args.min_p)
  if (fault := sampling.fault()) is not None:
    raise BadInput(f'generate: {fault}')
  files.apart([('--in', args.input), ('--model', args.model)], [('--out', args.output)])
  rows = files.rows(args.input, {'id', 'tokens', 'prompt', 'messages'})
  with files.output(args.output) as out:
    config = dataclasses.replace(read_config(args.model), dtype=args.dtype)
    tokenizer = load_tokenizer(args.model)
    ends, mesh = stop_ids(args.model, tokenizer), own_mesh(jax.local_devices())
    vocabulary = None if tokenizer is None else tokenizer.size
    engine = Engine(config, ends, rows=args.rows, mesh=mesh, vocabulary=vocabulary)
    requests = []
    for where, row in rows:
      name = files.one_of(row, ('tokens', 'prompt', 'messages'), where)
      ids = ids_of(row, name, where, config.V, tokenizer)
      number = number_of(json.dumps(row['id']))  # not the line: so a part of a file gives the same as the whole file
      request = Request(tuple(ids), args.max_tokens, args.n, sampling, args.seed, number)
      if (why := engine.validate(request)) is not None:
        raise BadInput(f'{where}: {why}')
      requests.append(request)
    done = {}
    with runtime.bar(len(rows) * args.n, 'generate', 'sample') as bar:
      for c in engine.generate(load_model(args.model, args.dtype), requests):
        done[c.request, c.sample] = c
        bar.update()
    for (number, sample), c in sorted(done.items()):
      if not np.isfinite(c.logps).all():
        raise BadInput(f'{args.model}: log-probabilities are not finite, the weights are broken')
      row = {'id': rows[number][1]['id'], 'sample': sample, 'tokens': c.tokens.tolist()}
      row['text'] = None if tokenizer is None else tokenizer.decode(row['tokens'])
      files.write(out, {**row, 'logprobs': c.logps.tolist(), 'finish_reason': c.finish})
