/* collect - what was made of a list, in the list's order; or what of the list is still to be made. */
#include <string.h>

#include "filters/lib/filter.h"
#include "formats/made.h"

static const char help[] =
    "collect - what was made of a list, or what is still to be made\n"
    "usage: collect [options] FILE... <list.jsonl >made.jsonl\n"
    "      --missing        the lines of the list instead of which no good line was made  [off]\n"
    "COMMON\n"
    "stdin   JSON lines, say of prompts\n"
    "input   FILE: JSON lines made of them by encode-mp4, grade or both; one that is not there has none, a last line\n"
    "        that was cut off does not count, and of several with one key it is the last that does\n"
    "stdout  for each line of the list the one that was made of it: with its key, of the same caption, prompt, rule and\n"
    "        video, and good: the file at its path is there, with the `bytes` and `crc32c` that it tells.\n"
    "        What is wrong with the others is told\n"
    "exit    0 all are there, or --missing, 1 some are not, each is named, or something failed, 2 wrong usage\n"
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
        bool good = made_good(line, item, err, sizeof err);
        if (line && !good && missing) say(record_key(&f), "%s", err);
        if (good && !missing) filter_emit_line(json_incref(line));
        if (!good && missing) filter_emit_line(json_incref(item));
        if (!good && !missing) filter_fail(&f, "%s", err);
        json_decref(item);
    }
    if (!filter.done) puts(""); /* an empty list; no bytes at all would be a cut stream */
    json_decref(made);
    record_free(&f);
    return filter_finish();
}
