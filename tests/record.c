/* The wire, as written by ourselves: there and back, cut and altered at every byte, over
 * awkward descriptors. */
#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "tests/tap.h"
#include "tests/wire.h"

static const enum dtype dtypes[] = {DT_U8, DT_I32, DT_I64, DT_F16, DT_BF16, DT_F32, DT_F64};

static void fill(struct tensor *t, int seed)
{
    for (size_t i = 0; i < tensor_bytes(t); i++) ((uint8_t *)t->data)[i] = (uint8_t)(31 * i + (size_t)seed);
}

/* Three records: every dtype with a scalar and empty tensors, fields that nobody knows, no tensors at all. */
static bool write_records(struct record_writer *w, int64_t failed)
{
    struct record f = RECORD_INIT;
    bool good = true;
    record_new(&f, "clips/a b.mp4");
    json_object_set_new(f.head, "future", json_pack("{s:[i,n,b], s:f}", "list", -7, 1, "x", 0.5));
    json_object_update_new(record_meta(&f), json_pack("{s:s, s:i, s:f, s:{}}", "caption", "ein Kätzchen \x01",
                                                      "fps", 8, "loss", -1e-300, "empty"));
    json_object_set_new(record_meta(&f), "zero", json_stringn("a\0b", 3));
    for (int i = 0; i < 7; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        fill(record_add(&f, name, dtypes[i], 2, 2, i + 1), i);
    }
    json_object_set_new(f.tensor[3].entry, "unit", json_string("m"));
    good &= record_write(w, &f);

    record_new(&f, "b");
    good &= record_write(w, &f);

    record_new(&f, "c");
    fill(record_add(&f, "scalar", DT_F64, 0), 1);
    record_add(&f, "empty", DT_F32, 3, 0, 5, INT32_MAX);
    fill(record_add(&f, "large", DT_U8, 2, 3, 100), 2);
    record_add(&f, "dropped", DT_U8, 1, 4);
    record_drop(&f, "dropped");
    good &= record_write(w, &f) && record_write_end(w, failed);
    record_free(&f);
    return good;
}

static struct wire take(int fd)
{
    struct wire all = {0};
    char piece[4096];
    ssize_t n;
    while ((n = read_full(fd, piece, sizeof piece)) > 0) wire_add(&all, piece, (size_t)n);
    return all;
}

static struct wire make_stream(int64_t failed)
{
    int fd = memfd_create("stream", 0);
    struct record_writer *w = record_writer_open(fd, "test", NULL);
    if (!write_records(w, failed)) abort();
    record_writer_close(w);
    lseek(fd, 0, SEEK_SET);
    struct wire all = take(fd);
    close(fd);
    return all;
}

/* From one descriptor to the other, as a filter that does nothing would. */
static bool copy(int from, int to)
{
    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(from, "wire");
    struct record_writer *w = record_writer_open(to, "test", NULL);
    enum record_got got;
    bool good = true;
    while (good && (got = record_read(r, &f)) == RECORD_GOT) good = record_write(w, &f);
    good = good && got == RECORD_END && record_write_end(w, record_reader_failed(r));
    if (!good) printf("# %s / %s\n", f.error, record_writer_error(w));
    record_reader_close(r);
    record_writer_close(w);
    record_free(&f);
    return good;
}

static bool same(const struct wire *a, const struct wire *b)
{
    return a->n == b->n && !memcmp(a->bytes, b->bytes, a->n);
}

