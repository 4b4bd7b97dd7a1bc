"""Hugging Face directories in and out: one table of names, read in both directions.

A directory holds config.json, model.safetensors (or shards with model.safetensors.index.json) and tokenizer files.
Each row of the table gives our parameter, theirs, and the letters of *their* axes after the heads have been split
off; the transposition between the two follows from the letters.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from safetensors import safe_open
from safetensors.numpy import save_file

from vibethinker_jax.distributed import barrier, gather, wait_for_file
from vibethinker_jax.model.config import BadModel, config_json, read_config
from vibethinker_jax.model.mesh import rest_sharding
from vibethinker_jax.model.qwen2 import Config, Layer, Qwen2, shape

LAYER_NAMES = (
  ('attention_norm', 'input_layernorm.weight', 'D'),
  ('wq', 'self_attn.q_proj.weight', 'KGHD'),
  ('bq', 'self_attn.q_proj.bias', 'KGH'),
  ('wk', 'self_attn.k_proj.weight', 'KHD'),
  ('bk', 'self_attn.k_proj.bias', 'KH'),
  ('wv', 'self_attn.v_proj.weight', 'KHD'),
  ('bv', 'self_attn.v_proj.bias', 'KH'),
  ('wo', 'self_attn.o_proj.weight', 'DKGH'),
  ('bo', 'self_attn.o_proj.bias', 'D'),
  ('q_norm', 'self_attn.q_norm.weight', 'H'),
  ('k_norm', 'self_attn.k_norm.weight', 'H'),
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


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that is to be written: its Hugging Face name, its bytes, and how to fetch it in their order and shape."""

  name: str
  nbytes: int
  fetch: Callable[[], np.ndarray]


def load(directory: pathlib.Path, dtype: str | None = None, mesh: Mesh | None = None) -> Qwen2:
  """The model of a Hugging Face directory, in its own dtype or cast to `dtype`, on one device or resting on `mesh`.

  Tensors go to the devices one by one, each process reading what its devices hold: the host never has more than one
  tensor's share and a piece of its file. Raises BadModel, before any of them is read, where a file or a tensor is
  missing or is not what config.json asks for, or where there is a tensor that such a model does not have.
  """
  directory = pathlib.Path(directory)
  c = read_config(directory)
  where = _shards(directory)
  model = jax.eval_shape(lambda: Qwen2(c, jax.random.key(0)))
  kinds = _checked(directory, where, model)
  one = SingleDeviceSharding(jax.local_devices()[0])

  def array(name: str, kind, theirs: str, ours: str, sharding) -> jax.Array:
    read = lambda index: _read(where[name], name, c, theirs, ours, index, jnp.dtype(kind))
    return jax.make_array_from_callback(shape(c, ours), sharding, read)

  for ours, theirs, axes in present(MODEL_NAMES, model):
    param = vars(model)[ours]
    sharding = one if mesh is None else rest_sharding(param, mesh)
    setattr(model, ours, param.replace(array(theirs, dtype or kinds[theirs], axes, param.axes, sharding)))
  put = jax.jit(lambda stack, layer, i: jax.lax.dynamic_update_index_in_dim(stack, layer, i, 0), donate_argnums=0)
  for ours, theirs, axes in present(LAYER_NAMES, model.layers):
    param = vars(model.layers)[ours]
    whole = one if mesh is None else rest_sharding(param, mesh)
    layer = one if mesh is None else NamedSharding(mesh, PartitionSpec(*whole.spec[1:]))
    stack = None
    for i in range(c.L):
      x = array(f'model.layers.{i}.{theirs}', dtype or kinds[theirs], axes, param.axes, layer)
      if stack is None:
        stack = jnp.zeros((c.L, *x.shape), x.dtype, device=whole)
      # waited for, so that tensors do not pile up in the host's memory before they are put in their place
      stack = jax.block_until_ready(put(stack, x, i))
    setattr(model.layers, ours, param.replace(stack))
  return model


