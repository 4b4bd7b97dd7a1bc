#!/bin/bash
#SBATCH --job-name=ssp
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
#SBATCH --output=ssp-%j.log
# The pipeline on a SLURM cluster, one process a node with all of its GPUs. From the repository's root, in an
# environment with `pip install -e '.[cuda]'`:
#
#   sbatch --export=ALL,MODEL=/data/Qwen2.5-Math-1.5B,RUN=/data/runs/ssp experiments/launch/slurm.sh
#
# What follows the script's name goes on to experiments/ssp.py: --config.mgpo.lam=4. The data is where
# VIBETHINKER_DATA says, ../shared/data by default. One node: sbatch --nodes=1 with
# CONFIG=configs/ssp_1p5b.py:h100-8. Five minutes before the time is over, or when the job is preempted, SIGTERM
# reaches the processes: all save and exit 0. Submit the same line again and the run continues.
set -euo pipefail
: "${MODEL:?the folder of the base model}" "${RUN:?the workdir, which all nodes see}"
CONFIG=${CONFIG:-configs/ssp_1p5b.py:a100-64}

# inside SLURM jax would take one GPU a process, and srun one core
export JAX_LOCAL_DEVICE_IDS
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" python experiments/ssp.py --distributed \
  --config="$CONFIG" --config.model.path="$MODEL" --workdir="$RUN" "$@"
