#!/usr/bin/env bash
# The main job on generated clips: recognizer, Ada3D, comparison. Sets itself up on a fresh machine;
# some 20 minutes on two CPU cores. Ends with work_dirs/demo/report.json and a table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_env.sh
setup_env

DATA=data/generated_clips
STAGE0=work_dirs/demo/stage0

echo "== generating clips"
"$PYTHON" tools/generate_clips.py --out "$DATA"
echo "== stage 0: the recognizer alone"
"$PYTHON" tools/train.py mmaction_configs/demo_stage0.py --work-dir "$STAGE0" \
    --cfg-options data_root="$DATA"
echo "== Ada3D, and what it is compared with"
"$PYTHON" tools/compare.py mmaction_configs/ada3d_demo.py --work-dir work_dirs/demo \
    --recognizer "$(cat "$STAGE0/last_checkpoint")" --pictures 8 --cfg-options data_root="$DATA"
echo "== done: work_dirs/demo/report.json, report.txt, policies.png"
