/* The store: what goes in comes out whatever the shards, every damaged byte is found, nothing half-written is
 * trusted. */
#include <dirent.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/store.h"
#include "tests/tap.h"

static char root[64], err[512];
static struct record f = RECORD_INIT;

static const char *at(const char *name)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn = (turn + 1) % 4];
    snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

/* Record "clip<i>" of a version: one tensor of some bytes that depend on both, and one with no elements. */
static struct record *clip(int i, int version)
{
    char key[32];
    snprintf(key, sizeof key, "clip%d", i);
    record_new(&f, key);
    json_object_set_new(record_meta(&f), "caption", json_string("two caf\u00e9s"));
    json_object_set_new(record_meta(&f), "score", json_real(0.1 * i));
    struct tensor *t = record_add(&f, "latents", DT_U8, 2, 3, 5 + i % 4);
    for (int b = 0; b < (int)tensor_bytes(t); b++)
        ((uint8_t *)t->data)[b] = (uint8_t)(i * 7 + b + version * 31);
    record_add(&f, "nothing", DT_F32, 2, 0, 4);
    return &f;
}

/* Puts clips [from, to) and counts each answer; false when the writer refused. */
static bool put(const char *folder, int from, int to, int version, int64_t commit_every, int64_t shard_bytes,
                int got[4])
{
    memset(got, 0, 4 * sizeof *got);
    struct store_writer *w = store_writer_open(folder, shard_bytes, commit_every, err, sizeof err);
    bool good = w != NULL;
    for (int i = from; good && i < to; i++) {
        enum store_put how = store_put(w, clip(i, version), err, sizeof err);
        good = how != STORE_FAILED;
        if (good) got[how]++;
    }
    good = good && store_commit(w, err, sizeof err);
    store_writer_close(w);
    return good;
}

static bool holds(const char *folder, int from, int to, int version)
{
    struct record g = RECORD_INIT;
    struct store *s = store_open(folder, err, sizeof err);
    bool good = s && s->count == to - from;
    for (int i = from; good && i < to; i++) {
        clip(i, version);
        int64_t k = store_find(s, record_key(&f));
        good = k >= 0 && store_read(s, k, &g) && json_equal(record_meta(&f), record_meta(&g)) &&
               g.count == 2 && tensor_same_shape(&f.tensor[0].t, &g.tensor[0].t) &&
               !memcmp(f.tensor[0].t.data, g.tensor[0].t.data, tensor_bytes(&f.tensor[0].t));
    }
    store_close(s);
    record_free(&g);
    return good;
}

static uint8_t *slurp(const char *path, size_t *n)
{
    FILE *in = fopen(path, "rb");
    uint8_t *bytes = malloc(1 << 20);
    *n = in && bytes ? fread(bytes, 1, 1 << 20, in) : 0;
    if (in) fclose(in);
    return bytes;
}

static void spew(const char *path, const void *bytes, size_t n)
{
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(bytes, 1, n, out) != n || fclose(out)) perror(path), exit(1);
}

static int reports;
static char reported[256];

static void note(void *context, const char *where, const char *why)
{
    (void)context, (void)why;
    snprintf(reported, sizeof reported, "%s", where);
    reports++;
}

static bool damaged(const char *folder)
{
    reports = 0;
    return store_check(folder, note, NULL, err, sizeof err) != 0;
}

/* Every byte of the file changed in one bit, then every length: how many of these go unnoticed? */
static int unnoticed(const char *folder, const char *path, int step)
{
    size_t n;
    uint8_t *bytes = slurp(path, &n);
    int missed = 0;
    for (size_t i = 0; i < n; i += (size_t)step) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        spew(path, bytes, n);
        if (!damaged(folder)) printf("# byte %zu of %s\n", i, path), missed++;
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t length = 0; length < n; length += (size_t)step) {
        spew(path, bytes, length);
        if (!damaged(folder)) printf("# length %zu of %s\n", length, path), missed++;
    }
    spew(path, bytes, n);
    free(bytes);
    return missed + damaged(folder);
}

static uint64_t content(const char *folder)
{
    struct store *s = store_open(folder, err, sizeof err);
    uint64_t c = s ? store_content(s) : 0;
    store_close(s);
    return c;
}

