"""The pipeline's probes and evaluations resume by sample: stopped and resumed = never stopped."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from vibethinker_jax import rollout
from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data import synthetic
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.distributed import Stopped
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import samples
from vibethinker_jax.evaluate.graded import sample_and_grade
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.model import hf
from vibethinker_jax.verify.grader import Grader

PROTOCOL = Protocol(samples=3, k=2, max_tokens=24)
SEED = 5


@pytest.fixture(scope='module')
def sets():
  """Two domains of two problems; the first problem of each has the same id."""
  sets = {domain: synthetic.problems(domain, 'test', 2, 0) for domain in ('algebra', 'statistics')}
  return {domain: [dataclasses.replace(own[0], id='1'), own[1]] for domain, own in sets.items()}


@pytest.fixture(scope='module')
def ask(sets):
  """ask(result, stop) samples and grades the sets."""
  model, tokenizer = hf.load(TINY_BASE, 'float32'), load_chat_tokenizer(TINY_BASE)
  engine = Engine(model.config, tokenizer.stop_ids, rows=4, block=8)
  with Grader(1) as grader:

    def ask(result, stop=lambda: False, weights=model):
      return sample_and_grade(PROTOCOL, engine, weights, tokenizer, sets, grader, SEED, result, 'probe', stop)

    ask.drawn = engine, model, tokenizer
    yield ask


@pytest.fixture(scope='module')
def whole(ask, tmp_path_factory):
  return ask(tmp_path_factory.mktemp('whole') / 'all.json')


def equal(got, want) -> bool:
  return got.keys() == want.keys() and all(
    got[d].responses == want[d].responses
    and got[d].verdicts == want[d].verdicts
    and np.array_equal(got[d].lengths, want[d].lengths)
    and np.array_equal(got[d].truncated, want[d].truncated)
    and got[d].problems == want[d].problems
    for d in want
  )


def lines(path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def test_stopped_and_resumed_is_as_never_stopped(ask, whole, tmp_path):
  result = tmp_path / 'probe' / 'all.json'
  kept = samples.beside(result)
  stop = lambda: kept.exists() and len(lines(kept)) >= 4
  with pytest.raises(Stopped, match='probe'):
    ask(result, stop)
  before = lines(kept)
  assert 4 <= len(before) < 12
  with kept.open('a') as file:
    file.write('{"id": "cut by a ki')
  assert equal(ask(result), whole)
  assert lines(kept)[: len(before)] == before and len(lines(kept)) == 12


def test_what_is_kept_is_not_drawn_again(ask, whole, tmp_path):
  result = tmp_path / 'all.json'
  ask(result)
  kept = samples.beside(result)
  rows = lines(kept)
  kept.write_text(''.join(json.dumps(row | {'response': 'kept'}) + '\n' for row in rows[3:]))
  got = ask(result)
  said = [response for graded in got.values() for group in graded.responses for response in group]
  assert said.count('kept') == len(rows) - 3


def test_samples_are_discarded_with_those_of_other_processes(tmp_path):
  result = tmp_path / 'all.json'
  mine = [samples.beside(result), tmp_path / 'all.samples.3.jsonl']
  others = [result, tmp_path / 'all.samples.x.jsonl', tmp_path / 'all2.samples.jsonl']
  for path in (*mine, *others):
    path.write_text('')
  samples.discard(result)
  assert sorted(tmp_path.iterdir()) == sorted(others)


def test_the_draws_are_those_of_rl(ask, whole, sets):
  """One loop: in memory and in a file the same samples come out for the same streams."""
  problems = [problem for own in sets.values() for problem in own]
  sampling, n = PROTOCOL.sampling, PROTOCOL.samples
  engine, model, tokenizer = ask.drawn
  asked = engine, model, tokenizer, problems, n, sampling, PROTOCOL.max_tokens, SEED, range(len(problems))
  prompts, completions = rollout.sample(*asked)
  texts = [[tokenizer.response(p, c.tokens) for c in row] for p, row in zip(prompts, completions)]
  assert texts == [group for graded in whole.values() for group in graded.responses]


def test_without_a_file_nothing_is_kept(ask, whole, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert equal(ask(None), whole) and not list(tmp_path.iterdir())


def test_broken_weights_are_refused(ask, tmp_path):
  broken = jax.tree.map(lambda x: x * np.nan, ask.drawn[1])
  with pytest.raises(BadInput, match='log-probabilities are not finite'):
    ask(tmp_path / 'all.json', weights=broken)
  assert not samples.beside(tmp_path / 'all.json').exists()


def test_a_damaged_row_is_named(ask, tmp_path):
  kept = samples.beside(tmp_path / 'all.json')
  kept.write_text('{"problem": "1"}\n')
  with pytest.raises(BadInput, match=r'all\.samples\.jsonl, line 1: not a sample'):
    ask(tmp_path / 'all.json')
