#!/bin/sh
# Damaged safetensors files: every byte of a small one changed to every other value, and a million edits of its header.
exec "${BUILD:-${0%/*}/../build/release}/tests/safetensors"
