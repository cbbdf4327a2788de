#!/usr/bin/env bash
# Predict videos in several processes, started by Slurm.
#
#   bash tools/slurm_infer.sh PARTITION JOB_NAME CONFIG CHECKPOINT INPUT... --out RESULTS.jsonl [options]
#
# The variables are those of tools/slurm_train.sh: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PORT.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [ $# -lt 5 ]; then
    usage "bash tools/slurm_infer.sh PARTITION JOB_NAME CONFIG CHECKPOINT INPUT... [options of tools/infer.py]"
fi
start_slurm "$1" "$2" infer.py "${@:3}"
