"""GGUF files in and out, beside transformers' reader of the same files."""

import dataclasses
import json
import os
import pathlib

import gguf
import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import vibethinker_jax as vt
from vibethinker_jax.cli.__main__ import main
from vibethinker_jax.data import gguf_tokenizer
from vibethinker_jax.data.tokenizer import read_chat_tokenizer
from vibethinker_jax.model import gguf_file, hf
from vibethinker_jax.model.config import eos_ids
from vibethinker_jax.model.rope import Linear, Llama3, Yarn

DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'))
REAL = os.environ.get('VIBETHINKER_GGUF')  # a SmolLM2-135M-Instruct in GGUF; docs/models.md says where from
# every size a multiple of what is rounded together
WIDE = dict(D=256, K=2, G=2, H=64, F=256)
FAMILIES = {'qwen2': {}, 'qwen3': {'H': 32}, 'llama': {'tied': False}}
TEXTS = ('Hello world', "it's 2024, 12345 x 7\n\n  (a+b)^2 = $5", 'Führer é ½ 你好 🙂\t\r\n x', '<|im_start|>a<think>b')
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"


def make_tokenizer(directory: pathlib.Path, pre: str) -> int:
  """A small byte-level tokenizer that cuts by the rule `pre`; how many ids it has."""
  bare = Tokenizer(models.BPE(ignore_merges=pre == 'llama-bpe'))
  normalizer, cut = gguf_tokenizer.PRE[pre]
  raw = json.loads(bare.to_str()) | {'normalizer': normalizer, 'pre_tokenizer': cut}
  tokenizer = Tokenizer.from_str(json.dumps(raw))
  tokenizer.decoder = decoders.ByteLevel()
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=letters, show_progress=False)
  tokenizer.train_from_iterator([*TEXTS, 'the quick brown fox 1234 jumps'] * 9, trainer)
  tokenizer.add_special_tokens(['<|endoftext|>', '<|im_start|>', '<|im_end|>'])
  tokenizer.add_tokens([AddedToken('<think>', normalized=False)])
  wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token='<|im_end|>', pad_token='<|endoftext|>')
  wrapped.chat_template = TEMPLATE
  wrapped.save_pretrained(str(directory))
  return len(wrapped)


@pytest.fixture(scope='module')
def directory(make_model, tmp_path_factory):
  """directory(family, pre, **sizes): a random model with a tokenizer, and five rows more than it has ids."""

  def make(family: str, pre: str = 'qwen2', scale: float = 0.1, **sizes) -> pathlib.Path:
    source = tmp_path_factory.mktemp('tokenizer')
    V = make_tokenizer(source, pre) + 5
    model = make_model(scale=scale, V=V, family=family, **{**FAMILIES[family], **sizes})
    out = tmp_path_factory.mktemp('model') / 'm'
    hf.save(model, out, source, eos_ids=tuple(read_chat_tokenizer(source).stop_ids))
    return out

  return make


def logits(directory: pathlib.Path) -> np.ndarray:
  model, tokens = hf.load(directory), np.arange(40)[None]
  return jax.jit(lambda m: m.logits(m(tokens, tokens, np.ones_like(tokens))))(model)


def convert(*argv) -> int:
  return main([str(arg) for arg in argv])


