"""Hugging Face directories in and out: one table of names, read in both directions.

A directory holds config.json, model.safetensors (or shards with model.safetensors.index.json) and tokenizer files.
Each row of the table gives our parameter, theirs, and the letters of *their* axes once heads are told apart; the
transposition between the two follows from the letters.
"""

import json
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.qwen2 import Config, Qwen2, shape

LAYER_NAMES = (
  ('attention_norm', 'input_layernorm.weight', 'D'),
  ('wq', 'self_attn.q_proj.weight', 'KGHD'),
  ('bq', 'self_attn.q_proj.bias', 'KGH'),
  ('wk', 'self_attn.k_proj.weight', 'KHD'),
  ('bk', 'self_attn.k_proj.bias', 'KH'),
  ('wv', 'self_attn.v_proj.weight', 'KHD'),
  ('bv', 'self_attn.v_proj.bias', 'KH'),
  ('wo', 'self_attn.o_proj.weight', 'DKGH'),
  ('mlp_norm', 'post_attention_layernorm.weight', 'D'),
  ('w_gate', 'mlp.gate_proj.weight', 'FD'),
  ('w_up', 'mlp.up_proj.weight', 'FD'),
  ('w_down', 'mlp.down_proj.weight', 'DF'),
)
MODEL_NAMES = (
  ('embed', 'model.embed_tokens.weight', 'VD'),
  ('norm', 'model.norm.weight', 'D'),
  ('head', 'lm_head.weight', 'VD'),
)
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
)


class BadModel(BadInput):
  """A directory is not a Qwen2 we can read. The message is one line naming the file and what was expected."""


def read_config(directory: pathlib.Path) -> Config:
  """Config from config.json, with `rope_theta` (older releases) or `rope_parameters` (transformers 5)."""
  path = pathlib.Path(directory) / 'config.json'
  try:
    raw = json.loads(path.read_text())
  except OSError:
    raise BadModel(f'{path}: not found (expected a Hugging Face model directory)') from None
  except json.JSONDecodeError as error:
    raise BadModel(f'{path}: not JSON ({error.msg}, line {error.lineno})') from None
  if not isinstance(raw, dict):
    raise BadModel(f'{path}: expected a JSON object, found {type(raw).__name__}')
  if raw.get('model_type') != 'qwen2':
    raise BadModel(f'{path}: model_type is {raw.get("model_type")!r}, expected "qwen2"')
  rope = raw.get('rope_parameters') or raw.get('rope_scaling') or {}
  if rope.get('rope_type', rope.get('type', 'default')) != 'default':
    raise BadModel(f'{path}: rope scaling {rope} is not supported, expected the default rotary positions')
  if raw.get('hidden_act', 'silu') != 'silu':
    raise BadModel(f'{path}: hidden_act is {raw["hidden_act"]!r}, expected "silu"')
  if raw.get('use_sliding_window'):
    raise BadModel(f'{path}: use_sliding_window is true, expected full attention')
  try:
    heads, K, D = raw['num_attention_heads'], raw['num_key_value_heads'], raw['hidden_size']
    return Config(
      V=raw['vocab_size'],
      D=D,
      L=raw['num_hidden_layers'],
      K=K,
      G=heads // K,
      H=raw.get('head_dim') or D // heads,
      F=raw['intermediate_size'],
      rope_theta=float(rope.get('rope_theta', raw.get('rope_theta', 10000.0))),
      positions=raw['max_position_embeddings'],
      norm_eps=raw['rms_norm_eps'],
      tied=raw.get('tie_word_embeddings', False),
    )
  except KeyError as error:
    raise BadModel(f'{path}: field {error} is missing') from None


def config_json(c: Config, dtype: str, eos_ids: tuple[int, ...]) -> dict:
  """config.json of a Qwen2ForCausalLM, readable by transformers 4 and 5 (both spellings of the rotary base)."""
  return {
    'architectures': ['Qwen2ForCausalLM'],
    'model_type': 'qwen2',
    'vocab_size': c.V,
    'hidden_size': c.D,
    'num_hidden_layers': c.L,
    'num_attention_heads': c.K * c.G,
    'num_key_value_heads': c.K,
    'head_dim': c.H,
    'intermediate_size': c.F,
    'hidden_act': 'silu',
    'rope_theta': c.rope_theta,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': c.rope_theta},
    'max_position_embeddings': c.positions,
    'rms_norm_eps': c.norm_eps,
    'tie_word_embeddings': c.tied,
    'use_sliding_window': False,
    'attention_dropout': 0.0,
    'initializer_range': 0.02,
    'eos_token_id': eos_ids[0] if len(eos_ids) == 1 else list(eos_ids) or None,
    'torch_dtype': dtype,
  }


