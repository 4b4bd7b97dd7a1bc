"""Runs for each lambda and each seed from one start, with controls, and a page with the conclusions.

  python experiments/ablate_lambda.py --config=configs/ablate_lambda.py --workdir=runs/lambda

The same command continues an interrupted sweep, and runs no finished point again. On a cluster each point can be a job:

  python experiments/ablate_lambda.py --config=... --workdir=... --points=       # what all points share, and the page
  sbatch --array=0-11 --wrap '... --points=$SLURM_ARRAY_TASK_ID'                 # then the points, in any order
"""

from vibethinker_jax import runtime

if __name__ == '__main__':
  runtime.begin()
  from vibethinker_jax.study import ablation, command

  command.main(ablation.read, ablation.run)
