#!/usr/bin/env bash
# Copyright (c) dms_razor contributors. All rights reserved.
# Run every loop in examples/ in its short form, in an environment of its own:
# what they need does not all fit beside OpenMMLab.
#   bash tools/check_recipes.sh [FOLDER]    FOLDER is .venv_recipes without one
# PYTHON=… names the interpreter, python3 by default. A folder that is there is
# used as it is, and removed by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${1:-.venv_recipes}

if [ ! -x "$VENV/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$VENV"
    torch=$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements/tested.txt)
    "$VENV/bin/python" -m pip install -q "$torch" -r requirements/recipes.txt \
        -r requirements/runtime.txt
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=()
# networks this small gain nothing from more
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
for loop in examples/loop_*.py; do
    name=$(basename "$loop" .py)
    if PYTHONPATH=. "$VENV/bin/python" "$loop" --short --out "$out/$name" \
        >"$out/$name.log" 2>&1 &&
        [ -n "$(find "$out/$name" -name subnet.onnx -size +1k)" ]; then
        echo "$name: $(tail -n 1 "$out/$name.log")"
    else
        tail -n 20 "$out/$name.log"
        echo "$name: FAILED"
        failed+=("$name")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "${#failed[@]} failed: ${failed[*]}" >&2
    exit 1
fi
