#!/bin/sh
# What the compiler made of the CUDA kernels, for every architecture of the build and without a GPU: registers, spills, shared memory.
# shellcheck disable=SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"
logs=$BUILD/kernels/cuda

# A line a kernel: ARCHITECTURE FILE REGISTERS SPILLED STACK SHARED NAME, memory in bytes.
kernels() {
    [ -e "$logs/codes" ] || { echo "no nvcc made this build"; exit 77; }
    [ -s kernels ] || awk '
        /Compiling entry function/ { split($0, part, "\47"); name = part[2]; arch = part[4] }
        /bytes stack frame/ { stack = $1; spilled = $5 > $9 ? $5 : $9 }
        /Used [0-9]+ registers/ {
            match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
            shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
            file = FILENAME; sub(/.*\//, "", file); sub(/\.cu\.ptxas$/, "", file)
            print arch, file, registers, spilled, stack, shared, name
        }' "$logs"/*.cu.ptxas >kernels
    [ -s kernels ]
}
architectures() { sed 's/arch=[^,]*,code=/\n/g' "$logs/codes" | grep -o '^sm_[0-9a]*' | sort -u; }
# None of the kernels that this condition of awk finds.
none() { awk "$1 { print; bad = 1 } END { exit bad }" kernels; }

ok "the build has machine code for all architectures that the Makefile names, and PTX" '
    kernels
    for a in $(sed -n "s/^CUDA_ARCHS ?= //p" "$top/Makefile"); do
        case $a in *-virtual) code=compute_${a%-virtual} ;; *) code=sm_$a ;; esac
        grep -q "code=$code\b" "$logs/codes" || { echo "this build was made without $code (CUDA_ARCHS)"; exit 77; }
    done
    architectures | wc -l | grep -x 6'
ok "each has every kernel" '
    kernels
    architectures >archs
    cut -d " " -f 2,7 kernels | sort | uniq -c | awk -v n="$(wc -l <archs)" "\$1 != n { print; bad = 1 } END { exit bad }"
    cut -d " " -f 1 kernels | sort -u | cmp - archs'
ok "what is Hopper's own compiles to nothing elsewhere, and there to code that fills its registers" '
    kernels
    hopper() { awk "\$2 ~ /^attention_hopper/ && \$7 ~ /(forward|backward)I/" kernels; }
    hopper | awk "\$1 != \"sm_90a\" && (\$3 > 32 || \$6 > 0) { print; bad = 1 } END { exit bad }"
    ! grep -q sm_90a archs || [ "$(hopper | awk "\$1 == \"sm_90a\" && \$3 >= 128 && !\$4" | wc -l)" = 7 ]'
# FILE REGISTERS SPILLED: what a kernel of the file has at most, on any architecture. All other files stay within 80 and spill nothing.
# Spilled bytes stand where launch bounds trade them for another block on a multiprocessor.
budget() {
    cat <<END
attention_hopper 168 0
attention_hopper_backward 168 0
attention_mma 255 0
attention_mma_backward 255 80
attention_f32 128 32
norms 224 0
heads 128 0
gdn_cssm 184 64
spectrum 80 16
temporal_attention 80 96
thin 128 240
END
}
ok "registers and spills are within the budget of the file" '
    kernels
    budget | awk "NR == FNR { most[\$1] = \$2; spilled[\$1] = \$3; next }
        \$3 > (\$2 in most ? most[\$2] : 80) || \$4 > spilled[\$2] + 0 { print; bad = 1 } END { exit bad }" - kernels'
ok "static shared memory is within 48 KiB, which every card gives" 'kernels; none "\$6 > 49152"'
finish
