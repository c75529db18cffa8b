# shellcheck shell=bash
# completion.bash - options, and the words that an option or a setting may have, out of a program's own --help; otherwise files.
_sluice() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} help words
    help=$("$program" --help 2>/dev/null) || return
    if [[ $word == -* ]]; then
        words=$(grep -o -- '--[a-z][a-z-]*' <<<"$help" | sort -u)
    elif [[ $before == -* ]]; then # a line such as  --codec NAME  libx264 | libopenh264 | mpeg4  [..], or below it lines such as  dpm: ..
        words=$(sed -n "s/^ *\(-., \)\?${before}[ ,][^|]*  \([a-z][^ ]*\( | [a-z0-9-]*\)\+\).*/\2/p" <<<"$help" | tr -d '|')
        words+=" "$(sed -n "/^ *\(-., \)\?${before}[ ,]/,/^ *\(-., \)\?--/ s/^ \{20,\}\([a-z][a-z0-9-]*\): .*/\1/p" <<<"$help")
    fi
    mapfile -t COMPREPLY < <(compgen -W "${words-}" -- "$word")
}