def rewritten(path: pathlib.Path, out: pathlib.Path, fields=(), tensors=(), cut: int = 0) -> pathlib.Path:
  """The file with other values of fields (None: without it), and of tensors (kind, bytes [.., n])."""
  file = gguf_file.read(path)
  changed = {n: v for n, v in ({**file.fields} | dict(fields)).items() if v is not None and not n.startswith('GGUF.')}
  writer = gguf.GGUFWriter(out, changed.pop('general.architecture', ''))
  for name, value in changed.items():
    put = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    put.get(type(value), writer.add_array)(name, value)
  kept = {name: (tensor.tensor_type, tensor.data) for name, tensor in file.tensors.items()} | dict(tensors)
  for name, (kind, data) in kept.items():
    if data is not None:
      writer.add_tensor(name, np.array(data), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  if cut:
    out.write_bytes(out.read_bytes()[:-cut])
  return out


@pytest.mark.parametrize(
  'family, pre, sizes',
  [
    ('qwen2', 'qwen2', {'rope_scaling': Yarn(4.0, 128.0, 1.5, beta_fast=16.0)}),
    ('qwen3', 'smollm', {'rope_scaling': Linear(2.0)}),
    ('llama', 'llama-bpe', {'rope_scaling': Llama3(8.0, 8192.0, 1.0, 4.0), 'rope_theta': 5e5}),
    ('llama', 'gpt-2', {'attention_bias': True, 'tied': True}),
    ('llama', 'default', {}),
  ],
)
def test_out_and_in_again(directory, tmp_path, family, pre, sizes):
  """The same model to float16, its norms and biases to the bit; the same ids of every text, template and stop ids."""
  source = directory(family, pre, **sizes)
  assert convert('export-gguf', source, '--out', tmp_path / 'm.gguf') == 0
  assert convert('import-gguf', tmp_path / 'm.gguf', '--out', tmp_path / 'again') == 0
  was, now = (load_file(d / 'model.safetensors') for d in (source, tmp_path / 'again'))
  assert {*was} == {*now}
  for name, x in was.items():
    assert np.array_equal(now[name], x if x.ndim == 1 else x.astype(np.float16).astype(np.float32)), name
  config = hf.read_config(tmp_path / 'again')
  assert dataclasses.replace(config, rope_scaling=None) == dataclasses.replace(
    hf.read_config(source), rope_scaling=None
  )
  np.testing.assert_allclose(logits(tmp_path / 'again'), logits(source), atol=5e-3)
  ours, theirs = read_chat_tokenizer(source), read_chat_tokenizer(tmp_path / 'again')
  for text in TEXTS:
    ids = ours.hf.encode(text, add_special_tokens=False)
    assert theirs.hf.encode(text, add_special_tokens=False) == ids
    assert theirs.encode(text) == ours.encode(text) and theirs.decode(ids) == ours.decode(ids)
  assert theirs.size == ours.size == config.V - 5
  assert theirs.chat([{'role': 'user', 'content': TEXTS[3]}]) == ours.chat([{'role': 'user', 'content': TEXTS[3]}])
  assert theirs.stop_ids == ours.stop_ids and {*eos_ids(tmp_path / 'again')} == {*eos_ids(source)}
  kinds = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / 'm.gguf').tensors}
  assert {kind for name, kind in kinds.items() if 'norm' in name or name.endswith('bias')} == {Kind.F32}


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('kind', ['f16', 'q8_0'])
def test_transformers_reads_the_same_file(directory, transformers_qwen2, tmp_path, family, kind):
  pytest.importorskip('accelerate', reason='transformers reads GGUF files with accelerate')
  # the head widths that transformers takes for granted, which no field tells it; rows of whole blocks
  source = directory(family, scale=0.1, D=96, H=128 if family == 'qwen3' else 16, F=64)
  assert convert('export-gguf', source, '--out', tmp_path / 'm.gguf', '--type', kind) == 0
  assert convert('import-gguf', tmp_path / 'm.gguf', '--out', tmp_path / 'm') == 0
  theirs, prompts = from_gguf(tmp_path / 'm.gguf'), [[5, 9, 200], [7]]
  tokens = np.arange(40)[None]
  np.testing.assert_allclose(logits(tmp_path / 'm'), transformers_qwen2.logits(theirs, tokens), atol=2e-4)
  model, _ = vt.load(tmp_path / 'm')
  for prompt, done in zip(prompts, vt.generate(model, None, prompts, max_tokens=20, temperature=0)):
    assert done[0].tokens.tolist() == transformers_qwen2.greedy(theirs, prompt, 20, [])


def from_gguf(path: pathlib.Path):
  import torch
  from transformers import AutoModelForCausalLM

  return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@pytest.mark.parametrize('kind', [k for k in gguf_file.READ if k not in (Kind.F32, Kind.F16)], ids=lambda k: k.name)
def test_every_kind_of_rounding_is_widened(directory, tmp_path, kind):
  """Blocks of any bytes that are finite numbers, as the package that defines them reads them."""
  assert convert('export-gguf', directory('qwen2', **WIDE), '--out', tmp_path / 'm.gguf') == 0
  size = gguf.quant_shape_to_byte_shape((256, 256), kind)
  data = np.random.default_rng(0).integers(0, 0x3C, size).astype(np.uint8)
  tensors = {'blk.1.ffn_up.weight': (kind, data)}
  path = rewritten(tmp_path / 'm.gguf', tmp_path / 'k.gguf', tensors=tensors)
  for dtype in ('float32', 'bfloat16'):
    assert convert('import-gguf', path, '--out', tmp_path / 'm', '--dtype', dtype) == 0
    x = load_file(tmp_path / 'm' / 'model.safetensors')['model.layers.1.mlp.up_proj.weight']
    assert str(x.dtype) == dtype and len(np.unique(x)) > 10
    assert np.array_equal(x, gguf.quants.dequantize(data, kind).astype(x.dtype))


