#!/bin/sh
# A hundred kills of training at random moments, every kind of adapter in turn.
. "${0%/*}/lib.sh"
# shellcheck source=tests/train-kills
. "$tests/train-kills"

for adapter in standard transformer gdn_cssm gdn_cssm:k=5 gdn_cssm:rope=1 gdn_cssm:k=5,rope=1; do
    ok "$adapter, after 17 kills: the same adapters, optimiser state and metrics" 'survive_kills 17 $adapter'
done
finish
