"""Does a start with a higher Pass@K end higher? Checkpoints chosen by Pass@1, by Pass@K, or last; then the same RL.

  python experiments/study_selection.py --config=configs/study_selection.py --workdir=runs/selection

The same command continues; --points= and --points=N as in experiments/ablate_lambda.py.
"""

from vibethinker_jax import runtime

if __name__ == '__main__':
  runtime.begin()
  from vibethinker_jax.study import command, selection

  command.main(selection.read, selection.run)