static void shards(void)
{
    int got[4];
    ok(put(at("one"), 0, 20, 0, 1000, 1 << 30, got) && got[STORE_ADDED] == 20 && holds(at("one"), 0, 20, 0),
       "records come back from one shard");
    ok(put(at("many"), 0, 20, 0, 3, 1 << 30, got) && holds(at("many"), 0, 20, 0) &&
           !access(at("many/000006.mp"), F_OK) && access(at("many/000007.mp"), F_OK),
       "and from shards of three");
    ok(put(at("small"), 0, 20, 0, 1000, 1, got) && !access(at("small/000019.mp"), F_OK) &&
           holds(at("small"), 0, 20, 0),
       "and from shards limited by their bytes");
    ok(content(at("one")) && content(at("one")) == content(at("many")) &&
           content(at("one")) == content(at("small")),
       "the store's content hash does not depend on the shards");
    ok(put(at("other"), 0, 20, 1, 3, 1 << 30, got) && content(at("other")) != content(at("one")),
       "but on what is in them");
}

static void again(void)
{
    int got[4];
    ok(put(at("many"), 0, 20, 0, 3, 1 << 30, got) && got[STORE_KEPT] == 20 &&
           access(at("many/000007.mp"), F_OK),
       "what is there already is kept, and no shard is written");
    ok(put(at("many"), 0, 20, 1, 3, 1 << 30, got) && got[STORE_REPLACED] == 20 &&
           holds(at("many"), 0, 20, 1) && content(at("many")) == content(at("other")),
       "what has changed takes the old one's place");
    size_t n;
    uint8_t *index = slurp(at("many/index.jsonl"), &n);
    ok(index && strstr((char *)index, "\"replaced\":20,"), "and the dead are counted");
    free(index);
    struct store_writer *w = store_writer_open(at("twice"), 1 << 30, 100, err, sizeof err);
    ok(store_put(w, clip(1, 0), err, sizeof err) == STORE_ADDED &&
           store_put(w, clip(1, 0), err, sizeof err) == STORE_DUPLICATE &&
           store_put(w, clip(1, 5), err, sizeof err) == STORE_DUPLICATE,
       "a key given twice to one writer is a duplicate");
    ok(!store_writer_open(at("twice"), 1 << 30, 100, err, sizeof err) && strstr(err, "writing here"),
       "a second writer is refused: %s", err);
    store_writer_close(w);
    ok(put(at("twice"), 0, 1, 0, 10, 1 << 30, got) && holds(at("twice"), 0, 1, 0),
       "what was not committed is not there, and the lock is free again");
    ok(put(at("none"), 0, 0, 0, 10, 1 << 30, got) && holds(at("none"), 0, 0, 0), "an empty store is a store");
}

static void killed(void)
{
    int got[4];
    size_t n, m;
    uint8_t *old = slurp(at("twice/index.jsonl"), &n);
    put(at("twice"), 1, 9, 0, 4, 1 << 30, got);
    spew(at("twice/index.jsonl"), old, n); /* as if killed after the shards' rename, before the index's */
    spew(at("twice/.tmp-1-2"), "half", 4);
    ok(holds(at("twice"), 0, 1, 0), "a shard that no index knows is not read");
    ok(put(at("twice"), 0, 9, 0, 4, 1 << 30, got) && got[STORE_KEPT] == 9 && holds(at("twice"), 0, 9, 0) &&
           access(at("twice/.tmp-1-2"), F_OK),
       "the next writer takes it up, and removes what was half-written");
    free(old);

    uint64_t before = content(at("many"));
    unlink(at("many/index.jsonl"));
    ok(!store_open(at("many"), err, sizeof err), "without its index it is no store: %s", err);
    ok(put(at("many"), 0, 0, 0, 4, 1 << 30, got) && content(at("many")) == before,
       "which is made anew from the shards");

    old = slurp(at("twice/000001.mp"), &m);
    old[m / 2] ^= 1;
    spew(at("twice/000001.mp"), old, m);
    ok(put(at("twice"), 0, 9, 0, 4, 1 << 30, got) && got[STORE_REPLACED] >= 1 &&
           got[STORE_REPLACED] + got[STORE_KEPT] == 9 && holds(at("twice"), 0, 9, 0),
       "a damaged record is replaced when it comes again");
    unlink(at("twice/000001.mp"));
    ok(put(at("twice"), 0, 9, 0, 4, 1 << 30, got) && got[STORE_REPLACED] >= 1 && holds(at("twice"), 0, 9, 0),
       "so is a lost one");
    free(old);
}

