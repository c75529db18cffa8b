#!/bin/sh
# compare: the figures of known scores, in every form that scores come in; and what is wrong with a file, by name.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text; lib.sh sets $shared
. "${0%/*}/lib.sh"

# Forty prompts: base has Joint on 16, better on 22 (4 lost, 10 won).
awk 'BEGIN { print "prompt_id,caption,action,variant,sa,pc"
    for (v = 0; v < 2; v++) for (i = 0; i < 40; i++) {
        joint = v ? (i >= 4 && i < 26) : i < 16
        printf "%d,\"Ball %d, \"\"red\"\"\",%s,%s,%d,%d\n", i, i, i % 3 ? "roll" : "", v ? "better" : "base", joint ? 4 + i % 2 : 2 + i % 2, joint ? 5 : i % 4 ? 3 : 4
    } }' >scores.csv
jsonl() { # VARIANT: its lines as grade writes them
    grep ",$1,[0-9],[0-9]\$" scores.csv | sed 's/^\([0-9]*\),.*,\(.*\),\(.\),\(.\)$/{"key":"\1","path":"videos\/\2\/\1.mp4","caption":"Ball \1, \\"red\\"","sa":\3,"sa_text":"\3","sa_expected":\3.25,"pc":\4,"pc_expected":\4.5}/'
}
upstream() { # VARIANT sa|pc
    echo ",caption,videopath,score"
    jsonl "$1" | sed "s/.*\"path\":\"\([^\"]*\)\".*\"$2\":\(.\),.*/\1 \2/" | awk '{ printf "%d,\"a, b\",%s,%.1f\n", NR - 1, $1, $2 }'
}
for v in base better; do
    jsonl $v >$v.jsonl
    for t in sa pc; do upstream $v $t >$v-$t.csv; done
done
figures() { compare --base base --format json "$@"; }
has() { grep -F "$1" json >/dev/null || { echo "no $1 in"; cat json; return 1; }; }
# The same comparison but for what only one form knows.
plain() { sed 's/,"[sp][ac]_expected":{[^}]*}//g'; }

ok 'counts, tests and differences of forty prompts' '
    figures scores.csv >json
    has "{\"n\":40,\"base\":\"base\",\"seed\":42,\"resamples\":5000,\"left_out\":0,\"variants\":{\"base\":{\"scores\":40,\"joint_pct\":40.0,"
    has "\"better\":{\"scores\":40,\"joint_pct\":55.0"
    has "\"joint\":{\"b\":4,\"c\":10,\"p_exact\":0.179565429687"
    has "\"chi2\":1.785714285714"; has "\"p_chi2\":0.18144920772"; has "\"p_holm\":0.179565429687"; has "\"delta_pp\":15.0,"
    fails 1 grep "NaN\|expected" json'
ok 'a table for people' '
    compare --base base scores.csv >table
    grep -E "^40 prompts, 5000 resamples, seed 42\$" table
    grep -E "^base +40.00 +\[" table; grep -E "^better +\+15.00 \[[-+0-9.]+, \+[0-9.]+\] +4 +10 +0.180 +0.180 +2[0-9].[0-9]+\$" table'
ok 'every form says the same' '
    figures scores.csv >want
    figures base.jsonl better.jsonl | tee json | plain | diff want -
    grep -q "\"sa_expected\":{\"delta\":" json
    figures base=base-sa.csv,base-pc.csv better=better-sa.csv,better-pc.csv | diff want -
    figures base.jsonl better=better-sa.csv,better-pc.csv | plain | diff want -
    figures --results published.json scores.csv | diff want -
    figures published.json | diff want -; figures --results published.json | diff want -
    mv better.jsonl odd=name.jsonl; figures base.jsonl better=odd=name.jsonl | plain | diff want -; mv odd=name.jsonl better.jsonl'