def test_rows_that_are_no_whole_blocks_stay_float16(directory, tmp_path):
  assert convert('export-gguf', directory('llama', F=40), '--out', tmp_path / 'm.gguf', '--type', 'q8_0') == 0
  kinds = {name: tensor.tensor_type for name, tensor in gguf_file.read(tmp_path / 'm.gguf').tensors.items()}
  assert kinds['blk.0.ffn_down.weight'] == Kind.F16 == kinds['token_embd.weight']  # rows of F 40, of D 24
  assert kinds['blk.0.attn_norm.weight'] == Kind.F32


def test_qwens_own_tokenizer_goes_through(tmp_path):
  """The files of Qwen2.5, 151,665 ids of 151,936 rows, and what they are known to make of texts."""
  source = DATA / 'qwen2.5-tokenizer'
  if not source.exists():
    pytest.skip(f'{DATA}: no data; set VIBETHINKER_DATA')
  fields = gguf_tokenizer.fields_of(source, 151936, (151645, 151643))
  assert fields['tokenizer.ggml.pre'] == 'qwen2' and len(fields['tokenizer.ggml.tokens']) == 151936
  gguf_tokenizer.write(fields, 151936, 'f', tmp_path)
  tokenizer = read_chat_tokenizer(tmp_path)
  assert tokenizer.size == 151665
  rows = [json.loads(line) for line in (source / 'golden_tokenization.jsonl').read_text().splitlines()]
  assert len(rows) > 20
  for row in rows:
    assert tokenizer.hf.encode(row['text'], add_special_tokens=False) == row['ids'], row['text']


REFUSED = {
  'general.architecture': ('gemma3', 'qwen2, qwen3, llama'),
  'split.count': (3, 'one file'),
  'qwen2.block_count': (None, 'whole number'),
  'qwen2.attention.head_count': ([6, 6], 'whole number'),
  'qwen2.attention.head_count_kv': (4, 'divisor'),
  'qwen2.attention.key_length': (7, 'even'),
  'qwen2.attention.value_length': (16, 'width of a head'),
  'qwen2.rope.dimension_count': (4, 'width of a head'),
  'qwen2.attention.sliding_window': (128, '0'),
  'qwen2.expert_count': (8, '0'),
  'qwen2.attention.causal': (False, 'true'),
  'qwen2.logit_scale': (0.5, 'no such field'),
  'qwen2.rope.scaling.type': ('longrope', 'none, linear or yarn'),
  'qwen2.rope.freq_base': (-1.0, 'above 0'),
  'tokenizer.ggml.model': ('llama', 'gpt2'),
  'tokenizer.ggml.pre': ('tekken', 'smollm'),
  'tokenizer.ggml.tokens': (None, 'texts'),
  'tokenizer.ggml.token_type': ([1, 2], 'one for each'),
  'tokenizer.ggml.merges': (['a b c'], 'pairs'),
  'tokenizer.ggml.eos_token_id': (100_000, 'id below'),
}


@pytest.fixture(scope='module')
def exported(directory, tmp_path_factory):
  path = tmp_path_factory.mktemp('gguf') / 'm.gguf'
  assert convert('export-gguf', directory('qwen2'), '--out', path) == 0
  return path


def refused(argv: list, expected: list[str], capsys, out: pathlib.Path) -> None:
  assert convert(*argv, '--out', out) == 2
  err = capsys.readouterr().err
  assert err.count('\n') == 1 and all(part in err for part in expected), err
  assert not out.exists() and not [*out.parent.glob(f'.{out.name}*')]


@pytest.mark.parametrize('field', REFUSED)
def test_fields_that_are_refused(exported, tmp_path, capsys, field):
  value, expected = REFUSED[field]
  path = rewritten(exported, tmp_path / 'bad.gguf', {field: value})
  refused(['import-gguf', path], [f'{path}: {field} is ', expected], capsys, tmp_path / 'm')


def test_merges_of_what_is_no_token(exported, tmp_path, capsys):
  path = rewritten(exported, tmp_path / 'bad.gguf', {'tokenizer.ggml.merges': ['zzzz zzzz']})
  refused(['import-gguf', path], [f'{path}: tokenizer.ggml.merges do not go'], capsys, tmp_path / 'm')


