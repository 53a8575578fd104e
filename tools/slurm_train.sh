#!/usr/bin/env bash
# Copyright (c) dms_razor contributors. All rights reserved.
# Train through Slurm, one task a GPU; GPUS_PER_NODE=0 trains on CPUs (gloo).
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=…] \
#   bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [arguments of train.py]
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '3,5s/^# //p' "$0" >&2
    exit 2
fi
PARTITION=$1
JOB=$2
CONFIG=$3
WORK_DIR=$4
TASKS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
TOOLS=$(cd "$(dirname "$0")" && pwd)

RESOURCES=(--ntasks="$TASKS" --cpus-per-task="${CPUS_PER_TASK:-5}")
if [ "$GPUS_PER_NODE" -gt 0 ]; then
    RESOURCES+=(--gres="gpu:$GPUS_PER_NODE" --ntasks-per-node="$GPUS_PER_NODE")
fi

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" \
srun -p "$PARTITION" --job-name="$JOB" "${RESOURCES[@]}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    ${PYTHON:-python} -u "$TOOLS/train.py" "$CONFIG" \
    --work-dir="$WORK_DIR" --launcher slurm "${@:5}"
