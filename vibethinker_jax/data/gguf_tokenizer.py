"""The tokenizer of a GGUF file: its fields to Hugging Face's files, and back. Byte-level BPE alone.

A file names the rule by which texts are cut before BPE (`tokenizer.ggml.pre`), but does not hold it; those known here
are in PRE. Where llama.cpp cuts and Hugging Face's own tokenizer of the model normalises too (Qwen: NFC), so is done.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from vibethinker_jax.errors import BadInput

NORMAL, UNKNOWN, CONTROL, USER, UNUSED = 1, 2, 3, 4, 5  # values of tokenizer.ggml.token_type


def _split(pattern: str) -> dict:
  return {'type': 'Split', 'pattern': {'Regex': pattern}, 'behavior': 'Isolated', 'invert': False}


def _bytes(words: bool) -> dict:
  return {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': words}


def _sequence(*steps: dict) -> dict:
  return {'type': 'Sequence', 'pretokenizers': [*steps]}


_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CL100K = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}"
  r'| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_NFC = {'type': 'NFC'}
# what a value of tokenizer.ggml.pre stands for: normalizer and pre-tokenizer, as tokenizer.json has them
PRE = {
  'gpt-2': (None, _bytes(True)),
  'smollm': (None, _sequence({'type': 'Digits', 'individual_digits': True}, _bytes(True))),
  'qwen2': (_NFC, _sequence(_split(_CL100K.format('')), _bytes(False))),
  'llama-bpe': (None, _sequence(_split(_CL100K.format('{1,3}')), _bytes(False))),
  'default': (
    None,
    _sequence(*map(_split, (r'[\p{P}\$\+<=>\^~\|]+', _WORDS, r'\p{N}+', '[0-9][0-9][0-9]')), _bytes(False)),
  ),
}
_ALIASES = {'llama3': 'llama-bpe', 'llama-v3': 'llama-bpe', 'gpt2': 'gpt-2'}
_ROLES = {'bos_token': 'bos', 'eos_token': 'eos', 'unk_token': 'unknown', 'pad_token': 'padding'}


def write(fields: Mapping[str, object], rows: int, where: str, directory: pathlib.Path) -> tuple[int, ...]:
  """tokenizer.json and tokenizer_config.json, in `directory`, of the fields of the file `where`.

  `rows`: those of the model's embedding. Returns the ids that end a response. Raises BadInput.
  """
  get = lambda name: fields.get(f'tokenizer.ggml.{name}')

  def wrong(name: str, expected: str) -> BadInput:
    value = get(name)
    found = 'missing' if value is None else f'of {len(value)}' if isinstance(value, list) else json.dumps(value)[:100]
    return BadInput(f'{where}: tokenizer.ggml.{name} is {found}, expected {expected}')

  if get('model') != 'gpt2':
    raise wrong('model', '"gpt2", which is byte-level BPE')
  pre = get('pre') or 'default'
  pre = _ALIASES.get(pre, pre)
  if pre not in PRE:
    raise wrong('pre', f'one of {", ".join((*PRE, *_ALIASES))}')
  tokens, merges = get('tokens'), get('merges')
  if not _texts(tokens) or not 0 < len(tokens) <= rows or len({*tokens}) < len(tokens):
    raise wrong('tokens', f'at most {rows} texts, as many as the embedding has rows, and no two alike')
  kinds = get('token_type') or [NORMAL] * len(tokens)
  if len(kinds) != len(tokens) or not {*kinds} <= {NORMAL, UNKNOWN, CONTROL, USER, UNUSED}:
    raise wrong('token_type', f'one for each of {len(tokens)} tokens, of 1 to 5')
  if not _texts(merges) or any(len(merge.split(' ')) != 2 for merge in merges):
    raise wrong('merges', 'pairs of tokens, each a text with one blank in it')
  ids = {}
  for name in (*_ROLES.values(), 'eot', 'eom'):
    i = get(f'{name}_token_id')
    if i is not None and (type(i) is not int or not 0 <= i < len(tokens)):
      raise wrong(f'{name}_token_id', f'an id below {len(tokens)}')
    ids[name] = i
  vocabulary = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind != UNUSED}
  try:
    bpe = models.BPE(vocabulary, [tuple(merge.split(' ')) for merge in merges], ignore_merges=pre == 'llama-bpe')
  except Exception as error:  # the library's own: a merge of what is no token
    raise BadInput(f'{where}: tokenizer.ggml.merges do not go with the tokens ({error})') from None
  bare = Tokenizer(bpe)
  bare.decoder = decoders.ByteLevel()
  normalizer, cut = PRE[pre]
  raw = json.loads(bare.to_str()) | {'normalizer': normalizer, 'pre_tokenizer': cut}
  if get('add_bos_token') and ids['bos'] is not None:
    raw['post_processor'] = _begun_with(tokens[ids['bos']], ids['bos'])
  tokenizer = Tokenizer.from_str(json.dumps(raw))
  marked = [(token, kind) for token, kind in zip(tokens, kinds) if kind in (UNKNOWN, CONTROL, USER)]
  tokenizer.add_tokens([AddedToken(token, special=kind != USER, normalized=False) for token, kind in marked])
  tokenizer.save(str(directory / 'tokenizer.json'))
  about = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False}
  about |= {role: tokens[ids[name]] for role, name in _ROLES.items() if ids[name] is not None}
  if isinstance(template := fields.get('tokenizer.chat_template'), str):
    about['chat_template'] = template
  (directory / 'tokenizer_config.json').write_text(json.dumps(about, indent=2) + '\n')
  return tuple(sorted({ids[name] for name in ('eos', 'eot', 'eom')} - {None}))


def _texts(value) -> bool:
  return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _begun_with(token: str, i: int) -> dict:
  """The post-processor that puts a token before every text."""
  first, text = {'SpecialToken': {'id': token, 'type_id': 0}}, lambda name, n: {'Sequence': {'id': name, 'type_id': n}}
  return {
    'type': 'TemplateProcessing',
    'single': [first, text('A', 0)],
    'pair': [first, text('A', 0), text('B', 1)],
    'special_tokens': {token: {'id': token, 'ids': [i], 'tokens': [token]}},
  }


def fields_of(directory: pathlib.Path, rows: int, eos_ids: Sequence[int]) -> dict[str, object]:
  """The fields of a Hugging Face directory's tokenizer, for a model of so many `rows`. Raises BadInput.

  `eos_ids`: those that the model's files name. Rows without an id have tokens that are marked as unused.
  """
  path = directory / 'tokenizer.json'
  if not path.is_file():
    raise BadInput(f'{path}: not found (expected a Hugging Face tokenizer)')
  try:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(directory))
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    model, added = raw['model'], raw['added_tokens']
  except Exception as error:  # the tokenizers library raises bare Exception for a broken file
    raise BadInput(f'{path}: not a tokenizer ({error})') from None
  if model['type'] != 'BPE':
    raise BadInput(f'{path}: the model is {model["type"]}, expected BPE')
  pre = next(
    (name for name, rule in PRE.items() if _plain(rule) == _plain((raw['normalizer'], raw['pre_tokenizer']))), ''
  )
  if not pre or model['ignore_merges'] != (pre == 'llama-bpe'):
    raise BadInput(f'{path}: cuts texts by rules that llama.cpp has no name for, expected those of {", ".join(PRE)}')
  tokens, kinds = [f'[PAD{i}]' for i in range(rows)], [UNUSED] * rows
  named = [(i, token, NORMAL) for token, i in model['vocab'].items()]
  named += [(token['id'], token['content'], CONTROL if token['special'] else USER) for token in added]
  if (last := max(i for i, *_ in named)) >= rows:
    raise BadInput(f'{path}: has ids up to {last}, the model has an embedding of {rows} rows')
  for i, token, kind in named:
    tokens[i], kinds[i] = token, kind
  merges = [merge if isinstance(merge, str) else ' '.join(merge) for merge in model['merges']]
  ids = {name: getattr(tokenizer, f'{role}_id') for role, name in _ROLES.items()}
  ends = [i for i in eos_ids if i != ids['eos']]
  if ids['eos'] is None and ends:
    ids['eos'] = ends.pop(0)
  ids['eot'] = ends[0] if ends else None
  out = {'model': 'gpt2', 'pre': pre, 'tokens': tokens, 'token_type': kinds, 'merges': merges}
  out |= {f'{name}_token_id': i for name, i in ids.items() if i is not None}
  out['add_bos_token'] = ids['bos'] is not None and tokenizer.encode('a')[0] == ids['bos']
  fields = {f'tokenizer.ggml.{name}': value for name, value in out.items()}
  if isinstance(tokenizer.chat_template, str):
    fields['tokenizer.chat_template'] = tokenizer.chat_template
  return fields


def _plain(rule):
  """A rule without what does not decide where a text is cut."""
  if isinstance(rule, dict):
    return {name: _plain(value) for name, value in rule.items() if name != 'trim_offsets'}
  return [_plain(value) for value in rule] if isinstance(rule, list | tuple) else rule