@pytest.mark.parametrize(
  'tensors, expected',
  [
    ({'blk.1.ffn_up.weight': (None, None)}, 'tensor blk.1.ffn_up.weight is missing'),
    ({'blk.0.attn_q.bias': (None, None)}, 'tensor blk.0.attn_q.bias is missing'),
    ({'token_embd.weight': (None, None)}, 'tensor token_embd.weight is missing'),
    ({'blk.0.ffn_norm.bias': (Kind.F32, np.ones(24, np.float32))}, 'tensor blk.0.ffn_norm.bias is not one of a qwen2'),
    ({'output_norm.weight': (Kind.F32, np.ones(25, np.float32))}, 'output_norm.weight has shape [25]'),
    ({'output_norm.weight': (Kind.I32, np.ones(24, np.int32))}, 'output_norm.weight is I32, expected one of F32'),
    ({'rope_freqs.weight': (Kind.F32, np.full(4, 3.0, np.float32))}, 'rope_freqs.weight are not the factors'),
  ],
)
def test_tensors_that_are_refused(exported, tmp_path, capsys, tensors, expected):
  path = rewritten(exported, tmp_path / 'bad.gguf', tensors=tensors)
  refused(['import-gguf', path], [str(path), expected], capsys, tmp_path / 'm')


def test_files_that_are_refused(exported, directory, tmp_path, capsys):
  out = tmp_path / 'm'
  refused(['import-gguf', tmp_path / 'none.gguf'], ['none.gguf: not found'], capsys, out)
  for name, content in (('empty', b''), ('text', b'hello world'), ('cut', exported.read_bytes()[:-4000])):
    path = tmp_path / f'{name}.gguf'
    path.write_bytes(content)
    refused(['import-gguf', path], [f'{name}.gguf: not a whole GGUF file'], capsys, out)
  path.write_bytes(exported.read_bytes()[:3000])
  refused(['import-gguf', path], ['cut.gguf: not a whole GGUF file'], capsys, out)
  source = directory('qwen3', rope_scaling=Llama3(8.0, 8192.0, 1.0, 4.0))
  refused(['export-gguf', source], ['m/config.json: rope_scaling llama3'], capsys, tmp_path / 'out.gguf')
  source = directory('qwen3')
  (source / 'tokenizer.json').unlink()
  refused(['export-gguf', source], ['tokenizer.json: not found'], capsys, tmp_path / 'out.gguf')
  refused(['export-gguf', tmp_path / 'none'], ['config.json: not found'], capsys, tmp_path / 'out.gguf')
  tiny = pathlib.Path(vt.__file__).parent / 'tiny_base'
  refused(['export-gguf', tiny], ['tokenizer.json: cuts texts by rules'], capsys, tmp_path / 'out.gguf')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'a').write_text('x')
  assert convert('import-gguf', exported, '--out', tmp_path / 'full') == 2
  assert 'not replaced' in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_model_answers_as_in_transformers(transformers_qwen2, tmp_path):
  """SmolLM2-135M-Instruct, Q4_1: five questions of GSM8K, answered greedily, token by token."""
  if not REAL or not (DATA / 'gsm8k').exists():
    pytest.skip('set VIBETHINKER_GGUF to a SmolLM2-135M-Instruct in GGUF (docs/models.md), and VIBETHINKER_DATA')
  pytest.importorskip('accelerate', reason='transformers reads GGUF files with accelerate')
  assert convert('import-gguf', REAL, '--out', tmp_path / 'm') == 0
  theirs, (model, text) = from_gguf(pathlib.Path(REAL)), vt.load(tmp_path / 'm')
  weights = {name: x.numpy() for name, x in theirs.state_dict().items()}
  assert all(np.array_equal(x, weights[name]) for name, x in hf.tensors(model).items())
  with (DATA / 'gsm8k' / 'test.jsonl').open() as file:
    questions = [json.loads(next(file))['question'] for _ in range(5)]
  asked = [[{'role': 'user', 'content': question}] for question in questions]
  for messages, samples in zip(asked, vt.generate(model, text, asked, max_tokens=128, temperature=0)):
    ours, prompt = samples[0].tokens.tolist(), text.chat(messages)
    wanted = transformers_qwen2.greedy(theirs, prompt, 128, [*text.stop_ids])
    print(f'\n{messages[0]["content"]}\n-> {text.decode(ours)}')
    if ours != wanted:  # a tie: two tokens whose logits differ by less than float32 sums do
      n = next(i for i, (a, b) in enumerate(zip(ours, wanted)) if a != b)
      last = transformers_qwen2.logits(theirs, np.array([prompt + ours[:n]]))[0, -1]
      print(f'a tie at token {n}: {last[ours[n]]} and {last[wanted[n]]}')
      assert abs(last[ours[n]] - last[wanted[n]]) < 1e-3
