import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vibethinker_jax.model import hf
from vibethinker_jax.model.config import config_json, eos_ids
from vibethinker_jax.model.mesh import MeshShape, make_mesh, place
from vibethinker_jax.model.qwen2 import Config

QWEN_1P5B = Config(V=151936, D=1536, L=28, K=2, G=6, H=128, F=8960, positions=4096)


def equal(a, b) -> bool:
  pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  return all(x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def edit(path, **fields):
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('tied', [True, False])
def test_round_trip_keeps_every_bit(make_model, tmp_path, tied, dtype):
  model = jax.tree.map(lambda x: x.astype(dtype), make_model(tied=tied))
  hf.save(model, tmp_path / 'm', None, eos_ids=(1, 2))
  back = hf.load(tmp_path / 'm')
  assert back.config == model.config and equal(back, model)
  assert ('lm_head.weight' in load_file(tmp_path / 'm' / 'model.safetensors')) is not tied
  assert hf.load(tmp_path / 'm', 'float32').embed[...].dtype == np.float32
  hf.save(make_model(seed=1, tied=tied), tmp_path / 'm', None)  # replaces, and leaves nothing beside it
  assert not equal(hf.load(tmp_path / 'm', dtype), model)
  assert [p.name for p in tmp_path.iterdir()] == ['m']


def test_transformers_reads_what_we_write(make_model, transformers_qwen2, tmp_path):
  model = make_model(G=3, tied=False, rope_theta=1e6)
  hf.save(model, tmp_path / 'm', None)
  theirs, tokens = transformers_qwen2.load(tmp_path / 'm'), np.arange(30)[None]
  ours = jax.jit(lambda m: m.logits(m(tokens, tokens, np.ones_like(tokens))))(model)  # token i at position i
  np.testing.assert_allclose(ours, transformers_qwen2.logits(theirs, tokens), atol=1e-4)


def test_both_spellings_of_the_rotary_base(make_model, tmp_path):
  hf.save(make_model(rope_theta=12345.0), tmp_path / 'm', None)
  path = tmp_path / 'm' / 'config.json'
  raw = json.loads(path.read_text())
  for gone in ('rope_theta', 'rope_parameters'):
    path.write_text(json.dumps({k: v for k, v in raw.items() if k != gone}))
    assert hf.read_config(tmp_path / 'm').rope_theta == 12345.0


def test_a_head_beside_tied_embeddings_is_the_same_or_refused(make_model, tmp_path, monkeypatch):
  model = make_model()
  monkeypatch.setattr(hf, 'PIECE', 500)
  hf.save(model, tmp_path / 'm', None)
  file = tmp_path / 'm' / 'model.safetensors'
  tensors = load_file(file)
  head = tensors['model.embed_tokens.weight'].copy()
  save_file(tensors | {'lm_head.weight': head}, file)
  back = hf.load(tmp_path / 'm')
  assert back.head is None and equal(back, model)
  head[-1, -1] += 1
  save_file(tensors | {'lm_head.weight': head}, file)
  with pytest.raises(hf.BadModel, match=r'm/config\.json: tie_word_embeddings is true'):
    hf.load(tmp_path / 'm')


def test_layers_of_several_dtypes_lose_nothing(make_model, tmp_path):
  model = make_model()
  hf.save(model, tmp_path / 'm', None)
  file, name = tmp_path / 'm' / 'model.safetensors', 'model.layers.0.input_layernorm.weight'
  tensors = load_file(file)
  save_file(tensors | {name: tensors[name].astype(jax.numpy.bfloat16)}, file)
  scales = hf.load(tmp_path / 'm').layers.attention_norm[...]
  assert scales.dtype == np.float32 and np.array_equal(scales[1], model.layers.attention_norm[...][1])


def test_shards(transformers_qwen2, tmp_path):
  transformers_qwen2.make(tmp_path / 'whole', seed=3)
  transformers_qwen2.make(tmp_path / 'parts', seed=3, shards='8KB')
  parts = sorted(tmp_path.glob('parts/*.safetensors'))
  assert len(parts) > 2
  assert equal(hf.load(tmp_path / 'parts'), hf.load(tmp_path / 'whole'))
  shutil.copyfile(tmp_path / 'whole' / 'model.safetensors', parts[1])  # whole, but not what the index says
  parts[0].unlink()
  with pytest.raises(hf.BadModel, match=parts[0].name):
    hf.load(tmp_path / 'parts')
  (tmp_path / 'parts' / 'model.safetensors.index.json').write_text('{')
  with pytest.raises(hf.BadModel, match=r'model\.safetensors\.index\.json'):
    hf.load(tmp_path / 'parts')


@pytest.mark.parametrize('tied', [True, False])
def test_read_onto_a_mesh(make_model, tmp_path, monkeypatch, tied):
  """Each device reads its own part, in small pieces; the parts are those of the whole."""
  model = make_model(tied=tied)
  hf.save(model, tmp_path / 'm', None)
  mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
  monkeypatch.setattr(hf, 'PIECE', 100)
  spread, wanted = hf.load(tmp_path / 'm', mesh=mesh), place(model, mesh)
  assert equal(spread, wanted)
  assert all(a.sharding == b.sharding for a, b in zip(jax.tree.leaves(spread), jax.tree.leaves(wanted), strict=True))
  hf.save(spread, tmp_path / 'again', None)
  assert (tmp_path / 'again' / 'model.safetensors').read_bytes() == (tmp_path / 'm' / 'model.safetensors').read_bytes()


def test_export_in_shards(make_model, transformers_qwen2, tmp_path):
  """Several files, an index, tokenizer and generation defaults; transformers reads the same weights."""
  model = make_model()
  hf.save(model, tmp_path / 'whole', None)
  source = tmp_path / 'source'
  source.mkdir()
  (source / 'chat_template.jinja').write_text('{{ messages }}')
  (source / 'generation_config.json').write_text('{"temperature": 0.6, "eos_token_id": 1}')
  hf.save(model, tmp_path / 'parts', source, eos_ids=(2, 3), shard_bytes=8000)
  files = sorted(tmp_path.glob('parts/*.safetensors'))
  assert len(files) > 2 and all(f.stat().st_size < 12_000 for f in files)
  assert equal(hf.load(tmp_path / 'parts'), hf.load(tmp_path / 'whole'))
  index = json.loads((tmp_path / 'parts' / 'model.safetensors.index.json').read_text())
  assert index['metadata']['total_size'] == sum(x.nbytes for x in hf.tensors(model).values())
  generation = json.loads((tmp_path / 'parts' / 'generation_config.json').read_text())
  assert generation == {'temperature': 0.6, 'eos_token_id': [2, 3]}
  assert (tmp_path / 'parts' / 'chat_template.jinja').read_text() == '{{ messages }}'
  theirs, tokens = transformers_qwen2.load(tmp_path / 'parts'), np.arange(20)[None]
  same = transformers_qwen2.logits(transformers_qwen2.load(tmp_path / 'whole'), tokens)
  np.testing.assert_array_equal(transformers_qwen2.logits(theirs, tokens), same)


@pytest.mark.slow
def test_the_real_size(transformers_qwen2, tmp_path):
  """A random Qwen2.5-1.5B in bfloat16 as transformers writes it: in and out without a bit changed, and memory kept."""
  transformers_qwen2.make_bfloat16(tmp_path / 'theirs', QWEN_1P5B, shards='1GB')
  code = (
    'import re, sys, jax; from vibethinker_jax.model import hf; jax.numpy.zeros(1).block_until_ready()\n'
    'peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024\n'
    'before = peak(); model = jax.block_until_ready(hf.load(sys.argv[1])); after = peak()\n'
    'print(after - before, sum(x.nbytes for x in jax.tree.leaves(model)), model.embed[...].nbytes)\n'
    'hf.save(model, sys.argv[2], sys.argv[1], eos_ids=(151645,))'
  )
  out = subprocess.run(
    [sys.executable, '-c', code, tmp_path / 'theirs', tmp_path / 'ours'], stdout=subprocess.PIPE, text=True, check=True
  )
  grown, model, largest = map(int, out.stdout.split())
  # on CPU the devices' memory is the host's: what came on top of the model is the import's own
  print(f'import: {grown / 1e9:.2f} GB at the peak, model {model / 1e9:.2f} GB, largest tensor {largest / 1e9:.2f} GB')
  assert grown - model < 2 * largest
  files = {side: hf._shards(tmp_path / side) for side in ('theirs', 'ours')}
  assert len(set(files['theirs'].values())) > 2 and len(set(files['ours'].values())) > 1
  names = set(files['ours'])
  assert names == set(files['theirs']) - {'lm_head.weight'} and len(names) == 28 * 12 + 2
  for name in names:
    one, other = (safe_open(files[side][name], 'numpy').get_tensor(name) for side in files)
    assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), name


