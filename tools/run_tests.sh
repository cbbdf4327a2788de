#!/usr/bin/env bash
# Lint, format, types and tests: `bash tools/run_tests.sh [pytest arguments]`. Sets itself up on a
# fresh machine. The default tier takes minutes; `-m "not zoo"` adds the slow tests, `-m ""` runs
# everything. Tests run in as many processes as there are cores, at most four; `-n 0` (or
# `-p no:xdist`) runs them in one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_env.sh
setup_env dev

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
run_pytest "$@"
