"""Small models for every test, and eight CPU devices to spread them over."""

import dataclasses
import json
import os
import pathlib
import types

# Before jax starts. Compiling is nearly all of what these tests do, and unoptimised code compiles twice as fast.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
  ]
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
os.environ.setdefault('HF_HUB_DISABLE_PROGRESS_BARS', '1')

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config, Qwen2

SMALL = Config(V=48, D=24, L=2, K=2, G=3, H=8, F=40, rope_theta=1e4, positions=512)


@pytest.fixture(scope='session')
def make_model():
  """make_model(seed=0, scale=0.15, **sizes) -> a Qwen2 in which no parameter is 0 or 1 (nothing is compiled)."""

  def make(seed: int = 0, scale: float = 0.15, **sizes) -> Qwen2:
    c = dataclasses.replace(SMALL, **sizes)
    rng = np.random.default_rng(seed)
    abstract = jax.eval_shape(lambda: Qwen2(c, jax.random.key(0)))
    model = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, scale, x.shape), jnp.float32), abstract)
    model.norm = model.norm.replace(model.norm[...] + 1)
    return model

  return make


@pytest.fixture(scope='session')
def transformers_qwen2():
  """Skips the test where torch is missing. `make(directory, ...)` writes a random Qwen2ForCausalLM, or one of the other
  family that its Config names, and returns it; `load`, `logits` and `greedy` ask one."""
  torch = pytest.importorskip('torch', reason='parity with transformers needs torch (pip install torch)')
  import transformers
  from transformers import AutoModelForCausalLM, PreTrainedModel

  def config(c: Config) -> transformers.PreTrainedConfig:
    kind = {'qwen2': 'Qwen2Config', 'qwen3': 'Qwen3Config', 'llama': 'LlamaConfig'}[c.family]
    own = {} if c.family == 'qwen2' else {'attention_bias': c.attention_bias}
    return getattr(transformers, kind)(
      vocab_size=c.V,
      hidden_size=c.D,
      num_hidden_layers=c.L,
      num_attention_heads=c.K * c.G,
      num_key_value_heads=c.K,
      head_dim=c.H,
      intermediate_size=c.F,
      rope_parameters={'rope_type': 'default', 'rope_theta': c.rope_theta},
      max_position_embeddings=c.positions,
      rms_norm_eps=c.norm_eps,
      tie_word_embeddings=c.tied,
      attn_implementation='eager',
      **own,
    )

  def make(
    directory: pathlib.Path, c: Config = SMALL, seed: int = 0, shards: str = '1GB', scale: float = 0.2
  ) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(c)).eval()
    with torch.no_grad():
      for name, p in model.named_parameters():
        # norms start at 1 and biases at 0: two of them exchanged would not be seen
        p.copy_(torch.randn(p.shape) * scale + name.endswith('norm.weight'))
    model.save_pretrained(directory, max_shard_size=shards)
    return model

  def make_bfloat16(directory: pathlib.Path, c: Config, shards: str) -> None:
    """A large one, made in its own dtype and not kept."""
    with torch.device('meta'):
      model = AutoModelForCausalLM.from_config(config(c)).to(torch.bfloat16)
    model = model.to_empty(device='cpu')
    model.tie_weights()
    with torch.no_grad():
      for p in model.parameters():
        p.copy_(torch.randint(-(2**15), 2**15, p.shape, dtype=torch.int16).view(torch.bfloat16).nan_to_num() * 1e-3)
    model.save_pretrained(directory, max_shard_size=shards)

  def load(directory: pathlib.Path) -> PreTrainedModel:
    kind = getattr(transformers, json.loads((directory / 'config.json').read_text())['architectures'][0])
    return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation='eager').eval()

  def logits(model: PreTrainedModel, tokens: np.ndarray) -> np.ndarray:
    ids = torch.tensor(np.asarray(tokens), dtype=torch.long)
    with torch.no_grad():
      return model(ids, attention_mask=torch.ones_like(ids)).logits.numpy()

  def greedy(model: PreTrainedModel, prompt: list[int], n: int, stop: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    # without a mask transformers guesses one from the pad id, which may well occur in a prompt
    settings = dict(do_sample=False, max_new_tokens=n, pad_token_id=0, eos_token_id=stop or None)
    with torch.no_grad():
      return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()

  return types.SimpleNamespace(make=make, make_bfloat16=make_bfloat16, load=load, logits=logits, greedy=greedy)


@pytest.fixture(scope='session')
def tiny_directory(make_model, tmp_path_factory):
  """A small random model on disk, without a tokenizer; token 5 ends a response."""
  directory = tmp_path_factory.mktemp('models') / 'tiny'
  hf.save(make_model(), directory, None, eos_ids=(5,))
  return directory
