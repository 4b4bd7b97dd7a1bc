"""Sizes of experiments/accelerator.py: `1p5b` for one GPU of 80 GB or more, `tiny` to try the command on a CPU.

python experiments/accelerator.py --config=configs/accelerator.py:tiny
"""

import ml_collections


def get_config(preset='1p5b'):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.mesh = dict(data=1, fsdp=1, seq=1, tensor=1)
  if preset == '1p5b':  # Qwen2.5-Math-1.5B as configs/ssp_1p5b.py trains it
    config.repeats = 3
    config.model = dict(
      V=151_936, D=1536, L=28, K=2, G=6, H=128, F=8960, positions=40960, dtype='bfloat16', remat='full'
    )
    config.lengths = (8192, 16384)
    config.sft_rows = 4
    config.rl_rows = 4
    config.prompt = 1024
    config.decode = dict(rows=(64, 256), positions=4096, block=64, page=128)
  elif preset == 'tiny':
    config.repeats = 1
    config.model = dict(V=384, D=64, L=1, K=2, G=2, H=16, F=128, positions=512, logit_chunk=128)
    config.lengths = (128,)
    config.sft_rows = 2
    config.rl_rows = 2
    config.prompt = 32
    config.decode = dict(rows=(4,), positions=128, block=8, page=32)
  else:
    raise ValueError(f'configs/accelerator.py:{preset}: expected 1p5b or tiny')
  return config