ok 'from pipes, too' 'mkfifo a b; cat base.jsonl >a & cat better-pc.csv >b & figures base=a better=better-sa.csv,b | diff want -'
ok 'the order of lines, columns and files makes no difference' '
    { echo "sa,variant,key,pc"; sed 1d scores.csv | sed "s/^\([0-9]*\),.*,\(.*\),\(.\),\(.\)\$/\3,\2,\1,\4/" | sort -r; } >mixed.csv
    figures mixed.csv | diff want -
    sort -r base.jsonl >base2.jsonl; figures better.jsonl base=base2.jsonl | plain | diff want -'
ok 'an interval is of its seed' '
    figures scores.csv | diff want -
    figures --seed 7 scores.csv | sed "s/\"seed\":7/\"seed\":42/" >json; fails 1 cmp -s json want
    figures --resamples 100 scores.csv >json; has "\"resamples\":100"; has "\"delta_pp\":15.0"'
ok 'a run against itself: no difference, p 1, an interval of nothing' '
    figures base.jsonl again=base-sa.csv,base-pc.csv >json
    has "\"joint\":{\"b\":0,\"c\":0,\"p_exact\":1.0,\"chi2\":0.0,\"p_chi2\":1.0,\"p_holm\":1.0,\"delta_pp\":0.0,\"ci_low_pp\":0.0,\"ci_high_pp\":0.0,\"detectable_pp\":null}"
    has "\"sa\":{\"delta\":0.0,\"ci_low\":0.0,\"ci_high\":0.0},\"pc\":{\"delta\":0.0,\"ci_low\":0.0,\"ci_high\":0.0}}"'
ok 'several runs: p is corrected for their number' '
    figures scores.csv again=base.jsonl third=better.jsonl >json
    [ "$(grep -o "\"p_holm\":0.53869628906[0-9]*" json | wc -l)" = 2 ]; has "\"p_holm\":1.0"'
ok 'the base alone' 'figures base.jsonl >json; has "\"variants\":{\"base\":{"; fails 1 grep vs_base json; compare --base base base.jsonl >table; [ "$(wc -l <table)" = 4 ]'

# The same forty prompts in two kinds: thirteen of roll, and the others of none (scores.csv leaves their action empty).
part() { awk -F, "NR == 1 || (\$(NF - 3) == \"roll\") == $1" scores.csv; }
group() { # VALUE: of json, what is said of that group, but for the correction
    tr "{" "\n" <json >lines; awk -v want="\"value\":$1," "index(\$0, want) == 1 { on = 1 } on && index(\$0, \"\\\"value\\\"\") == 1 && index(\$0, want) != 1 { exit } on" lines |
        sed "s/\"p_holm\":[^,]*,//; s/\"value\":[^,]*,//; s/[]},]*\$//"
}
whole() { tr "{" "\n" | sed "s/\"p_holm\":[^,]*,//; s/[]},]*\$//" | sed "1d; s/^\(\"n\":[0-9]*\),\"base.*/\1,\"variants\":/"; }
ok 'by a field: each group is what a comparison of its prompts alone says, and the whole stays' '
    figures --by action scores.csv >json
    cut -d "{" -f 1-8 json >same; figures scores.csv | cut -d "{" -f 1-8 | diff same -
    for one in "1 \"roll\"" "0 null"; do
        part "${one%% *}" >part.csv; [ "$(wc -l <part.csv)" -gt 10 ]; figures part.csv | whole >wanted; group "${one#* }" >have; diff wanted have
    done
    has "\"by\":{\"field\":\"action\",\"tests\":2,\"groups\":[{\"value\":\"roll\",\"n\":26,"
    figures --by action scores.csv again=base.jsonl third=better.jsonl | grep -o "\"tests\":6"'
