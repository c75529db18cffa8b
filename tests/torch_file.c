/* Files of torch.save(), against the same tensors written as safetensors by the reference
 * (reference/make_torch_files.py); and files that are up to something. */
#include "formats/torch_file.h"

#include "tests/archive.h"
#include "tests/cases.h"

static char err[1024];

/* ---- what torch writes --------------------------------------------------------------------------------- */

static bool same_tensor(struct torch_file *f, const struct torch_tensor *t, const struct safetensors *want)
{
    const struct safetensors_entry *e = safetensors_find(want, t->name);
    if (!e || e->shape.dtype != t->shape.dtype || !tensor_same_shape(&e->shape, &t->shape)) return false;
    char *a = malloc(e->bytes + 1), *b = malloc(e->bytes + 1);
    bool good = torch_file_read(f, t, a, err, sizeof err) && safetensors_read(want, e, b, err, sizeof err) &&
                !memcmp(a, b, e->bytes);
    free(a);
    free(b);
    return good;
}

static void test_same(const char *name, int count)
{
    char path[4096], stem[64];
    snprintf(stem, sizeof stem, "%s.bin", name);
    struct torch_file *f = torch_file_open(data_file(path, "torch", stem), err, sizeof err);
    snprintf(stem, sizeof stem, "%s.safetensors", name);
    struct safetensors *want = safetensors_open(data_file(path, "torch", stem), err, sizeof err);
    int good = 0;
    for (int i = 0; f && want && i < f->dict.count; i++) good += same_tensor(f, &f->dict.tensor[i], want);
    if (!ok(f && want && f->dict.count == count && want->count == count && good == count,
            "%s: %d of %d tensors as torch has them", name, good, count))
        printf("# %s\n", err);
    torch_file_close(f);
    safetensors_close(want);
}

static void refused(const char *name, const char *why)
{
    char path[4096];
    struct torch_file *f = torch_file_open(data_file(path, "torch", name), err, sizeof err);
    ok(!f && !strncmp(err, path, strlen(path)) && strstr(err, why) && !strchr(err, '\n'), "%s: %s", name,
       strstr(err, name));
    torch_file_close(f);
}

static void test_refused(void)
{
    refused("print.pt", "it asks for __builtin__.print, and here only plain tensors are read");
    refused("parameter.pt", "it asks for torch._utils._rebuild_parameter");
    refused("nested.pt", "state_dict is a dict, not a tensor");
    refused("epoch.pt", "epoch is a number, not a tensor");
    refused("loss.pt", "instruction BINFLOAT");
    refused("list.pt", "instruction EMPTY_LIST");
    refused("bool.pt", "it asks for torch.BoolStorage");
    refused("complex.pt", "it asks for torch.ComplexFloatStorage");
    refused("expanded.pt", "a tensor that is not within its storage of 2 elements");
    refused("protocol4.pt", "pickle protocol 4: only 2 is read");
    refused("before_1.6.pt", "not a zip archive");
    refused("sparse.pt", "it asks for torch._utils._rebuild_sparse_tensor");
    refused("views.safetensors", "not a zip archive");
    refused("nowhere.bin", "No such file");
}

/* ---- what nobody should write -------------------------------------------------------------------------- */

/* Pickles in text: a word is an instruction, a number or a text of that kind of instruction. Bytes in hex,
 * and 'TEXT' as BINUNICODE has it, and GLOBAL:MODULE.NAME. */
static void assemble(struct wire *w, const char *program)
{
    for (const char *p = program; *p;) {
        size_t n = strcspn(p, " ");
        if (*p == '\'') {
            n = strcspn(p + 1, "'") + 2;
            uint32_t length = (uint32_t)n - 2;
            wire_add(w, "X", 1);
            wire_add(w, &length, 4);
            wire_add(w, p + 1, length);
        } else if (!strncmp(p, "GLOBAL:", 7)) {
            const char *dot = p + n;
            while (*dot != '.') dot--;
            wire_add(w, "c", 1);
            wire_add(w, p + 7, (size_t)(dot - p) - 7);
            wire_add(w, "\n", 1);
            wire_add(w, dot + 1, (size_t)(p + n - dot) - 1);
            wire_add(w, "\n", 1);
        } else {
            uint8_t byte = (uint8_t)strtoul(p, NULL, 16);
            wire_add(w, n == 1 ? (const uint8_t *)p : &byte,
                     1); /* one letter: the instruction of that letter */
        }
        p += n + (p[n] == ' ');
    }
}

#define STORAGE "( 'storage' GLOBAL:torch.FloatStorage '0' 'cpu' K 06 t Q "
/* The start of {"w": a tensor}, up to its offset, sizes and strides; and the rest. */
#define BEFORE "80 02 } ( 'w' GLOBAL:torch._utils._rebuild_tensor_v2 ( " STORAGE
#define AFTER  "89 GLOBAL:collections.OrderedDict ) R t R u ."
#define GOOD   BEFORE "K 00 K 03 85 K 01 85 " AFTER

