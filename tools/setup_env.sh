# Sourced by run_tests.sh and demo.sh, from the root of the checkout.
#
#   setup_env [EXTRA]
#
# Puts a Python with this project installed (editable, with the named extra) into $PYTHON: that of the
# active virtual environment, else of .venv in the checkout, made if need be. What was installed
# already for the same setup.py is left as it is, so a second run needs no network. Where
# ADA3D_PYTHON names a Python, it is used as it is, and nothing is installed.

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
    local wanted
    wanted="$PWD $(cksum < setup.py)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    echo "== installing into $VIRTUAL_ENV (torch is large: some minutes)"
    "$PYTHON" -m pip install --quiet --editable ".${extra:+[$extra]}"
    echo "$wanted" > "$stamp"
}
