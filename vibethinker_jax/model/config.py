"""config.json of a Qwen2, a Qwen3 or a Llama: every field that changes what is computed is read, or refused by its
name.

Some fields have several spellings. We prefer those that transformers 5 prefers: a non-empty `rope_scaling` to
`rope_parameters`; a `rope_theta` inside that object to one outside; `rope_type` to `type`; and an
`original_max_position_embeddings` outside to one inside.
"""

import dataclasses
import json
import math
import pathlib

from vibethinker_jax.errors import BadInput
from vibethinker_jax.model.qwen2 import Config
from vibethinker_jax.model.rope import Linear, Llama3, Scaling, Yarn

# the families, by model_type, and what transformers calls them
ARCHITECTURES = {'qwen2': 'Qwen2ForCausalLM', 'qwen3': 'Qwen3ForCausalLM', 'llama': 'LlamaForCausalLM'}
# fields that would change what is computed, and the values that do not; a missing field is allowed
_ONE_FUNCTION = {
  'hidden_act': ('silu', 'swish'),
  'use_sliding_window': (False, None),
  'is_causal': (True, None),
  'attention_dropout': (0, None),  # none is applied in training
  'partial_rotary_factor': (1, None),
  'quantization_config': (None,),
  'per_layer_config': (None,),
}
_ONE_LLAMA = {'mlp_bias': (False, None)}  # the other families have no such field
# kv heads where num_key_value_heads is absent: for Llama the number of heads (None); for Qwen transformers' default
_DEFAULT_HEADS = {'qwen2': 32, 'qwen3': 32, 'llama': None}
_KINDS = {'linear': Linear, 'yarn': Yarn, 'llama3': Llama3}


class BadModel(BadInput):
  """A directory or a file is not a model we can read. The message is one line naming the file and what was expected."""


def read_config(directory: pathlib.Path) -> Config:
  """Config from config.json. Raises BadModel where a field is missing or wrong, or asks for what is not built."""
  path = pathlib.Path(directory) / 'config.json'
  raw = _object(path)
  family = raw.get('model_type')
  if not isinstance(family, str) or family not in ARCHITECTURES:
    raise BadModel(f'{path}: model_type is {family!r}, expected {", ".join(map(json.dumps, ARCHITECTURES))}')
  if raw.get('architectures') is not None and raw['architectures'] != [ARCHITECTURES[family]]:
    raise _unlike(path, 'architectures', raw['architectures'], f'["{ARCHITECTURES[family]}"]')
  for name, known in (_ONE_FUNCTION | (_ONE_LLAMA if family == 'llama' else {})).items():
    if name in raw and raw[name] not in known:
      raise _unlike(path, name, raw[name], f'{json.dumps(known[0])} or none')
  whole = lambda name: _whole(raw, name, path)
  heads, D, L = whole('num_attention_heads'), whole('hidden_size'), whole('num_hidden_layers')
  if family == 'llama' and D % heads:
    raise _unlike(path, 'hidden_size', D, f'a multiple of num_attention_heads, {heads}, as in every Llama')
  K = whole('num_key_value_heads') if raw.get('num_key_value_heads', _DEFAULT_HEADS[family]) is not None else heads
  # without head_dim transformers assumes 128 for every Qwen3; we require the field
  H = D // heads if raw.get('head_dim') is None and family != 'qwen3' else whole('head_dim')
  if heads % K:
    raise _unlike(path, 'num_key_value_heads', K, f'a divisor of num_attention_heads, {heads}')
  if H == 0 or H % 2:
    raise _unlike(path, 'head_dim', H, 'an even number: rotary positions turn pairs')
  if raw.get('layer_types') is not None and raw['layer_types'] != ['full_attention'] * L:
    raise _unlike(path, 'layer_types', raw['layer_types'], f'{L} times "full_attention"')
  yes = lambda name: _yes(raw, name, path)
  positions = whole('max_position_embeddings')
  theta, scaling = _rope(raw, path, positions)
  return Config(
    V=whole('vocab_size'),
    D=D,
    L=L,
    K=K,
    G=heads // K,
    H=H,
    F=whole('intermediate_size'),
    rope_theta=theta,
    rope_scaling=scaling,
    positions=positions,
    norm_eps=_number(raw, 'rms_norm_eps', path),
    tied=yes('tie_word_embeddings'),
    family=family,
    attention_bias=family != 'qwen2' and yes('attention_bias'),
  )


def config_json(c: Config, dtype: str, eos_ids: tuple[int, ...]) -> dict:
  """config.json by the family's own architecture, for transformers 4 and 5 (both spellings of rotary positions)."""
  rope = {'rope_type': 'default', 'rope_theta': c.rope_theta}
  if c.rope_scaling is not None:
    kind = next(name for name, kind in _KINDS.items() if kind is type(c.rope_scaling))
    rope |= {'rope_type': kind, **dataclasses.asdict(c.rope_scaling)}
  own = {
    'qwen2': {'use_sliding_window': False},
    'qwen3': {'use_sliding_window': False, 'attention_bias': c.attention_bias},
    'llama': {'mlp_bias': False, 'attention_bias': c.attention_bias},
  }
  return {
    'architectures': [ARCHITECTURES[c.family]],
    'model_type': c.family,
    'vocab_size': c.V,
    'hidden_size': c.D,
    'num_hidden_layers': c.L,
    'num_attention_heads': c.K * c.G,
    'num_key_value_heads': c.K,
    'head_dim': c.H,
    'intermediate_size': c.F,
    'hidden_act': 'silu',
    'rope_theta': c.rope_theta,
    'rope_parameters': rope,
    **({} if c.rope_scaling is None else {'rope_scaling': rope}),
    'max_position_embeddings': c.positions,
    'rms_norm_eps': c.norm_eps,
    'tie_word_embeddings': c.tied,
    **own[c.family],
    'attention_dropout': 0.0,
    'initializer_range': 0.02,
    'eos_token_id': eos_ids[0] if len(eos_ids) == 1 else list(eos_ids) or None,
    'torch_dtype': dtype,
  }


