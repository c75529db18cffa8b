#!/bin/sh
# train-step: runs that resume to the same bytes, refusals, files.
. "${0%/*}/lib.sh"
# shellcheck source=tests/train-kills
. "$tests/train-kills"
M=random:tiny

# A store of 7 records with latents of 5 frames, 64x32 pixels, and made-up embeddings.
records() { tensor-gen --name latents --shape 2,16,4,8 --dtype bf16 --count "$1" --key "$2" | tensor-gen --add --name prompt_embeds --shape 32,64 --dtype bf16; }
records 7 clip | pack -o train 2>/dev/null
records 3 other | pack -o val 2>/dev/null
records 3 clip >few.mp
train() { train-step -m "$M" --device cpu --objective flow-snr --lr 1e-3 --warmup 3 --max-steps 24 --val val --eval-every 8 --eval-clips 3 --save-every 5 "$@"; }
whole() { [ -e whole/last.safetensors ] || { draw --count 40 train | train --state whole >whole.jsonl; }; }

ok "parameter counts at full size, with nothing read or allocated" '
    [ -n "${SAN:-}" ] || ulimit -v 4000000 # the sanitizer maps terabytes
    train-step --dry-run --device cpu -m random:cogvideox-5b --adapter standard </dev/null >said
    grep "168 modules, 16515072 trainable" said
    grep "5570283072 parameters" said
    grep -c recompute said | grep 3'
ok "a run writes adapters, state and metrics, and stdout is the metrics" '
    whole
    cmp whole.jsonl whole/metrics.jsonl
    [ "$(grep -c loss whole.jsonl)" = 28 ]
    [ "$(grep -c val_loss whole.jsonl)" = 4 ]
    for f in best last state; do show --check whole/$f.safetensors; done'
ok "the same command twice gives the same bytes" 'whole; draw --count 40 train | train --state again >/dev/null; same_run whole again'
ok "--threads changes no bit" 'whole; draw --count 40 train | train --threads 1 --state one >/dev/null; same_run whole one
    draw --count 40 train | train --threads 2 --state two >/dev/null; same_run whole two'
ok "--recompute changes no bit" '
    whole
    for r in none ffn full; do draw --count 40 train | train --recompute $r --state r-$r >/dev/null; same_run whole r-$r; done'
ok "stopping anywhere and going on, with draw from the start or from the state" '
    whole
    draw --count 7 train | train --state parts >/dev/null
    draw --from parts --count 6 train | train --state parts >/dev/null
    draw --count 40 train | train --state parts >/dev/null
    same_run whole parts'
ok "killed with -9 at random moments and started again" 'survive_kills 3'
ok "SIGTERM saves, and the run goes on from there" '
    whole
    mkfifo slow
    train-step -m "$M" --device cpu --objective flow-snr --lr 1e-3 --warmup 3 --max-steps 24 --val val --eval-every 8 --eval-clips 3 \
        --save-every 5 --state term <slow 2>err >/dev/null &
    trainer=$!
    draw --count 40 train | head -c 60000 >first
    exec 9>slow
    cat first >&9
    until grep -q grad_norm term/metrics.jsonl; do kill -0 $trainer; sleep 0.1; done 2>/dev/null
    kill -TERM $trainer
    status=0; wait $trainer || status=$?
    exec 9>&-
    [ $status = 143 ]
    grep "saved after step" err
    draw --count 40 train | train --state term >/dev/null
    same_run whole term'
ok "a damaged state is told, and the one before taken" '
    whole
    cp -r whole hurt
    printf x | dd of=hurt/state.safetensors bs=1 seek=4 conv=notrunc 2>/dev/null
    draw --count 40 train | train --state hurt >/dev/null 2>err
    grep "going on from the one before" err
    same_run whole hurt'
ok "so is one in which a byte of a tensor is another" '
    whole
    cp -r whole bit
    size=$(wc -c <bit/state.safetensors)
    printf x | dd of=bit/state.safetensors bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
    show --check bit/state.safetensors
    draw --count 40 train | train --state bit >/dev/null 2>err
    grep "its bytes are not those that were saved; going on from the one before" err
    same_run whole bit'
