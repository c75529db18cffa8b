#!/bin/sh
# A hundred kills of pack at random moments.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $tests
. "${0%/*}/lib.sh"
# shellcheck source=tests/pack-kills
. "$tests/pack-kills"

ok 'after 100 kills the store still reads well' 'survive_kills 100'
finish