@pytest.mark.slow
def test_real_widths_score_as_in_torch(transformers_qwen2, tmp_path):
  c = dataclasses.replace(QWEN_1P5B, L=2)
  theirs = transformers_qwen2.make(tmp_path / 'm', c, scale=0.02)
  ours, tokens = hf.load(tmp_path / 'm'), np.random.default_rng(0).integers(0, c.V, (1, 64))
  at = np.arange(64)[None]
  got = jax.jit(lambda m: m.token_logps(m(tokens, at, np.ones_like(tokens)), np.roll(tokens, -1)))(ours)[0]
  logits = transformers_qwen2.logits(theirs, tokens).astype(np.float64)
  logps = logits - np.log(np.exp(logits - logits.max()).sum(-1, keepdims=True)) - logits.max()
  wanted = np.take_along_axis(logps, np.roll(tokens, -1)[..., None], -1)[..., 0]
  print(f'largest difference of a score: {np.abs(got - wanted).max():.2e}')
  np.testing.assert_allclose(got, wanted, atol=2e-4)


@pytest.mark.parametrize(
  'name, value',
  [
    ('architectures', ['Qwen2ForSequenceClassification']),
    ('layer_types', ['full_attention', 'sliding_attention']),
    ('layer_types', ['full_attention']),
    ('is_causal', False),
    ('attention_dropout', 0.1),
    ('partial_rotary_factor', 0.5),
    ('quantization_config', {'quant_method': 'gptq'}),
    ('num_key_value_heads', 4),
    ('num_hidden_layers', 2.0),
    ('head_dim', 7),
    ('max_position_embeddings', '512'),
    ('rms_norm_eps', float('nan')),
    ('tie_word_embeddings', None),
  ],
)
def test_what_config_json_asks_for_and_we_do_not_compute(make_model, tmp_path, name, value):
  hf.save(make_model(), tmp_path / 'm', None)
  edit(tmp_path / 'm' / 'config.json', **{name: value})
  with pytest.raises(hf.BadModel, match=rf'm/config\.json: {name} is ') as caught:
    hf.read_config(tmp_path / 'm')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'rope, field',
  [
    ({'rope_theta': None}, 'rope_theta'),
    ({'rope_scaling': {'type': 'dynamic', 'factor': 2.0}}, r'rope_scaling\.rope_type'),
    ({'rope_parameters': {'rope_type': 'longrope'}}, r'rope_parameters\.rope_type'),
    ({'rope_scaling': {'type': 'yarn'}}, r"field 'rope_scaling\.factor'"),
    ({'rope_scaling': {'type': 'linear', 'factor': '2'}}, r'rope_scaling\.factor'),
    ({'rope_parameters': {'full_attention': {'rope_type': 'default'}}}, 'rope_parameters'),
    ({'rope_scaling': [2]}, 'rope_scaling'),
    ({'rope_parameters': {'rope_theta': -1.0}}, r'rope_parameters\.rope_theta'),
  ],
)
def test_rotary_positions_that_are_refused(make_model, tmp_path, rope, field):
  hf.save(make_model(), tmp_path / 'm', None)
  edit(tmp_path / 'm' / 'config.json', **{'rope_parameters': None, **rope})
  with pytest.raises(hf.BadModel, match=rf'm/config\.json: .*{field}.* is '):
    hf.read_config(tmp_path / 'm')


