# Sourced by run_tests.sh, test_oldest.sh and demo.sh, from the root of the checkout.
#
#   setup_env [EXTRA]
#
# Puts a Python with this project installed (editable, with the named extra) into $PYTHON: that of the
# active virtual environment, else of .venv in the checkout, made if need be. What was installed
# already for the same setup.py is left as it is, so a second run needs no network. Where
# ADA3D_PYTHON names a Python, it is used as it is, and nothing is installed.
#
#   setup_oldest_env EXTRA
#
# The same with .venv-oldest: the oldest Python that setup.py allows, and every package that it names
# at its lower bound.
#
#   run_pytest [ARGUMENTS]
#
# Runs pytest in as many processes as there are cores, at most four, unless the arguments say how many.

setup_env() {
    local extra="${1:-}"
    if [ -n "${ADA3D_PYTHON:-}" ]; then
        PYTHON="$ADA3D_PYTHON"
        return
    fi
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        VIRTUAL_ENV="$PWD/.venv"
        [ -x "$VIRTUAL_ENV/bin/python" ] || python3 -m venv "$VIRTUAL_ENV"
        export VIRTUAL_ENV PATH="$VIRTUAL_ENV/bin:$PATH"
    fi
    PYTHON="$VIRTUAL_ENV/bin/python"

    local stamp="$VIRTUAL_ENV/.ada3d_fx${extra:+-$extra}"
    installed_for_setup_py "$stamp" && return
    echo "== installing into $VIRTUAL_ENV (torch is large: some minutes)"
    "$PYTHON" -m pip install --quiet --editable ".${extra:+[$extra]}"
    stamp_of_setup_py > "$stamp"
}

setup_oldest_env() {
    local folder="$PWD/.venv-oldest"
    PYTHON="$folder/bin/python"
    local stamp="$folder/.ada3d_fx-$1"
    installed_for_setup_py "$stamp" && return
    local python
    python="$(find_python310)" || {
        echo "error: ${ADA3D_PYTHON310:-nothing on the PATH or in pyenv} is no Python 3.10;" \
            "install one, or name it with ADA3D_PYTHON310=FILE" >&2
        return 1
    }
    echo "== installing the oldest releases into $folder (some 6 GB: some minutes)"
    "$python" -m venv --clear "$folder"
    "$PYTHON" -m pip install --quiet --no-deps --editable .
    "$PYTHON" - > "$folder/oldest.txt" <<'LOWER_BOUNDS'
import importlib.metadata
import re

for line in importlib.metadata.requires("ada3d_fx"):
    name, lower = re.match(r"[\w.-]+", line)[0], re.search(r"[>=]=([\w.]+)", line)
    if "extra" not in line:  # tools of development may be new
        print(f"{name}=={lower[1]}")
LOWER_BOUNDS
    "$PYTHON" -m pip install --quiet --constraint "$folder/oldest.txt" --editable ".[$1]"
    stamp_of_setup_py > "$stamp"
}

find_python310() {
    local candidate candidates
    candidates=(python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python)
    [ -z "${ADA3D_PYTHON310:-}" ] || candidates=("$ADA3D_PYTHON310")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' > /dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

stamp_of_setup_py() {
    echo "$PWD $(cksum < setup.py)"
}

installed_for_setup_py() {
    [ -f "$1" ] && [ "$(cat "$1")" = "$(stamp_of_setup_py)" ]
}

run_pytest() {
    local parallel argument
    parallel=(-n "$("$PYTHON" -c 'import os; print(min(4, os.cpu_count() or 1))')" --dist worksteal)
    for argument in "$@"; do
        case "$argument" in
            -n* | --numprocesses* | no:xdist | -pno:xdist) parallel=() ;;
        esac
    done
    "$PYTHON" -m pytest ${parallel[@]+"${parallel[@]}"} "$@"
}
