"""The time of a GRPO step on fixed work: 32 x 8 samples, 64 -> 128 tokens, a Qwen2 with 1.02M parameters.

python experiments/benchmark.py --config=configs/benchmark.py --workdir=runs/benchmark

docs/performance.md has the results and how we measured them. On an accelerator, the 1.5B with random weights:
python experiments/benchmark.py --config=configs/benchmark.py:1p5b --workdir=runs/benchmark_1p5b
"""

import ml_collections


def get_config(size='tiny'):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.repeats = 5  # the median counts; compilation is reported separately
  config.optim = dict(learning_rate=1e-4, end=1.0)
  config.mesh = dict(data=1)
  if size == 'tiny':
    config.mesh.data = 2  # CPU devices
    config.model = dict(
      V=256, D=128, L=4, K=2, G=2, H=32, F=512, rope_theta=10000.0, positions=4096, unroll=4, logit_chunk=8192
    )
    config.grpo_step = dict(
      prompts=32, num_generations=8, prompt_tokens=64, new_tokens=128, rows=256, micro_rows=64, share=8
    )
    config.long_tail = dict(samples=256, rows=32, prompt_tokens=16, longest=512, spread=1.0)
  elif size == '1p5b':
    config.model = dict(
      V=151_936, D=1536, L=28, K=2, G=6, H=128, F=8960, positions=32768, dtype='bfloat16', remat='full'
    )
    config.grpo_step = dict(
      prompts=32, num_generations=8, prompt_tokens=1024, new_tokens=3072, rows=256, micro_rows=4, share=1
    )
    config.long_tail = dict(samples=256, rows=64, prompt_tokens=128, longest=2048, spread=1.0)
  else:
    raise ValueError(f'configs/benchmark.py:{size}: expected tiny or 1p5b')
  return config
