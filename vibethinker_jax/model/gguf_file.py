"""GGUF, llama.cpp's one file for a whole model: sizes and weights, in and out (the tokenizer: data/gguf_tokenizer.py).

A file has fields and tensors. Tensors have the shapes of Hugging Face's, and their order, but for the queries and keys
of a `llama`: llama.cpp turns neighbours (2i with 2i+1) where Hugging Face turns halves (i with i + H/2), so the rows of
each head are put in another order. Weights may be rounded in blocks (Q4_1, Q8_0, Q4_K, ...); they are widened here.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping

import gguf
import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Kind

from vibethinker_jax.disk import atomic
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import ARCHITECTURES, BadModel
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.model.rope import Linear, Llama3, Scaling, Yarn, plain

KINDS = {'f16': Kind.F16, 'q8_0': Kind.Q8_0}  # what matrices are written in; norms and biases are float32
READ = (
  *(Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0),
  *(Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K),
)
_MODEL = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
}
_LAYER = {
  'input_layernorm': 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'post_attention_layernorm': 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}
# fields below the architecture's name: those that are read, those that change nothing, and those that change nothing
# as long as they have this value. Any other is refused by its name.
_READ = {
  *('vocab_size', 'context_length', 'embedding_length', 'block_count', 'feed_forward_length'),
  *('attention.head_count', 'attention.head_count_kv', 'attention.key_length', 'attention.value_length'),
  *('attention.layer_norm_rms_epsilon', 'rope.dimension_count', 'rope.freq_base'),
  *('rope.scaling.type', 'rope.scaling.factor', 'rope.scaling.original_context_length', 'rope.scaling.attn_factor'),
  *('rope.scaling.yarn_beta_fast', 'rope.scaling.yarn_beta_slow'),
}
_IDLE = {'tensor_data_layout', 'rope.scaling.finetuned'}
_NEUTRAL = {
  'expert_count': 0,
  'expert_used_count': 0,
  'attention.sliding_window': 0,
  'attention.causal': True,
  'rope.scale_linear': 1.0,
  'rope.scaling.yarn_ext_factor': 1.0,
  'rope.scaling.yarn_attn_factor': 1.0,
}
_LLAMA3 = dict(original_max_position_embeddings=8192.0, low_freq_factor=1.0, high_freq_factor=4.0)
_STRETCH = 'rope_freqs.weight'  # float32 [H/2]: by how much each frequency of a llama is divided


@dataclasses.dataclass(frozen=True)
class File:
  """A GGUF file: fields by name, tensors by name (in memory as far as they are looked at)."""

  path: pathlib.Path
  fields: Mapping[str, object]
  tensors: Mapping[str, gguf.ReaderTensor]

  def own(self, name: str):
    """The architecture's field `name`, None where there is none."""
    return self.fields.get(f'{self.fields["general.architecture"]}.{name}')

  def unlike(self, name: str, expected: str) -> BadModel:
    """The line that refuses the architecture's field `name`."""
    value = self.own(name)
    found = 'missing' if value is None else json.dumps(value)[:100]
    return BadModel(f'{self.path}: {self.fields["general.architecture"]}.{name} is {found}, expected {expected}')

  def whole(self, name: str) -> int:
    """A field that counts something, 1 or more. Raises BadModel."""
    if type(self.own(name)) is not int or self.own(name) < 1:
      raise self.unlike(name, 'a whole number, 1 or more')
    return self.own(name)

  def number(self, name: str, default: float | None = None) -> float:
    """A field that measures something, as the shortest number that is the same in float32. Raises BadModel."""
    value = default if self.own(name) is None else self.own(name)
    if type(value) not in (int, float) or not 0 < value < np.inf:
      raise self.unlike(name, 'a number above 0')
    return float(str(np.float32(value)))


