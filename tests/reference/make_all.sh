#!/bin/sh
# Makes everything below tests/data again (or below the folder $1), with the Python packages of requirements.txt.
# PYTHON names the interpreter that has them. On one machine everything repeats but the order of the fields in an adapter's header.
set -eu
case ${1:-} in '') out=../data ;; /*) out=$1 ;; *) out=$PWD/$1 ;; esac
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 # peft writes a set into that header
# train needs what dit made, those that begin with wan_ what wan_dit did, residual what both samples did
for part in tokens prompt_clean owl_prompts t5 vae dit sample train wan_dit wan_vae wan_sample residual wan_experts wan_ti2v wan_forms fp8 adapters torch_files schedulers; do
    echo "$part" >&2
    "${PYTHON:-python3}" "make_$part.py" "$out"
done
