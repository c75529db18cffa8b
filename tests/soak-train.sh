#!/bin/sh
# A hundred kills of training at random moments.
. "${0%/*}/lib.sh"
# shellcheck source=tests/train-kills
. "$tests/train-kills"

ok 'after 100 kills: the same adapters, optimiser state and metrics' 'survive_kills 100'
finish
