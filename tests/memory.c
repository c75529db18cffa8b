/* Files, streams and models when memory runs out: the first allocation fails, then the second, ... until none
 * does. Each time there must be an error and nothing left behind, on the heap or in the folder. */
#include "filters/nets/weights.h"

#include <dirent.h>
#include <errno.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "formats/atomic.h"
#include "formats/record.h"
#include "formats/io.h"
#include "tests/scratch.h"
#include "tests/tap.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
int main(void)
{
    skip("running out of memory", "a sanitizer has the allocator");
    return done();
}
#else

static long failing, calls, live;
static bool for_ever; /* every later one fails as well */

static bool fails_now(void)
{
    calls++;
    if (!failing || (for_ever ? calls < failing : calls != failing)) return false;
    errno = ENOMEM;
    return true;
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

void *malloc(size_t n)
{
    void *p = fails_now() ? NULL : __libc_malloc(n);
    live += p != NULL;
    return p;
}

void *calloc(size_t n, size_t size)
{
    void *p = fails_now() ? NULL : __libc_calloc(n, size);
    live += p != NULL;
    return p;
}

void *realloc(void *old, size_t n)
{
    void *p = fails_now() ? NULL : __libc_realloc(old, n);
    live += p && !old;
    return p;
}

/* Only OpenMP's runtime asks for this, and it would end the program when told no. */
void *memalign(size_t alignment, size_t n)
{
    void *p = __libc_memalign(alignment, n);
    live += p != NULL;
    return p;
}

void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}

static char err[512];
static struct kern *k;

