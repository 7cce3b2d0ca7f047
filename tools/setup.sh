#!/usr/bin/env bash
# Installs the locked dependencies and this project (editable) into $VENV.
# Called by `make setup`. Does nothing when requirements.lock, pyproject.toml and the
# interpreter are the ones of the last successful run.
set -euo pipefail

PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
STAMP="$VENV/.setup-stamp"

fail() {
    echo "setup: $*" >&2
    exit 1
}

command -v "$PYTHON" >/dev/null ||
    fail "'$PYTHON' was not found; install Python 3.11 or newer, or say: make setup PYTHON=/path/to/python3.11"

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "'$PYTHON' is $("$PYTHON" -V 2>&1), statefun-ray needs Python 3.11 or newer; say: make setup PYTHON=/path/to/python3.11"

wanted="$("$PYTHON" -V) $(cat requirements.lock pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1)"
if [ -x "$VENV/bin/python" ] && [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
    exit 0
fi

if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "setup: creating $VENV"
    "$PYTHON" -m venv "$VENV" ||
        fail "could not create $VENV; on Debian and Ubuntu: apt-get install python3-venv"
fi
"$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$VENV holds $("$VENV/bin/python" -V 2>&1); remove it with 'make clean' and run 'make setup' again"

echo "setup: installing the versions of requirements.lock into $VENV (a minute or two the first time)"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock ||
    fail "pip could not install requirements.lock; its own message is above"

# The build backend is in the lock, so building needs no isolated environment of its own.
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ||
    fail "pip could not install this project; its own message is above"

echo "$wanted" >"$STAMP"
echo "setup: done"
