#include "filters/filter.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "formats/columns.h"
#include "formats/io.h"

struct filter_state filter = {.name = "sluice", .device = "auto", .dtype = "", .seed = 42};

static unsigned flags;
static struct frame_reader *input;
static struct frame_writer *output;
static bool showing_progress; /* a progress line stands on the terminal, without its newline */

/* ---- messages ------------------------------------------------------------------------------------------ */

/* What is not UTF-8 is told without what makes it so. */
static json_t *json_text(const char *text)
{
    json_t *json = json_string(text);
    char *plain = json ? NULL : strdup(text);
    for (char *p = plain; p && *p; p++)
        if (*p & 0x80) *p = '?';
    if (!json) json = json_string(plain ? plain : "");
    free(plain);
    return json;
}

static void message(const char *level, const char *key, const char *fmt, va_list ap)
{
    char text[1024], line[1536];
    vsnprintf(text, sizeof text, fmt, ap);
    if (showing_progress) fputs("\r\033[K", stderr);
    showing_progress = false;
    if (filter.log_json) {
        json_t *event = json_pack("{s:o, s:s, s:o*, s:o}", "program", json_text(filter.name), "level", level,
                                  "key", key ? json_text(key) : NULL, "message", json_text(text));
        char *dump = json_dumps(event, JSON_COMPACT);
        fprintf(stderr, "%s\n", dump ? dump : "{}");
        free(dump);
        json_decref(event);
    } else {
        snprintf(line, sizeof line, "%.100s: %.300s%s%s", filter.name, key ? key : "",
                 key && *key ? ": " : "", text);
        put_plain(stderr, line);
        fputc('\n', stderr);
    }
}

void say(const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message("info", key, fmt, ap);
    va_end(ap);
}

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message("fatal", NULL, fmt, ap);
    va_end(ap);
    exit(1);
}

void usage_error(const char *fmt, ...)
{
    char hinting[512];
    va_list ap;
    snprintf(hinting, sizeof hinting, "%s (see --help)", fmt);
    va_start(ap, fmt);
    message("fatal", NULL, hinting, ap);
    va_end(ap);
    exit(2);
}

/* stdout failed. A reader that went away is no news: end as the signal would have ended us, had it not been
 * ignored. */
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
        return; /* only when told to end: what is to be saved first matters more than this line */
    output_failed(errno ? strerror(errno) : "an earlier write failed");
}

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress(const char *fmt, ...)
{
    static double last, start;
    static int terminal = -1;
    char text[256], line[512], left[32] = "";
    double t = clock_seconds();
    if (terminal < 0) terminal = isatty(2), start = t;
    double passed = t - start;
    if (!terminal || filter.log_json || t - last < 0.1) return;
    last = t;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct stat st;
    double at = input ? (double)frame_reader_bytes(input) : 0; /* of a file it is known how much is left */
    if (filter.done > 0 && at > 0 && !fstat(0, &st) && (double)st.st_size > at)
        snprintf(left, sizeof left, ", %.0f s left", passed * ((double)st.st_size / at - 1));
    snprintf(line, sizeof line, "%s: %s, %lld done, %.3g/s, %.0f s%s", filter.name, text,
             (long long)filter.done, passed > 0 ? (double)filter.done / passed : 0, passed, left);
    fputc('\r', stderr);
    put_plain(stderr, line);
    fputs("\033[K", stderr);
    showing_progress = true;
}

/* ---- options ------------------------------------------------------------------------------------------- */

static const struct option_spec compute_options[] = {
    {.name = "device", .kind = OPT_TEXT, .dest = &filter.device},
    {.name = "dtype", .kind = OPT_CHOICE, .dest = &filter.dtype, .choices = "bf16|f32", .setting = true},
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
    {.name = "log-json", .kind = OPT_FLAG, .dest = &filter.log_json},
    {0}};