def read(path: pathlib.Path) -> File:
  """The file at `path`; its weights stay on the disk. Raises BadModel."""
  if not path.is_file():
    raise BadModel(f'{path}: not found (expected a GGUF file)')
  try:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
  except Exception as error:  # a file that is damaged or cut short is seen wherever the reader stumbles
    raise BadModel(f'{path}: not a whole GGUF file ({error})') from None
  if fields.get('general.architecture') not in ARCHITECTURES:
    found = json.dumps(fields.get('general.architecture'))
    raise BadModel(f'{path}: general.architecture is {found}, expected one of {", ".join(ARCHITECTURES)}')
  if fields.get('split.count', 1) > 1:
    raise BadModel(f'{path}: split.count is {fields["split.count"]}, expected a model in one file')
  return File(path, fields, {tensor.name: tensor for tensor in reader.tensors})


def config_of(file: File) -> Config:
  """The sizes of a file's model. Raises BadModel where a field is missing or wrong, or asks for what is not built."""
  family = file.fields['general.architecture']
  for name in (field.removeprefix(f'{family}.') for field in file.fields if field.startswith(f'{family}.')):
    if name not in _READ | _IDLE and (name not in _NEUTRAL or file.own(name) != _NEUTRAL[name]):
      raise file.unlike(name, 'no such field' if name not in _NEUTRAL else json.dumps(_NEUTRAL[name]))
  heads, D = file.whole('attention.head_count'), file.whole('embedding_length')
  K = heads if file.own('attention.head_count_kv') is None else file.whole('attention.head_count_kv')
  H = D // heads if file.own('attention.key_length') is None else file.whole('attention.key_length')
  if heads % K:
    raise file.unlike('attention.head_count_kv', f'a divisor of attention.head_count, {heads}')
  if H == 0 or H % 2:
    raise file.unlike('attention.key_length', f'an even number (embedding_length {D}, attention.head_count {heads})')
  if family == 'llama' and D % heads:
    raise file.unlike('embedding_length', f'a multiple of attention.head_count, {heads}')
  for name in ('attention.value_length', 'rope.dimension_count'):
    if file.own(name) not in (None, H):
      raise file.unlike(name, f'the width of a head, {H}')
  embedding = file.tensors.get('token_embd.weight')
  if embedding is None or len(embedding.shape) != 2:
    raise BadModel(f'{file.path}: tensor token_embd.weight is missing, or no matrix')
  positions, theta = file.whole('context_length'), file.number('rope.freq_base', 10000.0)
  return Config(
    V=int(embedding.shape[1]),
    D=D,
    L=file.whole('block_count'),
    K=K,
    G=heads // K,
    H=H,
    F=file.whole('feed_forward_length'),
    rope_theta=theta,
    rope_scaling=_scaling(file, theta, H, positions),
    positions=positions,
    norm_eps=file.number('attention.layer_norm_rms_epsilon'),
    tied='output.weight' not in file.tensors,
    family=family,
    attention_bias=family != 'qwen2' and 'blk.0.attn_q.bias' in file.tensors,
  )