static void test_round_trip(const struct wire *stream)
{
    int out = memfd_create("copy", 0);
    bool good = copy(wire_open(stream->bytes, stream->n), out);
    lseek(out, 0, SEEK_SET);
    struct wire back = take(out);
    ok(good && same(stream, &back), "a stream comes back byte for byte, unknown fields and all");
    wire_free(&back);
    close(out);

    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(wire_open(stream->bytes, stream->n), "wire");
    bool first = record_read(r, &f) == RECORD_GOT && !strcmp(record_key(&f), "clips/a b.mp4") &&
                 f.count == 7 && !strcmp(record_text(&f, "caption"), "ein Kätzchen \x01") &&
                 !record_text(&f, "fps") && !record_text(&f, "zero") &&
                 json_real_value(json_object_get(record_meta(&f), "loss")) == -1e-300;
    for (int i = 0; first && i < 7; i++) {
        const struct tensor *t = &f.tensor[i].t;
        first = t->dtype == dtypes[i] && tensor_is(t, dtypes[i], 2, 2, i + 1) &&
                ((uint8_t *)t->data)[1] == 31 + i;
    }
    ok(first, "a record has its key, its meta, its tensors");
    ok(record_want(&f, "t5", DT_F32, 2) && record_want(&f, "t3", DT_COUNT, 2) &&
           !record_want(&f, "t0", DT_COUNT, 2) && strstr(f.error, "`t0` is U8 [2,1]") &&
           !record_want(&f, "t5", DT_F32, 3) && !record_want(&f, "t9", DT_F32, 2) &&
           strstr(f.error, "no tensor `t9`"),
       "a tensor is wanted by name, dtype and rank");
    ok(record_read(r, &f) == RECORD_GOT && f.count == 0, "a record without tensors");
    ok(record_read(r, &f) == RECORD_GOT && f.count == 3 && f.tensor[0].t.rank == 0 &&
           tensor_count(record_find(&f, "empty")) == 0 && !record_find(&f, "dropped"),
       "a scalar, and a tensor without elements");
    ok(record_read(r, &f) == RECORD_END && record_read(r, &f) == RECORD_END, "the end stays the end");
    ok(record_reader_failed(r) == 2 && record_reader_bytes(r) == (int64_t)stream->n &&
           !record_reader_is_jsonl(r),
       "what failed upstream is known");
    record_reader_close(r);
    record_free(&f);
}

/* A message names the place. */
static bool refused(const struct wire_got *g, int64_t most)
{
    return g->got == RECORD_DAMAGED && g->records <= most && !strncmp(g->error, "wire:", 5) &&
           strstr(g->error, "byte ") && !strchr(g->error, '\n');
}

static void test_cut(const struct wire *stream)
{
    int bad = 0;
    for (size_t n = 0; n < stream->n; n++) {
        struct wire_got g = wire_read(stream->bytes, n);
        bool truncated = n ? strstr(g.error, "truncated") != NULL : strstr(g.error, "empty") != NULL;
        if (refused(&g, 3) && truncated && g.records <= 3) continue;
        if (!bad++) printf("# %zu bytes: %d, %s\n", n, g.got, g.error);
    }
    ok(bad == 0, "cut at each of %zu bytes it is refused (%d not)", stream->n, bad);
}

static void test_altered(const struct wire *stream)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    int bad = 0;
    for (size_t i = 0; i < stream->n; i++)
        for (int m = 0; m < 3; m++) {
            stream->bytes[i] ^= masks[m];
            struct wire_got g = wire_read(stream->bytes, stream->n);
            if (!refused(&g, 3) && !bad++) printf("# byte %zu ^ %02x: %d, %s\n", i, masks[m], g.got, g.error);
            stream->bytes[i] ^= masks[m];
        }
    ok(bad == 0, "with any one byte altered it is refused (%d not)", bad);
}

static void test_concatenated(const struct wire *stream)
{
    struct wire twice = {0};
    wire_add(&twice, stream->bytes, stream->n);
    wire_add(&twice, stream->bytes, stream->n);
    struct wire_got g = wire_read(twice.bytes, twice.n);
    ok(g.got == RECORD_END && g.records == 6 && g.failed == 4, "two streams, one after the other, are one");
    int out = memfd_create("copy", 0);
    bool good = copy(wire_open(twice.bytes, twice.n), out);
    lseek(out, 0, SEEK_SET);
    g = wire_read_fd(out);
    ok(good && g.got == RECORD_END && g.records == 6 && g.failed == 4, "and become one when passed on");
    g = wire_read(twice.bytes, twice.n - 1);
    ok(refused(&g, 6) && g.records == 6 && strstr(g.error, "record 3"),
       "a second one that is cut is refused: %s", g.error);
    close(out);
    wire_free(&twice);
}

/* Where a record begins is told, and a reader can start there. */
static void test_middle(const struct wire *stream)
{
    struct record f = RECORD_INIT;
    uint32_t crc, again = 0;
    int fd = wire_open(stream->bytes, stream->n);
    struct record_reader *r = record_reader_open(fd, "wire");
    record_read(r, &f);
    record_read(r, &f);
    int64_t at = record_reader_last_at(r, &crc);
    record_reader_close(r);
    r = record_reader_open_at(fd, "wire", at);
    ok(record_read(r, &f) == RECORD_GOT && !strcmp(record_key(&f), "b") &&
           record_reader_last_at(r, &again) == at && crc == again,
       "a reader can start at a record");
    ok(record_read(r, &f) == RECORD_GOT && !strcmp(record_key(&f), "c"), "and go on from there");
    record_reader_close(r);
    r = record_reader_open_at(fd, "wire", at + 1);
    ok(record_read(r, &f) == RECORD_DAMAGED, "but nowhere else: %s", f.error);
    record_reader_close(r);
    record_free(&f);
}

