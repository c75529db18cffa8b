#include "filters/lib/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filters/lib/worker.h"
#include "formats/io.h"
#include "formats/plain.h"

struct filter_state filter = {.name = "sluice", .device = "auto", .dtype = "", .seed = 42};

static unsigned flags;
static bool only_checking; /* --check-options */
static struct record_reader *input;
static struct record_writer *output;
static bool (*settle)(void); /* what was begun comes before a message about stdin */
static struct {
    struct worker *worker; /* NULL: nothing is read ahead */
    bool reads;
    struct record f;
    enum record_got got;
    int64_t bytes;
} ahead;

/* ---- stdout -------------------------------------------------------------------------------------------- */

/* Another process that shares stdout may have made it non-blocking; stdio would lose what does not fit. */
static ssize_t write_text(void *cookie, const char *text, size_t n)
{
    (void)cookie;
    return write_full(1, text, n) ? (ssize_t)n : 0;
}

static void open_text_output(void)
{
    FILE *f = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_text});
    if (!f) die("out of memory");
    if (isatty(1)) setvbuf(f, NULL, _IOLBF, 0);
    stdout = f;
}

/* stdout failed. When the reader has left, end quietly by SIGPIPE, also where that signal was ignored. */
static void output_failed(const char *why)
{
    if (errno == EPIPE) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
        _exit(128 + SIGPIPE);
    }
    die("stdout: %s", why);
}

static void flush_text(void)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout)) return;
    if (errno == EINTR)
        return; /* interrupted by a signal to end: what has to be saved comes before this line */
    output_failed(errno ? strerror(errno) : "an earlier write failed");
}

/* ---- the start ----------------------------------------------------------------------------------------- */

#define DTYPE(values)                                                                                        \
    .name = "dtype", .kind = OPT_CHOICE, .dest = &filter.dtype, .choices = values, .setting = true
static const struct option_spec dtype_option[] = {{DTYPE("bf16|f32")}, {0}},
                                dtype_fp8_option[] = {{DTYPE("bf16|f32|fp8")}, {0}};
#undef DTYPE
static const struct option_spec compute_options[] = {
    {.name = "device", .kind = OPT_TEXT, .dest = &filter.device},
    {.name = "model", .letter = 'm', .kind = OPT_TEXT, .dest = &filter.model},
    {.name = "threads", .kind = OPT_INT, .dest = &filter.threads, .low = 0, .high = 1024},
    {.name = "profile", .kind = OPT_FLAG, .dest = &filter.profile},
    {0}};
static const struct option_spec seed_options[] = {
    {.name = "seed", .kind = OPT_INT, .dest = &filter.seed, .high = 9.2e18, .setting = true}, {0}};
static const struct option_spec keep_options[] = {
    {.name = "keep", .kind = OPT_FLAG, .dest = &filter.keep, .setting = true}, {0}};
static const struct option_spec common_options[] = {
    {.name = "strict", .kind = OPT_FLAG, .dest = &filter.strict},
    {.name = "check-options", .kind = OPT_FLAG, .dest = &only_checking},
    {.name = "log-json", .kind = OPT_FLAG, .dest = &filter.log_json},
    {0}};

static const char device_help[] =
    "      --device NAME    cpu | cuda | cuda:N                       [cuda if there is one, else cpu]\n";
static const char dtype_help[] =
    "      --dtype TYPE     bf16 | f32: of computation and output     [cuda: bf16; cpu: f32, bf16 written]\n";
static const char dtype_fp8_help[] =
    "      --dtype TYPE     bf16 | f32: of computation and output; or fp8, as bf16, but q, k, v, out and feed-forward of\n"
    "                       the blocks in e4m3 with a scale for each row of x and W: an approximation. Needs a card of\n"
    "                       compute capability 9.0, or the CPU. Training stays bf16  [cuda: bf16; cpu: f32, bf16 written]\n";
static const char compute_help[] = "      --threads N      CPU threads; changes no bit               [all]\n"
                                   "      --profile        tell at the end where the time went       [off]\n";
static const char devices_help[] =
    "      --device NAME    cpu | cuda | cuda:N, or several as cuda:0,cuda:1   [cuda if there is one, else cpu]\n";