static struct torch_file *open_archive(const struct archive *a)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", wire_open(a->bytes.bytes, a->bytes.n));
    *err = 0;
    return torch_file_open(path, err, sizeof err);
}

static const float numbers[6] = {1, 2, 3, 4, 5, 6};

static struct torch_file *open_pickle(const struct wire *w)
{
    struct archive a = {0};
    archive_add(&a, "x/data.pkl", w->bytes, w->n, false);
    archive_add(&a, "x/data/0", numbers, sizeof numbers, false);
    archive_end(&a, "");
    struct torch_file *f = open_archive(&a);
    archive_free(&a);
    return f;
}

/* why NULL: it is accepted. */
static void pickle(const char *what, const char *program, const char *why)
{
    struct wire w = {0};
    assemble(&w, program);
    struct torch_file *f = open_pickle(&w);
    ok(why ? !f && strstr(err, why) && !strchr(err, '\n') : f && f->dict.count == 1, "%s%s", what,
       strstr(err, ": byte") ? strstr(err, ": byte") : err);
    torch_file_close(f);
    wire_free(&w);
}

static void test_programs(void)
{
    pickle("a sound one", GOOD, NULL);
    pickle("it may end a dict in two ways",
           BEFORE "K 00 K 03 85 K 01 85 "
                  "89 GLOBAL:collections.OrderedDict ) R t R 0",
           "POP");
    pickle("os.system", "80 02 GLOBAL:os.system 'x' 85 R .", "it asks for os.system");
    pickle("a name like a terminal's", "80 02 c 1b [ 2 J 0a x 0a .", "it asks for ?[2J.x");
    pickle("torch's other functions", "80 02 GLOBAL:torch.load .", "it asks for torch.load");
    pickle("storages elsewhere", "80 02 GLOBAL:evil.FloatStorage .", "it asks for evil.FloatStorage");
    pickle("REDUCE of a type", "80 02 GLOBAL:torch.FloatStorage ) R .", "a call of a storage type");
    pickle("REDUCE of nothing", "80 02 R .", "the stack is empty");
    pickle("OrderedDict of something", "80 02 GLOBAL:collections.OrderedDict K 01 85 R .",
           "arguments that are not known");
    pickle("INST", "80 02 ( i o s 0a s y s t e m 0a .", "instruction INST");
    pickle("STACK_GLOBAL", "80 02 'os' 'system' 93 .", "instruction STACK_GLOBAL");
    pickle("NEWOBJ", "80 02 GLOBAL:collections.OrderedDict ) 81 .", "instruction NEWOBJ");
    pickle("an extension", "80 02 82 01 .", "instruction EXT1");
    pickle("no instruction at all", "80 02 7f .", "0x7f is no instruction");
    pickle("an end in the middle", "80 02 X ff ff ff 7f a", "it ends in the middle");
    pickle("no end", "80 02 }", "it ends in the middle");
    pickle("an end too early", GOOD " .", "more, or less, than one value");
    pickle("two values", "80 02 } } .", "more, or less, than one value");
    pickle("an open mark", "80 02 ( } .", "more, or less, than one value");
    pickle("a value that a mark hides", "80 02 } ( s .", "the stack is empty");
    pickle("items without a mark", "80 02 } u .", "no mark");
    pickle("an odd item", "80 02 } ( 'w' u .", "items for a dict");
    pickle("items for a number", "80 02 K 01 ( 'w' K 02 u .", "items for a number");
    pickle("attributes for a tuple", "80 02 ) } b .", "attributes for a tuple");
    pickle("a memo that was never set", "80 02 h 05 .", "memo 5, which was never set");
    pickle("a memo beyond all", "80 02 } r ff ff ff ff .", "memo 4294967295");
    pickle("not a dict", "80 02 K 01 .", "it makes a number, not a dict");
    pickle("a number for a name", "80 02 } K 01 K 02 s .", "a number for a tensor's name");
    pickle("a storage that is none", "80 02 K 01 Q .", "a persistent id that is no storage");
    pickle("a storage of 2^63 bytes",
           "80 02 ( 'storage' GLOBAL:torch.FloatStorage '0' 'cpu' 8a 08 ff ff ff ff ff ff ff 7f t Q .",
           "a persistent id that is no storage");
    pickle("a number of 255 bytes", "80 02 8a ff .", "a number of 255 bytes");
    pickle("an unlikely tensor", "80 02 GLOBAL:torch._utils._rebuild_tensor_v2 ) R .", "unlikely parts");
}

