"""Hugging Face directories in and out: one table of names, read in both directions.

A directory holds config.json, model.safetensors (or shards with model.safetensors.index.json) and tokenizer files.
Each row of the table gives our parameter, theirs, and the letters of *their* axes once heads are told apart; the
transposition between the two follows from the letters.
"""

import hashlib
import json
import math
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from safetensors import safe_open
from safetensors.numpy import save_file

from vibethinker_jax.cluster import gather, together, wrote
from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.mesh import rest_sharding
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
PIECE = 64 * 2**20  # bytes read from a file at a time


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


def load(directory: pathlib.Path, dtype: str | None = None, mesh: Mesh | None = None) -> Qwen2:
  """The model of a Hugging Face directory, in its own dtype or cast to `dtype`, on one device or resting on `mesh`.

  Tensors go to the devices one by one, each process reading what its devices hold: the host never has more than one
  tensor's share and a piece of its file. An lm_head.weight beside tied embeddings is accepted and ignored. Raises
  BadModel, before anything is read where a file or a tensor is missing.
  """
  directory = pathlib.Path(directory)
  c = read_config(directory)
  where = _shards(directory)
  model = jax.eval_shape(lambda: Qwen2(c, jax.random.key(0)))
  tables = [row for row in MODEL_NAMES if row[0] != 'head' or not c.tied]
  wanted = [theirs for _, theirs, _ in tables]
  wanted += [f'model.layers.{i}.{theirs}' for _, theirs, _ in LAYER_NAMES for i in range(c.L)]
  for name in wanted:
    if name not in where:
      raise BadModel(f'{directory}: tensor {name} is missing')
  one = SingleDeviceSharding(jax.local_devices()[0])

  def array(name: str, theirs: str, ours: str, sharding) -> jax.Array:
    _check_shape(where[name], name, _their_shape(shape(c, theirs), theirs))
    read = lambda index: _read(where[name], name, c, theirs, ours, index, kind)
    kind = _dtype(where[name], name) if dtype is None else jnp.dtype(dtype)
    return jax.make_array_from_callback(shape(c, ours), sharding, read)

  for ours, theirs, axes in tables:
    param = vars(model)[ours]
    sharding = one if mesh is None else rest_sharding(param, mesh)
    setattr(model, ours, param.replace(array(theirs, axes, param.axes, sharding)))
  put = jax.jit(lambda stack, layer, i: jax.lax.dynamic_update_index_in_dim(stack, layer, i, 0), donate_argnums=0)
  for ours, theirs, axes in LAYER_NAMES:
    param = vars(model.layers)[ours]
    whole = one if mesh is None else rest_sharding(param, mesh)
    layer = one if mesh is None else NamedSharding(mesh, PartitionSpec(*whole.spec[1:]))
    stack = None
    for i in range(c.L):
      x = array(f'model.layers.{i}.{theirs}', axes, param.axes, layer)
      if stack is None:
        stack = jnp.zeros((c.L, *x.shape), x.dtype, device=whole)
      # waited for, so that tensors do not pile up in the host's memory before they are put in their place
      stack = jax.block_until_ready(put(stack, x, i))
    setattr(model.layers, ours, param.replace(stack))
  return model


def tensors(model: Qwen2) -> dict[str, np.ndarray]:
  """Every parameter under its Hugging Face name and shape."""
  return {name: fetch() for name, _, fetch in _named(model)}


def save(
  model: Qwen2,
  directory: pathlib.Path,
  tokenizer_from: pathlib.Path | None,
  eos_ids: tuple[int, ...] = (),
  shard_bytes: int = 2**31,
) -> None:
  """Write a Hugging Face directory; it appears whole or not at all, replacing one that is there.

  More than `shard_bytes` of weights go into several files with an index, and the host holds one file's tensors at a
  time. Tokenizer files, the chat template and generation defaults are copied from the directory `tokenizer_from`;
  `eos_ids` take the place of its own. With several processes all of them call this, and the first one writes.
  """
  directory = pathlib.Path(directory)
  writes = jax.process_index() == 0
  directory.parent.mkdir(parents=True, exist_ok=True)
  scratch = pathlib.Path(tempfile.mkdtemp(prefix=f'.{directory.name}.', dir=directory.parent))
  try:
    files = _files(list(_named(model)), shard_bytes)
    index = {}
    for number, rows in enumerate(files, 1):
      name = 'model.safetensors' if len(files) == 1 else f'model-{number:05}-of-{len(files):05}.safetensors'
      held = {theirs: fetch() for theirs, _, fetch in rows}
      if writes:
        save_file(held, scratch / name, metadata={'format': 'pt'})
        (scratch / name).chmod(0o644)
      index |= dict.fromkeys(held, name)
    if len(files) > 1:
      total = sum(size for rows in files for _, size, _ in rows)
      _write_json(scratch / 'model.safetensors.index.json', {'metadata': {'total_size': total}, 'weight_map': index})
    _write_json(scratch / 'config.json', config_json(model.config, str(model.embed[...].dtype), eos_ids))
    _copy_tokenizer(tokenizer_from, scratch, eos_ids)
    scratch.chmod(0o755)
    together(f'save {directory.name}')  # not before all have seen what was there
    if writes:
      if directory.exists():
        shutil.rmtree(directory)
      scratch.rename(directory)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
  wrote(directory)