ok 'Holm over all groups, as by hand' '
    figures --by action scores.csv again=better.jsonl >json
    tr "{" "\n" <json | sed "1,/\"by\"/d" | grep -o "\"p_exact\":[^,]*,.*\"p_holm\":[^,]*" | sed "s/\"p_exact\"://; s/,.*\"p_holm\":/ /" | sort -g >ps
    [ "$(wc -l <ps)" = 4 ]
    awk "{ p = (5 - NR) * \$1; if (p > 1) p = 1; if (p < top) p = top; top = p; d = p - \$2; if (d > 1e-12 || d < -1e-12) exit 1 }" ps'
ok 'by a field, for people' '
    compare --base base --by action scores.csv >table
    grep -E "^action +run +n +Joint %" table; grep -E "^roll +better +26 " table; grep -E "^\(no action\) +base +14 " table
    grep -E "^action +minus base +Joint pp" table; grep "By action: p Holm is corrected for all 2 tests of the groups" table'
ok 'only the prompts of a value, or without one; several of them; results and tables hold no others' '
    part 1 >part.csv; figures part.csv >wanted; figures --where action=roll scores.csv | sed "s/,\"where\":{\"action\":\"roll\"}//" | diff wanted -
    part 0 >part.csv; figures part.csv >wanted; figures --where action= scores.csv | sed "s/,\"where\":{\"action\":\"\"}//" | diff wanted -
    sed "1s/\$/,easy/; 2,\$s/\$/,1.0/; 8s/1.0\$/0/; 48s/1.0\$/0/" scores.csv >two.csv
    figures --where action= --where easy=1 --results r.json --csv csv two.csv >json; has "{\"n\":13,"; [ "$(wc -l <csv/base/scores_sa.csv)" = 14 ]; grep "\"n_prompts\": 13" r.json
    compare --base base --where action= --where easy=0 two.csv | grep "^1 prompts with action= and easy=0, "
    sed 5d scores.csv >odd.csv; fails 1 figures odd.csv >out; figures --where action=roll odd.csv >json || figures --where action= odd.csv >json; has "\"left_out\":0"'
ok 'a field comes from any run and any form; numbers are ordered by size, and equal ones are one group' '
    sed "s/^{/{\"level\":10,\"flag\":true,/; 3,9s/10/2/; 4s/2,/2.0,/" base.jsonl >level.jsonl
    figures --by level base=level.jsonl better.jsonl | plain >json; tr "{" "\n" <json | grep -o "\"value\":.*" | grep -o "^[^v]*value\":\"[^\"]*\",\"n\":[0-9]*" >have
    printf "\"value\":\"%s\",\"n\":%d\n" 2 7 10 33 | diff - have
    figures --where level=2.0 --where flag=true base=level.jsonl better.jsonl >json; has "{\"n\":7,"
    sed "1s/score\$/score,level/; 2,\$s/\$/,7/; 4,\$s/7\$/8/" base-sa.csv >sa.csv
    figures --by level base=sa.csv,base-pc.csv better.jsonl >json; has "\"value\":\"7\",\"n\":2,"; has "\"value\":\"8\",\"n\":38,"
    echo "{\"variants\":{\"base\":{\"sa_per_prompt\":[4,1],\"pc_per_prompt\":[5,5]}},\"prompts\":[{\"id\":0,\"kind\":\"a\"},{\"id\":1,\"kind\":\"b\"}]}" >r.json
    figures --by kind r.json >json; has "{\"value\":\"b\",\"n\":1,\"variants\":{\"base\":{\"scores\":1,\"joint_pct\":0.0,"; has "\"tests\":0"'
