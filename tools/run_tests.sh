#!/usr/bin/env bash
# Lint and tests: `bash tools/run_tests.sh [pytest arguments]`. Sets itself up on a fresh machine.
# The default tier takes minutes; `-m "not zoo"` adds the slow tests, `-m ""` runs everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_env.sh
setup_env dev

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest "$@"