def _copy_tokenizer(source: pathlib.Path | None, scratch: pathlib.Path, eos_ids: tuple[int, ...]) -> None:
  """What belongs to a model beside its weights."""
  generation = {}
  if source is not None:
    for name in TOKENIZER_FILES:
      if (pathlib.Path(source) / name).exists():
        shutil.copyfile(pathlib.Path(source) / name, scratch / name)
    if (pathlib.Path(source) / 'generation_config.json').exists():
      generation = json.loads((pathlib.Path(source) / 'generation_config.json').read_text())
  if eos_ids:
    generation['eos_token_id'] = list(eos_ids)
  if generation:
    _write_json(scratch / 'generation_config.json', generation)


def _named(model: Qwen2) -> Iterator[tuple[str, int, Callable[[], np.ndarray]]]:
  """Every parameter: its Hugging Face name, its bytes, and how to fetch it in their order and shape."""
  for ours, theirs, axes in MODEL_NAMES:
    if ours != 'head' or model.head is not None:
      param = vars(model)[ours]
      x = param[...]
      yield theirs, x.nbytes, lambda x=x, p=param, a=axes: _flatten(_host(x), p.axes, a)
  for ours, theirs, axes in LAYER_NAMES:
    param = vars(model.layers)[ours]
    x = param[...]
    for i in range(len(x)):
      yield (
        f'model.layers.{i}.{theirs}',
        x.nbytes // len(x),
        lambda x=x, i=i, p=param, a=axes: _flatten(_host(x[i]), p.axes, a),
      )


def _host(x: jax.Array) -> np.ndarray:
  """The whole array on every process."""
  return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))


def _files(rows: list[tuple], most: int) -> list[list[tuple]]:
  """Rows (name, bytes, ...) in as few files as hold `most` bytes each; a larger tensor has a file of its own."""
  files, size = [[]], 0
  for row in rows:
    if files[-1] and size + row[1] > most:
      files.append([])
      size = 0
    files[-1].append(row)
    size += row[1]
  return files


def _read(path: pathlib.Path, name: str, c: Config, theirs: str, ours: str, index: tuple, kind) -> np.ndarray:
  """The part `index` (slices of our axes) of a tensor, as `kind`, with our axes.

  It is read in pieces along their first axis, and the file opened for each: pages of a mapped file count as the
  process's own for as long as it is open.
  """
  cut = {letter: range(*part.indices(size)) for letter, part, size in zip(ours, index, shape(c, ours))}
  order = [ours.index(letter) for letter in theirs]
  out = np.empty([len(cut[letter]) for letter in ours], kind)
  joined = []  # their axes: the first letter of each is cut, the others are whole
  for letters in _their_axes(theirs):
    inner = math.prod(shape(c, letters[1:]))
    joined.append(slice(cut[letters[0]].start * inner, cut[letters[0]].stop * inner))
  first = cut[theirs[0]]
  rows = max(1, len(first) * PIECE // max(1, out.nbytes))
  inner = (joined[0].stop - joined[0].start) // len(first)
  for begin in range(0, len(first), rows):
    n = min(rows, len(first) - begin)
    at = joined[0].start + begin * inner
    with _open(path) as file:
      piece = file.get_slice(name)[(slice(at, at + n * inner), *joined[1:])]
    target = out.transpose(order)[begin : begin + n]
    target[...] = piece.reshape(target.shape)
  return out


def fingerprint(directory: pathlib.Path) -> str:
  """The sha256 of a directory's weights: of every file that holds a tensor, name and bytes. Raises BadModel.

  With several processes all call this, and the first one reads.
  """
  if jax.process_index() > 0:
    return gather('')[0]
  whole = hashlib.sha256()
  for path in sorted({*_shards(pathlib.Path(directory)).values()}):
    with path.open('rb') as file:
      whole.update(f'{path.name}\n{hashlib.file_digest(file, "sha256").hexdigest()}\n'.encode())
  return gather(whole.hexdigest())[0]


def _check_shape(path: pathlib.Path, name: str, wanted: tuple[int, ...]) -> None:
  with _open(path) as file:
    if name not in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
      raise BadModel(f'{path}: tensor {name} is missing, although the index places it here')
    found = tuple(file.get_slice(name).get_shape())
  if found != wanted:
    raise BadModel(f'{path}: {name} has shape {found}, config.json asks for {wanted}')


def _dtype(path: pathlib.Path, name: str):
  kinds = {'F32': jnp.float32, 'BF16': jnp.bfloat16, 'F16': jnp.float16}
  with _open(path) as file:
    found = file.get_slice(name).get_dtype()
  if found not in kinds:
    raise BadModel(f'{path}: {name} is {found}, expected one of {", ".join(kinds)}')
  return jnp.dtype(kinds[found])


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


def _flatten(value: np.ndarray, ours: str, theirs: str) -> np.ndarray:
  """Our parameter in their order and shape."""
  turned = value.transpose([ours.index(letter) for letter in theirs])
  return np.ascontiguousarray(turned.reshape(_their_shape(turned.shape, theirs)))


def _their_axes(letters: str) -> list[str]:
  """Their axes, heads joined: 'DKGH' -> ['D', 'KGH']. D, F and V stand for themselves, the others are one axis."""
  return re.findall('[DFV]|[KGH]+', letters)


def _their_shape(sizes: tuple[int, ...], letters: str) -> tuple[int, ...]:
  """Sizes of their axes."""
  of = dict(zip(letters, sizes, strict=True))
  return tuple(math.prod(of[letter] for letter in axis) for axis in _their_axes(letters))