static int entries(void)
{
    int n = 0;
    DIR *d = opendir(".");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static bool read_file(void)
{
    struct safetensors *s = safetensors_open("file", err, sizeof err);
    bool good = s && s->count == 2 && json_object_size(s->metadata) == 1 && safetensors_find(s, "b");
    safetensors_close(s);
    return good;
}

static bool write_file(void)
{
    static float x[4];
    struct safetensors_item items[2] = {{"a", tensor_of(DT_F32, x, 1, 4)}, {"b", tensor_of(DT_U8, x, 1, 3)}};
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    bool good = (metadata || !snprintf(err, sizeof err, "no metadata")) &&
                safetensors_write("file", items, 2, metadata, err, sizeof err);
    json_decref(metadata);
    return good;
}

static bool write_atomic(void)
{
    struct atomic_file a;
    bool good = atomic_open(&a, "text", err, sizeof err) && fputs("text", a.f) >= 0 &&
                atomic_commit(&a, err, sizeof err);
    atomic_abort(&a);
    return good;
}

static int stream, copied; /* descriptors */

static bool write_frames(void)
{
    struct record f = RECORD_INIT;
    struct record_writer *w = record_writer_open(stream, "test", NULL);
    bool good = w && lseek(stream, 0, SEEK_SET) == 0;
    record_new(&f, "key");
    good = good && !json_object_set_new(record_meta(&f), "list", json_pack("[i,s,f]", 1, "text", 0.5));
    struct tensor *t = good ? record_add(&f, "x", DT_F32, 2, 3, 4) : NULL;
    if (t) memset(t->data, 7, tensor_bytes(t));
    good = t && record_write(w, &f) && record_write_end(w, 0);
    snprintf(err, sizeof err, "%s", !w || !t || *f.error ? "out of memory" : record_writer_error(w));
    record_writer_close(w);
    record_free(&f);
    return good;
}

/* What is said to be well must be the same bytes: an error kept to itself counts as a silent one. */
static bool copy_frames(void)
{
    char a[4096], b[4096];
    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(stream, "stream");
    struct record_writer *w = record_writer_open(copied, "test", NULL);
    bool good = r && w && lseek(stream, 0, SEEK_SET) == 0 && lseek(copied, 0, SEEK_SET) == 0 &&
                ftruncate(copied, 0) == 0 && record_read(r, &f) == RECORD_GOT && record_write(w, &f) &&
                record_read(r, &f) == RECORD_END && record_write_end(w, 0);
    snprintf(err, sizeof err, "%s", !r || !w ? "out of memory" : *f.error ? f.error : record_writer_error(w));
    ssize_t n = pread(stream, a, sizeof a, 0);
    if (good && (n <= 0 || pread(copied, b, sizeof b, 0) != n || memcmp(a, b, (size_t)n)))
        good = false, err[0] = 0;
    record_reader_close(r);
    record_writer_close(w);
    record_free(&f);
    return good;
}

static bool read_lines(void)
{
    static const char lines[] = "{\"key\":\"a\",\"x\":[1,{\"y\":null}]}\n{\"path\":\"b\"}\n";
    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(copied, "lines");
    bool good = r && lseek(copied, 0, SEEK_SET) == 0 && ftruncate(copied, 0) == 0 &&
                write_full(copied, lines, sizeof lines - 1) && lseek(copied, 0, SEEK_SET) == 0 &&
                record_read(r, &f) == RECORD_GOT && json_object_size(record_meta(&f)) == 1 &&
                record_read(r, &f) == RECORD_GOT && !strcmp(record_key(&f), "b") &&
                record_read(r, &f) == RECORD_END;
    snprintf(err, sizeof err, "%s", r ? f.error : "out of memory");
    record_reader_close(r);
    record_free(&f);
    return good;
}

static bool load(const char *name, int count)
{
    struct params list = {0};
    struct tensor a, b;
    for (int i = 0; i < count; i++) param_add(&list, i ? NULL : &a, shape_of(1, 2), 0, 1, "w.%d", i);
    param_add(&list, &b, shape_of(3, 2, 2, 2), 0, 1, "conv")->channels_last = true;
    struct model *m = model_open(name, err, sizeof err);
    bool good = m && weights_load(k, &list, m, "net", NULL, NULL, err, sizeof err);
    model_close(m);
    params_free(&list);
    return good;
}

static bool load_shards(void)
{
    return load("model", 5);
}

static bool load_random(void)
{
    return load("random:./model:1", 70); /* enough for the list to grow */
}

/* On a device of its own, whose memory is counted too. */
static bool with_device(bool (*work)(void))
{
    k = kern_open("cpu", 1, err, sizeof err);
    bool good = k && work();
    kern_close(k);
    return good;
}

static bool shards_on_device(void)
{
    return with_device(load_shards);
}

static bool random_on_device(void)
{
    return with_device(load_random);
}

static void put_shards(void)
{
    static float x[8];
    static const char *const name[6] = {"w.0", "w.1", "w.2", "w.3", "w.4", "conv"};
    struct safetensors_item items[6];
    for (int i = 0; i < 6; i++)
        items[i] = (struct safetensors_item){name[i], i < 5 ? tensor_of(DT_F32, x, 1, 2)
                                                            : tensor_of(DT_F32, x, 3, 2, 2, 2)};
    mkdir("model", 0777);
    mkdir("model/net", 0777);
    put_text("model/net/config.json", "{\"a\":[1,2],\"b\":null}");
    put_text("model/net/model.safetensors.index.json",
             "{\"weight_map\":{\"w.0\":\"0.safetensors\",\"w.1\":\"0.safetensors\",\"w.2\":\"0.safetensors\","
             "\"w.3\":\"1.safetensors\",\"w.4\":\"1.safetensors\",\"conv\":\"1.safetensors\"}}");
    safetensors_write("model/net/0.safetensors", items, 3, NULL, err, sizeof err);
    safetensors_write("model/net/1.safetensors", items + 3, 3, NULL, err, sizeof err);
}

static void exhaust(const char *what, bool (*work)(void))
{
    if (!ok(work(), "%s, with memory: %s", what, err)) return;
    for (int mode = 0; mode < 2; mode++) {
        for_ever = mode;
        long n = 0, lost = 0, silent = 0;
        int files = entries();
        bool good = false;
        while (!good && n < 10000) {
            long before = live;
            err[0] = 0;
            calls = 0, failing = ++n;
            good = work();
            bool reached = calls >= failing;
            failing = 0;
            lost += live != before;
            silent += !good && !err[0];
            if (good && reached) good = false; /* it managed without; go on to the next */
        }
        ok(good && !lost && !silent && entries() == files,
           "%s, %s of %ld allocations failing: %ld leaks, %ld silent", what, mode ? "all from one on" : "one",
           n - 1, lost, silent);
    }
}

int main(void)
{
    scratch_enter();
    omp_set_num_threads(1);
    put_shards();
    exhaust("writing a safetensors file", write_file);
    exhaust("reading one", read_file);
    exhaust("an atomic write", write_atomic);
    stream = memfd_create("stream", 0);
    copied = memfd_create("copied", 0);
    exhaust("writing frames", write_frames);
    exhaust("copying frames", copy_frames);
    exhaust("reading JSON lines", read_lines);
    exhaust("loading shards", shards_on_device);
    exhaust("making weights up", random_on_device);
    ok(scratch_leave(), "cleaned up");
    return done();
}
#endif
