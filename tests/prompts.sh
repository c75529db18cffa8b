#!/bin/sh
# prompts: the benchmark's rows to numbered prompts, each joined to its long text; what was not found is told.
# shellcheck disable=SC1112,SC2016,SC2154 # curly quotes are meant; ok evaluates its text; lib.sh sets $shared
. "${0%/*}/lib.sh"

cat >test.csv <<'END'
caption,video_url,sa,model_name,action,upsampled_caption,is_hard,category
A ball rolls.,u1,4,wan,rolling,own text of a ball,0,physical
A ball rolls.,u2,3,other,rolling,own text of a ball,0,physical
"A cup, half full, tips over.",u3,5,wan,tipping,own text of a cup,1,physical
It’s a man’s jump.,u4,2,wan,NaN,,1,sports
It's a man's jump.,u5,2,wan,,,0,sports
Only the other model has this.,u6,2,other,waving,own,1,sports
"A cup, half full, tips over.",u7,1,wan,pouring,again,0,other
Leaves fall.,u8,1,wan,falling,None,1,physical
END
cat >upsampled.csv <<'END'
caption,upsampled_caption,action
Leaves fall,not this one,falling
A ball rolls.,"A red ball, ""shiny"",
rolls slowly.",rolling
It’s a man’s jump.,A man jumps – curly.,jumping
A ball rolls.,a second text,rolling
END
run() { prompts --model-name wan --upsampled upsampled.csv test.csv; }

ok 'captions of the model are numbered as they come, and joined to their long texts' '
    run >out 2>err
    cat >want <<"END"
{"key":"0","caption":"A ball rolls.","prompt":"A red ball, \"shiny\",\nrolls slowly.","action":"rolling","category":"physical","is_hard":"0"}
{"key":"1","caption":"A cup, half full, tips over.","prompt":"own text of a cup","action":"tipping","category":"physical","is_hard":"1"}
{"key":"2","caption":"It’s a man’s jump.","prompt":"A man jumps – curly.","category":"sports","is_hard":"1"}
{"key":"3","caption":"It'"'"'s a man'"'"'s jump.","prompt":"It'"'"'s a man'"'"'s jump.","category":"sports","is_hard":"0"}
{"key":"4","caption":"Leaves fall.","prompt":"Leaves fall.","action":"falling","category":"physical","is_hard":"1"}
END
    diff want out'
ok 'every text that is not from the file is told, and how many' '
    run >out 2>err
    cat >want.err <<"END"
prompts: upsampled.csv: 1 captions come again with another text: the first is taken
prompts: 1: not in upsampled.csv, the row'"'"'s own upsampled caption is taken: A cup, half full, tips over.
prompts: 3: no upsampled caption, the short one is taken: It'"'"'s a man'"'"'s jump.
prompts: 4: no upsampled caption, the short one is taken: Leaves fall.
prompts: 8 rows, 6 chosen: 5 prompts, 5 written; upsampled by upsampled.csv: 2, by their rows: 1, not: 2
END
    diff want.err err'
ok 'without the file the rows have their own texts, and that is no news' '
    prompts --model-name wan test.csv >out 2>err
    grep -q "\"prompt\":\"own text of a ball\"" out; [ "$(grep -c "short one" err)" = 3 ]; fails 1 grep -q "own upsampled" err'
ok 'all models, when none is named; the column may be called model' '
    prompts test.csv >out 2>err; [ "$(wc -l <out)" = 6 ]; tail -n 1 out | grep -q "\"key\":\"5\",\"caption\":\"Leaves"
    run >want 2>err; sed "1s/model_name/model/" test.csv | prompts --model-name wan --upsampled upsampled.csv 2>err | diff want -
    sed "1s/model_name/model name/" test.csv | prompts --model-name wan --upsampled upsampled.csv 2>err | diff want -'
ok 'a model that is not there is told with those that are' '
    fails 1 prompts --model-name Wan test.csv >out; [ ! -s out ]; grep -qx "prompts: test.csv: no row of model .Wan.: did you mean .wan.? there are wan, other" err
    sed "1s/model_name/x/" test.csv >unnamed.csv; fails 1 prompts --model-name wan unnamed.csv; grep -q "line 1: no column .model_name.: there are caption" err'