def tensors(model: Qwen2) -> dict[str, np.ndarray]:
  """Every parameter under its Hugging Face name and shape."""
  return {tensor.name: tensor.fetch() for tensor in named(model)}


def save(
  model: Qwen2,
  directory: pathlib.Path,
  tokenizer_from: pathlib.Path | None,
  eos_ids: tuple[int, ...] = (),
  shard_bytes: int = 2**31,
) -> None:
  """Write a model as a Hugging Face directory: see `write`."""
  write([*named(model)], model.config, str(model.embed[...].dtype), directory, tokenizer_from, eos_ids, shard_bytes)


def write(
  rows: Sequence[Tensor],
  c: Config,
  dtype: str,
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
    files = _files(rows, shard_bytes)
    index = {}
    for number, part in enumerate(files, 1):
      name = 'model.safetensors' if len(files) == 1 else f'model-{number:05}-of-{len(files):05}.safetensors'
      held = {tensor.name: tensor.fetch() for tensor in part}
      if writes:
        save_file(held, scratch / name, metadata={'format': 'pt'})
        (scratch / name).chmod(0o644)
      index |= dict.fromkeys(held, name)
    if len(files) > 1:
      total = sum(tensor.nbytes for tensor in rows)
      _write_json(scratch / 'model.safetensors.index.json', {'metadata': {'total_size': total}, 'weight_map': index})
    _write_json(scratch / 'config.json', config_json(c, dtype, eos_ids))
    _copy_tokenizer(tokenizer_from, scratch, eos_ids)
    scratch.chmod(0o755)
    barrier(f'save {directory.name}')  # every process has looked at the old directory by now
    if writes:
      if directory.exists():
        shutil.rmtree(directory)
      scratch.rename(directory)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
  wait_for_file(directory)


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


def named(model: Qwen2) -> Iterator[Tensor]:
  """Every parameter as it is written."""
  for ours, theirs, axes in present(MODEL_NAMES, model):
    param = vars(model)[ours]
    x = param[...]
    yield Tensor(theirs, x.nbytes, lambda x=x, p=param, a=axes: _flatten(_host(x), p.axes, a))
  for ours, theirs, axes in present(LAYER_NAMES, model.layers):
    param = vars(model.layers)[ours]
    x = param[...]
    for i in range(len(x)):
      fetch = lambda x=x, i=i, p=param, a=axes: _flatten(_host(x[i]), p.axes, a)
      yield Tensor(f'model.layers.{i}.{theirs}', x.nbytes // len(x), fetch)


def shapes(model: Qwen2) -> dict[str, tuple[int, ...]]:
  """The names and shapes of `named`, of a model or of one that is only described (jax.eval_shape)."""
  return {name: _their_shape(shape(model.config, axes), axes) for name, (_, axes) in _wanted(model).items()}


def _wanted(model: Qwen2) -> dict[str, tuple[str, str]]:
  """Every tensor of such a model: its name, that of its row in our tables, and its axes."""
  wanted = {theirs: (theirs, axes) for _, theirs, axes in present(MODEL_NAMES, model)}
  for _, theirs, axes in present(LAYER_NAMES, model.layers):
    wanted |= {f'model.layers.{i}.{theirs}': (theirs, axes) for i in range(model.config.L)}
  return wanted


def _host(x: jax.Array) -> np.ndarray:
  """The whole array on every process."""
  return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))


def _files(rows: Sequence[Tensor], most: int) -> list[list[Tensor]]:
  """Tensors in as few files as hold `most` bytes each; a larger one has a file of its own."""
  files, size = [[]], 0
  for tensor in rows:
    if files[-1] and size + tensor.nbytes > most:
      files.append([])
      size = 0
    files[-1].append(tensor)
    size += tensor.nbytes
  return files


