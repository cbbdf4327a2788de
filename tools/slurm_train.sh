#!/usr/bin/env bash
# Train in several processes, started by Slurm.
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
#
# Variables:
#   GPUS           how many in all, a process each (8)
#   GPUS_PER_NODE  how many of a machine (8, or GPUS if that is less); 0: no GPUs, by gloo
#   CPUS_PER_TASK  cores for each process (5)
#   SRUN_ARGS      further options of srun, separated by blanks
#   PORT           a free port of the first machine (29500)
# ADA3D_PYTHON names another Python than the PATH's.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [ $# -lt 3 ]; then
    usage "bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]"
fi
start_slurm "$1" "$2" train.py "${@:3}"