ok "two damaged states are refused, and nothing is overwritten" '
    cp -r whole wreck
    echo x >wreck/state.safetensors
    echo x >wreck/state.previous.safetensors
    draw --count 40 train >all.mp
    fails 1 train --state wreck <all.mp >/dev/null
    cmp whole/metrics.jsonl wreck/metrics.jsonl'
ok "another command does not go on with a state: the field is named" '
    whole
    draw --count 40 train >all.mp
    fails 1 train --state whole --lr 2e-3 <all.mp; grep "\`lr\` was 0.001" err
    fails 1 train --state whole --seed 1 <all.mp; grep "\`seed\`" err
    fails 1 train --state whole --adapter standard:alpha=8 <all.mp; grep "\`adapter\`" err
    draw --seed 7 --count 40 train >other.mp
    fails 1 train --state whole <other.mp; grep "\`data\`" err
    fails 1 train -m random:tiny:5 --state whole <all.mp; grep "\`model\`" err'
ok "--levels logit-normal draws other levels, and belongs to the run" '
    draw --count 9 train >nine.mp
    train --levels logit-normal --state logit <nine.mp | sed -n "s/.*\"s\":\([^,]*\).*/\1/p" >levels
    [ "$(wc -l <levels)" = 9 ]
    awk "\$1 <= 0 || \$1 >= 1 { exit 1 }" levels
    train --levels uniform --state even <nine.mp | sed -n "s/.*\"s\":\([^,]*\).*/\1/p" >even.levels
    fails 1 cmp -s levels even.levels
    fails 1 train --state logit <nine.mp; grep "\`levels\` was \"logit-normal\", this command says nothing" err'
ok "--levels with a shift moves what the same draw gives, and belongs to the run" '
    train --levels uniform,shift=3 --state shifted <nine.mp | sed -n "s/.*\"s\":\([^,]*\).*/\1/p" >shifted.levels
    paste even.levels shifted.levels | awk "{ d = \$2 - 3 * \$1 / (1 + 2 * \$1); if (d * d > 1e-24) exit 1; n++ } END { exit n != 9 }"
    fails 1 train --state shifted <nine.mp; grep "\`level_shift\` was 3.0, this command says nothing" err
    for wrong in normal uniform,shift uniform,shift=0 uniform,shift=101 uniform,shift=3x uniform,scale=3 "" uniform,; do
        fails 2 train --levels "$wrong" --state wrong <nine.mp; grep "^train-step: --levels is uniform or logit-normal" err
    done; [ ! -e wrong ]'
ok "a range in which there are as good as no levels is refused, and nothing outside is drawn" '
    for range in "--levels-to 1e-30" "--levels-to 1e-300"; do
        fails 2 train --levels logit-normal,shift=100 $range --state none <nine.mp; grep "none of --levels lie there" err
    done
    fails 2 train --levels logit-normal,shift=0.01 --levels-from 0.9999999999999999 --state none <nine.mp; [ ! -e none ]
    train --levels logit-normal --levels-to 0.0001 --state few <nine.mp | sed -n "s/.*\"s\":\([^,]*\).*/\1/p" | awk "{ n += \$1 <= 0.0001 } END { exit n != 9 }"'
ok "--accumulate 3: three records a step, named by the last; stopping anywhere changes nothing" '
    threes() { train --accumulate 3 --max-steps 8 --save-every 3 "$@"; }
    draw --count 24 train | threes --state three >three.jsonl
    [ "$(grep -c grad_norm three.jsonl)" = 8 ]
    grep "\"step\":8,\"position\":23," three.jsonl
    draw --count 8 train | threes --state parted >/dev/null 2>err
    grep "after step 2 of 8" err
    draw --from parted --count 11 train | threes --state parted >/dev/null
    draw --count 24 train | threes --state parted >/dev/null
    same_run three parted
    draw --count 24 train >all.mp
    fails 1 train --max-steps 8 --save-every 3 --state three <all.mp; grep "\`accumulate\` was 3, this command says nothing" err'
