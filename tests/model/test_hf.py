import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config


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
  edit(path, rope_scaling={'rope_type': 'yarn', 'factor': 4})
  with pytest.raises(hf.BadModel, match=r'config\.json.*yarn'):
    hf.read_config(tmp_path / 'm')


def test_a_head_beside_tied_embeddings_is_ignored(make_model, tmp_path):
  model = make_model()
  hf.save(model, tmp_path / 'm', None)
  file = tmp_path / 'm' / 'model.safetensors'
  tensors = load_file(file)
  save_file(tensors | {'lm_head.weight': tensors['model.embed_tokens.weight'] + 1}, file)
  back = hf.load(tmp_path / 'm')
  assert back.head is None and equal(back, model)


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

  def truncate(path):
    whole = (path / 'model.safetensors').read_bytes()
    (path / 'model.safetensors').write_bytes(whole[:-100])

  config = r'm/config\.json: '
  write = lambda text: lambda path: (path / 'config.json').write_text(text)
  name = 'model.layers.1.mlp.up_proj.weight'
  refuses(config + '.*llama', lambda path: edit(path / 'config.json', model_type='llama'))
  refuses(config + '.*gelu', lambda path: edit(path / 'config.json', hidden_act='gelu'))
  refuses(config + '.*sliding', lambda path: edit(path / 'config.json', use_sliding_window=True))
  refuses(config + '.*JSON', write('{"model_type": '))
  refuses(config + '.*object', write('[]'))
  refuses(config + '.*num_attention_heads.*missing', write('{"model_type": "qwen2"}'))
  refuses(config + 'not found', lambda path: (path / 'config.json').unlink())
  refuses(rf'm: .*{name}', lambda path: without(path, name))
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
  raw = hf.config_json(c, 'float32', ())
  assert raw['num_attention_heads'] == 6 and raw['num_key_value_heads'] == 2 and raw['eos_token_id'] is None
  assert hf.config_json(c, 'float32', (4,))['eos_token_id'] == 4
