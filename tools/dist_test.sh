#!/usr/bin/env bash
# Copyright (c) dms_razor contributors. All rights reserved.
# Test with several processes on this machine, or on one of several machines.
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py]
# One process a GPU; without a GPU the processes test on the CPU (gloo).
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '3,5s/^# //p' "$0" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
TOOLS=$(cd "$(dirname "$0")" && pwd)

# Alone on its machine a run takes a free port, unless it is given one.
if [ "${NNODES:-1}" -eq 1 ] && [ -z "${PORT:-}" ]; then
    RENDEZVOUS=(--standalone)
else
    RENDEZVOUS=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
                --master_addr="${MASTER_ADDR:-127.0.0.1}"
                --master_port="${PORT:-29500}")
fi

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" \
${PYTHON:-python} -m torch.distributed.run \
    "${RENDEZVOUS[@]}" \
    --nproc_per_node="$PROCESSES" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