ok "--caption-dropout gives records the empty prompt: none, some, all" '
    echo "{\"key\":\"empty\",\"prompt\":\"\"}" | t5-encode -m "$M" --device cpu >empty.mp
    still() { train-step -m "$M" --device cpu --lr 0 --warmup 1 --max-steps 12 "$@" 2>/dev/null | sed "s/,\"grad_norm.*//"; }
    drop() { still --caption-dropout "$1" --empty-prompt empty.mp --state "drop$1"; }
    draw --count 12 train >twelve.mp
    still --state drop0 <twelve.mp >kept
    drop 1 <twelve.mp >dropped
    drop 0.4 <twelve.mp >mixed
    [ "$(wc -l <mixed)" = 12 ]
    [ "$(cat kept dropped mixed | sort | uniq -d | wc -l)" = 12 ]
    fails 1 cmp -s kept mixed
    fails 1 cmp -s dropped mixed'
ok "the empty prompt: must be one record that fits, and belongs to the run" '
    fails 2 train --caption-dropout 0.1 --state ce <few.mp
    fails 2 train --empty-prompt empty.mp --state ce <few.mp
    fails 2 train --caption-dropout 1.5 --empty-prompt empty.mp --state ce <few.mp
    for bad in few.mp v.mp none.mp cut.mp gone.mp; do
        tensor-gen --name prompt_embeds --shape 31,64 >v.mp
        tensor-gen --name prompt_embeds --shape 32,64 --count 0 >none.mp
        head -c 3000 empty.mp >cut.mp
        fails 1 train --caption-dropout 0.1 --empty-prompt $bad --state ce <few.mp
        grep "$bad: " err
    done
    fails 1 train --caption-dropout 0.1 --empty-prompt /dev/null --state ce <few.mp; grep "^train-step: /dev/null: byte 0: empty input" err
    train --caption-dropout 0.1 --empty-prompt empty.mp --state ce <few.mp >/dev/null
    tensor-gen --name prompt_embeds --shape 32,64 >other.mp
    fails 1 train --caption-dropout 0.1 --empty-prompt other.mp --state ce <few.mp; grep "\`caption_dropout\` was" err
    fails 1 train --caption-dropout 0.2 --empty-prompt empty.mp --state ce <few.mp; grep "\`caption_dropout\` was" err'
ok "a finished run is finished" 'whole; draw --count 40 train | train --state whole 2>err | wc -l | grep "^0$"; grep finished err'
ok "two programs in one folder: the second is refused" '
    mkfifo hold
    train --state locked <hold >/dev/null 2>&1 & pid=$!
    exec 9>hold
    draw --count 3 train | head -c 30000 >&9
    until [ -e locked/.lock ] && ! flock -n locked/.lock true; do kill -0 $pid; sleep 0.1; done
    draw --count 3 train >three.mp
    fails 1 train --state locked <three.mp; grep "another train-step" err
    exec 9>&-
    wait $pid'
ok "early stopping" '
    draw --count 40 train | train-step -m "$M" --device cpu --lr 0 --warmup 1 --max-steps 30 --val val --eval-every 2 --patience 3 --state stop 2>err | tail -n 1 | grep "\"step\":6"
    grep "no better validation loss in 3" err'
ok "what is wrong behind the record with which a run ends early is not the run's matter" '
    ends() { rm -rf ends; train-step -m "$M" --device cpu --lr 0 --warmup 1 --max-steps 30 --val val --eval-every 2 --patience 3 --state ends >/dev/null; }
    draw --count 6 train >six.mp
    tensor-gen --name latents --shape 2,16,4,8 --key odd | tensor-gen --add --name prompt_embeds --shape 31,64 >odd.mp
    tensor-gen --name latents --shape 2,16,4,8 --key far --meta position=9 | tensor-gen --add --name prompt_embeds --shape 32,64 >far.mp
    for behind in odd far; do cat six.mp $behind.mp | ends; done
    head -c -20 six.mp | ends'
