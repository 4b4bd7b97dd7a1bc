"""Fusion weights over the simplex, with controls and other ways to merge, and a map of the scores.

  python experiments/sweep_fusion.py --config=configs/sweep_fusion.py --workdir=runs/fusion

The weights are compared on the first probing half; the winner and the controls are evaluated again on the other half
and on the test problems. The same command continues, and evaluates no finished point again. --points= and --points=N
as in experiments/ablate_lambda.py, and --points= a second time when all points are finished: it evaluates the winner
and the controls. A coordinate search chooses each point by the points before it, and runs in one process.
"""

from vibethinker_jax import runtime

if __name__ == '__main__':
  runtime.begin()
  from vibethinker_jax.study import command, simplex

  command.main(simplex.read, simplex.run)