static void damage(void)
{
    int got[4];
    put(at("flip"), 0, 5, 0, 3, 1 << 30, got);
    ok(!damaged(at("flip")), "a good store checks well");
    ok(unnoticed(at("flip"), at("flip/000000.mp"), 1) == 0,
       "every flipped byte and every cut of a shard is found");
    ok(unnoticed(at("flip"), at("flip/index.jsonl"), 1) == 0, "and of the index");

    size_t n;
    uint8_t *bytes = slurp(at("flip/000000.mp"), &n), *hit = bytes;
    while (memcmp(hit, "clip1", 5)) hit++;
    *hit = 'C';
    spew(at("flip/000000.mp"), bytes, n);
    ok(damaged(at("flip")) && reports == 1 && !strcmp(reported, "clip1"), "damage is reported by key: %s",
       reported);
    free(bytes);
    unlink(at("flip/000001.mp"));
    ok(damaged(at("flip")) && reports == 3, "each record of a lost shard is reported");
    ok(!store_open(at("flip"), err, sizeof err) && strstr(err, "000001.mp"),
       "and such a store does not open: %s", err);

    const char *const bad[] = {
        "",
        "{}\n",
        "[1]\n",
        "{\"sluice_store\":2,\"records\":0,\"shards\":0,\"replaced\":0,\"crc32c\":0}\n",
        "{\"sluice_store\":1,\"records\":-1,\"shards\":0,\"replaced\":0,\"crc32c\":0}\n",
        "{\"sluice_store\":1,\"records\":1,\"shards\":0,\"replaced\":0,\"crc32c\":0}\n"
        "{\"key\":\"a\",\"shard\":\"../../etc/"
        "passwd\",\"offset\":0,\"bytes\":1,\"crc32c\":0,\"content\":\"0000000000000000\","
        "\"tensors\":[]}\n",
        "{\"sluice_store\":1,\"records\":1,\"shards\":0,\"replaced\":0,\"crc32c\":0}\n"
        "{\"key\":\"a\",\"shard\":\"000000.mp\",\"offset\":9223372036854775807,\"bytes\":9,\"crc32c\":0,"
        "\"content\":\"0000000000000000\",\"tensors\":[]}\n"};
    mkdir(at("bad"), 0777);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        spew(at("bad/index.jsonl"), bad[i], strlen(bad[i]));
        ok(!store_open(at("bad"), err, sizeof err), "refused: %s", err);
    }
}

static void parts(void)
{
    int got[4];
    put(at("parts/0"), 0, 9, 0, 4, 1 << 30, got);
    put(at("parts/1"), 9, 20, 0, 4, 1 << 30, got);
    ok(holds(at("parts"), 0, 20, 0) && content(at("parts")) == content(at("one")),
       "folders of stores are read as one");
    ok(!damaged(at("parts")), "and checked as one");
    put(at("parts/2"), 3, 4, 0, 4, 1 << 30, got);
    ok(!store_open(at("parts"), err, sizeof err) && strstr(err, "clip3"),
       "a key in two of them is refused: %s", err);
}

static void large(void)
{
    int got[4];
    ok(put(at("large"), 0, 10000, 0, 4096, 1 << 30, got) && !damaged(at("large")),
       "10,000 records check well");
    size_t n;
    uint8_t *bytes = slurp(at("large/000001.mp"), &n);
    bytes[n / 2] ^= 4;
    spew(at("large/000001.mp"), bytes, n);
    ok(damaged(at("large")) && reports == 1, "one damaged byte among them is one record: %s", reported);
    free(bytes);
}

static void clean(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (unlink(path)) clean(path);
    }
    if (d) closedir(d);
    rmdir(folder);
}

int main(void)
{
    snprintf(root, sizeof root, "%.40s/store-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(root)) return perror(root), 1;
    shards();
    again();
    killed();
    damage();
    parts();
    large();
    record_free(&f);
    clean(root);
    return done();
}