ok "a stream that is damaged: the steps before are kept, those of whole records alone" '
    draw --count 9 train >nine.mp
    head -c -20000 nine.mp >torn.mp
    fails 1 train --accumulate 2 --device cpu,cpu --state torn <torn.mp >/dev/null
    grep "truncated within" err
    draw --count 4 train | train --accumulate 2 --state untorn >/dev/null
    same_run torn untorn
    records 2 good >good.mp
    { cat good.mp; echo text; } >text.mp
    fails 1 train --state text <text.mp >/dev/null
    train --state no-text <good.mp >/dev/null
    same_run text no-text'
ok "however long the key, the reason is told" '
    key=$(head -c 3000 /dev/zero | tr "\000" k)
    tensor-gen --name latents --shape 2,16,4,8 --key "$key" | tensor-gen --add --name prompt_embeds --shape 31,64 >long.mp
    fails 1 train-step -m "$M" --device cpu --lr 1e-3 --warmup 1 --max-steps 9 --state long <long.mp; grep "step 1, position 0: kkk.*the model wants .32,64." err
    tensor-gen --name latents --shape 2,16,4,8 --key "$key" | tensor-gen --add --name prompt_embeds --shape 32,64 |
        tensor-gen --add --name noise --dtype f16 --scale 1e30 --shape 2,16,4,8 >huge.mp
    fails 1 train-step -m "$M" --device cpu --lr 1e-3 --warmup 1 --max-steps 9 --state huge <huge.mp; grep "step 1, position 0: kkk.*not finite" err'
# told FILE STEP OPTIONS...: with FILE sent and nothing after it yet, the line of that step comes
told() {
    sent=$1 last=$2
    shift 2
    rm -rf told slow-feed; mkfifo slow-feed
    train-step -m "$M" --device cpu --lr 1e-3 --warmup 1 --max-steps 9 --state told "$@" <slow-feed >told.lines 2>err &
    trainer=$!
    exec 9>slow-feed
    cat "$sent" >&9
    tries=0
    until grep -q "\"step\":$last," told.lines || [ "$tries" = 100 ]; do tries=$((tries + 1)); sleep 0.1; done
    exec 9>&-
    wait "$trainer" || :
    [ "$tries" -lt 100 ]
}
ok "a step is told before the next record comes: within a stream, and where each record is a stream" '
    draw --count 4 train >four.mp
    head -c -46 four.mp >open.mp # all but the end
    told open.mp 4
    told open.mp 2 --accumulate 2 --device cpu,cpu
    told four.mp 4
    tensor-gen --name latents --shape 2,16,4,8 --key a | tensor-gen --add --name prompt_embeds --shape 32,64 >a.mp
    pad() { tensor-gen --add --name pad --dtype u8 --shape "$1" <a.mp; }
    size=$(pad 50000 | wc -c)
    for cut in 10 30; do # bytes of the end behind the first 64 KiB
        pad $((50000 + 65536 + cut - size)) >padded.mp
        [ "$(wc -c <padded.mp)" = $((65536 + cut)) ]
        told padded.mp 1
    done'
ok "a fresh adapter changes not one bit of what sample makes" '
    tensor-gen --name prompt_embeds --shape 32,64 >p.mp
    records 1 clip | train-step -m "$M" --device cpu --lr 1e-3 --warmup 1 --max-steps 9 --state fresh1 >/dev/null 2>&1
    sample -m $M --device cpu --dtype f32 --frames 5 --size 64x32 --steps 4 <p.mp >base.mp
    sample -m $M --device cpu --dtype f32 --frames 5 --size 64x32 --steps 4 -a fresh1/last.safetensors <p.mp >fresh.mp
    tensor-eq base.mp fresh.mp
    sample -m $M --device cpu --dtype f32 --frames 5 --size 64x32 --steps 4 -a whole/best.safetensors <p.mp >tuned.mp
    fails 1 tensor-eq base.mp tuned.mp'
