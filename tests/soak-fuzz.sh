#!/bin/sh
# The parsers against 3.6 million mutated inputs, under the sanitizers. FUZZ=N takes N inputs of each kind.
# shellcheck disable=SC2016,SC2154 # the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

each=${FUZZ:-600000}
fuzz=${BUILD:-$top/build/release}/tests/fuzz
export ASAN_OPTIONS=abort_on_error=1:hard_rss_limit_mb=512 # so that the input's number is told, and none costs much

if [ -z "${SAN:-}" ]; then
    fuzz=$top/build/address-undefined/tests/fuzz
    ok 'a sanitized build' 'make -s -C "$top" SAN=address,undefined build/address-undefined/tests/fuzz'
fi
for target in frames values lines safetensors csv scores zip torch; do
    ok "$each inputs of $target" '$fuzz $target 1000000 $each >said || { grep -v ^# said; tail -n 40 said; exit 1; }; tail -n 2 said'
done
finish
