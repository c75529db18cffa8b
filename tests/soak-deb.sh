#!/bin/sh
# The Debian package, made with Debian's flags, in a fresh Debian 12: installed with nothing but what it depends on, the tiny experiment
# run from it by a user, and removed without a trace. MIRROR is where Debian's packages are.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
mirror=${MIRROR:-http://deb.debian.org/debian}
root=$work/debian
need_root() {
    [ "$(id -u)" = 0 ] || { echo "not root"; exit 77; }
    need debootstrap; need unshare; need dh; need lintian
    unshare --mount --pid --fork true || { echo "no namespaces here"; exit 77; }
}
need_debian() { need_root; [ -e ready ] || { echo "no Debian 12 was made"; exit 77; }; }
# inside COMMAND...: in the new system, with its own /proc, which ends with the command
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        unshare --mount --pid --fork --kill-child sh -c 'mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; exec chroot "$0" "$@"' "$root" "$@"
}
# every file, link and folder but what apt and dpkg keep of packages, and logs
files() {
    (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log -o -path ./proc -o -path ./dev \) -prune \
        -o -printf '%y %m %u %p %l\n' | sort; ls "$root/var/lib/dpkg/info")
}
said() { "$@" >said 2>&1 || { tail -n 30 said; return 1; }; }

ok 'packages, built with the flags of Debian' '
    need_root
    said make -C "$top" deb NVCC= DEB="$work/deb"
    cp deb/sluice_*.deb sluice.deb
    lintian --allow-root --display-info --fail-on error,warning,info --tag-display-limit 0 deb/*.changes'
ok 'a fresh Debian 12, with what the package depends on' '
    need_root
    [ -e sluice.deb ]
    debootstrap --variant=minbase --print-debs bookworm probe "$mirror" >said 2>&1 || { echo "no mirror: $(grep -v "^I:" said | tail -n 1)"; exit 77; }
    said debootstrap --variant=minbase bookworm "$root" "$mirror"
    said inside apt-get update
    cp sluice.deb "$root/root/"
    said inside apt-get satisfy -y --no-install-recommends "$(dpkg-deb -f sluice.deb Depends)"
    inside useradd --create-home user
    touch ready'
ok 'it is installed' '
    need_debian
    files >before
    said inside dpkg -i /root/sluice.deb
    [ -z "$(inside dpkg --audit)" ]
    inside dpkg -V sluice >changed 2>&1; [ ! -s changed ]'
ok 'the tiny experiment runs from it' '
    need_debian
    inside su user -c "cd && reproduce --config tiny FIRST=4 MAX_STEPS=100 EVAL_EVERY=50 standard_r16 gdn_cssm_r16_k1_rope" >table 2>err || { tail -n 20 err; exit 1; }
    grep "^4 prompts, " table
    [ "$(find "$root/home/user/experiment-tiny/videos" -name "*.mp4" | wc -l)" = 12 ]
    [ -s "$root/home/user/experiment-tiny/report.html" ]'
ok 'its completion and its pages are where they are looked for' '
    need_debian
    [ "$(inside bash -c ". /usr/share/bash-completion/completions/sample; COMP_WORDS=(sample --ste) COMP_CWORD=1; _sluice; echo \$COMPREPLY")" = --steps ]
    zcat "$root/usr/share/man/man1/reproduce.1.gz" | grep "SH NAME"'
ok 'nothing is left of it when it is purged, but what the user made' '
    need_debian
    said inside apt-get purge -y sluice
    rm -rf "$root/home/user/experiment-tiny" "$root/home/user/.parallel" # the second is of GNU parallel
    files >after
    diff before after'
finish
