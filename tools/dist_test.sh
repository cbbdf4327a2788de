#!/usr/bin/env bash
# Test in several processes, one for each GPU (or, without GPUs, for some of the CPU's cores).
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
#
# On several machines, the same command on each of them, with NNODES, NODE_RANK, MASTER_ADDR and
# PORT, as for tools/dist_train.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [ $# -lt 3 ]; then
    usage "bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]"
fi
start_processes "$3" test.py "$1" "$2" "${@:4}"