static const char seed_help[] = "      --seed N         of the random numbers                     [42]\n";
static const char keep_help[] = "      --keep           pass the consumed tensors on, too         [off]\n";
static const char common_help[] =
    "      --strict         stop at the first record that fails       [off]\n"
    "      --log-json       messages as JSON lines                    [off]\n"
    "      --check-options  end with 0 when the options are right, else with 2; no weights\n"
    "                       are read, no records, and nothing is written\n"
    "  -h, --help\n"
    "      --version\n";

/* Prints the program's help; the shared options replace its line "COMMON". */
static void print_help(const char *help, const struct option_spec *options)
{
    const char *mark = strstr(help, "COMMON\n");
    if (!mark) mark = help + strlen(help);
    printf("%.*s", (int)(mark - help), help);
    if (flags & FILTER_COMPUTE)
        printf("%s%s%s", flags & FILTER_DEVICES ? devices_help : device_help,
               flags & FILTER_FP8 ? dtype_fp8_help : dtype_help, compute_help);
    printf("%s%s%s%s", flags & (FILTER_COMPUTE | FILTER_SEED) ? seed_help : "",
           flags & FILTER_KEEP ? keep_help : "", common_help, *mark ? mark + strlen("COMMON\n") : "");
    for (const struct option_spec *o = options; o && o->name; o++) {
        char word[64];
        snprintf(word, sizeof word, "--%s", o->name);
        if (!strstr(help, word))
            fflush(stdout), fprintf(stderr, "%s: %s is missing above\n", filter.name, word), abort();
    }
}

/* Opens what the caller closed of descriptors 0, 1 and 2, so that no file opened later gets one of them.
 * Reads from such a 0 and writes to such a 1 fail. */
static void occupy_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 1 ? O_RDONLY : O_WRONLY) != fd) _exit(1);
}

/* An idle OpenMP thread spins by default, on cores that the other programs of a pipeline need: two programs
 * on two cores took thirty times as long. The runtime reads its policy when it is loaded, before main(), so
 * this sets the variable and executes the program again. A variable that the user has set stays. */
static void idle_threads_sleep(char **argv)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (getenv("OMP_WAIT_POLICY") || n <= 0 || setenv("OMP_WAIT_POLICY", "passive", 1)) return;
    self[n] = 0;
    execv(self, argv); /* on failure the program is slower, with the same results */
}

/* For jansson, some of whose functions leave out what there was no memory for, and say nothing. Its results are
 * freed with free(). */
static void *json_memory(size_t bytes)
{
    void *p = malloc(bytes);
    if (p || !bytes) return p;
    if (filter.no_memory && !filter.log_json) exit(1); /* said before */
    if (!filter.no_memory) {
        filter.no_memory = true;
        die("out of memory");
    }
    fputs("{\"level\":\"fatal\",\"message\":\"out of memory\"}\n", stderr); /* the message needed some, too */
    exit(1);
}

static bool is_device(const char *name)
{
    int index, used = 0;
    bool numbered = sscanf(name, "cuda:%d%n", &index, &used) == 1 && !name[used] && index >= 0;
    return numbered || !strcmp(name, "auto") || !strcmp(name, "cpu") || !strcmp(name, "cuda");
}

/* One device, or, for programs that take them, several, each named. */
static void check_devices(void)
{
    char name[32];
    const char *at = filter.device;
    if (!(flags & FILTER_DEVICES) || !strchr(at, ',')) {
        if (!is_device(at)) usage_error("--device is cpu, cuda or cuda:N, not `%s`", at);
        return;
    }
    for (size_t length;; at += length + 1) {
        length = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), at);
        if (!is_device(name) || !strcmp(name, "auto"))
            usage_error("--device is a list of cpu, cuda and cuda:N, not `%s`", filter.device);
        if (!at[length]) return;
    }
}

/* As many devices, but the CPU: a GPU takes seconds to start. */
static void check_on_cpu(void)
{
    static char list[256] = "cpu";
    for (const char *c = strchr(filter.device, ','); c; c = strchr(c + 1, ','))
        if (strlen(list) < sizeof list - 5) strcat(list, ",cpu");
    filter.device = list;
}

