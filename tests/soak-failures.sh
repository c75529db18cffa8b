#!/bin/sh
# Every program with its n-th call failing: allocations, and what the system does. With sanitizers, allocations alone:
# make SAN=address,undefined soak.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $tests
. "${0%/*}/lib.sh"
# shellcheck source=tests/failures
. "$tests/failures"

ok 'what fails ends in exit 1, says why, leaves nothing half-made, and goes on; what succeeds is what it should be' '
    prepare
    perl "$tests/failures.pl" "$work/fail.so" "${RUNS:-60}"'
finish