def _scaling(file: File, theta: float, H: int, positions: int) -> Scaling | None:
  """How the rotary frequencies are stretched: by the fields, or, of a Llama 3, by the tensor of its factors."""
  kind = file.own('rope.scaling.type') or 'none'
  if kind not in ('none', 'linear', 'yarn'):
    raise file.unlike('rope.scaling.type', 'none, linear or yarn')
  if _STRETCH in file.tensors:
    stretch = np.asarray(file.tensors[_STRETCH].data, np.float32)
    found = Llama3(float(np.round(stretch.max(), 3)), **_LLAMA3)
    if kind != 'none' or stretch.shape != (H // 2,) or not np.allclose(_stretch(found, theta, H), stretch, rtol=1e-4):
      raise BadModel(f'{file.path}: {_STRETCH} are not the factors of Llama 3, expected these or none')
    return found
  if kind == 'none':
    return None
  factor = file.number('rope.scaling.factor')
  if kind == 'linear':
    return Linear(factor)
  by_length = 0.1 * np.log(factor) + 1 if factor > 1 else 1.0  # which llama.cpp multiplies by the field
  return Yarn(
    factor,
    file.number('rope.scaling.original_context_length', positions),
    float(file.number('rope.scaling.attn_factor', 1.0) * by_length),
    file.number('rope.scaling.yarn_beta_fast', 32.0),
    file.number('rope.scaling.yarn_beta_slow', 1.0),
  )


def _stretch(scaling: Llama3, theta: float, H: int) -> np.ndarray:
  """By how much each frequency is divided, float32 [H/2]."""
  return (plain(theta, H) / scaling.stretched(theta, H)[0]).astype(np.float32)


def rows(file: File, c: Config, dtype: str) -> list[hf.Tensor]:
  """The weights by their Hugging Face names, each read and widened to `dtype` when it is fetched.

  Raises BadModel where a tensor is missing, has another shape or kind than can be read, or is one too many.
  """
  found, out = {**file.tensors}, []
  found.pop(_STRETCH, None)
  for name, shape in hf.shapes(jax.eval_shape(lambda: Qwen2(c, jax.random.key(0)))).items():
    theirs = tensor_name(name)
    tensor = found.pop(theirs, None)
    if tensor is None:
      raise BadModel(f'{file.path}: tensor {theirs} is missing')
    if tuple(map(int, tensor.shape[::-1])) != shape:
      raise BadModel(f'{file.path}: {theirs} has shape {tensor.shape[::-1].tolist()}, the fields ask for {[*shape]}')
    if tensor.tensor_type not in READ:
      kinds = ', '.join(kind.name for kind in READ)
      raise BadModel(f'{file.path}: {theirs} is {tensor.tensor_type.name}, expected one of {kinds}')
    size = int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    out.append(hf.Tensor(name, size, lambda n=name, t=tensor, s=shape: _widened(n, t, s, c, dtype)))
  if found:
    raise BadModel(f'{file.path}: tensor {min(found)} is not one of a {c.family} of {c.L} layers, as the fields say')
  return out


def _widened(name: str, tensor: gguf.ReaderTensor, shape: tuple[int, ...], c: Config, dtype: str) -> np.ndarray:
  x = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
  return np.ascontiguousarray(_as_halves(x, _turned(name, c)).astype(jnp.dtype(dtype)))


def write(path: pathlib.Path, model: Qwen2, kind: str, fields: Mapping[str, object]) -> None:
  """The model as a GGUF file, matrices in `kind` of KINDS; the file appears whole or not at all.

  `fields`: `fields_of` its config, those of the tokenizer, and what else is to be told. A matrix whose rows are not
  whole blocks of 32 stays float16. Raises BadModel where a weight is too large for float16; CannotWrite.
  """
  c = model.config
  stretch = c.family == 'llama' and isinstance(c.rope_scaling, Llama3)
  sizes = hf.shapes(model)
  kinds = {name: Kind.F32 if len(shape) == 1 else KINDS[kind] for name, shape in sizes.items()}
  kinds |= {name: Kind.F16 for name, shape in sizes.items() if kinds[name] is Kind.Q8_0 and shape[-1] % 32}
  with atomic(path) as scratch:
    writer = gguf.GGUFWriter(scratch, c.family)
    about = {'general.type': 'model', 'general.file_type': int(gguf.LlamaFileType[f'MOSTLY_{kind.upper()}'])}
    about |= {'general.quantization_version': gguf.GGML_QUANT_VERSION}
    for name, value in {**about, **fields}.items():
      put = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
      put.get(type(value), writer.add_array)(name, value)
    for name, shape in sizes.items():
      bytes_shape = gguf.quant_shape_to_byte_shape(shape, kinds[name])
      writer.add_tensor_info(tensor_name(name), bytes_shape, np.dtype(np.uint8), int(np.prod(bytes_shape)), kinds[name])
    if stretch:
      writer.add_tensor_info(_STRETCH, (c.H // 2,), np.dtype(np.float32), 2 * c.H)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in hf.named(model):
      x = _as_neighbours(tensor.fetch().astype(np.float32), _turned(tensor.name, c))
      if kinds[tensor.name] is Kind.F16 and np.abs(x).max() > np.finfo(np.float16).max:
        raise BadModel(f'{path}: {tensor.name} has a weight of {np.abs(x).max():g}, too large for float16')
      writer.write_tensor_data(np.ascontiguousarray(gguf.quants.quantize(x, kinds[tensor.name])))
    if stretch:
      writer.write_tensor_data(_stretch(c.rope_scaling, c.rope_theta, c.H))
    writer.close()


def fields_of(c: Config, where: pathlib.Path) -> dict[str, object]:
  """The fields of a config, which `config_of` reads.

  Raises BadModel, naming the file `where`, if rotary positions are stretched as llama.cpp does not for this family.
  """
  out = {
    'vocab_size': c.V,
    'context_length': c.positions,
    'embedding_length': c.D,
    'block_count': c.L,
    'feed_forward_length': c.F,
    'attention.head_count': c.K * c.G,
    'attention.head_count_kv': c.K,
    'attention.key_length': c.H,
    'attention.value_length': c.H,
    'attention.layer_norm_rms_epsilon': c.norm_eps,
    'rope.dimension_count': c.H,
    'rope.freq_base': c.rope_theta,
  }
  scaling = c.rope_scaling
  if isinstance(scaling, Llama3) and c.family != 'llama':
    raise BadModel(
      f'{where}: rope_scaling llama3: llama.cpp supports it for the architecture llama only, not {c.family}'
    )
  if isinstance(scaling, Linear):
    out |= {'rope.scaling.type': 'linear', 'rope.scaling.factor': scaling.factor}
  if isinstance(scaling, Yarn):
    if not scaling.truncate:
      raise BadModel(f'{where}: rope_scaling yarn: truncate is false, but llama.cpp always rounds both bounds')
    out |= {
      'rope.scaling.type': 'yarn',
      'rope.scaling.factor': scaling.factor,
      'rope.scaling.original_context_length': round(scaling.original_max_position_embeddings),
      'rope.scaling.attn_factor': float(scaling.attention_factor / (0.1 * np.log(max(scaling.factor, 1)) + 1)),
      'rope.scaling.yarn_beta_fast': scaling.beta_fast,
      'rope.scaling.yarn_beta_slow': scaling.beta_slow,
    }
  return {f'{c.family}.{name}': value for name, value in out.items()}


def tensor_name(name: str) -> str:
  """The GGUF name of a Hugging Face tensor: 'blk.3.attn_q.bias' of 'model.layers.3.self_attn.q_proj.bias'."""
  if name in _MODEL:
    return _MODEL[name]
  _, _, layer, module, what = re.fullmatch(r'(model)\.(layers)\.(\d+)\.(.+)\.(weight|bias)', name).groups()
  return f'blk.{layer}.{_LAYER[module]}.{what}'


def _turned(name: str, c: Config) -> int:
  """The number of heads whose rows llama.cpp has in another order in this tensor; 0: none."""
  heads = {'q_proj': c.K * c.G, 'k_proj': c.K}
  return heads.get(name.split('.')[-2], 0) if c.family == 'llama' else 0


def _as_halves(x: np.ndarray, heads: int) -> np.ndarray:
  """Rows [heads x H,...] in Hugging Face's order, of rows in llama.cpp's."""
  return x.reshape(heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape) if heads else x


def _as_neighbours(x: np.ndarray, heads: int) -> np.ndarray:
  """The inverse of `_as_halves`."""
  return x.reshape(heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape) if heads else x