void filter_start(int argc, char **argv, const char *help, const struct option_spec *options, unsigned which)
{
    const struct option_spec *dtype = which & FILTER_FP8 ? dtype_fp8_option : dtype_option;
    const struct option_spec *tables[] = {options,
                                          which & FILTER_COMPUTE ? compute_options : NULL,
                                          which & FILTER_COMPUTE ? dtype : NULL,
                                          which & (FILTER_COMPUTE | FILTER_SEED) ? seed_options : NULL,
                                          which & FILTER_KEEP ? keep_options : NULL,
                                          common_options};
    enum { TABLES = sizeof tables / sizeof tables[0] };

    occupy_standard_descriptors();
    signal(SIGXFSZ, SIG_IGN); /* past the limit of file sizes write() fails with EFBIG, and is reported */
    if (which & FILTER_COMPUTE) idle_threads_sleep(argv);
    filter.name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    flags = which;
    json_set_alloc_funcs(json_memory, free);
    open_text_output();
    enum options_got got = options_parse(argc, argv, tables, TABLES);
    if (got == OPTIONS_HELP) print_help(help, options);
    if (got == OPTIONS_VERSION) printf("%s (sluice) %s\n", filter.name, SLUICE_VERSION);
    if (got != OPTIONS_GOOD) {
        flush_text();
        exit(0);
    }
    filter.argc = argc - optind;
    filter.argv = argv + optind;
    if (filter.argc && !(flags & FILTER_ARGUMENTS)) usage_error("unexpected operand `%s`", filter.argv[0]);
    if (flags & FILTER_COMPUTE) check_devices();
    if (flags & FILTER_NEEDS_MODEL && !filter.model) usage_error("--model is required");
    if (only_checking && flags & FILTER_COMPUTE) check_on_cpu();
    if (flags & FILTER_RECORDS_OUT && isatty(1) && !only_checking)
        usage_error("records are not for a terminal: send stdout to a file or a pipe");

    struct stat st;
    filter.feeds =
        which & FILTER_RECORDS_OUT && !(which & FILTER_COMPUTE) && !fstat(1, &st) && S_ISFIFO(st.st_mode);
    if (which & FILTER_COMPUTE && !*filter.dtype) filter.dtype = filter_dtype() == DT_F32 ? "f32" : "bf16";
    filter.settings = options_settings(tables, TABLES);
}

void filter_checked(void)
{
    if (only_checking) exit(0);
}

/* ---- records ------------------------------------------------------------------------------------------- */

static void interrupt(int signal)
{
    (void)signal;
    io_interrupted = 1;
}

void filter_catch_term(void)
{
    struct sigaction a = {.sa_handler = interrupt}; /* without SA_RESTART: a wait for input ends, too */
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGINT, &a, NULL);
}

json_t *filter_input_settings(void)
{
    return input ? json_object_get(record_reader_begin(input), "settings") : NULL;
}

void filter_fail_at(const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    filter.failed++;
    message("error", key, fmt, ap);
    va_end(ap);
    if (filter.strict) exit(1);
}

void filter_read_ahead(void)
{
    ahead.worker = worker_start(); /* without a thread it goes as it went */
}

static void read_one(void *unused)
{
    (void)unused;
    ahead.got = record_read(input, &ahead.f);
    ahead.bytes = record_reader_bytes(input);
}

/* The next record, and how many bytes of stdin end with it. What f held is for the one after it. */
static enum record_got take_next(struct record *f, int64_t *bytes)
{
    if (!ahead.worker) {
        enum record_got got = record_read(input, f);
        *bytes = record_reader_bytes(input);
        return got;
    }
    if (!ahead.reads) worker_begin(ahead.worker, read_one, NULL);
    worker_wait(ahead.worker);
    const struct record before = *f;
    const enum record_got got = ahead.got;
    *f = ahead.f;
    ahead.f = before;
    *bytes = ahead.bytes;
    ahead.reads = got == RECORD_GOT || got == RECORD_BAD_LINE;
    if (ahead.reads) worker_begin(ahead.worker, read_one, NULL);
    return got;
}

bool filter_ready(double seconds)
{
    return record_reader_ready(input, seconds > 0 ? (int)(1e3 * (seconds < 1e6 ? seconds : 1e6)) : 0);
}

void filter_on_trouble(bool (*finish)(void))
{
    settle = finish;
}

bool filter_next(struct record *f)
{
    if (!input && !(input = record_reader_open(0, "stdin"))) die("out of memory");
    while (!io_interrupted) {
        const int64_t before = filter.bytes;
        const enum record_got got = take_next(f, &filter.bytes);
        filter.before = before;
        filter.part = 0;
        switch (got) {
        case RECORD_GOT: progress("%s", record_key(f)); return true;
        case RECORD_END: return false;
        case RECORD_BAD_LINE:
            if (settle && !settle()) return false;
            filter_fail_at(NULL, "%s", f->error);
            break;
        case RECORD_DAMAGED:
            if (settle && !settle()) return false;
            if (!io_interrupted) die("%s", f->error);
        }
    }
    return false;
}