static const char compute_help[] =
    "      --device NAME    cpu | cuda | cuda:N                       [cuda if there is one, else cpu]\n"
    "      --dtype TYPE     bf16 | f32: of computation and output     [cuda: bf16; cpu: f32, bf16 written]\n"
    "      --threads N      CPU threads; changes no bit               [all]\n"
    "      --profile        tell at the end where the time went       [off]\n";
static const char seed_help[] = "      --seed N         of the random numbers                     [42]\n";
static const char keep_help[] = "      --keep           pass the consumed tensors on, too         [off]\n";
static const char common_help[] = "      --strict         stop at the first record that fails       [off]\n"
                                  "      --log-json       messages as JSON lines                    [off]\n"
                                  "      --help, --version\n";

static void set_option(const struct option_spec *o, const char *value)
{
    char *end;
    errno = 0;
    switch (o->kind) {
    case OPT_FLAG: *(bool *)o->dest = true; break;
    case OPT_TEXT: *(const char **)o->dest = value; break;
    case OPT_INT: {
        long long v = strtoll(value, &end, 10);
        bool bounded = o->low != 0 || o->high != 0;
        if (end == value || *end || errno) usage_error("--%s wants a whole number, not `%s`", o->name, value);
        if (bounded && ((double)v < o->low || (double)v > o->high))
            usage_error("--%s %lld is outside %.0f..%.0f", o->name, v, o->low, o->high);
        *(int64_t *)o->dest = v;
        break;
    }
    case OPT_REAL: {
        double v = strtod(value, &end);
        bool bounded = o->low != 0 || o->high != 0;
        if (end == value || *end || errno || v != v || v - v != 0)
            usage_error("--%s wants a number, not `%s`", o->name, value);
        if (bounded && (v < o->low || v > o->high))
            usage_error("--%s %g is outside %g..%g", o->name, v, o->low, o->high);
        *(double *)o->dest = v;
        break;
    }
    case OPT_CHOICE: {
        size_t n = strlen(value);
        for (const char *c = o->choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
            if (n && strcspn(c, "|") == n && !strncmp(c, value, n)) {
                *(const char **)o->dest = value;
                return;
            }
        usage_error("--%s is one of %s, not `%s`", o->name, o->choices, value);
    }
    case OPT_SIZE: {
        struct size *s = o->dest;
        int used = 0;
        long long w, h;
        if (sscanf(value, "%lldx%lld%n", &w, &h, &used) != 2 || value[used] || w < 1 || h < 1 || w > 16384 ||
            h > 16384)
            usage_error("--%s wants WIDTHxHEIGHT, not `%s`", o->name, value);
        *s = (struct size){w, h};
        break;
    }
    case OPT_LIST: {
        struct text_list *l = o->dest;
        if (l->count == (int)(sizeof l->item / sizeof l->item[0])) usage_error("too many --%s", o->name);
        l->item[l->count++] = value;
        break;
    }
    }
}

/* NULL: text that is not UTF-8 */
static json_t *option_json(const struct option_spec *o)
{
    switch (o->kind) {
    case OPT_FLAG: return json_boolean(*(bool *)o->dest);
    case OPT_INT: return json_integer(*(int64_t *)o->dest);
    case OPT_REAL: return json_real(*(double *)o->dest);
    case OPT_TEXT:
    case OPT_CHOICE: return *(const char **)o->dest ? json_string(*(const char **)o->dest) : json_null();
    case OPT_SIZE:
        return json_sprintf("%lldx%lld", (long long)((struct size *)o->dest)->width,
                            (long long)((struct size *)o->dest)->height);
    case OPT_LIST: {
        struct text_list *l = o->dest;
        json_t *list = json_array();
        int bad = 0;
        for (int i = 0; i < l->count; i++) bad |= json_array_append_new(list, json_string(l->item[i]));
        if (!bad) return list;
        json_decref(list);
        return NULL;
    }
    }
    return NULL;
}

/* The program's text, with the options it shares with others in place of a line "COMMON". */
static void print_help(const char *help, const struct option_spec *const *tables)
{
    const char *mark = strstr(help, "COMMON\n");
    if (!mark) mark = help + strlen(help);
    printf("%.*s%s%s%s%s%s", (int)(mark - help), help, flags & FILTER_COMPUTE ? compute_help : "",
           flags & (FILTER_COMPUTE | FILTER_SEED) ? seed_help : "", flags & FILTER_KEEP ? keep_help : "",
           common_help, *mark ? mark + strlen("COMMON\n") : "");
    for (const struct option_spec *o = tables[0]; o && o->name; o++) {
        char word[64];
        snprintf(word, sizeof word, "--%s", o->name);
        if (!strstr(help, word))
            fflush(stdout), fprintf(stderr, "%s: %s is missing above\n", filter.name, word), abort();
    }
}

/* A file opened later must never become descriptor 0, 1 or 2. What was closed stays useless: reads from 0 and
 * writes to 1 fail. */
static void occupy_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 1 ? O_RDONLY : O_WRONLY) != fd) _exit(1);
}

