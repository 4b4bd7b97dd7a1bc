"""Drawn config.json files, each read as transformers reads it or refused by name: no third way."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config

C = Config(V=40, D=32, L=2, K=2, G=2, H=8, F=40, positions=64)
FAMILIES = {
  'qwen2': C,
  'qwen3': dataclasses.replace(C, family='qwen3', H=16),  # heads wider than the model together
  'llama': dataclasses.replace(C, family='llama'),
  'llama, biased': dataclasses.replace(C, family='llama', attention_bias=True, H=4),
}
T = 160  # beyond every window drawn below

forward = jax.jit(lambda model, tokens, at: model.logits(model(tokens, at, jnp.ones_like(tokens))))


def scaling(rng: np.random.Generator) -> dict:
  """What may stand under rope_scaling or rope_parameters, in either spelling of its kind."""
  kind = rng.choice(['default', 'linear', 'yarn', 'yarn', 'yarn', 'llama3', 'dynamic', 'longrope', 'mrope'])
  out = {str(rng.choice(['type', 'rope_type'])): str(kind)}
  some = lambda name, value, chance=0.5: out.update({name: value}) if rng.random() < chance else None
  some('rope_theta', float(rng.choice([50.0, 1e4, 1e6])))
  if kind != 'default':
    some('factor', float(rng.choice([0.5, 1, 2, 4, 8])), 0.95)
  if kind in ('yarn', 'llama3', 'longrope'):
    some('original_max_position_embeddings', int(rng.choice([8, 16, 32])), 0.7)
  if kind == 'yarn':
    some('attention_factor', float(rng.uniform(0.5, 2)), 0.3)
    some('beta_fast', float(rng.choice([4, 32, 64])), 0.3)
    some('beta_slow', float(rng.choice([0.5, 1, 2])), 0.3)
    some('mscale', float(rng.uniform(0.5, 2)), 0.3)
    some('mscale_all_dim', float(rng.uniform(0.5, 2)), 0.3)
    some('truncate', bool(rng.random() < 0.5), 0.5)
  if kind == 'llama3':
    out |= {'low_freq_factor': float(rng.choice([1, 2])), 'high_freq_factor': float(rng.choice([4, 8]))}
  if kind == 'longrope':
    out |= {'short_factor': [1.0] * (C.H // 2), 'long_factor': rng.uniform(1, 4, C.H // 2).tolist()}
  return out


def fields(rng: np.random.Generator) -> dict:
  """Changes of a config.json; None takes a field away."""
  out = {'rope_theta': None, 'rope_parameters': None}
  some = lambda name, values, chance: (
    out.update({name: values[rng.integers(len(values))]}) if rng.random() < chance else None
  )
  some('rope_theta', [100.0, 1e4, 1e6], 0.7)
  some('original_max_position_embeddings', [16, 32], 0.1)
  if rng.random() < 0.5:
    out['rope_parameters'] = scaling(rng)
  if rng.random() < 0.6:
    out['rope_scaling'] = scaling(rng)
  some('partial_rotary_factor', [0.5, 1.0], 0.05)
  some('use_sliding_window', [True], 0.05)
  some('sliding_window', [16], 0.1)
  some('max_window_layers', [0, 1], 0.2)
  some('layer_types', [['full_attention'] * 2, ['full_attention', 'sliding_attention'], ['full_attention']], 0.1)
  some('hidden_act', ['gelu', 'relu', 'swish'], 0.05)
  some('is_causal', [True, False], 0.05)
  some('attention_bias', [True, False], 0.1)
  some('mlp_bias', [True, False], 0.05)
  some('tie_word_embeddings', [True, False], 0.1)
  some('head_dim', [16], 0.03)
  return out


def contradict(rng: np.random.Generator, path) -> None:
  """Now and then weights that are not what config.json says."""
  tensors = load_file(path)
  table = tensors['model.embed_tokens.weight']
  choice = rng.random()
  if choice < 0.1:
    tensors['lm_head.weight'] = table.copy()
  elif choice < 0.2:
    tensors['lm_head.weight'] = table[::-1].copy()
  elif choice < 0.25:
    tensors.pop('lm_head.weight', None)
  elif choice < 0.3:
    tensors['model.layers.0.self_attn.o_proj.bias'] = table[0].copy()
  elif choice < 0.33:
    tensors['model.layers.2.input_layernorm.weight'] = table[0].copy()
  save_file(tensors, path, metadata={'format': 'pt'})


def compared(transformers_qwen2, directory, seed: int, c: Config = C) -> str:
  """'equal', or the line that refuses it. Fails where neither is so."""
  rng = np.random.default_rng(seed)
  transformers_qwen2.make(directory, c, seed=seed, scale=0.2)
  path = directory / 'config.json'
  raw = json.loads(path.read_text()) | {'tie_word_embeddings': True} | fields(rng)
  path.write_text(json.dumps({name: value for name, value in raw.items() if value is not None}))
  contradict(rng, directory / 'model.safetensors')
  try:
    model = hf.load(directory)
  except hf.BadModel as error:
    line = str(error)
    assert '\n' not in line and re.search(r'config\.json|model\.safetensors|tensor', line), line
    return line
  tokens = np.random.default_rng(seed).integers(0, C.V, (1, T))
  theirs = transformers_qwen2.logits(transformers_qwen2.load(directory), tokens)
  np.testing.assert_allclose(forward(model, tokens, np.arange(T)[None]), theirs, atol=2e-4, err_msg=json.dumps(raw))
  return 'equal'


@pytest.mark.parametrize('seed', range(10))
def test_equal_or_refused(transformers_qwen2, tmp_path, seed):
  compared(transformers_qwen2, tmp_path, seed)


@pytest.mark.parametrize('family', [*FAMILIES][1:])
def test_other_families_are_equal_or_refused(transformers_qwen2, tmp_path, family):
  outcomes = [compared(transformers_qwen2, tmp_path / str(seed), seed, FAMILIES[family]) for seed in range(6)]
  assert 'equal' in outcomes


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_a_hundred_are_equal_or_refused(transformers_qwen2, tmp_path, family):
  compare = lambda seed: compared(transformers_qwen2, tmp_path / str(seed), seed, FAMILIES[family])
  outcomes = [compare(seed) for seed in range(100, 200)]
  print(f'{outcomes.count("equal")} of 100 equal;', *sorted(set(outcomes) - {'equal'}), sep='\n')
  assert outcomes.count('equal') > 30


YARN = {'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 16}
LLAMA3 = {'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}


@pytest.mark.parametrize(
  'changes',
  [
    {'rope_scaling': YARN},  # added to a directory written here, beside its rope_parameters
    {'rope_scaling': {**YARN, 'attention_factor': 1.5, 'beta_fast': 8.0, 'truncate': False}, 'rope_theta': 50.0},
    {'rope_parameters': {**YARN, 'mscale': 2.0, 'mscale_all_dim': 0.5, 'rope_theta': 1e4}},
    {'rope_parameters': {'rope_type': 'linear', 'factor': 2.0}},
    {'rope_parameters': {**LLAMA3, 'original_max_position_embeddings': 32}},
  ],
  ids=['both', 'yarn', 'mscale', 'linear', 'llama3'],
)
@pytest.mark.parametrize('family', ['qwen2', 'qwen3', 'llama'])
def test_stretched_positions_are_computed_and_written(transformers_qwen2, make_model, tmp_path, changes, family):
  """Read, and written again, they are those of transformers, at positions beyond the first window too."""
  model = make_model(scale=0.5, family=family)
  hf.save(model, tmp_path / 'm', None)
  path = tmp_path / 'm' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  tokens = np.random.default_rng(0).integers(0, 48, (1, T))
  plain = forward(model, tokens, np.arange(T)[None])
  model = hf.load(tmp_path / 'm')
  ours = forward(model, tokens, np.arange(T)[None])
  assert np.abs(ours - plain).max() > 0.05  # what was ignored before
  hf.save(model, tmp_path / 'again', None)
  assert hf.read_config(tmp_path / 'again') == model.config
  for directory in (tmp_path / 'm', tmp_path / 'again'):
    theirs = transformers_qwen2.logits(transformers_qwen2.load(directory), tokens)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