ok 'a field or value that is none, that differs between runs, or of too many values' '
    fails 1 figures --by acton scores.csv >out; grep "^compare: --by: no prompt has a field .acton.: did you mean .action.? there are caption, action" err; [ ! -s out ]
    fails 1 figures --where kind=1 base.jsonl >out; grep "^compare: --where: no prompt has a field .kind.: there is caption\$" err
    fails 1 figures --where action=rol scores.csv >out; grep "no prompt.s .action. is .rol.: did you mean .roll.? there is roll" err; [ "$(wc -l <err)" = 1 ]
    sed "s/^{/{\"kind\":\"a\",/" base.jsonl >k1.jsonl; sed "s/^{/{\"kind\":\"a\",/; 6s/\"a\"/\"b\"/" better.jsonl >k2.jsonl
    for option in --by=kind --where=kind=a; do
        fails 1 figures "$option" base=k1.jsonl better=k2.jsonl >out; grep ": .kind. is not one for all runs: prompt .5. has .a., and in .better. .b." err; [ ! -s out ]
    done
    figures base=k1.jsonl better=k2.jsonl >json
    for i in 0 1 2 3 4 5; do sed "s/^{\"key\":\"/{\"id\":\"k$i/; s/\"id\":\"\([^\"]*\)\"/\"id\":\"\1\",\"key\":\"\1\"/" base.jsonl; done >many.jsonl
    fails 1 figures --by id base=many.jsonl; grep "more than 200 values" err; fails 2 figures --where action scores.csv; grep "FIELD=VALUE" err'
ok 'none or all have Joint: Wilson'"'"'s interval, and it says so' '
    awk "BEGIN { print \"key,variant,sa,pc\"; for (i = 0; i < 24; i++) print i \",base,1,1\\n\" i \",all,5,5\\n\" i \",most,\" (i ? 5 : 1) \",5\" }" >w.csv
    figures w.csv >json # 24 / (24 + z^2), z^2 = 3.841458820694124
    has "\"ci\":{\"joint_pct\":[0.0,13.797620467"; has "\"joint_pct\":[86.202379532"; [ "$(grep -o "\"joint_interval\":\"wilson\"" json | wc -l)" = 2 ]; [ "$(grep -o "\"joint_interval\":\"bootstrap\"" json | wc -l)" = 1 ]
    compare --base base w.csv >table; grep -E "^base +0.00 +\[0.00, 13.80\] W " table; grep -E "^all +100.00 +\[86.20, 100.00\] W " table; grep "^W: Wilson" table
    figures scores.csv | grep -c wilson | grep -x 0; compare --base base scores.csv >table; fails 1 grep Wilson table'

ok 'the published scores' '
    need shared
    figures "$shared/data/videophy2_scores.csv" >json
    has "{\"n\":591,"; has "\"base\":{\"scores\":591,\"joint_pct\":24.02707275803722"
    has "\"sa_mean\":3.0626057529610828,\"pc_mean\":3.8409475465313028,\"sa_ge4_pct\":29.10321489001692"
    has "\"b\":17,\"c\":16,\"p_exact\":1.0,\"chi2\":0.0,\"p_chi2\":1.0,"; has "\"delta_pp\":-0.16920473773265"
    has "\"b\":12,\"c\":17,\"p_exact\":0.4582583196461200"; has "\"chi2\":0.551724137931034"; has "\"p_chi2\":0.457614066876314"
    figures --results published.json "$shared/data/videophy2_scores.csv" >json; figures published.json | diff json -
    [ "$(grep -c "\"action\": null" published.json)" = 2 ]; grep "\"delta_joint_vs_base_pp\": 0.846\$" published.json'

ok 'repeats are averaged by prompt, and prompts are what is resampled' '
    for seed in 1 2; do sed "s/^{/{\"seed\":$seed,/" base.jsonl; done >base2.jsonl
    for seed in 1 2; do sed "s/^{/{\"seed\":$seed,/" better.jsonl; done >better2.jsonl
    figures base=base2.jsonl better=better2.jsonl | plain | sed "s/\"scores\":80/\"scores\":40/g" | diff want -
    sed "s/\"key\":\"\([0-9]*\)\"/\"prompt_id\":\1,\"key\":\"\1@2\"/" better.jsonl | cat better.jsonl - >mixed.jsonl
    cat better.jsonl base.jsonl | awk "{ sub(/\"key\":\"/, \"&\" (NR > 40 ? \"x\" : \"y\")); print }" | sed "s/\"key\":\"\([xy]\)\([0-9]*\)\"/\"prompt_id\":\2,&/" >half.jsonl
    figures base=base2.jsonl better=mixed.jsonl | plain | sed "s/\"scores\":80/\"scores\":40/g" | diff want -
    figures base=base2.jsonl better=half.jsonl >json # of each pair of repeats one is the base, so half the difference
    has "\"joint\":{\"b\":4,\"c\":10,"; has "\"delta_pp\":7.5,"; has "\"scores\":80"
    fails 1 figures --results no.json base=base2.jsonl better=half.jsonl; grep "several scores of a prompt" err; [ ! -e no.json ]'
