#!/usr/bin/env bash
# Predict videos in several processes, one for each GPU (or, without GPUs, for some of the CPU's cores).
#
#   bash tools/dist_infer.sh CONFIG CHECKPOINT GPUS INPUT... --out RESULTS.jsonl [options of tools/infer.py]
#
# On several machines, the same command on each of them, with NNODES, NODE_RANK, MASTER_ADDR and
# PORT, as for tools/dist_train.sh; RESULTS.jsonl is in a folder that they share.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [ $# -lt 4 ]; then
    usage "bash tools/dist_infer.sh CONFIG CHECKPOINT GPUS INPUT... [options of tools/infer.py]"
fi
start_processes "$3" infer.py "$1" "$2" "${@:4}"
