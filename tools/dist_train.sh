#!/usr/bin/env bash
# Train in several processes, one for each GPU (or, without GPUs, for some of the CPU's cores).
#
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#
# On several machines, the same command on each of them, with these variables:
#   NNODES       how many machines (1)
#   NODE_RANK    which of them this is, from 0 (0)
#   MASTER_ADDR  the address of machine 0 (127.0.0.1)
#   PORT         a free port of machine 0 (29500; on one machine any free one)
# ADA3D_PYTHON names another Python than the PATH's.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [ $# -lt 2 ]; then
    usage "bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]"
fi
start_processes "$2" train.py "$1" "${@:3}"