static struct record_writer *records_out(void)
{
    if (!output && !(output = record_writer_open(1, filter.name, filter.settings))) die("out of memory");
    return output;
}

void filter_emit(struct record *f)
{
    if (record_write(records_out(), f)) {
        filter.done++;
        filter.part = 1;
        progress("%s", record_key(f));
    } else if (errno == EMSGSIZE) {
        filter_fail(f, "%s", record_writer_error(output));
    } else {
        output_failed(record_writer_error(output));
    }
}

void filter_emit_text(const char *line)
{
    if (isatty(1)) /* for eyes, not for a program */
        progress_end(), put_plain(stdout, line), putc('\n', stdout);
    else
        puts(line);
    flush_text();
    filter.done++;
}

void filter_emit_line(json_t *object_stolen)
{
    char *line = json_dumps(object_stolen, JSON_COMPACT);
    json_decref(object_stolen);
    if (!line) die("out of memory");
    filter_emit_text(line);
    free(line);
}

int filter_finish(void)
{
    int64_t upstream = input ? record_reader_failed(input) : 0;
    if (flags & FILTER_RECORDS_OUT && !record_write_end(records_out(), upstream + filter.failed))
        output_failed(record_writer_error(output));
    flush_text();
    if (close(1) && flags & (FILTER_RECORDS_OUT | FILTER_TEXT_OUT)) output_failed(strerror(errno));
    progress_end();
    if (filter.failed) say(NULL, "%lld failed, %lld done", (long long)filter.failed, (long long)filter.done);
    worker_stop(ahead.worker);
    record_free(&ahead.f);
    record_reader_close(input);
    record_writer_close(output);
    json_decref(filter.settings);
    return filter.failed ? 1 : 0;
}

/* ---- records side by side ------------------------------------------------------------------------------ */

struct place {
    struct record f;
    struct worker *worker; /* NULL: it is done at once */
    bool (*work)(struct record *f);
    bool good;
};
static struct {
    struct place *place; /* number i of all is at place i % count */
    int64_t count, begun, done;
    void (*finish)(struct record *f, bool good);
} row;

static void work_at(void *context)
{
    struct place *p = context;
    p->good = p->work(&p->f);
}

static void finish_first(void)
{
    struct place *p = &row.place[row.done++ % row.count];
    if (p->worker) worker_wait(p->worker);
    row.finish(&p->f, p->good);
}

static void pass_on(struct record *f, bool good)
{
    if (good)
        filter_emit(f);
    else
        filter_fail(f, "%s", f->error);
}

static bool finish_row(void)
{
    while (row.done < row.begun) finish_first();
    return true;
}

int filter_clips_at_once(int64_t threads, int64_t bytes)
{
    const int64_t fit = (1 << 30) / bytes, most = fit < 8 ? fit : 8;
    cpu_set_t set;
    int64_t n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    if (threads) return threads < 64 ? (int)threads : 64;
    if (n > most) n = most;
    return n > 1 ? (int)n : 1;
}

void filter_side_by_side(int n, bool (*work)(struct record *f), void (*finish)(struct record *f, bool good))
{
    row.count = n;
    row.finish = finish ? finish : pass_on;
    if (!(row.place = calloc((size_t)n, sizeof *row.place))) die("out of memory");
    settle = finish_row;
    for (;;) {
        if (row.begun - row.done == n || (row.begun > row.done && !filter_ready(0))) {
            finish_first();
            continue;
        }
        struct place *p = &row.place[row.begun % n];
        if (!filter_next(&p->f)) break;
        if (!p->worker && n > 1) p->worker = worker_start();
        p->work = work;
        row.begun++;
        if (p->worker)
            worker_begin(p->worker, work_at, p);
        else
            work_at(p);
    }
    finish_row();
    for (int i = 0; i < n; i++) {
        worker_stop(row.place[i].worker);
        record_free(&row.place[i].f);
    }
    free(row.place);
}

json_t *filter_record_json(struct record *f)
{
    json_t *line = json_pack("{s:s}", "key", record_key(f));
    json_object_update_missing(line, record_meta(f));
    return line;
}

bool filter_fp8(void)
{
    return !strcmp(filter.dtype, "fp8");
}

enum dtype filter_dtype(void)
{
    return !strcmp(filter.dtype, "f32") ? DT_F32 : DT_BF16;
}