/* ---- what a writer refuses ----------------------------------------------------------------------------- */

static void test_refusals(void)
{
    struct record f = RECORD_INIT;
    char name[RECORD_MAX_NAME + 1];
    memset(name, 'n', sizeof name);
    name[RECORD_MAX_NAME] = 0;
    record_new(&f, "k");
    ok(!record_add(&f, name, DT_U8, 1, 1) && !record_add(&f, "", DT_U8, 1, 1) &&
           !record_add(&f, "\xff", DT_U8, 1, 1) && strstr(f.error, "name"),
       "a tensor's name is 1 to 63 bytes of UTF-8");
    ok(!record_add(&f, "x", DT_F32, 2, INT64_MAX, 2) && !record_add(&f, "x", DT_U8, 1, -1) &&
           !record_add(&f, "x", DT_U8, 1, 1ll << 32) &&
           !record_add(&f, "x", DT_U8, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1),
       "a tensor has a shape, and less than 4 GiB");
    for (int i = 0; i < RECORD_MAX_TENSORS; i++) {
        snprintf(name, sizeof name, "%d", i);
        if (!record_add(&f, name, DT_U8, 0)) abort();
    }
    ok(!record_add(&f, "more", DT_U8, 0) && f.count == RECORD_MAX_TENSORS && record_add(&f, "7", DT_U8, 0),
       "a record has at most %d tensors", RECORD_MAX_TENSORS);

    int fd = memfd_create("refusals", 0);
    struct record_writer *w = record_writer_open(fd, "test", NULL);
    bool good = record_write(w, &f);
    off_t before = lseek(fd, 0, SEEK_CUR);
    char *long_text = calloc(1, RECORD_MAX_HEADER + 1);
    memset(long_text, 'x', RECORD_MAX_HEADER);
    record_new(&f, "too long");
    json_object_set_new(record_meta(&f), "text", json_string(long_text));
    ok(!record_write(w, &f) && errno == EMSGSIZE && strstr(record_writer_error(w), "1 MiB"),
       "no header passes 1 MiB");
    long_text[RECORD_MAX_HEADER - 100] = 0;
    json_object_set_new(record_meta(&f), "text", json_string(long_text));
    bool fits = record_write(w, &f);
    off_t after = lseek(fd, 0, SEEK_CUR);
    ok(good && fits && after > before, "one just below is written");

    record_new(&f, "too deep");
    json_t *inner = json_array(), *outer;
    for (int depth = 0; depth < 14; depth++, inner = outer) outer = json_pack("[o]", inner);
    json_object_set_new(record_meta(&f), "deep", inner); /* with the header, meta and the first array: 17 */
    ok(!record_write(w, &f) && errno == EMSGSIZE && strstr(record_writer_error(w), "deep"),
       "nor nests deeper than 16");
    json_object_set(record_meta(&f), "deep", json_array_get(inner, 0));
    ok(record_write(w, &f), "16 are fine");

    record_new(&f, "too many");
    json_t *list = json_array();
    for (int i = 0; i < MSGPACK_JSON_ITEMS; i++) json_array_append_new(list, json_true());
    json_object_set_new(record_meta(&f), "list", list);
    ok(!record_write(w, &f) && errno == EMSGSIZE, "nor holds more than 65536 values");
    record_new(&f, "");
    ok(!record_write(w, &f) && errno == EMSGSIZE && strstr(record_writer_error(w), "key"),
       "a record has a key");
    record_new(&f, "long field");
    json_object_set_new(record_meta(&f), long_text + RECORD_MAX_HEADER - 100 - 5000, json_true());
    ok(record_write(w, &f) && record_write_end(w, 5), "the name of a field may be long");
    lseek(fd, 0, SEEK_SET);
    struct wire_got g = wire_read_fd(fd);
    ok(g.got == RECORD_END && g.records == 4 && g.failed == 5, "nothing of a refused record was written: %s",
       g.error);
    record_writer_close(w);
    close(fd);
    free(long_text);
    record_free(&f);

    fd = open("/dev/full", O_WRONLY);
    w = record_writer_open(fd, "test", NULL);
    ok(!record_write_end(w, 0) && errno == ENOSPC && strstr(record_writer_error(w), "No space"),
       "a full disk is told");
    record_writer_close(w);
    close(fd);
}