/* stdout may not block, by the doing of another process that shares it: stdio would lose what does not fit.
 */
static ssize_t write_text(void *cookie, const char *text, size_t n)
{
    (void)cookie;
    return write_full(1, text, n) ? (ssize_t)n : 0;
}

static void open_text_output(void)
{
    FILE *f = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_text});
    if (!f) return;
    if (isatty(1)) setvbuf(f, NULL, _IOLBF, 0);
    stdout = f;
}

/* An OpenMP thread that has nothing to do spins by default, on cores that the other programs of a pipeline
 * need: two programs on two cores were seen to take thirty times as long. The runtime reads its policy when
 * it is loaded, before main(), so the program starts itself once more with another one. Somebody who sets the
 * variable has decided. */
static void idle_threads_sleep(char **argv)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (getenv("OMP_WAIT_POLICY") || n <= 0 || setenv("OMP_WAIT_POLICY", "passive", 1)) return;
    self[n] = 0;
    execv(self, argv); /* on failure the program is slower, and no less right */
}

void filter_start(int argc, char **argv, const char *help, const struct option_spec *options, unsigned which)
{
    const struct option_spec *tables[] = {options, which & FILTER_COMPUTE ? compute_options : NULL,
                                          which & (FILTER_COMPUTE | FILTER_SEED) ? seed_options : NULL,
                                          which & FILTER_KEEP ? keep_options : NULL, common_options};
    enum { TABLES = sizeof tables / sizeof tables[0], MAX = 64, HELP = 1000, VERSION, FIRST };
    const struct option_spec *known[MAX];
    struct option longs[MAX + 3];
    char letters[2 * MAX + 2] = ":";
    int count = 0, at = 1;

    occupy_standard_descriptors();
    signal(SIGXFSZ, SIG_IGN); /* a file past the limit is a write that fails, and says so */
    if (which & FILTER_COMPUTE) idle_threads_sleep(argv);
    open_text_output();
    filter.name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    flags = which;
    for (int t = 0; t < TABLES; t++)
        for (const struct option_spec *o = tables[t]; o && o->name; o++) {
            assert(count < MAX);
            bool argument = o->kind != OPT_FLAG;
            longs[count] = (struct option){o->name, argument, NULL, FIRST + count};
            if (o->letter) {
                letters[at++] = o->letter;
                if (argument) letters[at++] = ':';
                letters[at] = 0;
            }
            known[count++] = o;
        }
    longs[count] = (struct option){"help", 0, NULL, HELP};
    longs[count + 1] = (struct option){"version", 0, NULL, VERSION};
    longs[count + 2] = (struct option){0};

    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (c == HELP) {
            print_help(help, tables);
            flush_text();
            exit(0);
        }
        if (c == VERSION) {
            printf("%s (sluice) %s\n", filter.name, SLUICE_VERSION);
            flush_text();
            exit(0);
        }
        if (c == ':') usage_error("%s wants a value", argv[optind - 1]);
        if (c == '?') {
            if (optopt && optopt < 256) usage_error("no option -%c", optopt);
            usage_error("no option %s, or a value it does not take", argv[optind - 1]);
        }
        for (int i = 0; i < count; i++)
            if (c == FIRST + i || c == known[i]->letter) set_option(known[i], optarg);
    }
    filter.argc = argc - optind;
    filter.argv = argv + optind;
    if (filter.argc && !(flags & FILTER_ARGUMENTS)) usage_error("unexpected operand `%s`", filter.argv[0]);
    if (flags & FILTER_COMPUTE) {
        int index, used = 0;
        bool numbered =
            sscanf(filter.device, "cuda:%d%n", &index, &used) == 1 && !filter.device[used] && index >= 0;
        if (strcmp(filter.device, "auto") && strcmp(filter.device, "cpu") && strcmp(filter.device, "cuda") &&
            !numbered)
            usage_error("--device is cpu, cuda or cuda:N, not `%s`", filter.device);
    }
    if (flags & FILTER_NEEDS_MODEL && !filter.model) usage_error("--model is required");
    if (flags & FILTER_FRAMES_OUT && isatty(1))
        usage_error("frames are not for a terminal: send stdout to a file or a pipe");

    if (which & FILTER_COMPUTE && !*filter.dtype) filter.dtype = filter_dtype() == DT_F32 ? "f32" : "bf16";
    filter.settings = json_object();
    for (int i = 0; i < count; i++)
        if (known[i]->setting && json_object_set_new(filter.settings, known[i]->name, option_json(known[i])))
            usage_error("--%s is not UTF-8", known[i]->name);
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
    return input ? json_object_get(frame_reader_begin(input), "settings") : NULL;
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