def eos_ids(directory: pathlib.Path) -> tuple[int, ...]:
  """Ids that end a response: eos_token_id of generation_config.json or else of config.json, one or several."""
  for name in ('generation_config.json', 'config.json'):
    path = pathlib.Path(directory) / name
    ids = _object(path).get('eos_token_id') if path.exists() else None
    if ids is not None:
      ids = ids if isinstance(ids, list) else [ids]
      if any(type(i) is not int for i in ids):
        raise _unlike(path, 'eos_token_id', ids, 'whole numbers')
      return tuple(ids)
  return ()


def _rope(raw: dict, path: pathlib.Path, positions: int) -> tuple[float, Scaling | None]:
  """The rotary base, and how its frequencies are stretched."""
  name = 'rope_scaling' if raw.get('rope_scaling') else 'rope_parameters'
  given = raw.get(name) or {}
  if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
    raise _unlike(path, name, given, 'one flat object for all layers')
  where = f'{name}.'
  if given.get('partial_rotary_factor', 1) not in (1, None):
    raise _unlike(path, f'{where}partial_rotary_factor', given['partial_rotary_factor'], '1 or none')
  beside = raw.get('rope_theta', 10000.0)
  theta = _number({'rope_theta': beside, **given}, 'rope_theta', path, where if 'rope_theta' in given else '')
  kind = given.get('rope_type', given.get('type', 'default'))
  if kind == 'default':
    return theta, None
  if kind not in _KINDS:
    raise _unlike(path, f'{where}rope_type', kind, f'default, {", ".join(_KINDS)}')
  original = {'original_max_position_embeddings': positions, **given}
  if 'original_max_position_embeddings' in raw:
    original['original_max_position_embeddings'] = raw['original_max_position_embeddings']
  number = lambda name: _number(original, name, path, where)
  if kind == 'linear':
    return theta, Linear(number('factor'))
  trained = number('original_max_position_embeddings')
  if kind == 'llama3':
    low, high = number('low_freq_factor'), number('high_freq_factor')
    if not low < high:
      raise _unlike(path, f'{where}high_freq_factor', high, f'more than low_freq_factor, {low}')
    return theta, Llama3(number('factor'), trained, low, high)
  if not theta > 1:
    raise _unlike(path, 'rope_theta', theta, 'more than 1 with yarn')
  factor = positions / trained if 'factor' in given and given['factor'] is None else number('factor')
  bound = lambda name, default: number(name) if given.get(name) else default
  return theta, Yarn(
    factor,
    trained,
    _amplitude(factor, given, number),
    bound('beta_fast', 32.0),
    bound('beta_slow', 1.0),
    bool(given.get('truncate', True)),
  )


def _amplitude(factor: float, given: dict, number) -> float:
  """Yarn's attention factor: as given, or by the logarithm of the stretch."""
  if given.get('attention_factor') is not None:
    return number('attention_factor')
  of = lambda scale: 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0
  if given.get('mscale') and given.get('mscale_all_dim'):
    return of(number('mscale')) / of(number('mscale_all_dim'))
  return of(1)


def _object(path: pathlib.Path) -> dict:
  try:
    raw = json.loads(path.read_text(encoding='utf-8'))
  except OSError:
    raise BadModel(f'{path}: not found (expected a Hugging Face model directory)') from None
  except json.JSONDecodeError as error:
    raise BadModel(f'{path}: not JSON ({error.msg}, line {error.lineno})') from None
  except UnicodeDecodeError:
    raise BadModel(f'{path}: not JSON (not UTF-8)') from None
  if not isinstance(raw, dict):
    raise BadModel(f'{path}: expected a JSON object, found {type(raw).__name__}')
  return raw


def _whole(raw: dict, name: str, path: pathlib.Path) -> int:
  """A field that counts something, 1 or more."""
  if name not in raw:
    raise BadModel(f'{path}: field {name!r} is missing')
  if type(raw[name]) is not int or raw[name] < 1:
    raise _unlike(path, name, raw[name], 'a whole number, 1 or more')
  return raw[name]


def _yes(raw: dict, name: str, path: pathlib.Path) -> bool:
  """A field that is true or false, false where it is absent."""
  if type(raw.get(name, False)) is not bool:
    raise _unlike(path, name, raw[name], 'true or false')
  return raw.get(name, False)


def _number(raw: dict, name: str, path: pathlib.Path, where: str = '') -> float:
  """A field that measures something, more than 0."""
  if name not in raw:
    raise BadModel(f'{path}: field {where + name!r} is missing')
  value = raw[name]
  if type(value) not in (int, float) or not 0 < value < math.inf:
    raise _unlike(path, where + name, value, 'a number above 0')
  return float(value)


def _unlike(path: pathlib.Path, name: str, value, expected: str) -> BadModel:
  return BadModel(f'{path}: {name} is {json.dumps(value)[:100]}, expected {expected}')
