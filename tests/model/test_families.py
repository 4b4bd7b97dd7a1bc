"""Qwen3 and Llama by the road of Qwen2: files, decoding, meshes, training, plans. Logits: test_parity.py."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from safetensors.numpy import load_file

from vibethinker_jax import api
from vibethinker_jax.config import RunConfig, check
from vibethinker_jax.config_io import freeze, load_config
from vibethinker_jax.data.batches import Batch
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.engine.sampling import SamplingParams
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import config_json
from vibethinker_jax.model.int8 import Int8, quantize
from vibethinker_jax.model.mesh import ACTIVATION, MeshShape, make_mesh, place, spec
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.plan.formulas import sizes
from vibethinker_jax.train import sft
from vibethinker_jax.train.optim import Optim, optimizer
from vibethinker_jax.train.state import Checkpoints, gradient_adder, start, updater

# K x G x H is 96, apart from D, but for the last
FAMILIES = {
  'qwen2': {},
  'qwen3': {'family': 'qwen3', 'H': 16},
  'qwen3, biased': {'family': 'qwen3', 'attention_bias': True, 'tied': False},
  'llama': {'family': 'llama', 'H': 16, 'tied': False},
  'llama, biased': {'family': 'llama', 'attention_bias': True},
}
OTHERS = [*FAMILIES][1:]
NAMES = {ours for ours, *_ in hf.LAYER_NAMES}
TINY = pathlib.Path(__file__).parents[2] / 'configs' / 'tiny.py'
ATTENTION = {'q_proj.weight', 'k_proj.weight', 'v_proj.weight', 'o_proj.weight'}
OWN = {
  'qwen2': {'q_proj.bias', 'k_proj.bias', 'v_proj.bias'},
  'qwen3': {'q_norm.weight', 'k_norm.weight'},
  'qwen3, biased': {'q_norm.weight', 'k_norm.weight', 'q_proj.bias', 'k_proj.bias', 'v_proj.bias', 'o_proj.bias'},
  'llama': set(),
  'llama, biased': {'q_proj.bias', 'k_proj.bias', 'v_proj.bias', 'o_proj.bias'},
}


def equal(a, b) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def batch() -> Batch:
  rng = np.random.default_rng(0)
  ids = lambda: rng.integers(0, 48, (8, 16), np.int32)
  at = np.broadcast_to(np.arange(16, dtype=np.int32), (8, 16))
  return Batch(ids(), ids(), at, np.ones((8, 16), np.int32), rng.random((8, 16), np.float32))


@pytest.mark.parametrize('family', FAMILIES)
def test_a_directory_holds_what_the_family_has(make_model, transformers_qwen2, tmp_path, family):
  """No zeros stand for a bias that is not there; transformers reads all of it, and gives the same logits."""
  model = make_model(**FAMILIES[family])
  hf.save(model, tmp_path / 'm', None)
  own = {name.split('self_attn.')[1] for name in load_file(tmp_path / 'm' / 'model.safetensors') if '.0.self_' in name}
  assert own == ATTENTION | OWN[family]
  back = hf.load(tmp_path / 'm')
  assert back.config == model.config and equal(back, model)
  theirs, tokens = transformers_qwen2.load(tmp_path / 'm'), np.arange(30)[None]
  assert type(theirs).__name__ == config_json(model.config, 'float32', ())['architectures'][0]
  assert {*theirs.state_dict()} - {'lm_head.weight'} == {*hf.tensors(model)} - {'lm_head.weight'}
  ours = jax.jit(lambda m: m.logits(m(tokens, tokens, np.ones_like(tokens))))(model)
  np.testing.assert_allclose(ours, transformers_qwen2.logits(theirs, tokens), atol=1e-4)


@pytest.mark.parametrize('family', OTHERS)
def test_greedy_equals_transformers(transformers_qwen2, tmp_path, family):
  c = dataclasses.replace(
    Config(V=50, D=24, L=2, K=2, G=3, H=8, F=40, rope_theta=1e4, positions=256), **FAMILIES[family]
  )
  theirs = transformers_qwen2.make(tmp_path, c, seed=3)
  rng = np.random.default_rng(3)
  prompts = [rng.integers(1, c.V, n).tolist() for n in (1, 9, 20)]
  requests = [Request(tuple(p), 16, sampling=SamplingParams(temperature=0)) for p in prompts]
  for d in Engine(c, (9,), rows=4, block=8).generate(hf.load(tmp_path), requests):
    assert d.tokens.tolist() == transformers_qwen2.greedy(theirs, prompts[d.request], 16, [9])


@pytest.mark.parametrize('family', ['qwen3', 'llama, biased'])
def test_a_mesh_changes_no_number(make_model, tmp_path, family):
  make, data = lambda: make_model(logit_chunk=8, **FAMILIES[family]), batch()
  loss = jax.jit(jax.value_and_grad(lambda model, batch: sft.loss(model, batch)[0]))
  expected, gradient = loss(make(), data)
  mesh = make_mesh(MeshShape(fsdp=2, seq=2, tensor=2))
  with jax.set_mesh(mesh):
    model = place(make(), mesh)
    value, sharded = loss(model, jax.device_put(data, NamedSharding(mesh, spec('BT', ACTIVATION))))
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for a, b, p in zip(jax.tree.leaves(sharded), jax.tree.leaves(gradient), jax.tree.leaves(model), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert a.sharding == p.sharding
  hf.save(make(), tmp_path / 'm', None)
  assert equal(hf.load(tmp_path / 'm', mesh=mesh), make())


@pytest.mark.parametrize('family', FAMILIES)
def test_training_moves_what_there_is_and_makes_nothing(make_model, tmp_path, family):
  model = make_model(**FAMILIES[family])
  transform = optimizer(Optim(1e-2, weight_decay=0.1), 10)
  state = start(model, transform)
  state, norms = updater(transform)(state, gradient_adder(sft.loss)(None, state.model, batch())[0])
  assert norms['moved'] == 1 and jax.tree.structure(state.model) == jax.tree.structure(model)
  hf.save(model, tmp_path / 'before', None)
  hf.save(state.model, tmp_path / 'after', None)
  assert {*load_file(tmp_path / 'after' / 'model.safetensors')} == {*load_file(tmp_path / 'before/model.safetensors')}
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  checkpoints.begin_save(state, {})
  assert equal(checkpoints.restore(start(model, transform))[0], state)
  checkpoints.close()


@pytest.mark.parametrize('family', FAMILIES)
def test_a_plan_counts_every_parameter(family):
  c = dataclasses.replace(Config(V=48, D=24, L=3, K=2, G=3, H=8, F=40), **FAMILIES[family])
  model = jax.eval_shape(lambda: Qwen2(c, jax.random.key(0)))
  layers, table = sizes(c)
  assert layers == sum(x.size for x in jax.tree.leaves(model.layers)) and table == c.V * c.D


@pytest.mark.parametrize('family', OTHERS)
def test_int8_rounds_the_matrices(make_model, family):
  model = make_model(**FAMILIES[family])
  layers = vars(quantize(model).layers)
  kinds = {name: type(param.get_value()) for name, param in layers.items() if name in NAMES and param is not None}
  assert {name for name, kind in kinds.items() if kind is Int8} == {'wq', 'wk', 'wv', 'wo', 'w_gate', 'w_up', 'w_down'}
  requests = [Request((1, 2, 3), 4, sampling=SamplingParams(temperature=0))]
  assert [len(d.tokens) for d in Engine(model.config, (), rows=1).generate(quantize(model), requests)] == [4]


def test_families_are_not_fused(make_model):
  with pytest.raises(BadInput, match=r'models\[1\]: family is llama, of the first model it is qwen2'):
    api.fuse([make_model(), make_model(family='llama')])
  mean = api.fuse([make_model(seed, family='qwen3') for seed in (0, 1)])
  np.testing.assert_allclose(
    mean.layers.q_norm[...], sum(make_model(seed, family='qwen3').layers.q_norm[...] for seed in (0, 1)) / 2, atol=1e-6
  )


@pytest.mark.parametrize(
  'family, name, value',
  [
    ('llama', 'mlp_bias', True),
    ('llama', 'attention_bias', None),
    ('llama', 'hidden_size', 25),
    ('qwen3', 'use_sliding_window', True),
    ('qwen3', 'layer_types', ['full_attention', 'sliding_attention']),
    ('qwen3', 'architectures', ['Qwen2ForCausalLM']),
    ('qwen3', 'attention_bias', 1),
  ],
)
def test_what_config_json_asks_for_and_we_do_not_compute(make_model, tmp_path, family, name, value):
  hf.save(make_model(family=family), tmp_path / 'm', None)
  path = tmp_path / 'm' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
  with pytest.raises(hf.BadModel, match=rf'm/config\.json: {name} is ') as caught:
    hf.read_config(tmp_path / 'm')
  assert '\n' not in str(caught.value)


def test_a_qwen3_says_its_head_width(make_model, tmp_path):
  hf.save(make_model(family='qwen3'), tmp_path / 'm', None)
  path = tmp_path / 'm' / 'config.json'
  raw = json.loads(path.read_text())
  path.write_text(json.dumps({name: value for name, value in raw.items() if name != 'head_dim'}))
  with pytest.raises(hf.BadModel, match=r"m/config\.json: field 'head_dim' is missing"):
    hf.read_config(tmp_path / 'm')


@pytest.mark.parametrize(
  'sizes, field', [({'attention_bias': True}, 'attention_bias'), ({'family': 'llama', 'D': 40}, 'D')]
)
def test_random_models_that_are_refused(sizes, field):
  random = {'V': 512, 'D': 48, 'L': 1, 'K': 2, 'G': 3, 'H': 8, 'F': 64} | sizes
  with pytest.raises(BadInput, match=rf'config\.model\.random\.{field}: '):
    check(freeze(RunConfig, load_config(TINY, {'model.random': random})))