ok '--only chooses by a column, and numbers stay' '
    run >all 2>err; prompts --model-name wan --upsampled upsampled.csv --only is_hard=1 test.csv >out 2>err
    grep "is_hard\":\"1" all | diff - out; [ "$(wc -l <out)" = 3 ]; grep -q "5 prompts, 3 written" err
    prompts --model-name wan --only is_hard=1 --only "action=tipping" test.csv 2>err >out; grep -q "\"key\":\"1\"" out; [ "$(wc -l <out)" = 1 ]
    prompts --only sa= test.csv 2>err >out; [ ! -s out ]
    fails 1 prompts --only hard=1 test.csv; grep -q "no column .hard." err
    fails 2 prompts --only hard test.csv; grep -q "COLUMN=VALUE, not .hard." err'
ok 'the 591 published prompts, from a table like the benchmark'"'"'s' '
    need shared; need python3
    python3 - "$shared/data/videophy2_scores.csv" <<"END"
import csv, sys
prompts = [r for r in csv.DictReader(open(sys.argv[1], newline="")) if r["variant"] == "base"]
with open("big.csv", "w", newline="") as f:
    w = csv.writer(f)
    w.writerow(["caption", "video_url", "model_name", "action"])
    for p in prompts:
        for model in "cogvideox", "wan2.2-14b", "sora":
            w.writerow([p["caption"], "https://" + model, model, p["action"]])
with open("long.csv", "w", newline="") as f:
    w = csv.writer(f)
    w.writerow(["caption", "upsampled_caption"])
    for p in reversed(prompts): w.writerow([p["caption"], "long: " + p["caption"]])
END
    prompts --model-name wan2.2-14b --upsampled long.csv big.csv >out 2>err
    grep -q "1773 rows, 591 chosen: 591 prompts, 591 written; upsampled by long.csv: 591, by their rows: 0, not: 0" err
    python3 - "$shared/data/videophy2_scores.csv" <<"END"
import csv, json, sys
prompts = [r for r in csv.DictReader(open(sys.argv[1], newline="")) if r["variant"] == "base"]
lines = [json.loads(line) for line in open("out")]
assert len(lines) == 591 and sum("action" not in l for l in lines) == 2
for p, l in zip(prompts, lines):
    assert l == {"key": p["prompt_id"], "caption": p["caption"], "prompt": "long: " + p["caption"]} | ({"action": p["action"]} if p["action"] else {}), l
END'
ok 'tables that are damaged are refused, or the row is told and left out' '
    fails 1 prompts nowhere.csv; grep -q "nowhere.csv: No such file" err
    fails 1 prompts --upsampled nowhere.csv test.csv; grep -q "nowhere.csv: No such file" err
    printf "caption,text\na,b\n" >other.csv; fails 1 prompts --upsampled other.csv test.csv; grep -q "other.csv: line 1: no column .upsampled_caption." err
    printf "a,b\n1,2\n" | fails 1 prompts; grep -q "stdin: line 1: no column .caption.: there are a, b" err
    { cat test.csv; echo "\"open"; } >broken.csv; fails 1 prompts broken.csv >out; grep -q "broken.csv: line 10: the file ends inside" err
    { cat test.csv; echo "two,fields"; echo ",u,1,wan,a,b,0,c"; echo "last,u,1,wan,a,b,0,c"; } >rows.csv
    fails 1 prompts --model-name wan rows.csv >out; grep -q "rows.csv: line 10: 2 fields under 8 columns" err; grep -q "rows.csv: line 11: no caption" err
    tail -n 1 out | grep -q "\"key\":\"5\",\"caption\":\"last\""'
ok 'wrong usage is 2' 'fails 2 prompts a b; fails 2 prompts --fast; fails 2 prompts --model-name'
ok 'help and version' 'prompts --help | grep -q "usage: prompts"; prompts --version | grep -q "^prompts (sluice)"'
finish
