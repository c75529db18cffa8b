#!/bin/sh
# Makes everything below tests/data again (or below $1), with the Python packages of requirements.txt.
# PYTHON names the interpreter that has them.
set -eu
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=1
out=${1:-../data}
for part in t5 vae dit; do
    echo "$part" >&2
    "${PYTHON:-python3}" "make_$part.py" "$out"
done
