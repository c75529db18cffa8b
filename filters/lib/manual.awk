# manual.awk - a program's --help as a manual page:  { NAME --version; NAME --help; } | awk -f manual.awk >NAME.1
#
# What a help text is: a line `NAME - what it does`; lines of usage; options, indented by less than eight columns, their texts going on
# at more; and paragraphs that start at the margin with a label (stdin, stdout, files, exit, e.g., see also: ..) or with none.

function plain(text) { # what troff would take for its own
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    gsub(/'/, "\\(aq", text)
    gsub(/`/, "\\(ga", text)
    gsub(/\^/, "\\(ha", text)
    gsub(/~/, "\\(ti", text)
    return text ~ /^\./ ? "\\&" text : text
}
function filled(text) { # of a paragraph: its columns mean nothing
    sub(/  +required$/, " (required)", text)
    gsub(/  +/, " ", text)
    sub(/^ /, "", text)
    return text == "" ? "" : plain(text) "\n"
}
function see(list,    n, i, name, out) {
    n = split(list, name, /[,;] */)
    for (i = 1; i <= n; i++) {
        sub(/ .*/, "", name[i]) # of `show --check`
        out = out ".BR " plain(name[i]) " (1)" (i < n ? "," : "") "\n"
    }
    return out
}
function paragraph(text) {
    label = ""
    if (match(text, /^(stdin|stdout|stderr|input|output|values|stages|files|exit) +/)) {
        label = text
        sub(/ .*/, "", label)
        text = substr(text, RLENGTH + 1)
    }
    if (!(label in body)) order[++labels] = label
    body[label] = body[label] (label == "" || label == "exit" ? "" : ".TP\n.B " label "\n")
    return text
}

NR == 1 { version = $NF; next }
NR == 2 {
    program = $1
    sub(/^[^ ]* - /, "")
    about = $0
    next
}
/^usage: / { part = "usage"; sub(/^usage: /, "") }
/^e\.g\. / { part = "example"; sub(/^e\.g\. */, "") }
/see also: / {
    also = also see(substr($0, index($0, "see also: ") + 10))
    sub(/ *see also: .*/, "")
    if ($0 == "") next
}
/^[^ ]/ && part != "usage" && part != "example" || /^(stdin|stdout|stderr|input|output|values|stages|files|exit) / {
    part = "text"
    $0 = paragraph($0)
    if (match($0, /  +stdout  +/)) { # on stdin's line
        body[label] = body[label] filled(substr($0, 1, RSTART - 1))
        $0 = paragraph("stdout  " substr($0, RSTART + RLENGTH))
    }
}
(part == "usage" || part == "option") && /^ / && !/^        / && $1 != program {
    part = "option"
    sub(/^ +/, "")
    match($0, /^((-[a-z]|--[a-z-]+)(, --[a-z-]+)*( [A-Z][^ ]*)?|[^ ]+)/)
    options = options ".TP\n.B " plain(substr($0, 1, RLENGTH)) "\n" filled(substr($0, RLENGTH + 1))
    next
}
part == "usage" { usage = usage (usage == "" ? "" : ".br\n") filled($0) }
part == "option" { options = options filled($0) }
part == "text" { body[label] = body[label] filled($0) }
part == "example" { examples = examples plain($0) "\n" }

END {
    printf ".TH %s 1 \"\" \"Sluice %s\" \"Sluice\"\n", plain(toupper(program)), version
    printf ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n%s", plain(program), plain(about), usage
    if (body[""] != "") printf ".SH DESCRIPTION\n%s", body[""]
    printf ".SH OPTIONS\n%s", options
    first = 1
    for (i = 1; i <= labels; i++)
        if (order[i] != "" && order[i] != "exit") {
            printf "%s%s", first ? ".SH INPUT AND OUTPUT\n" : "", body[order[i]]
            first = 0
        }
    printf ".SH EXIT STATUS\n%s", body["exit"]
    printf ".SH EXAMPLES\n.nf\n%s.fi\n.SH SEE ALSO\n%s", examples, also
}