ok "noise and level that a record brings are used" '
    records 1 clip | tensor-gen --add --name noise --shape 2,16,4,8 --meta s=0.25 >brought.mp
    train --state b1 <brought.mp 2>/dev/null | grep "\"s\":0.25"
    train --state b2 --seed 9 <brought.mp >/dev/null 2>&1
    [ "$(grep grad_norm b1/metrics.jsonl | sed s/grad.*//)" = "$(grep grad_norm b2/metrics.jsonl | sed s/grad.*//)" ]'
ok "--dump-grads writes the first gradients" '
    train --state d1 --dump-grads g.safetensors <few.mp >/dev/null 2>&1
    show g.safetensors | grep "transformer.transformer_blocks.3.attn1.to_out.0.lora_B.weight  *F32 .128,16"'
ok "--init starts from an adapter; one that disagrees with itself or the model is refused" '
    whole
    train --init whole/best.safetensors --state init <few.mp >/dev/null 2>&1
    fails 1 train --init "$tests/data/train/init_a4.safetensors" --state i2 <few.mp; grep lacks err || grep "says" err || grep "layers" err
    sed "s/\\\\\"rank\\\\\":16/\\\\\"rank\\\\\":15/" whole/best.safetensors >lie.safetensors
    fails 1 cmp -s lie.safetensors whole/best.safetensors
    fails 1 train --init lie.safetensors --state i3 <few.mp; grep disagree err'
ok "a loss that is not finite stops the run and names step and record" '
    records 2 good >good.mp
    tensor-gen --name latents --shape 2,16,4,8 --key bad | tensor-gen --add --name prompt_embeds --shape 32,64 |
        tensor-gen --add --name noise --dtype f16 --scale 1e30 --shape 2,16,4,8 --meta position=2 >bad.mp
    cat good.mp bad.mp >both.mp
    fails 1 train --state nan <both.mp >/dev/null
    grep "step 3, position 2: bad: " err
    [ "$(grep -c grad_norm nan/metrics.jsonl)" = 2 ]
    train --state only-good <good.mp >/dev/null
    cmp nan/state.safetensors only-good/state.safetensors
    cmp nan/metrics.jsonl only-good/metrics.jsonl'
ok "an evaluation that fails is not left behind by a save: nothing would do it again" '
    records 4 far >far.mp
    fails 1 train-step -m "$M" --device cpu --objective v --lr 1000 --weight-decay 1000 --clip 0 --warmup 0 --max-steps 6 --val val \
        --eval-every 2 --state undone <far.mp >/dev/null
    grep -x "train-step: step 2: validation: .*: not finite" err
    [ ! -e undone/state.safetensors ]'
ok "records that are not fit for training stop it, with the command that makes them" '
    tensor-gen --name video --dtype u8 --shape 5,32,64,3 --key raw >v.mp
    fails 1 train --state v <v.mp; grep "raw: has no tensor .latents.: there is video; .*vae-encode" err
    tensor-gen --name latents --shape 2,16,4,8 --key odd | tensor-gen --add --name prompt_embeds --shape 31,64 >o.mp
    fails 1 train --state o <o.mp; grep "odd: prompt_embeds are .31,64., the model wants .32,64." err'
ok "wrong usage" '
    fails 2 train-step -m "$M" </dev/null
    fails 2 train-step --state x </dev/null
    fails 2 train --objective other --state x </dev/null
    fails 2 train --warmup 24 --state x </dev/null
    fails 2 train --adapter lora --state x <few.mp; grep "no adapter .lora.: there are standard" err
    fails 2 train --targets attn2.to_q --state x <few.mp; grep "no target .attn2.to_q.: .*there are to_q, to_k" err
    fails 2 train --adapter standard:rank=0 --state x <few.mp; grep "rank 0 is outside" err
    fails 2 train --adapter standard:k=5 --state x <few.mp
    fails 2 train --expert low --state x <few.mp; grep "^train-step: --expert: this model has one transformer" err'
