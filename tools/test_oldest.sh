#!/usr/bin/env bash
# The tests on the oldest Python and the oldest releases of packages that setup.py allows:
# `bash tools/test_oldest.sh [pytest arguments]`. Sets itself up in .venv-oldest, some 6 GB, as the
# oldest torch on the package index brings CUDA libraries; a second run installs nothing. Needs
# Python 3.10: python3.10 on the PATH, or among pyenv's, or ADA3D_PYTHON310=FILE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_env.sh
setup_oldest_env dev
run_pytest "$@"