ok 'the seed that sample noted tells repeats apart' '
    { sed "s/}\$/,\"sample\":{\"seed\":1}}/" base.jsonl; sed "s/}\$/,\"sample\":{\"seed\":2}}/" base.jsonl; } >base2.jsonl
    figures --intersect base=base2.jsonl better.jsonl | plain | sed "s/\"scores\":80/\"scores\":40/g" | diff want -
    fails 1 figures base=base2.jsonl better.jsonl >out; grep "prompt .0.: 2 scores in .base., 1 in .better." err'
ok 'unpaired prompts are an error, or are left out and counted' '
    sed 3d better.jsonl >fewer.jsonl; echo "{\"key\":\"extra\",\"sa\":1,\"pc\":1}" >>fewer.jsonl
    fails 1 figures base.jsonl better=fewer.jsonl >out; grep "prompt .2. is unpaired: in .base., not in .better." err; [ ! -s out ]
    figures --intersect base.jsonl better=fewer.jsonl 2>err >json; has "{\"n\":39,"; has "\"left_out\":2,"; grep "2 unpaired prompts left out" err
    echo "{\"key\":\"extra\",\"sa\":1,\"pc\":1}" >one.jsonl
    fails 1 figures --intersect base.jsonl one.jsonl >out; grep "no prompt has a score in every run" err'
ok 'a NaN that Python wrote is a null; a missing action is one; neither is written' '
    sed "s/\"action\": null/\"action\": NaN/; s/\"params_M\": null/\"params_M\": NaN/" published.json >nan.json
    [ "$(grep -c NaN nan.json)" -gt 2 ]
    figures published.json >want2; figures --results back.json nan.json | diff want2 -
    grep -v params_M published.json >p; grep -v params_M back.json | diff p -; fails 1 grep NaN back.json
    echo "{\"key\":\"NaN \\\" NaN\",\"sa\":1,\"pc\":1,\"action\":NaN}" >base3.jsonl; figures --results back.json base=base3.jsonl >json
    grep -F "\"key\": \"NaN \\\" NaN\"" back.json; has "\"n\":1,"
    { echo prompt_id,variant,action,sa,pc; echo 1,base,NaN,1,1; echo 2,base,,1,1; } >nan.csv; figures --results back.json nan.csv >json
    [ "$(grep -c "\"action\": null" back.json)" = 2 ]'
ok 'published results keep what they say of themselves' '
    printf "%s" "{\"benchmark\":\"B\",\"n_prompts\":2,\"inference_settings\":{\"steps\":50},\"prompts\":[{\"id\":0,\"caption\":\"a\",\"action\":NaN},{\"id\":1,\"caption\":\"b\",\"action\":\"c\"}],
        \"variants\":{\"base\":{\"label\":\"The base\",\"params_M\":null,\"joint_pct\":77,\"sa_per_prompt\":[4,1],\"pc_per_prompt\":[5,5]},\"v\":{\"params_M\":1.5,\"joint_per_prompt\":[1,1],\"sa_per_prompt\":[4,5],\"pc_per_prompt\":[4,4]}}}" >r.json
    figures --results back.json r.json >json; has "\"base\":{\"scores\":2,\"joint_pct\":50.0"; has "\"v\":{\"scores\":2,\"joint_pct\":100.0"
    for line in "\"benchmark\": \"B\"" "\"n_prompts\": 2" "\"steps\": 50" "\"label\": \"The base\"" "\"label\": \"v\"" "\"params_M\": 1.5" "\"joint_pct\": 50.0" "\"delta_joint_vs_base_pp\": 50.0"; do grep -F "$line" back.json; done'
