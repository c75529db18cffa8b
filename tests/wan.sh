#!/bin/sh
# Wan, from a folder through every program and the pipelines: its defaults, the same bytes after a kill, what is refused, and that records
# of one family are not taken for those of another.
# shellcheck disable=SC1091,SC2016,SC2034,SC2086,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"
# shellcheck source=tests/train-kills
. "$tests/train-kills"
M=random:wan-tiny
need_all() { need_parallel; need gnuplot; }
prompt='{"key":"a","prompt":"a kettle boils"}'
sampled() { sample -m $M --frames 5 --size 48x32 --steps 3 "$@"; }

ok 'what the model makes by itself: frames, size, guidance, scheduler, shift and rate of frames' '
    show -m $M --geometry >geometry
    [ "$(sed -n "s/^\(frames\|width\|height\|text_length\) *//p" geometry | tr "\n" " ")" = "17 96 64 32 " ]
    echo "$prompt" | t5-encode -m $M >embeds.mp
    sample -m $M --steps 2 <embeds.mp >whole.mp
    show --jsonl whole.mp | grep -F "\"latents\":{\"dtype\":\"BF16\",\"shape\":[5,16,8,12]}"
    show --jsonl whole.mp | grep -F "\"guidance\":5.0,\"dynamic\":false,\"scheduler\":\"unipc\",\"negative\":\"\"" | grep -F "\"shift\":3.0,\"fps\":16.0"
    vae-decode -m $M <whole.mp >video.mp; show --jsonl video.mp | grep -F "\"shape\":[17,64,96,3]"
    encode-mp4 -o videos <video.mp | grep -F "\"fps\":16.0"
    sample -m $M --check-options --steps 51'
ok 'the published negative prompt is another than none, and noted; CogVideoX has none' '
    sampled <embeds.mp >plain.mp; sampled --negative published <embeds.mp >published.mp
    fails 1 tensor-eq --quiet plain.mp published.mp
    show --jsonl published.mp | grep "\"negative\":\"色调艳丽，过曝，静态，.*，三条腿，背景人很多，倒着走\""
    fails 2 sample -m random:tiny --check-options --negative published; grep "this model.s family has published none" err'
ok 'what does not fit a model of the flow is refused by name, before anything is read' '
    for scheduler in dpm ddim; do fails 2 sample -m $M --scheduler $scheduler; grep "scheduler: $scheduler reads v-predictions" err; done
    fails 2 sample -m $M --dynamic; grep "^sample: --dynamic" err
    fails 2 sample -m random:tiny --shift 3; grep "shift: dpm follows no flow" err
    for o in v flow-snr; do fails 2 train-step -m $M --state r --objective $o; grep "objective $o is for models that answer with v" err; done
    [ ! -e r ]'
ok 'euler, and a shift, give other latents' '
    sampled --scheduler euler <embeds.mp >euler.mp; fails 1 tensor-eq --quiet plain.mp euler.mp
    sampled --shift 8 <embeds.mp >shifted.mp; fails 1 tensor-eq --quiet plain.mp shifted.mp
    sampled --shift 3 <embeds.mp >same.mp; tensor-eq --quiet plain.mp same.mp'
ok 'texts and latents of one family are no input of the other' '
    echo "$prompt" | t5-encode -m random:tiny >t5.mp
    fails 1 sampled <t5.mp >out; grep "^sample: a: prompt_embeds is of t5, this model reads those of umt5" err
    fails 1 sample -m random:tiny --steps 1 <embeds.mp >out; grep "^sample: a: prompt_embeds is of umt5" err
    tensor-gen --name video --shape 5,32,48,3 --dtype u8 --fill uniform --scale 255 --key a --meta caption=x >clip.mp
    for model in tiny wan-tiny; do vae-encode -m random:$model <clip.mp >$model.mp; done
    fails 1 vae-decode -m $M <tiny.mp >out; grep "its latents are of AutoencoderKLCogVideoX, this model reads those of AutoencoderKLWan" err
    fails 1 vae-decode -m random:tiny <wan-tiny.mp >out; grep "its latents are of AutoencoderKLWan" err
    fails 1 vae-decode -m random:tiny <plain.mp >out; grep "its latents are of AutoencoderKLWan" err
    t5-encode -m $M <tiny.mp >mixed.mp; fails 1 train-step -m $M --state r --warmup 0 <mixed.mp >out; grep "latents are of AutoencoderKLCogVideoX" err
    t5-encode -m random:tiny <wan-tiny.mp >mixed.mp; fails 1 train-step -m $M --state r --warmup 0 <mixed.mp >out; grep "prompt_embeds are of t5" err
    fails 1 train-step -m $M --state r --warmup 0 --caption-dropout 0.1 --empty-prompt t5.mp <mixed.mp >out; grep "^train-step: t5.mp: prompt_embeds are of t5" err
    [ ! -s r/metrics.jsonl ]'
ok 'a training run that is stopped anywhere goes on to the same bytes' '
    tensor-gen --name latents --shape 2,16,4,8 --dtype bf16 --count 5 --key clip | tensor-gen --add --name prompt_embeds --shape 9,64 --dtype bf16 |
        pack -o store 2>/dev/null
    train() { train-step -m $M --device cpu --lr 1e-3 --warmup 2 --max-steps 12 --val store --eval-every 4 --eval-clips 2 --save-every 5 "$@"; }
    draw --count 12 store >all.mp; train --state whole <all.mp >whole.jsonl
    for at in 3 9; do draw --count $at store | train --state parts >/dev/null; done
    train --state parts <all.mp >/dev/null
    same_run whole parts
    fails 1 train --state whole --levels uniform,shift=3 <all.mp; grep "level_shift" err'
ok 'a folder by model-init is the preset, and its parts are named as published' '
    model-init wan-tiny folder
    show -m folder --check
    show -m folder | grep "^transformer/blocks.0.attn2.to_out.0.weight"
    sample -m folder --frames 5 --size 48x32 --steps 2 <embeds.mp >of-folder.mp
    sample -m $M:42 --frames 5 --size 48x32 --steps 2 <embeds.mp | tensor-eq --quiet - of-folder.mp'
ok 'Wan 2.2 TI2V-5B: sizes, rate and shift are the model'"'"'s own, and every program goes by them' '
    five=random:wan-5b-tiny
    show -m $five --geometry | sed -n "s/^\(channels\|spatial\|width\|height\) *//p" | tr "\n" " " | grep -x "48 16 96 64 "
    show -m random:wan-5b --geometry | sed -n "s/^\(channels\|spatial\|frames\|width\|height\) *//p" | tr "\n" " " | grep -x "48 16 121 1280 704 "
    echo "$prompt" | t5-encode -m $five | sample -m $five --steps 2 >five.mp
    show --jsonl five.mp | grep -F "\"latents\":{\"dtype\":\"BF16\",\"shape\":[5,48,4,6]}" | grep -F "\"shift\":5.0,\"fps\":24.0"
    vae-decode -m $five <five.mp >video.mp; show --jsonl video.mp | grep -F "\"shape\":[17,64,96,3]"
    encode-mp4 -o videos <video.mp | grep -F "\"fps\":24.0"
    vae-encode -m $five --image-latents <video.mp >back.mp; show --jsonl back.mp | grep -F "\"shape\":[5,48,4,6]" | grep -F "\"shape\":[1,48,4,6]"
    fails 2 sample -m $five --check-options --size 48x32; grep -e "--size: multiples of 32" err
    tensor-gen --name video --shape 5,24,32,3 --dtype u8 --key a | { fails 1 vae-encode -m $five >out; }; grep "32x24: width and height must be multiples of 16" err'
ok 'its latents are no input of Wan 2.1, nor the other way; a folder of it trains and samples' '
    fails 1 vae-decode -m $M <five.mp >out; grep "latents are BF16 \[5,48,4,6\], not a float \[T,16,h,w\]" err
    fails 1 vae-decode -m random:wan-5b-tiny <plain.mp >out; grep "not a float \[T,48,h,w\]" err
    model-init wan-5b-tiny ti2v; grep -F "\"expand_timesteps\": true" ti2v/model_index.json
    show -m ti2v --check
    vae-encode -m ti2v <video.mp | t5-encode -m ti2v >clip.mp
    for i in 1 2 3; do cat clip.mp; done | train-step -m ti2v --lr 1e-2 --warmup 0 --max-steps 3 --state fives | grep -c grad_norm | grep -x 3
    sample -m ti2v --frames 5 --size 64x32 --steps 2 <embeds.mp >base.mp; sample -m ti2v -a fives/last.safetensors --frames 5 --size 64x32 --steps 2 <embeds.mp >tuned.mp
    sample -m random:wan-5b-tiny:42 --frames 5 --size 64x32 --steps 2 <embeds.mp | tensor-eq --quiet - base.mp
    fails 1 tensor-eq --quiet base.mp tuned.mp
    sed -i "s/\"in_channels\": 48/\"in_channels\": 96/" ti2v/transformer/config.json
    fails 1 sample -m ti2v <embeds.mp >out; grep "in_channels and out_channels differ: only text-to-video is known here" err'
# paper-wan at its smallest: one prompt, one adapter
{ echo '. "$lib/paper-wan.conf"'; sed 1d little.conf; } >wan.conf
cat >>wan.conf <<'E2'
MODEL=random:wan-tiny
GUIDANCE=5
RUNS='base
standard_r16 standard'
FIRST=1
FILTER=no
TILING=no
PROMPT_MODEL=
UPSAMPLED=
SHARDS=1
JOBS=2
DELAY=0
THREADS=1
E2
ok 'the whole experiment on it, from clips to the report; killed in training and while it samples, the same adapters and videos' '
    need_all
    reproduce --config wan.conf >table 2>err || { cat err; exit 1; }
    grep "^1 prompts, " table; [ -s work/report.html ]
    grep -F "\"scheduler\":\"unipc\"" work/videos/standard_r16/42.jsonl | grep -F "\"fps\":16.0,\"frames\":5"
    cp -r work left-alone; rm -r work/runs work/videos
    hold train-step "--state work/runs/standard_r16" 22000 1 work/runs/standard_r16/state.safetensors; killed session train --config wan.conf
    train --config wan.conf 2>err
    hold sample "" 99 2; killed session generate --config wan.conf
    generate --config wan.conf 2>err
    for made in runs videos; do same_results left-alone/$made work/$made; done'
ok 'paper-wan: what each stage would need, and how long clips have to be' '
    need_all
    set -- --config paper-wan MODEL=random:wan-1.3b GRADER=random:owl-7b CLIPS=clips.csv VIDEOS=. PROMPTS=prompts.csv PROMPT_MODEL= UPSAMPLED= -j 1
    { echo "video,caption,aesthetic score,motion score,seconds"; for s in 5 5.06 5.0625 6.5 31; do : >c$s.mp4; echo "c$s.mp4,x,6,2,$s"; done; } >clips.csv
    precompute "$@" --dry-run >told 2>err || { cat err; exit 1; }
    grep "^curate .* --min-seconds 5.0625 clips.csv" told; grep -e "decode --frames 81 --size 832x480 " told
    bash -c "$(grep -m 1 "^curate .*train" told | sed "s/>.*//; s/--split train --fraction [0-9.]* --split-seed 0//")" | grep -c path | grep -x 2
    plan "$@" VAL_FRACTION=0.5 base >table 2>err || grep "cannot be done: .* of memory" err
    [ "$(awk "/^precompute|^generate/ { print \$2, \$3 }" table | tr "\n" " ")" = "2 clips 2 videos " ]
    awk "/^precompute/ { exit !(\$4 > 0.0167 && \$4 < 0.0169) }" table # 2 x 2 (21 16 60 104 + 512 4096) bytes at most
    generate "$@" --dry-run >told 2>err; grep -e "--frames 81 --size 832x480 --steps 50 --guidance 5 --scheduler unipc" told; grep -e "--fps 16" told
    set -- "$@" MODEL=random:wan-5b FRAMES=121 SIZE=1280x704 FPS=24 # TI2V-5B, of 24 frames a second and 16 pixels a latent
    precompute "$@" --dry-run >told 2>err; grep "^curate .* --min-seconds 5.0417 clips.csv" told; grep -e "decode --frames 121 --size 1280x704 " told
    plan "$@" VAL_FRACTION=0.5 base >table 2>err || grep "cannot be done: .* of memory" err
    awk "/^precompute/ { exit !(\$2 == 3 && \$4 > 0.0438 && \$4 < 0.0441) }" table # 3 x 2 (31 48 44 80 + 512 4096) bytes at most
    train "$@" --dry-run >told 2>err; grep -e "--objective flow" told; fails 2 train "$@" --dry-run OBJECTIVE=v >out
    fails 2 generate "$@" --dry-run SCHEDULER=dpm >out; grep "^sample: --scheduler: dpm" err'
finish
