#!/bin/sh
# make deb, of the programs that are there: what is in the packages, and what Debian's own checker says of them.
# soak-deb.sh makes the programs anew, installs, runs and removes them.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
programs=$(sed -n '/^FILTERS :=/,/^$/{s/^[A-Z]* :=//;s/\\$//;p;}' "$top/Makefile")
made="BUILD=$BUILD BIN=${BIN:-$top/bin}"
need_packages() { need dh; need lintian; fast; }
need_made() { need_packages; ls deb/sluice_*.deb >/dev/null || { echo "nothing was made"; exit 1; }; }

ok 'packages are made' '
    need_packages
    SLUICE_MADE=$made DEB_BUILD_OPTIONS=noautodbgsym DPKG_DEB_COMPRESSOR_LEVEL=0 make -C "$top" deb DEB="$work/deb" >said 2>&1 || { tail -n 20 said; exit 1; }
    ls deb/sluice_*.deb deb/sluice_*.changes
    dpkg-deb -x deb/sluice_*.deb root'
ok 'lintian has nothing to say against them' '
    need_made
    lintian --allow-root --fail-on error,warning --tag-display-limit 0 deb/*.changes'
ok 'they hold what make install installs, and documents' '
    need_made
    make -C "$top" $made install DESTDIR="$work/installed" PREFIX=/usr >said 2>&1 || { cat said; exit 1; }
    for package in deb/*.deb; do dpkg-deb -c "$package" | awk "!/^d/ { print \$6 }"; done | grep -v /usr/share/doc/ | grep -v /lintian/ |
        sed "s/\.gz\$//; s/^\.//" | sort >have
    (cd installed && find . ! -type d) | sed "s/^\.//" | sort | diff - have
    for file in README.md filters/README.md pipelines/README.md copyright changelog.gz; do [ -s root/usr/share/doc/sluice/$file ]; done'
ok 'the version is that of the programs, and the commit is in it' '
    need_made
    version=$(dpkg-deb -f deb/sluice_*.deb Version)
    own=$(root/usr/bin/show --version | sed "s/.* //")
    dpkg --compare-versions "$version" ge "$own"
    git -C "$top" rev-parse || { [ "$version" = "$own" ]; exit; }
    commit=${version%.changed}
    [ "${commit%.*}" = "$own+git$(TZ=UTC git -C "$top" log -1 --date=format-local:%Y%m%d.%H%M --format=%cd "${commit##*.}")" ]'
ok 'the package wants the libraries and programs that it uses, and stands against those that have its names' '
    need_made
    dpkg-deb -f deb/sluice_*.deb Depends | tr "," "\n" | sed "s/^ *//; s/ .*//" >depends
    for name in libavcodec libavformat libavutil libswscale libjansson libcsv libmsgpack libsentencepiece zlib1g libc6 libstdc++ libgomp; do
        grep "^$name" depends || { echo "no $name"; cat depends; exit 1; }
    done
    for name in $(sed -n "s/^RUN_PACKAGES *:= //p" "$top/Makefile"); do grep -x -e "$name" depends; done
    [ "$(dpkg-deb -f deb/sluice_*.deb Conflicts)" = "imagemagick, plotutils" ]
    [ -z "$(dpkg-deb -f deb/sluice_*.deb Pre-Depends)" ]
    dpkg-deb -e deb/sluice_*.deb scripts
    fails 2 ls scripts/preinst scripts/postinst scripts/prerm scripts/postrm'
ok 'the CUDA object is a package of its own, which names no package of NVIDIA' '
    need_made
    [ -e "${BIN:-$top/bin}/sluice-cuda.so" ] || { ls deb | fails 1 grep sluice-cuda; echo "built without the CUDA backend"; exit 77; }
    dpkg-deb -c deb/sluice-cuda_*.deb | grep "/usr/lib/sluice/sluice-cuda.so\$"
    dpkg-deb -c deb/sluice_*.deb | fails 1 grep sluice-cuda.so
    [ "$(dpkg-deb -f deb/sluice-cuda_*.deb Depends)" = "sluice (= $(dpkg-deb -f deb/sluice_*.deb Version)), libc6, libstdc++6" ]'
ok 'nothing in them tells where they were made' '
    need_made
    fails 1 grep -rl -e "$top/" -e "$work/" root/usr/share root/usr/bin/reproduce'
ok 'what is unpacked elsewhere runs' '
    need_made
    need parallel
    for p in $programs; do env -i PATH="$work/root/usr/bin:/usr/bin:/bin" "$p" --version; done
    cd root
    env -i HOME="$work" PATH="$work/root/usr/bin:/usr/bin:/bin" reproduce --config tiny --dry-run >said 2>err || { cat err; exit 1; }
    grep "train-step " said'
finish