static void test_shapes(void)
{
    const char *within = "not within its storage of 6 elements", *impossible = "of impossible shape";
    pickle("the last element", BEFORE "K 05 K 01 85 K 01 85 " AFTER, NULL);
    pickle("one past it", BEFORE "K 06 K 01 85 K 01 85 " AFTER, within);
    pickle("a step past it", BEFORE "K 00 K 03 85 K 03 85 " AFTER, within);
    pickle("steps up to it", BEFORE "K 01 K 03 85 K 02 85 " AFTER, NULL);
    pickle("no elements, anywhere", BEFORE "K 06 K 00 85 K 01 85 " AFTER, NULL);
    pickle("repeated elements", BEFORE "K 00 K 07 85 K 00 85 " AFTER, within);
    pickle("a negative offset", BEFORE "J ff ff ff ff K 01 85 K 01 85 " AFTER, impossible);
    pickle("a negative size", BEFORE "K 00 J ff ff ff ff 85 K 01 85 " AFTER, impossible);
    pickle("a negative stride", BEFORE "K 05 K 03 85 8a 01 ff 85 " AFTER, impossible);
    pickle("sizes that overflow", BEFORE "K 00 8a 08 00 00 00 00 00 00 00 40 K 04 86 K 01 K 01 86 " AFTER,
           impossible);
    pickle("strides that overflow", BEFORE "K 00 K 03 K 02 86 8a 08 ff ff ff ff ff ff ff 7f K 01 86 " AFTER,
           within);
    pickle("an offset that overflows", BEFORE "8a 08 ff ff ff ff ff ff ff 7f K 02 85 K 01 85 " AFTER, within);
    pickle("fewer strides than sizes", BEFORE "K 00 K 01 K 01 86 K 01 85 " AFTER, impossible);
    pickle("nine dimensions", BEFORE "K 00 ( K 01 K 01 K 01 K 01 K 01 K 01 K 01 K 01 K 01 t ) " AFTER,
           impossible);
    pickle("a text for a size", BEFORE "K 00 '3' 85 K 01 85 " AFTER, impossible);
}

/* Programs that grow: they must end soon, and small. */
static void test_bombs(void)
{
    static const struct {
        const char *what, *start, *again, *end, *why;
        int times;
    } bomb[] = {{"marks", "80 02 ", "( ", ".", "more than 1024 marks", 100000},
                {"values", "80 02 ", "N ", ".", "more than 131072 values on the stack", 1000000},
                {"nested tuples", "80 02 ) ", "85 ", ".", "it makes a tuple", 2000000},
                {"tuples of themselves", "80 02 ) ", "q 00 h 00 86 ", ".", "it makes a tuple", 300000},
                {"items of tuples", "80 02 ) ", "q 00 h 00 h 00 87 ", ".", "more than 2097152 items", 800000},
                {"dicts of dicts", "80 02 } q 00 ", "'k' h 00 s ", ".", "more than 262144 items", 300000},
                {"storages", "80 02 } ", STORAGE, ".", "more than 65536 storages", 70000},
                {"a long pickle", "80 02 ", "N ( t 85 ", ".", "more than 1", 5000000}};
    for (size_t i = 0; i < sizeof bomb / sizeof bomb[0]; i++) {
        struct wire w = {0}, again = {0};
        assemble(&w, bomb[i].start);
        assemble(&again, bomb[i].again);
        for (int n = bomb[i].times; n--;) wire_add(&w, again.bytes, again.n);
        assemble(&w, bomb[i].end);
        struct torch_file *f = open_pickle(&w);
        ok(!f && strstr(err, bomb[i].why), "%s%s", bomb[i].what,
           strstr(err, "data.pkl") ? strstr(err, "data.pkl") + 8 : err);
        torch_file_close(f);
        wire_free(&w);
        wire_free(&again);
    }
}

/* One storage under many names. */
static void test_many_names(void)
{
    enum { ELEMENTS = 20000 };
    for (int names = 15; names <= 17; names += 2) {
        float *data = calloc(ELEMENTS, sizeof *data);
        struct archive a = {0};
        struct wire w = {0};
        assemble(
            &w,
            "80 02 } ( 'a' GLOBAL:torch._utils._rebuild_tensor_v2 ( ( 'storage' GLOBAL:torch.FloatStorage '0' 'cpu' "
            "M 20 4e t Q K 00 M 20 4e 85 K 01 85 89 GLOBAL:collections.OrderedDict ) R t R q 00 ");
        for (int i = 1; i < names; i++) {
            char more[32];
            snprintf(more, sizeof more, "'b%02d' h 00 ", i);
            assemble(&w, more);
        }
        assemble(&w, "u .");
        archive_add(&a, "x/data.pkl", w.bytes, w.n, false);
        archive_add(&a, "x/data/0", data, ELEMENTS * sizeof *data, false);
        archive_end(&a, "");
        struct torch_file *f = open_archive(&a);
        ok(names < 16 ? f && f->dict.count == names : !f && strstr(err, "more than 16 times"),
           "%d tensors share a storage: %s", names, err);
        torch_file_close(f);
        archive_free(&a);
        wire_free(&w);
        free(data);
    }
}

