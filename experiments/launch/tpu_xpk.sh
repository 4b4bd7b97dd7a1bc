#!/bin/bash
# The pipeline on a TPU slice of a GKE cluster, by XPK (pip install xpk). From the repository's root:
#
#   CLUSTER=mine ZONE=us-east5-a TYPE=v6e-64 PROJECT=my-project NAME=ssp WORK=/mnt/work \
#     CONFIG=configs/ssp_1p5b.py:v6e-64 experiments/launch/tpu_xpk.sh
#
# WORK is a folder that the cluster's pods see (XPK: `xpk storage attach`, Filestore or a bucket with a hierarchical
# namespace), with the model's folder and the data in data/. MORE holds further arguments of experiments/ssp.py; with
# SLICES=2 it has to give the mesh too (MORE=--config.mesh.data=8). A preempted pod gets SIGTERM: all save and exit
# 0. The same line with a new NAME continues the run, since the workdir is named by RUN.
set -euo pipefail
: "${CLUSTER:?}" "${ZONE:?}" "${TYPE:?}" "${PROJECT:?}" "${NAME:?}" "${WORK:?}"
CONFIG=${CONFIG:-configs/ssp_1p5b.py:v6e-64}
MODEL=${MODEL:-Qwen2.5-Math-1.5B}
RUN=${RUN:-ssp}

xpk workload create --cluster "$CLUSTER" --zone "$ZONE" --project "$PROJECT" --workload "$NAME" --tpu-type "$TYPE" \
  --num-slices "${SLICES:-1}" --base-docker-image python:3.11 --script-dir . --max-restarts 20 \
  --termination-grace-period-seconds 300 \
  --command "pip install -q -e '.[tpu]' && export VIBETHINKER_DATA=$WORK/data && exec python experiments/ssp.py \
    --distributed --config=$CONFIG --config.model.path=$WORK/$MODEL --workdir=$WORK/runs/$RUN ${MORE:-}"