def _read(path: pathlib.Path, name: str, c: Config, theirs: str, ours: str, index: tuple, kind) -> np.ndarray:
  """The part `index` (slices of our axes) of a tensor, as `kind`, with our axes.

  It is read in pieces along their first axis, and the file opened for each: pages of a mapped file count as the
  process's own for as long as it is open.
  """
  cut = {letter: range(*part.indices(size)) for letter, part, size in zip(ours, index, shape(c, ours))}
  order = [ours.index(letter) for letter in theirs]
  out = np.empty([len(cut[letter]) for letter in ours], kind)
  joined = []  # slices of their axes; of an axis of several letters only the first may be sharded
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


def present(rows: Sequence[tuple], module: Qwen2 | Layer) -> list[tuple]:
  """The rows (our name, ...) whose parameter the module has: no head where it is tied, no bias where there is none."""
  return [row for row in rows if vars(module)[row[0]] is not None]


def _checked(directory: pathlib.Path, where: dict[str, pathlib.Path], model: Qwen2) -> dict:
  """The dtype of every row of our tables, once there is every tensor that the model asks for, and no other."""
  c, wanted = model.config, _wanted(model)
  head, config = MODEL_NAMES[-1][1], directory / 'config.json'
  if (directory / 'adapter_config.json').exists():
    raise BadModel(f'{directory / "adapter_config.json"}: an adapter, expected whole weights (merge it first)')
  if not c.tied and head not in where:
    raise BadModel(f'{config}: tie_word_embeddings is false, but {directory} has no tensor {head}')
  for name in wanted:
    if name not in where:
      raise BadModel(f'{directory}: tensor {name} is missing')
  for name, path in where.items():
    # some releases of transformers also wrote inv_freq, which follows from config.json
    if name not in wanted and name != head and not name.endswith('.rotary_emb.inv_freq'):
      raise BadModel(f'{path}: tensor {name} is not one of a {c.family} of {c.L} layers, as {config} describes it')
  kinds = {}
  for name, (theirs, axes) in wanted.items():
    kind = _check(where[name], name, _their_shape(shape(c, axes), axes))
    kinds[theirs] = jnp.promote_types(kind, kinds.get(theirs, kind))  # layers are stacked: one dtype that holds all
  if c.tied and head in where and not _same(where, MODEL_NAMES[0][1], head):
    raise BadModel(f'{config}: tie_word_embeddings is true, but {head} is not equal to {MODEL_NAMES[0][1]}')
  return kinds


def _check(path: pathlib.Path, name: str, wanted: tuple[int, ...]) -> str:
  """A tensor's dtype, where its shape is the wanted one."""
  kinds = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
  with _open(path) as file:
    if name not in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
      raise BadModel(f'{path}: tensor {name} is missing, although the index places it here')
    found, kind = tuple(file.get_slice(name).get_shape()), file.get_slice(name).get_dtype()
  if found != wanted:
    raise BadModel(f'{path}: {name} has shape {found}, config.json asks for {wanted}')
  if kind not in kinds:
    raise BadModel(f'{path}: {name} is {kind}, expected one of {", ".join(kinds)}')
  return kinds[kind]


def _same(where: dict[str, pathlib.Path], one: str, other: str) -> bool:
  """Whether two tables hold the same numbers; they are read in pieces."""
  with _open(where[one]) as a, _open(where[other]) as b:
    a, b = a.get_slice(one), b.get_slice(other)
    rows, columns = a.get_shape()
    if [rows, columns] != b.get_shape():
      return False
    step = max(1, PIECE // (4 * columns))
    return all(np.array_equal(a[i : min(i + step, rows)], b[i : min(i + step, rows)]) for i in range(0, rows, step))


def _write_json(path: pathlib.Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n')


def _shards(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Tensor name -> the file that holds it."""
  index = directory / 'model.safetensors.index.json'
  if index.exists():
    try:
      names = dict(json.loads(index.read_text())['weight_map'])
    except (ValueError, KeyError, TypeError):
      raise BadModel(f'{index}: expected a JSON object with "weight_map"') from None
    if not all(isinstance(f, str) for f in names.values()):
      raise BadModel(f'{index}: expected the name of a file for every tensor in "weight_map"')
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