ok 'settings of sampled videos become inference_settings' '
    echo "{\"key\":\"0\",\"sa\":1,\"pc\":1,\"fps\":8.0,\"sample\":{\"model\":\"m\",\"frames\":49,\"size\":\"720x480\",\"steps\":50,\"guidance\":6.0,\"seed\":42}}" >base4.jsonl
    figures --results back.json base=base4.jsonl >json
    tr -d " \n" <back.json | grep -F "\"inference_settings\":{\"model\":\"m\",\"num_frames\":49,\"height\":480,\"width\":720,\"fps\":8.0,\"steps\":50,\"guidance_scale\":6.0,\"seed\":42,\"use_upsampled_captions\":null}"'

# bad FILE WORDS TEXT...: a file of these lines is refused with these words
bad() {
    file=$1 words=$2; shift 2
    printf "%s\n" "$@" >"$file"
    fails 1 figures "$file" >out
    grep -F "compare: $file: $words" err || { cat err; return 1; }
    [ ! -s out ]
}
ok 'what is wrong with a CSV is said' '
    h=prompt_id,variant,sa,pc
    bad b.csv "line 1: no column \`sa\`" prompt_id,variant,pc 1,base,3
    bad b.csv "line 1: no column \`variant\`" prompt_id,sa,pc 1,2,3
    bad b.csv "line 1: no column \`prompt_id\`" variant,sa,pc base,2,3
    bad b.csv "line 2: a quote inside" $h "1,ba\"se,2,3"
    bad b.csv "line 2: the file ends inside a quoted field" $h "1,\"base,2,3"
    bad b.csv "line 2: 3 fields under 4 columns" $h 1,base,2
    bad b.csv "line 3: a duplicate key: \`1\`" $h 1,base,2,3 1,base,2,3
    bad b.csv "line 2: \`1\` has no pc" $h 1,base,2,
    bad b.csv "line 2: \`1\`: sa 6 is no whole number from 0 to 5" $h 1,base,6,1
    bad b.csv "line 2: \`1\`: pc 1.5 is no whole number" $h 1,base,1,1.5
    bad b.csv "line 2: \`1\`: pc inf is no whole number" $h 1,base,1,high
    bad b.csv "line 2: no key" $h ,base,1,1
    bad b.csv "a variant without a name" $h 1,,1,1
    bad b.csv "no scores" $h
    fails 1 figures x=scores.csv; grep "scores.csv: its column .variant. names the runs" err'
ok 'what is wrong with JSON lines is said' '
    l="{\"key\":\"1\",\"sa\":1,\"pc\":2}"
    bad base.l "line 2: " "$l" "{\"key\":"
    bad base.l "line 3: not a JSON object" "$l" "" "[1]"
    bad base.l "line 2: a duplicate key: \`1\`" "$l" "$l"
    bad base.l "line 2: a duplicate key: \`1\`, seed 7" "{\"seed\":7,\"key\":\"1\",\"sa\":1,\"pc\":2}" "{\"seed\":7,\"key\":1,\"sa\":1,\"pc\":2}"
    bad base.l "line 1: \`1\` has no pc" "{\"key\":\"1\",\"sa\":1,\"pc\":null}"
    bad base.l "line 1: no key" "{\"sa\":1,\"pc\":1}"
    bad base.l "line 1: its \`sa\` is of no use" "{\"key\":\"1\",\"sa\":\"1\",\"pc\":1}"
    bad base.l "line 1: \\u0000 is not allowed" "{\"key\":\"a\\u0000b\",\"sa\":1,\"pc\":1}"
    bad base.l "line 1: its \`prompt_id\` is of no use" "{\"key\":\"a\",\"prompt_id\":1.5,\"sa\":1,\"pc\":1}"
    bad base.l "line 1: \`1\`: sa -1 is no whole number" "{\"key\":\"1\",\"sa\":-1,\"pc\":1}"
    bad base.l "line 1: duplicate object key" "{\"key\":\"1\",\"sa\":1,\"sa\":2,\"pc\":1}"
    bad base.l "no scores: it is empty" ""
    printf "\"\377\"" >base.l; fails 1 figures base.l; grep "base.l: " err'
