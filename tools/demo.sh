#!/usr/bin/env bash
# The main job on generated clips: recognizer, Ada3D, comparison. Sets itself up on a fresh machine;
# some 20 minutes on two CPU cores. Ends with FOLDER/report.json and a table. Started again, it goes on
# from what is there; if that was made from other code or data it says so, and wants another FOLDER.
#
#   bash tools/demo.sh [--small] [FOLDER]
#
# FOLDER is work_dirs/demo. --small: the same steps with few clips and one epoch each, in a minute,
# to see that they run here; nothing is learned. Its FOLDER is work_dirs/demo_small.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=demo
if [ "${1:-}" = "--small" ]; then
    NAME=demo_small
    shift
fi
OUT=${1:-work_dirs/$NAME}
if [ $# -gt 1 ] || [ "${OUT#-}" != "$OUT" ]; then
    echo "demo.sh: expected [--small] [FOLDER], not: $*" >&2
    exit 2
fi
DATA=data/generated_clips
[ $NAME = demo ] || DATA="$OUT/clips"
CLIPS=(--out "$DATA")
STAGE0=(data_root="$DATA")
ADA3D=(data_root="$DATA")
TIMES=("half a minute" "4 minutes" "16 minutes")
if [ $NAME = demo_small ]; then
    CLIPS+=(--num-train 100 --num-val 40)
    STAGE0+=(train_cfg.max_epochs=1 param_scheduler.0.total_steps=1)
    ADA3D+=(custom_hooks.0.phases.{0,1,2}.epochs=1 train_dataloader.batch_size=20)
    TIMES=("seconds" "10 seconds" "half a minute")
fi

source tools/setup_env.sh
setup_env

echo "== 1 of 3: generating clips (${TIMES[0]})"
"$PYTHON" tools/generate_clips.py "${CLIPS[@]}"
echo "== 2 of 3: the recognizer alone (${TIMES[1]} on two CPU cores)"
"$PYTHON" tools/train.py mmaction_configs/demo_stage0.py --work-dir "$OUT/stage0" --resume \
    --cfg-options "${STAGE0[@]}"
echo "== 3 of 3: Ada3D, and what it is compared with (${TIMES[2]} on two CPU cores)"
"$PYTHON" tools/compare.py mmaction_configs/ada3d_demo.py --work-dir "$OUT" \
    --recognizer-checkpoint "$OUT/stage0/$(basename "$(cat "$OUT/stage0/last_checkpoint")")" --pictures 8 \
    --cfg-options "${ADA3D[@]}"
echo "== done: $OUT/report.json, report.txt, policies.png"
