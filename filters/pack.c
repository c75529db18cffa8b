/* pack - keep records in a folder of shards with an index: a store, for draw and train-step.
 *
 * What is there already, with the same content, is left alone, so a run that was cut off is
 * simply repeated. */
#include <stdio.h>
#include <stdlib.h>

#include "filters/lib/filter.h"
#include "formats/store.h"

static const char help[] =
    "pack - keep records as shards with an index\n"
    "usage: pack -o DIR [options] < records\n"
    "  -o, --output DIR       the store's folder; made if need be        required\n"
    "      --shard-bytes N    close a shard that has this many bytes     [1 GiB]\n"
    "      --commit-every N   or this many records                       [256]\n"
    "      --missing          only print the JSON lines of stdin whose record is not in DIR, is damaged, or was\n"
    "                         made from another path, caption or prompt\n"
    "COMMON\n"
    "A closed shard is in the store for good; a run that is killed loses the open one. A record whose key is there with\n"
    "the same content is skipped; with another content it takes the old one's place. A key may come once in a run.\n"
    "exit    0 every record kept, 1 something failed, 2 wrong usage\n"
    "e.g.    pack --missing -o train <clips.jsonl | decode | vae-encode -m M | t5-encode -m M | pack -o train\n"
    "see also: draw, show --check\n";

static struct store_writer *writer;

/* However the run ends, what arrived whole is kept: upstream dying must not cost the clips
 * it had finished. */
static void keep_what_came(void)
{
    char err[512];
    if (filter.no_memory)
        return; /* in the middle of something, perhaps of a change to the writer's own lists */
    if (writer && !store_commit(writer, err, sizeof err)) say(NULL, "%s", err);
    store_writer_close(writer);
    writer = NULL;
}

static void give_up(const char *where, const char *why) __attribute__((noreturn));
static void give_up(const char *where, const char *why)
{
    store_writer_close(writer);
    writer = NULL;
    die("%s: %s", where, why);
}

static void pack(const char *folder, int64_t shard_bytes, int64_t commit_every)
{
    char err[512];
    int64_t added = 0, replaced = 0, kept = 0;
    if (!(writer = store_writer_open(folder, shard_bytes, commit_every, err, sizeof err))) die("%s", err);
    atexit(keep_what_came);
    struct record f = RECORD_INIT;
    while (filter_next(&f)) {
        switch (store_put(writer, &f, err, sizeof err)) {
        case STORE_FAILED: give_up(record_key(&f), err);
        case STORE_DUPLICATE: filter_fail(&f, "this key came before in this run"); continue;
        case STORE_ADDED: added++; break;
        case STORE_REPLACED: replaced++; break;
        case STORE_KEPT: kept++; break;
        }
        filter.done++;
    }
    if (!store_commit(writer, err, sizeof err)) give_up("the last shard", err);
    record_free(&f);
    say(NULL, "%lld added, %lld replaced, %lld skipped", (long long)added, (long long)replaced,
        (long long)kept);
}

/* Whether a record was made from what the line says. */
static bool same_source(json_t *line, json_t *meta)
{
    static const char *const fields[] = {"path", "caption", "prompt"};
    for (int i = 0; i < 3; i++) {
        json_t *given = json_object_get(line, fields[i]), *had = json_object_get(meta, fields[i]);
        if (given != had && !json_equal(given, had)) return false;
    }
    return true;
}

static void print_missing(const char *folder)
{
    char err[512];
    struct record f = RECORD_INIT, old = RECORD_INIT;
    struct store *s = store_open_any(folder, err, sizeof err);
    if (!s) die("%s", err);
    while (filter_next(&f)) {
        int64_t i = store_find(s, record_key(&f));
        bool read = i >= 0 && store_read(s, i, &old);
        if (i >= 0 && !read && old.unread)
            filter_fail(&f, "%s", old.error);
        else if (!read || !same_source(record_meta(&f), record_meta(&old)))
            filter_emit_line(filter_record_json(&f));
    }
    if (!filter.done) puts(""); /* an empty list of clips; no bytes at all would be a cut stream */
    record_free(&f);
    record_free(&old);
    store_close(s);
}

int main(int argc, char **argv)
{
    const char *folder = NULL;
    int64_t shard_bytes = 1 << 30, commit_every = 256;
    bool missing = false;
    const struct option_spec options[] = {
        {.name = "output", .letter = 'o', .kind = OPT_TEXT, .dest = &folder},
        {.name = "shard-bytes", .kind = OPT_INT, .dest = &shard_bytes, .low = 1, .high = 1e15},
        {.name = "commit-every", .kind = OPT_INT, .dest = &commit_every, .low = 1, .high = 1e9},
        {.name = "missing", .kind = OPT_FLAG, .dest = &missing},
        {0}};
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT);
    if (!folder) usage_error("-o DIR is required");
    options_unfit("shard-bytes|commit-every", missing, "--missing writes nothing");
    filter_checked();
    if (missing)
        print_missing(folder);
    else
        pack(folder, shard_bytes, commit_every);
    return filter_finish();
}