bool filter_next(struct frame *f)
{
    if (!input && !(input = frame_reader_open(0, "stdin"))) die("out of memory");
    while (!io_interrupted) {
        switch (frame_read(input, f)) {
        case FRAME_RECORD: progress("%s", frame_key(f)); return true;
        case FRAME_END: return false;
        case FRAME_BAD_LINE: filter_fail_at(NULL, "%s", f->error); break;
        case FRAME_DAMAGED:
            if (!io_interrupted) die("%s", f->error);
        }
    }
    return false;
}

static struct frame_writer *frames_out(void)
{
    if (!output && !(output = frame_writer_open(1, filter.name, filter.settings))) die("out of memory");
    return output;
}

void filter_emit(struct frame *f)
{
    if (frame_write(frames_out(), f)) {
        filter.done++;
        progress("%s", frame_key(f));
    } else if (errno == EMSGSIZE) {
        filter_fail(f, "%s", frame_writer_error(output));
    } else {
        output_failed(frame_writer_error(output));
    }
}

void filter_emit_text(const char *line)
{
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
    int64_t upstream = input ? frame_reader_failed(input) : 0;
    if (flags & FILTER_FRAMES_OUT && !frame_write_end(frames_out(), upstream + filter.failed))
        output_failed(frame_writer_error(output));
    flush_text();
    if (close(1) && flags & (FILTER_FRAMES_OUT | FILTER_TEXT_OUT)) output_failed(strerror(errno));
    if (showing_progress) fputs("\r\033[K", stderr);
    showing_progress = false;
    if (filter.failed) say(NULL, "%lld failed, %lld done", (long long)filter.failed, (long long)filter.done);
    frame_reader_close(input);
    frame_writer_close(output);
    json_decref(filter.settings);
    return filter.failed ? 1 : 0;
}

json_t *filter_record_json(struct frame *f)
{
    json_t *line = json_pack("{s:s}", "key", frame_key(f));
    json_object_update_missing(line, frame_meta(f));
    return line;
}

enum dtype filter_dtype(void)
{
    return !strcmp(filter.dtype, "f32") ? DT_F32 : DT_BF16;
}
