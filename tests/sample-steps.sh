#!/bin/sh
# sample --compute-steps and --guidance-steps: what they mean, what is written down, what is refused. tests/sample.c has the figures.
# shellcheck disable=SC1091,SC2119,SC2120 # ok evaluates its text
. "${0%/*}/lib.sh"
M=random:tiny

tensor-gen --name prompt_embeds --shape 32,64 --count 2 --key prompt >prompts.mp
make_latents() { sample -m "$M" --device cpu --dtype f32 --frames 5 --size 64x32 --steps 8 "$@" <prompts.mp; }
how() { show --jsonl "$1" | sed -n 's/.*"compute-steps":"\([^"]*\)".*/\1/p' | sort -u; }
make_latents >all.mp

ok "all steps are the bytes of a run without the options, settings included" '
    for all in 0-7 0,1-2,3-7 8; do
        make_latents --compute-steps $all >same.mp
        cmp all.mp same.mp
    done
    make_latents --guidance-steps 0-7 >same.mp
    cmp all.mp same.mp'
ok "fewer are other latents, the same ones twice, by whichever name; every record says which" '
    make_latents --compute-steps 0-1,3,5 >few.mp
    fails 1 tensor-eq --rel 0.001 all.mp few.mp
    make_latents --compute-steps 0,1,3,5 >again.mp
    cmp few.mp again.mp
    [ "$(how few.mp)" = 0-1,3,5 ]
    make_latents --compute-steps 3 >spread.mp
    make_latents --compute-steps 0,3,7 >again.mp
    cmp spread.mp again.mp
    [ "$(how spread.mp)" = 0,3,7 ]
    make_latents --compute-steps 1 >one.mp
    [ "$(how one.mp)" = 0 ]
    [ -z "$(how all.mp)" ]'
ok "the two lists for 50 steps hold 30 and 25, the first and last five among them" '
    for name in careful bold; do
        sample -m $M --device cpu --frames 1 --size 64x32 --steps 50 --compute-steps $name <prompts.mp >$name.mp
        how $name.mp | tr , "\n" | awk -F- "{ n += NF == 2 ? \$2 - \$1 + 1 : 1 } END { print n }" >$name
    done
    [ "$(cat careful bold | tr "\n" " ")" = "30 25 " ]
    for name in careful bold; do how $name.mp | grep -Eq "^0-[0-9]+,.*,45-49\$"; done'
ok "guidance at some steps is neither all nor none; a prompt that brings its negative one, too" '
    make_latents --guidance 1 >none.mp
    make_latents --guidance-steps 1-3 >some.mp
    fails 1 tensor-eq --rel 0.001 all.mp some.mp
    fails 1 tensor-eq --rel 0.001 none.mp some.mp
    show --jsonl some.mp | grep -q "\"guidance-steps\":\"1-3\""
    tensor-gen --add --name negative_embeds --shape 32,64 <prompts.mp >with.mp
    sample -m "$M" --device cpu --dtype f32 --frames 5 --size 64x32 --steps 8 --guidance-steps 1-3 <with.mp >brought.mp
    fails 1 tensor-eq --rel 0.001 some.mp brought.mp'
ok "a record is the same in any company" '
    make_latents --compute-steps 0-1,4 --guidance-steps 1-4 >two.mp
    tensor-gen --name prompt_embeds --shape 32,64 --count 1 --key prompt0 >alone.mp
    sample -m "$M" --device cpu --dtype f32 --frames 5 --size 64x32 --steps 8 --compute-steps 0-1,4 --guidance-steps 1-4 <alone.mp >one.mp
    show --jsonl two.mp | head -n 1 >want
    show --jsonl one.mp | diff want -'
ok "--trajectory: the latents after each step, of which the last are the latents; nothing else changes" '
    make_latents --trajectory >with.mp
    for step in 0 7; do show --jsonl with.mp | grep -q "\"step.$step\":"; done
    fails 1 grep -q "step.8" with.mp
    tensor-eq --quiet --name latents with.mp all.mp
    make_latents --compute-steps 0-5,7 --trajectory >other.mp
    for step in 0 5; do tensor-eq --quiet --name step.$step with.mp other.mp; done
    for step in 6 7; do fails 1 tensor-eq --rel 0.0001 --name step.$step with.mp other.mp; done
    tensor-eq --rel 1e300 with.mp other.mp >eq
    [ "$(grep -c identical eq)" = 12 ]
    awk "\$2 == \"latents\" || \$2 == \"step.7\" { print \$1, \$4, \$5, \$6, \$7 }" eq | sort | uniq -c | awk "\$1 != 2 { exit 1 }"'
refused() { # OPTIONS WORDS
    # shellcheck disable=SC2086 # options are words
    fails 2 make_latents $1 >out
    [ ! -s out ]
    grep -q -e "$2" err || { cat err; return 1; }
}
ok "lists that are none are refused, before anything is read" '
    refused "--compute-steps 1-5" "step 0 must be computed"
    refused "--compute-steps 0,8" "step 8: there are 8 steps, 0 to 7"
    refused "--compute-steps 0-99999999999999999999" "there are 8 steps"
    refused "--compute-steps 0,2,2" "step 2 after step 2"
    refused "--compute-steps 0-3,2" "step 2 after step 3"
    refused "--compute-steps 0,3-2" "is a list such as"
    for wrong in 0, 0,,2 0-, 0-2-4 -1 0,x bald 0.5 " " ; do
        fails 2 make_latents "--compute-steps=$wrong" >out
        grep -q "is a list such as" err
    done
    fails 2 make_latents --compute-steps= >out
    refused "--compute-steps 0" ": 0 of 8 steps"
    refused "--compute-steps 9" ": 9 of 8 steps"
    refused "--compute-steps careful" "careful is a list for 50 steps, not for 8"
    refused "--guidance-steps 3" "is FIRST-LAST"
    refused "--guidance-steps 3-1" "is FIRST-LAST"
    refused "--guidance-steps 0-8" "step 8: there are 8 steps"
    refused "--guidance-steps 0-3,5" "is FIRST-LAST"
    refused "--guidance-steps 1-3 --guidance 1" "there is no guidance"
    for option in --dynamic "--negative a"; do
        sample -m $M --device cpu --check-options --guidance 1 $option 2>err; grep -x "sample: ${option%% *} does nothing: there is no guidance" err
    done
    refused "--guidance-steps 2-3 --compute-steps 0-1,3-7" "its first step, 2, must be one of --compute-steps"
    fails 2 sample -m $M --check-options --steps 8 --compute-steps 0
    sample -m $M --check-options --steps 8 --compute-steps 3'
finish
