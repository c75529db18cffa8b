#!/bin/sh
# What bench-gpu makes of its programs' figures, with programs of the test's own instead of a GPU's.
# shellcheck disable=SC1091,SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"
mkdir -p new/tests old/tests fake
program() { # BUILD MS: figures of one section, a little longer each time
    cat >"$1/tests/gpu-nets" <<END
#!/bin/sh
[ "\$1" = dit ] || { echo "no section \$1" >&2; exit 1; }
echo x >>$work/$1.calls
echo "{\"name\": \"dit_fwd_B1\", \"ms\": \$(($2 + \$(wc -l <$work/$1.calls))), \"tflops\": 400, \"joules\": $2, \"gib\": 11.5, \"when\": [0, 0]}"
echo '{"name": "equal", "count": 3}'
END
    chmod +x "$1/tests/gpu-nets"
}
program new 98
program old 198
bench() { BUILD=$work/new OUT=$work/out PEERS=0 "$tests/bench-gpu" "$@"; }

ok "a figure, its joules, and what is no time" '
    need python3
    bench dit >said; cat said
    grep "^dit_fwd_B1  *99  *11.5  *400  *98\$" said; grep "^equal .*3" said'
ok "against another build: they take turns, and the ratio is of the medians" '
    need python3
    rm -f *.calls
    bench --against "$work/old" --rounds 5 dit >said; cat said
    [ "$(wc -l <new.calls)" = 5 ]; [ "$(wc -l <old.calls)" = 5 ]
    grep "^dit_fwd_B1 .* 0.502  *0.495\$" said # 101 of 201 ms, 98 of 198 J'
ok "against another object: the same programs, with that object beside them" '
    need python3
    echo other >other.so
    bench --against other.so --rounds 1 dit >said
    [ "$(cat out/against/sluice-cuda.so)" = other ]; cmp new/tests/gpu-nets out/against/gpu-nets; grep "^dit_fwd_B1 " said'
ok "beside peers: ratios, the share of the fastest product, the clock while it ran; as Markdown" '
    need python3
    mkdir table; : >table/other.jsonl
    echo "{\"name\": \"dit_fwd_B1\", \"ms\": 100, \"tflops\": 400, \"when\": [$(date -d 2026-01-02T03:04:05 +%s), $(date -d 2026-01-02T03:04:07 +%s)]}" >table/ours.jsonl
    echo "{\"name\": \"dit_fwd_B1\", \"ms\": 150, \"joules\": 70}" >table/peers.jsonl
    echo "{\"name\": \"gemm_8192x8192x8192\", \"ms\": 1, \"tflops\": 800}" >>table/peers.jsonl
    for at in 04:04.900,1100 04:05.100,1700 04:06.100,1800 04:06.300,1750 04:08.000,900; do echo "0, 2026/01/02 03:${at%,*}, ${at#*,}"; done >table/clocks
    python3 "$tests/gpu/table.py" --markdown table >said; cat said
    grep -x "| dit_fwd_B1 | 100 |  | 400 | 0.50 |  | 1750 | dit_fwd_B1 150.0 (1.50x), 70 J |" said
    grep -x "| --- | --- | --- | --- | --- | --- | --- | --- |" said'
ok "a section that fails is told, and the others run; wrong usage" '
    need python3
    fails 1 bench nosuch dit >said; grep "gpu-nosuch  failed: see .*out/ours.log" err || grep "gpu-nosuch.* failed: see" err; grep "^dit_fwd_B1" said
    fails 2 bench --agaisnt x dit
    fails 2 bench --against "$work/gone.so" dit; grep "gone.so: no such file" err
    fails 2 bench --rounds 0 dit; fails 2 bench --rounds'
finish