ok "an option that would do nothing is refused" '
    unfit() { fails 2 train-step -m "$M" --state x "$@" <few.mp; grep "^train-step: $1: " err; [ ! -e x ]; }
    unfit --frames 5; unfit --size 64x32'
ok "and one that a script may well pass always is told to do nothing" '
    idle() { train-step -m "$M" --device cpu --check-options --state x "$@" 2>err; grep -x "train-step: $1 does nothing: .*" err; }
    for option in --eval-every --eval-clips --patience --min-delta; do idle $option 3; done
    whole; idle --targets to_q --init whole/best.safetensors; idle --adapter standard --init whole/best.safetensors'
ok "what is wrong with the command is said before weights are read" '
    model-init tiny unread
    echo x >unread/transformer/diffusion_pytorch_model.safetensors
    early() { train -m unread --state early "$@"; }
    fails 2 early --adapter lora <few.mp; grep "no adapter" err
    fails 2 early --targets to_x <few.mp; grep "no target" err
    fails 1 early --val gone <few.mp; grep "gone" err
    fails 1 early --caption-dropout 0.1 --empty-prompt gone.mp <few.mp; grep "gone.mp" err
    fails 1 early <few.mp; grep "diffusion_pytorch_model.safetensors" err
    [ ! -e early ]'
ok "diffusers loads the adapter and answers the same" '
    py=${REFERENCE_PYTHON:-python3}
    need "$py"
    "$py" -c "import torch, diffusers, peft" 2>/dev/null || { echo "no Python packages for the reference"; exit 77; }
    model-init tiny model
    draw --count 12 train | train-step -m model --device cpu --adapter standard:rank=8,alpha=20 --lr 1e-2 --warmup 1 --max-steps 12 --state forpeft >/dev/null 2>&1
    "$BUILD/tests/train" case model forpeft/last.safetensors case.safetensors
    "$py" "$tests/reference/check_lora.py" model forpeft/last.safetensors case.safetensors'
ok 'to a terminal evaluations are words, and the progress line tells step, evaluations and time left; elsewhere all is JSON' '
    need script
    run="train-step -m random:tiny --device cpu --warmup 0 --max-steps 40 --val terminal --eval-every 20"
    for i in 1 2; do tensor-gen --name latents --shape 1,16,4,4 --key t$i | tensor-gen --add --name prompt_embeds --shape 32,64; done | pack -o terminal 2>/dev/null
    draw --count 40 terminal >forty.mp
    # However fast the steps and slow the start: a tenth of a second after the evaluation a line is due.
    paused="head -c 30000 forty.mp; for i in \$(seq 300); do ! grep -q validation typescript || break; sleep 0.1; done; sleep 0.3; tail -c +30001 forty.mp"
    script -qfec "($paused) | $run --state terminal-run" typescript </dev/null >/dev/null; tr "\r" "\n" <typescript | sed "s/^$(printf "\033")\[K//" >said
    for step in 0 20 40; do grep "^step $step of 40: validation loss [0-9.]*\$" said; done
    time="([0-9]+ min )?[0-9]+ s"
    grep -E "^train-step: step [0-9]+ of 40, loss [0-9.]+, evaluations [123], $time, $time left" said; fails 1 grep "[{]" said
    [ "$(wc -l <terminal-run/metrics.jsonl)" = 43 ]
    script -qec "$run --state quiet-run <forty.mp 2>quiet" typescript </dev/null >/dev/null
    [ "$(grep -c "^step [0-9]* of 40: loss [0-9.]*, gradient norm [0-9.e+-]*, rate " typescript)" = 40 ]; cat quiet; [ ! -s quiet ]
    $run --state json-run <forty.mp 2>quiet | cmp - terminal-run/metrics.jsonl'
finish