static void archive(const char *what, const char *pickle_name, bool pickle_deflated, const char *data_name,
                    size_t data_bytes, bool data_deflated, const char *order, const char *why)
{
    struct archive a = {0};
    struct wire w = {0};
    assemble(&w, GOOD);
    if (pickle_name) archive_add(&a, pickle_name, w.bytes, w.n, pickle_deflated);
    if (data_name) archive_add(&a, data_name, numbers, data_bytes, data_deflated);
    if (order) archive_add(&a, "x/byteorder", order, strlen(order), false);
    archive_end(&a, "");
    struct torch_file *f = open_archive(&a);
    ok(why ? !f && strstr(err, why) : f != NULL, "%s: %s", what, err);
    torch_file_close(f);
    archive_free(&a);
    wire_free(&w);
}

static void test_archives(void)
{
    archive("little-endian, it says", "x/data.pkl", false, "x/data/0", 24, false, "little", NULL);
    archive("big-endian", "x/data.pkl", false, "x/data/0", 24, false, "big",
            "x/byteorder: not little-endian");
    archive("no pickle", NULL, false, "x/data/0", 24, false, NULL, "without a data.pkl");
    archive("a pickle in no folder", "data.pkl", false, "x/data/0", 24, false, NULL, "without a data.pkl");
    archive("a compressed pickle", "x/data.pkl", true, "x/data/0", 24, false, NULL, "x/data.pkl: compressed");
    archive("a compressed storage", "x/data.pkl", false, "x/data/0", 24, true, NULL, "x/data/0: compressed");
    archive("no storage", "x/data.pkl", false, NULL, 0, false, NULL, "x/data/0: not in the archive");
    archive("a storage elsewhere", "x/data.pkl", false, "y/data/0", 24, false, NULL,
            "x/data/0: not in the archive");
    archive("a short storage", "x/data.pkl", false, "x/data/0", 20, false, NULL,
            "x/data/0: 20 bytes for 6 elements of F32");
    archive("the pickle twice", "x/data.pkl", false, "x/data.pkl", 24, false, NULL,
            "x/data.pkl: is there twice");
}

/* A byte of a storage that changed: noticed by every tensor that reads it, also by one that reads another. */
static void test_checksum(void)
{
    const char *shape[] = {"K 00 K 06 85 K 01 85 ", "K 00 K 02 85 K 01 85 ", "K 00 K 03 85 K 02 85 "};
    for (int i = 0; i < 3; i++) {
        char program[512];
        float data[6];
        struct archive a = {0};
        struct wire w = {0};
        snprintf(program, sizeof program, BEFORE "%s" AFTER, shape[i]);
        assemble(&w, program);
        archive_add(&a, "x/data/0", numbers, sizeof numbers, false);
        a.bytes.bytes[30 + 8 + 20] ^= 1;
        archive_add(&a, "x/data.pkl", w.bytes, w.n, false);
        archive_end(&a, "");
        struct torch_file *f = open_archive(&a);
        ok(f && !torch_file_read(f, f->dict.tensor, data, err, sizeof err) &&
               strstr(err, "tensor w: its bytes do not match"),
           "a changed byte: %s", err);
        torch_file_close(f);
        archive_free(&a);
        wire_free(&w);
    }
}

/* Every byte of a sound pickle changed to every value: refused, or a dict whose tensors can be read. */
static void test_every_byte(void)
{
    struct wire w = {0};
    float data[64];
    int accepted = 0;
    assemble(&w, GOOD);
    for (size_t at = 0; at < w.n; at++)
        for (int byte = 0; byte < 256; byte++) {
            uint8_t was = w.bytes[at];
            w.bytes[at] = (uint8_t)byte;
            struct torch_file *f = open_pickle(&w);
            if (!f && !*err) abort();
            for (int i = 0; f && i < f->dict.count; i++)
                if (!torch_file_read(f, &f->dict.tensor[i], data, err, sizeof err)) abort();
            accepted += f != NULL;
            torch_file_close(f);
            w.bytes[at] = was;
        }
    ok(accepted > (int)w.n && accepted < 100 * (int)w.n,
       "%zu bytes changed to every other: %d still a dict of tensors", w.n, accepted);
    wire_free(&w);
}

int main(void)
{
    test_same("dtypes", 7);
    test_same("shapes", 7);
    test_same("views", 10);
    test_same("module", 4);
    test_same("empty", 0);
    test_same("many", 1200);
    test_refused();
    test_programs();
    test_shapes();
    test_bombs();
    test_many_names();
    test_archives();
    test_checksum();
    test_every_byte();
    return done();
}
