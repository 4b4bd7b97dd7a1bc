"""A small model over the shipped tokenizer, and problems of the embedded world."""

import jax
import pytest

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data import synthetic
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.model.qwen2 import Config, Qwen2


@pytest.fixture(scope='session')
def tokenizer():
  return load_chat_tokenizer(TINY_BASE)


@pytest.fixture(scope='session')
def small(tokenizer):
  c = Config(V=len(tokenizer.hf), D=16, L=2, K=2, G=2, H=4, F=32, positions=512)
  return jax.jit(lambda key: Qwen2(c, key))(jax.random.key(0))


@pytest.fixture(scope='session')
def algebra():
  return synthetic.problems('algebra', 'train', 40, seed=0)
