/* collect - what was made of a list, in the list's order; or what of the list is still to be made. */
#include <string.h>

#include "filters/lib/filter.h"
#include "formats/made.h"

static const char help[] =
    "collect - list what was made from a list, or what is still missing\n"
    "usage: collect [options] FILE... <list.jsonl >made.jsonl\n"
    "      --missing        print the lines of the list that have no good result  [off]\n"
    "COMMON\n"
    "stdin   JSON lines, such as prompts\n"
    "input   FILE: JSON lines that encode-mp4, grade or both wrote for the list. A missing file counts as empty, an\n"
    "        unfinished last line is ignored, and of several lines with one key the last one counts\n"
    "stdout  for each line of the list its result: the line with its key and the same caption, prompt, rule and\n"
    "        video, whose file exists and has the `bytes` and `crc32c` that it states\n"
    "stderr  why a line has no good result\n"
    "exit    0 all have one, or --missing, 1 some have none (each is named) or something failed, 2 wrong usage\n"
    "e.g.    collect --missing base.jsonl <prompts.jsonl | t5-encode -m M | sample -m M | vae-decode -m M |\n"
    "            encode-mp4 -o videos >>base.jsonl\n"
    "see also: encode-mp4, grade, pack --missing\n";

int main(int argc, char **argv)
{
    char err[4600];
    bool missing = false;
    struct record f = RECORD_INIT;
    const struct option_spec options[] = {{.name = "missing", .kind = OPT_FLAG, .dest = &missing}, {0}};
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS);
    if (!filter.argc) usage_error("name the files that tell what was made");
    filter_checked();

    json_t *made = json_object();
    for (int i = 0; i < filter.argc; i++)
        if (!made_read(made, filter.argv[i], err, sizeof err)) die("%s", err);
    while (filter_next(&f)) {
        json_t *item = filter_record_json(&f), *line = json_object_get(made, record_key(&f));
        enum made is = made_good(line, item, err, sizeof err);
        if (is == MADE_UNKNOWN || (is == MADE_NOT && !missing)) filter_fail(&f, "%s", err);
        if (is == MADE_NOT && missing && line) say(record_key(&f), "%s", err);
        if (is == MADE && !missing) filter_emit_line(json_incref(line));
        if (is == MADE_NOT && missing) filter_emit_line(json_incref(item));
        json_decref(item);
    }
    if (!filter.done) puts(""); /* an empty list; no bytes at all would be a cut stream */
    json_decref(made);
    record_free(&f);
    return filter_finish();
}