def load(directory: pathlib.Path, dtype: str | None = None) -> Qwen2:
  """The model of a Hugging Face directory, in its own dtype or cast to `dtype`.

  An lm_head.weight beside tied embeddings is accepted and ignored. Raises BadModel.
  """
  directory = pathlib.Path(directory)
  c = read_config(directory)
  where = _shards(directory)

  def read(name: str, axes: str) -> np.ndarray:
    if name not in where:
      raise BadModel(f'{directory}: tensor {name} is missing')
    with _open(where[name]) as file:
      if name not in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
        raise BadModel(f'{where[name]}: tensor {name} is missing, although the index places it here')
      tensor = file.get_tensor(name)
    heads = shape(c, axes)
    if tensor.shape != _their_shape(heads, axes):
      wanted = _their_shape(heads, axes)
      raise BadModel(f'{where[name]}: {name} has shape {tensor.shape}, config.json asks for {wanted}')
    tensor = tensor.reshape(heads)
    return tensor if dtype is None else tensor.astype(jnp.dtype(dtype))

  model = jax.eval_shape(lambda: Qwen2(c, jax.random.key(0)))
  for ours, theirs, axes in MODEL_NAMES:
    if ours != 'head' or not c.tied:
      param = vars(model)[ours]
      setattr(model, ours, param.replace(jnp.asarray(_turn(read(theirs, axes), axes, param.axes))))
  for ours, theirs, axes in LAYER_NAMES:
    param = vars(model.layers)[ours]
    stack = [_turn(read(f'model.layers.{i}.{theirs}', axes), axes, param.axes) for i in range(c.L)]
    setattr(model.layers, ours, param.replace(jnp.asarray(np.stack(stack))))
  return model


def tensors(model: Qwen2) -> dict[str, np.ndarray]:
  """Every parameter under its Hugging Face name and shape."""
  out = {}
  for ours, theirs, axes in MODEL_NAMES:
    if ours != 'head' or model.head is not None:
      out[theirs] = _flatten(np.asarray(vars(model)[ours][...]), vars(model)[ours].axes, axes)
  for ours, theirs, axes in LAYER_NAMES:
    param = vars(model.layers)[ours]
    for i, value in enumerate(np.asarray(param[...])):
      out[f'model.layers.{i}.{theirs}'] = _flatten(value, param.axes, axes)
  return out


def save(
  model: Qwen2, directory: pathlib.Path, tokenizer_from: pathlib.Path | None, eos_ids: tuple[int, ...] = ()
) -> None:
  """Write a Hugging Face directory; it appears whole or not at all, replacing one that is there.

  Tokenizer files are copied from the directory `tokenizer_from`.
  """
  directory = pathlib.Path(directory)
  directory.parent.mkdir(parents=True, exist_ok=True)
  scratch = pathlib.Path(tempfile.mkdtemp(prefix=f'.{directory.name}.', dir=directory.parent))
  try:
    named = tensors(model)
    dtype = str(next(iter(named.values())).dtype)
    save_file(named, scratch / 'model.safetensors', metadata={'format': 'pt'})
    _write_json(scratch / 'config.json', config_json(model.config, dtype, eos_ids))
    if eos_ids:
      _write_json(scratch / 'generation_config.json', {'eos_token_id': list(eos_ids)})
    for name in TOKENIZER_FILES if tokenizer_from is not None else ():
      if (pathlib.Path(tokenizer_from) / name).exists():
        shutil.copyfile(pathlib.Path(tokenizer_from) / name, scratch / name)
    scratch.chmod(0o755)
    (scratch / 'model.safetensors').chmod(0o644)
    if directory.exists():
      shutil.rmtree(directory)
    scratch.rename(directory)
  except BaseException:
    shutil.rmtree(scratch, ignore_errors=True)
    raise


def _write_json(path: pathlib.Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n')


def _shards(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Tensor name -> the file that holds it."""
  index = directory / 'model.safetensors.index.json'
  if index.exists():
    try:
      names = json.loads(index.read_text())['weight_map']
    except (ValueError, KeyError, TypeError):
      raise BadModel(f'{index}: expected a JSON object with "weight_map"') from None
    missing = sorted({f for f in names.values() if not (directory / f).exists()})
    if missing:
      raise BadModel(f'{directory / missing[0]}: not found, although {index.name} names it')
    return {name: directory / file for name, file in names.items()}
  single = directory / 'model.safetensors'
  if not single.exists():
    raise BadModel(f'{single}: not found (expected safetensors weights)')
  with _open(single) as file:
    return dict.fromkeys(file.keys(), single)


def _open(path: pathlib.Path):
  try:
    return safe_open(path, framework='numpy')
  except Exception as error:
    raise BadModel(f'{path}: not a whole safetensors file ({error})') from None


def _turn(value: np.ndarray, theirs: str, ours: str) -> np.ndarray:
  return value.transpose([theirs.index(letter) for letter in ours])


def _flatten(value: np.ndarray, ours: str, theirs: str) -> np.ndarray:
  """Our parameter in their order and shape."""
  turned = value.transpose([ours.index(letter) for letter in theirs])
  return np.ascontiguousarray(turned.reshape(_their_shape(turned.shape, theirs)))


def _their_shape(sizes: tuple[int, ...], axes: str) -> tuple[int, ...]:
  """Sizes of their axes `axes` once heads are joined: D, F and V stand for themselves, the others are one axis."""
  out: list[int] = []
  for i, (size, letter) in enumerate(zip(sizes, axes, strict=True)):
    if i and letter not in 'DFV' and axes[i - 1] not in 'DFV':
      out[-1] *= size
    else:
      out.append(size)
  return tuple(out)
