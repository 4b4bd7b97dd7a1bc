#!/bin/bash
# The pipeline on a TPU slice, one process a host. From your own machine:
#
#   NAME=ssp ZONE=us-west4-a TYPE=v5litepod-16 IMAGE=v2-alpha-tpuv5-lite BUCKET=gs://yours \
#     experiments/launch/tpu_gcloud.sh create | run | logs | delete
#
# TYPE, IMAGE and CONFIG go together, the latter configs/ssp_1p5b.py:v5e-16 by default (a v5p's TYPE counts cores, our
# presets chips):
#
#   TYPE=v5litepod-16   IMAGE=v2-alpha-tpuv5-lite   CONFIG=configs/ssp_1p5b.py:v5e-16
#   TYPE=v5p-128        IMAGE=v2-alpha-tpuv5        CONFIG=configs/ssp_1p5b.py:v5p-64
#   TYPE=v6e-64         IMAGE=v2-alpha-tpuv6e       CONFIG=configs/ssp_1p5b.py:v6e-64
#
# MORE holds further arguments of experiments/ssp.py, such as --config.mgpo.lam=4; REPOSITORY is where the hosts clone
# from, by default this clone's origin.
# `create` asks for a spot slice and waits until it is there. `run` also continues a run that was cut short: after a
# preemption, `delete`, `create` and `run` again. BUCKET is mounted at ~/work; it holds the model's folder, the data in
# data/, and gets the workdir in runs/. Checkpoints are folders that are renamed when they are whole, so it has to be a
# bucket with a hierarchical namespace:
#
#   gcloud storage buckets create gs://yours --location us-west4 --uniform-bucket-level-access \
#     --enable-hierarchical-namespace
set -euo pipefail
: "${NAME:?}" "${ZONE:?}" "${TYPE:?}" "${IMAGE:?}" "${BUCKET:?}"
CONFIG=${CONFIG:-configs/ssp_1p5b.py:v5e-16}
MODEL=${MODEL:-Qwen2.5-Math-1.5B}
REPOSITORY=${REPOSITORY:-$(git config --get remote.origin.url || true)}
: "${REPOSITORY:?where the hosts are to clone this repository from}"

everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"; }

case "${1:?create, run, logs or delete}" in
  create)
    gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --zone "$ZONE" \
      --accelerator-type "$TYPE" --runtime-version "$IMAGE" --spot
    until gcloud compute tpus queued-resources describe "$NAME" --zone "$ZONE" --format='value(state.state)' |
      grep -q ACTIVE
    do sleep 30; done
    # shellcheck disable=SC2016 # it is the hosts that are asked for their release
    everywhere 'echo "deb https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -c -s) main" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list &&
      curl -s https://packages.cloud.google.com/apt/doc/apt-key.gpg |
        sudo tee /etc/apt/trusted.gpg.d/google-cloud.asc > /dev/null &&
      sudo apt-get update -q && sudo apt-get install -y -q gcsfuse python3.11-venv && mkdir -p ~/work'
    everywhere "git clone -q $REPOSITORY ~/vibethinker_jax && python3.11 -m venv ~/venv &&
      ~/venv/bin/pip install -q -e ~/vibethinker_jax'[tpu]'" ;;
  run)
    everywhere "mountpoint -q ~/work || gcsfuse --implicit-dirs ${BUCKET#gs://} ~/work
      cd ~/vibethinker_jax
      VIBETHINKER_DATA=~/work/data nohup ~/venv/bin/python experiments/ssp.py --distributed --config=$CONFIG \
        --config.model.path=\$HOME/work/$MODEL --workdir=\$HOME/work/runs/$NAME ${MORE:-} < /dev/null > ~/ssp.log 2>&1 &" ;;
  logs) gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=0 --command 'tail -f ~/ssp.log' ;;
  delete) gcloud compute tpus queued-resources delete "$NAME" --zone "$ZONE" --force --quiet ;;
  *) echo "expected create, run, logs or delete, found $1" >&2; exit 2 ;;
esac