ok 'what is wrong with published results is said' '
    p="\"prompts\":[{\"id\":0}]"
    bad r.json "results without a list of" "{\"variants\":{}}"
    bad r.json "no scores" "{$p,\"variants\":{}}"
    bad r.json "variant \`base\` has no sa_per_prompt" "{$p,\"variants\":{\"base\":{\"joint_pct\":1}}}"
    bad r.json "variant \`base\`: its lists are not as long" "{$p,\"variants\":{\"base\":{\"sa_per_prompt\":[1,2],\"pc_per_prompt\":[1]}}}"
    bad r.json "variant \`base\`, prompt 0: \`0\`: sa 9" "{$p,\"variants\":{\"base\":{\"sa_per_prompt\":[9],\"pc_per_prompt\":[1]}}}"
    bad r.json "variant \`base\`, prompt 0: \`0\` has no pc" "{$p,\"variants\":{\"base\":{\"sa_per_prompt\":[1],\"pc_per_prompt\":[NaN]}}}"
    bad r.json "variant \`base\`, prompt 0: joint_per_prompt is not what" "{$p,\"variants\":{\"base\":{\"sa_per_prompt\":[4],\"pc_per_prompt\":[4],\"joint_per_prompt\":[0]}}}"
    bad r.json "variant \`base\`, prompt 1: a duplicate key: \`0\`" "{\"prompts\":[{\"id\":0},{\"id\":0}],\"variants\":{\"base\":{\"sa_per_prompt\":[4,4],\"pc_per_prompt\":[4,4]}}}"
    bad r.json "line 1: duplicate object key" "{$p,\"variants\":{\"base\":{\"sa_per_prompt\":[4],\"pc_per_prompt\":[4]},\"base\":{}}}"
    bad r.json "line 2: end of file expected" "{$p,\"variants\":{\"base\":{\"sa_per_prompt\":[4],\"pc_per_prompt\":[4]}}}" x
    fails 1 figures x=published.json; grep "published.json: results name their variants themselves" err'
ok 'what is wrong with the grader'\''s own form is said' '
    sed 3d base-pc.csv >short.csv
    fails 1 figures base=base-sa.csv,short.csv; grep "short.csv: no score of .videos/base/1.mp4." err
    fails 1 figures base=short.csv,base-sa.csv; grep "short.csv: no score of .videos/base/1.mp4." err
    fails 1 figures base=base-sa.csv,base.jsonl; grep "base.jsonl: line 1: " err
    cat base-sa.csv >twice.csv; sed -n 2p base-sa.csv >>twice.csv
    fails 1 figures base=twice.csv,base-pc.csv; grep "twice.csv: line 42: a duplicate key: .videos/base/0.mp4." err
    sed "s/4.0\$//" base-sa.csv >none.csv; fails 1 figures base=none.csv,base-pc.csv; grep "none.csv: line .*: no score from 0 to 5" err
    fails 1 figures base-sa.csv,base-pc.csv; grep "two files want a name: NAME=SA.csv,PC.csv" err
    fails 1 figures base=base-sa.csv,gone.csv; grep "gone.csv: No such file" err'
ok 'videos of one name in several folders keep their paths' '
    for t in sa pc; do sed "s/base\/1.mp4/other\/0.mp4/" base-$t.csv >p-$t.csv; done
    figures --results back.json base=p-sa.csv,p-pc.csv >json; grep "\"key\": \"videos/other/0.mp4\"" back.json'
