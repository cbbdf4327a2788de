#!/usr/bin/env bash
# Lint, format, types and tests: `bash tools/run_tests.sh [pytest arguments]`. Sets itself up on a
# fresh machine. The default tier takes minutes; `-m "not zoo"` adds the slow tests, `-m ""` runs
# everything. Tests run in as many processes as there are cores, at most four; `-n 0` (or
# `-p no:xdist`) runs them in one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_env.sh
setup_env dev

PARALLEL=(-n "$("$PYTHON" -c 'import os; print(min(4, os.cpu_count() or 1))')" --dist worksteal)
for argument in "$@"; do
    case "$argument" in
        -n* | --numprocesses* | no:xdist | -pno:xdist) PARALLEL=() ;;
    esac
done

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest ${PARALLEL[@]+"${PARALLEL[@]}"} "$@"