def test_stop_ids_of_a_directory(make_model, tmp_path):
  hf.save(make_model(), tmp_path / 'm', None, eos_ids=(7,))
  assert eos_ids(tmp_path / 'm') == (7,)
  (tmp_path / 'm' / 'generation_config.json').write_text('{"eos_token_id": [3, 5]}')
  assert eos_ids(tmp_path / 'm') == (3, 5)
  (tmp_path / 'm' / 'generation_config.json').write_text('{"eos_token_id": "end"}')
  with pytest.raises(hf.BadModel, match=r'generation_config\.json: eos_token_id'):
    eos_ids(tmp_path / 'm')


def test_errors_name_the_file(make_model, tmp_path):
  def refuses(match: str, damage):
    hf.save(make_model(), tmp_path / 'm', None)
    damage(tmp_path / 'm')
    with pytest.raises(hf.BadModel, match=match) as caught:
      hf.load(tmp_path / 'm')
    assert '\n' not in str(caught.value)

  def without(path, name: str):
    tensors = load_file(path / 'model.safetensors')
    del tensors[name]
    save_file(tensors, path / 'model.safetensors')

  def put(path, name: str):
    save_file(load_file(path / 'model.safetensors') | {name: np.zeros(24, np.float32)}, path / 'model.safetensors')

  def truncate(path):
    whole = (path / 'model.safetensors').read_bytes()
    (path / 'model.safetensors').write_bytes(whole[:-100])

  config = r'm/config\.json: '
  write = lambda text: lambda path: (path / 'config.json').write_text(text)
  name = 'model.layers.1.mlp.up_proj.weight'
  refuses(config + '.*mistral', lambda path: edit(path / 'config.json', model_type='mistral'))
  refuses(config + '.*qwen3_moe', lambda path: edit(path / 'config.json', model_type='qwen3_moe'))
  refuses(config + '.*gelu', lambda path: edit(path / 'config.json', hidden_act='gelu'))
  refuses(config + '.*sliding', lambda path: edit(path / 'config.json', use_sliding_window=True))
  refuses(config + '.*JSON', write('{"model_type": '))
  refuses(config + '.*object', write('[]'))
  refuses(config + '.*num_attention_heads.*missing', write('{"model_type": "qwen2"}'))
  refuses(config + 'not found', lambda path: (path / 'config.json').unlink())
  refuses(rf'm: .*{name}', lambda path: without(path, name))
  refuses(config + 'tie_word_embeddings is false', lambda path: edit(path / 'config.json', tie_word_embeddings=False))
  refuses(r'm/model\.safetensors: .*o_proj\.bias', lambda path: put(path, 'model.layers.0.self_attn.o_proj.bias'))
  refuses(r'm/model\.safetensors: .*layers\.1\.', lambda path: edit(path / 'config.json', num_hidden_layers=1))
  refuses(r'm/adapter_config\.json: ', lambda path: (path / 'adapter_config.json').write_text('{}'))
  refuses(r'm/model\.safetensors: .*gate_proj.*shape', lambda path: edit(path / 'config.json', intermediate_size=44))
  refuses(r'm/model\.safetensors: .*whole', truncate)
  refuses(r'm/model\.safetensors: not found', lambda path: (path / 'model.safetensors').unlink())


def test_a_failed_save_leaves_the_old_model(make_model, tmp_path):
  model = make_model()
  hf.save(model, tmp_path / 'm', None)
  (tmp_path / 'tokenizer.json').mkdir()  # a file that cannot be copied
  with pytest.raises(OSError):
    hf.save(make_model(seed=1), tmp_path / 'm', tmp_path)
  assert equal(hf.load(tmp_path / 'm'), model)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['m', 'tokenizer.json']


def test_config_is_written_in_their_words():
  c = Config(V=7, D=12, L=1, K=2, G=3, H=2, F=5)
  raw = config_json(c, 'float32', ())
  assert raw['num_attention_heads'] == 6 and raw['num_key_value_heads'] == 2 and raw['eos_token_id'] is None
  assert config_json(c, 'float32', (4,))['eos_token_id'] == 4
