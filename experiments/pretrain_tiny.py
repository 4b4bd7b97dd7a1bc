"""Makes the tiny base: a small tokenizer, and a Qwen2 with 0.85M parameters trained on text of the embedded world.

  python experiments/pretrain_tiny.py --config=configs/pretrain_tiny.py --workdir=runs/pretrain_tiny

Writes WORKDIR/tiny_base, a Hugging Face directory; the shipped one is vibethinker_jax/tiny_base.
"""

import json
import pathlib

import jax
from absl import flags, logging
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vibethinker_jax.config_io import config_flag, freeze, run_app
from vibethinker_jax.data import synthetic
from vibethinker_jax.data.tokenizer import load_chat_tokenizer
from vibethinker_jax.disk import writing
from vibethinker_jax.lock import held
from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.tasks import CONTROL_TOKENS, Pretraining, check_pretraining
from vibethinker_jax.train import sft
from vibethinker_jax.train.metric_writer import MetricWriter

CONFIG = config_flag('configs/pretrain_tiny.py')
WORKDIR = flags.DEFINE_string('workdir', 'runs/pretrain_tiny', 'The directory of checkpoints and of the result.')

# digits one by one; an operator with its spaces; \boxed{ as one piece
SPLIT = r'\d| ?\\boxed\{| ?[A-Za-z]+| ?[^\sA-Za-z\d\\]+ ?|\\|\s+'
CHAT_TEMPLATE = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(directory: pathlib.Path, vocabulary: int, lines: int, seed: int) -> None:
  """Train a byte-level BPE on text of the embedded world, and write it as a Hugging Face tokenizer directory.

  `vocabulary`: its size; `lines`: texts to train on.
  """
  tokenizer = Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(SPLIT), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocabulary,
    special_tokens=list(CONTROL_TOKENS),
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  roles = ['system\n', 'user\n', 'assistant\n'] * lines
  tokenizer.train_from_iterator([*synthetic.text_lines(lines, seed), *roles], trainer)
  wrapped = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    eos_token=CONTROL_TOKENS[0],
    pad_token=CONTROL_TOKENS[0],
    chat_template=CHAT_TEMPLATE,
  )
  wrapped.save_pretrained(str(directory))
  # Beside a config.json of qwen2, AutoTokenizer of transformers 5 takes Qwen2's own pre-tokenizer instead of the one in
  # tokenizer.json, unless the files claim a class of their own; it then loads them as they are and runs no such code.
  settings = directory / 'tokenizer_config.json'
  claimed = {'tokenizer_class': 'PreTrainedTokenizerFast', 'auto_map': {'AutoTokenizer': [None, 'own.Tokenizer']}}
  settings.write_text(json.dumps({**json.loads(settings.read_text()), **claimed}, indent=2) + '\n')


def main(argv) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # the checkpoint library reports every save
  settings, workdir = freeze(Pretraining, CONFIG.value), pathlib.Path(WORKDIR.value)
  check_pretraining(settings)
  with held(workdir), writing(workdir):
    pretrain(settings, workdir)


def pretrain(settings: Pretraining, workdir: pathlib.Path) -> None:
  """Make tokenizer and corpus, train the model, and write its directory. Raises BadInput, Diverged, CannotWrite."""
  size, c = settings.model, settings.corpus
  make_tokenizer(workdir / 'tokenizer', size.V, c.tokenizer_lines, settings.seed)
  tokenizer = load_chat_tokenizer(workdir / 'tokenizer')
  corpus = synthetic.corpus(c.n, settings.seed, c.path_weights, c.slip_rate, c.practice)
  rows = [(problem, problem.solutions[0]) for problem in corpus]
  model = jax.jit(lambda key: Qwen2(size, key))(jax.random.key(settings.seed))
  writer = MetricWriter(workdir / 'metrics.jsonl')
  state = sft.run(settings.sft, 'pretrain', model, rows, tokenizer, workdir / 'checkpoints', writer, settings.seed)
  base = jax.tree.map(lambda x: x.astype('bfloat16'), state.model)
  hf.save(base, workdir / 'tiny_base', workdir / 'tokenizer', tokenizer.stop_ids)
  print(f'{workdir / "tiny_base"}: the tiny base, {sum(x.size for x in jax.tree.leaves(base))} parameters')


if __name__ == '__main__':
  run_app(main)