/* ---- awkward descriptors ------------------------------------------------------------------------------- */

static void tick(int signal)
{
    (void)signal;
}

static void alarm_every(long microseconds)
{
    struct sigaction a = {.sa_handler = tick}; /* no SA_RESTART */
    struct itimerval t = {{0, microseconds}, {0, microseconds}};
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
}

static void set_nonblocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* n bytes at a time, with a breath after each hundred */
static void feed(int fd, const struct wire *stream, size_t n)
{
    for (size_t at = 0; at < stream->n; at += n) {
        if (!write_full(fd, stream->bytes + at, stream->n - at < n ? stream->n - at : n)) _exit(1);
        if (at % (100 * n) == 0) usleep(1500);
    }
    _exit(0);
}

/* The stream through a child that feeds a pipe, a child that copies, and this process that collects. */
static void through_pipes(const struct wire *stream, size_t piece, bool nonblocking, long alarm,
                          const char *what)
{
    int in[2], out[2];
    if (pipe(in) || pipe(out)) abort();
    fcntl(out[0], F_SETPIPE_SZ, 4096);
    fflush(stdout);
    if (fork() == 0) {
        if (nonblocking) set_nonblocking(in[1]);
        feed(in[1], stream, piece);
    }
    close(in[1]);
    if (fork() == 0) {
        close(out[0]);
        if (nonblocking) set_nonblocking(in[0]), set_nonblocking(out[1]);
        if (alarm) alarm_every(alarm);
        _exit(!copy(in[0], out[1]));
    }
    close(in[0]);
    close(out[1]);
    usleep(20000); /* so that the writer has to wait */
    struct wire back = take(out[0]);
    int status, bad = 0;
    while (wait(&status) > 0) bad |= status;
    ok(bad == 0 && same(stream, &back), "%s: the same stream", what);
    close(out[0]);
    wire_free(&back);
}

static struct wire large_stream(void)
{
    int fd = memfd_create("large", 0);
    struct record_writer *w = record_writer_open(fd, "test", NULL);
    struct record f = RECORD_INIT;
    for (int i = 0; i < 3; i++) {
        record_new(&f, "large");
        fill(record_add(&f, "x", DT_F32, 2, 1000, 300 + i), i);
        if (!record_write(w, &f)) abort();
    }
    if (!record_write_end(w, 0)) abort();
    record_free(&f);
    record_writer_close(w);
    lseek(fd, 0, SEEK_SET);
    struct wire all = take(fd);
    close(fd);
    return all;
}

/* A wait ends when a handler says so; the reader then says that it was interrupted. */
static void interrupt(int signal)
{
    (void)signal;
    io_interrupted = 1;
}

static void test_interrupted(void)
{
    struct sigaction a = {.sa_handler = interrupt};
    struct record f = RECORD_INIT;
    int fds[2];
    if (pipe(fds)) abort();
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 50000}}, NULL);
    struct record_reader *r = record_reader_open(fds[0], "wire");
    ok(record_read(r, &f) == RECORD_DAMAGED && io_interrupted && strstr(f.error, strerror(EINTR)),
       "a wait for input ends when the program is told to");
    io_interrupted = 0;
    record_reader_close(r);
    record_free(&f);
    close(fds[0]);
    close(fds[1]);
}

static void test_read_errors(void)
{
    struct wire_got g = wire_read_fd(-1);
    ok(g.got == RECORD_DAMAGED && strstr(g.error, strerror(EBADF)), "a descriptor that is closed: %s",
       g.error);
    int fd = open("/", O_RDONLY);
    g = wire_read_fd(fd);
    ok(g.got == RECORD_DAMAGED && strstr(g.error, strerror(EISDIR)), "a folder: %s", g.error);
    close(fd);
}

int main(void)
{
    struct wire stream = make_stream(2), large = large_stream();
    test_round_trip(&stream);
    test_cut(&stream);
    test_altered(&stream);
    test_concatenated(&stream);
    test_middle(&stream);
    test_refusals();
    through_pipes(&stream, 1, false, 0, "byte by byte");
    through_pipes(&large, 10007, true, 0, "descriptors that do not block");
    through_pipes(&large, 20011, false, 1000, "a signal each millisecond");
    through_pipes(&large, 20011, true, 1000, "both");
    test_interrupted();
    test_read_errors();
    wire_free(&stream);
    wire_free(&large);
    return done();
}