ok 'scores go back into the form of the grader, run by run' '
    figures --csv csv base=base-sa.csv,base-pc.csv >json
    sort -t , -k 3,3 base-sa.csv | cut -d , -f 2- >want; sort -t , -k 3,3 csv/base/scores_sa.csv | cut -d , -f 2- | diff want -
    figures base=csv/base/scores_sa.csv,csv/base/scores_pc.csv | diff json -
    figures --csv csv scores.csv >json; [ "$(wc -l <csv/better/scores_pc.csv)" = 41 ]; head -n 1 csv/better/scores_pc.csv | grep -x ",caption,videopath,score"
    echo x >file; fails 1 figures --csv file scores.csv; grep "file" err'
ok 'a base that is none, runs of one name, files that are not there' '
    fails 1 compare --base gone scores.csv >out; grep "no variant is called .gone.: there are base, better" err; [ ! -s out ]
    fails 1 figures scores.csv base.jsonl; grep "base.jsonl: variant .base. has been read from scores.csv already" err
    fails 1 figures base.jsonl base.jsonl; grep "base.jsonl: line 1: a duplicate key" err
    fails 1 figures nowhere/base.jsonl; grep "nowhere/base.jsonl: No such file" err; fails 1 figures .; grep "[.]: Is a directory" err'
# sampled SETTINGS: the base's lines, of videos that were sampled so
sampled() { sed "s/\"key\"/\"sample\":{\"steps\":50$1},\"key\"/" base.jsonl; }
ok 'runs that were approximated in other ways are refused, unless that is the question' '
    sampled "" >exact.jsonl; sampled ",\"compute-steps\":\"0-4,6-49\"" >fewer.jsonl; sampled ",\"guidance-steps\":\"0-9\"" >guided.jsonl
    fails 1 compare --base exact exact.jsonl fewer.jsonl >out
    grep "exact was sampled with compute-steps all, fewer with 0-4,6-49; --mixed" err; [ ! -s out ]
    sampled ",\"dtype\":\"fp8\"" >fp8.jsonl; sampled ",\"dtype\":\"f32\"" >f32.jsonl; fails 1 compare --base exact exact.jsonl fp8.jsonl
    grep "exact was sampled with dtype bf16, fp8 with fp8; --mixed" err; compare --mixed --base exact exact.jsonl fp8.jsonl; compare --base exact exact.jsonl f32.jsonl
    fails 1 compare --base exact exact.jsonl guided.jsonl; grep "guidance-steps all, guided with 0-9; --mixed" err
    fails 1 compare --base fewer exact.jsonl fewer.jsonl; { sed 20q exact.jsonl; sed 1,20d fewer.jsonl; } >half.jsonl
    fails 1 compare --base half half.jsonl; compare --mixed --base exact exact.jsonl fewer.jsonl guided.jsonl half.jsonl >out; grep "^guided" out
    cp fewer.jsonl alike.jsonl; compare --base fewer fewer.jsonl alike.jsonl; compare --base base base.jsonl fewer.jsonl'
ok 'wrong usage' '
    fails 2 compare scores.csv; grep -e "--base" err; fails 2 compare --base base; grep "name a file" err
    fails 2 compare --base base --format yaml scores.csv; fails 2 compare --base base --run x scores.csv; fails 2 compare --base base --resamples 1 scores.csv; fails 2 compare --base base --seed -1 scores.csv'
ok 'a full disk, no half-written results' '
    fails 1 figures scores.csv >/dev/full; grep "No space" err
    echo old >old.json; (trap "" XFSZ; ulimit -f 1; fails 1 figures --results old.json scores.csv >out); [ "$(cat old.json)" = old ]
    fails 1 figures --results nowhere/r.json scores.csv; grep "nowhere" err; fails 1 figures --results /dev/full scores.csv >out
    grep "^compare: /dev/full: is there and is not a regular file" err
    for left in .tmp-*; do [ ! -e "$left" ]; done'
finish
