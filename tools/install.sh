#!/usr/bin/env bash
# Copyright (c) dms_razor contributors. All rights reserved.
# Make a virtual environment with the exact versions of requirements/tested.txt
# and this project in it. A second run brings it up to date.
#   bash tools/install.sh [FOLDER]          FOLDER is .venv without an argument
# PYTHON=… names the interpreter; without it the first of Python 3.11, 3.12 and
# 3.10 that is found and can make a virtual environment is taken.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${1:-.venv}

make_venv() {
    local python there='' names=(python3.11 python3.12 python3.10 python3 python)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    [ ! -e "$VENV" ] || there=1
    for python in "${names[@]}"; do
        if "$python" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null &&
            "$python" -m venv "$VENV" >/dev/null 2>&1; then
            echo "Made $VENV with $("$python" --version)."
            return
        fi
    done
    # What was there before stays.
    [ -n "$there" ] || rm -rf "$VENV"
    echo "No Python 3.10, 3.11 or 3.12 that can make a virtual environment was" \
        "found. Install one together with its venv module (python3-venv on" \
        "Debian and Ubuntu), or name one: PYTHON=/path/to/python3.11." >&2
    exit 1
}

new=
if [ ! -x "$VENV/bin/pip" ]; then
    make_venv
    new=1
elif [ -n "${PYTHON:-}" ]; then
    echo "$VENV is there already, with $("$VENV/bin/python" --version); PYTHON" \
        "is not used. Name another folder for it, or remove $VENV first."
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=("$VENV/bin/python" -m pip)
if [ -n "$new" ]; then
    # In two steps, so that the time of each is told.
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    echo "Downloading what requirements/tested.txt lists (about 0.5 GB, with a" \
        "CUDA build of torch several times that) …"
    "${pip[@]}" wheel -qq --wheel-dir "$wheels" -r requirements/tested.txt
    downloaded=$SECONDS
    echo "Downloaded in $downloaded s. Installing into $VENV (a minute or" \
        "two; about 2 GB) …"
    "${pip[@]}" install -qq --no-deps --no-index "$wheels"/*.whl
else
    echo "Installing into $VENV what requirements/tested.txt lists and is not" \
        "there …"
    downloaded=0  # what still has to be is part of the installation
    "${pip[@]}" install -qq -r requirements/tested.txt
fi
# The versions above hold: no dependency is looked for a second time. An old
# build folder would bring back modules that are gone.
rm -rf build
"${pip[@]}" install -qq --no-deps --no-build-isolation .
"${pip[@]}" check
echo "Installed in $((SECONDS - downloaded)) s."
