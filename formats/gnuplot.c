#include "formats/gnuplot.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/io.h"

extern char **environ;

double gnuplot_em(enum gnuplot_format format)
{
    return format == GNUPLOT_SVG ? 13 : 44 / 3.0; /* of cairo's: 11 points */
}

void gnuplot_terminal(FILE *script, enum gnuplot_format format, int64_t width, int64_t height, double em)
{
    double letters = em > 0 ? em : gnuplot_em(format);
    if (format == GNUPLOT_PDF) /* whose points are rounded down */
        fprintf(script, "set terminal pdfcairo size %.4fin,%.4fin font 'sans,%.3g' fontscale 1 linewidth 1",
                (double)width / 96 + 1e-4, (double)height / 96 + 1e-4,
                letters * 0.5625); /* measured: its point is 4/3 of one */
    else
        fprintf(script, "set terminal %s size %lld,%lld font 'sans,%.3g'",
                format == GNUPLOT_SVG ? "svg" : "pngcairo", (long long)width, (long long)height,
                format == GNUPLOT_SVG ? letters : letters * 0.75);
    fputs(" background '#ffffff' noenhanced\nset encoding utf8\n", script);
}

double gnuplot_width(const char *text)
{
    double em = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        em += *p >= 0xe1                   ? 1.05 /* beyond Latin, Greek and such: as wide as high */
              : *p >= 0xc0                 ? 0.7
              : *p >= 0x80                 ? 0
              : strchr("iIjl.,:;'| ", *p)  ? 0.34
              : strchr("ftr-()[]/\\!", *p) ? 0.42
              : strchr("mwMW@%", *p)       ? 1
              : isupper(*p) || strchr("+=<>~^#&", *p) ? 0.8
                                                      : 0.65;
    return em;
}

void gnuplot_shorten(char *to, size_t size, const char *text, int longest, double room)
{
    int n = 0;
    size_t at = 0;
    bool fits = gnuplot_width(text) <= room;
    for (; text[at] && at + sizeof "…" < size; at++) {
        bool starts = ((unsigned char)text[at] & 0xc0) != 0x80;
        to[at] = 0;
        if (starts && (n == longest || (!fits && gnuplot_width(to) + 1.7 > room))) break;
        n += starts;
        to[at] = text[at];
    }
    snprintf(to + at, size - at, "%s", text[at] ? "…" : "");
}

double gnuplot_step(double range, double most)
{
    double least = range / most, power = pow(10, floor(log10(least)));
    return least <= power       ? power
           : least <= 2 * power ? 2 * power
           : least <= 5 * power ? 5 * power
                                : 10 * power;
}

void gnuplot_text(FILE *script, const char *text)
{
    json_t *valid = json_string(text); /* NULL: not UTF-8 */
    bool escaped = false;              /* gnuplot takes every digit behind an escape for a part of it */
    fputc('"', script);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < ' ' || *p == 127 || (*p > 127 && !valid))
            fputc('?', script), escaped = false;
        else if (*p < 128 && (isalpha(*p) || (isdigit(*p) && !escaped) || strchr(" ._-", *p)))
            fputc(*p, script), escaped = false;
        else
            fprintf(script, "\\%03o", *p), escaped = true;
    }
    fputc('"', script);
    json_decref(valid);
}

/* -d: no start-up files. */
static bool start(pid_t *pid, int in, int out, int complaints, char *err, size_t errlen)
{
    char *const argv[] = {"gnuplot", "-d", NULL};
    posix_spawn_file_actions_t files;
    const int own[3] = {in, out, complaints};
    int why = posix_spawn_file_actions_init(&files);
    if (why) return fail(err, errlen, "gnuplot: %s", strerror(why));
    for (int fd = 0; fd < 3 && !why; fd++) why = posix_spawn_file_actions_adddup2(&files, own[fd], fd);
    if (!why) why = posix_spawnp(pid, "gnuplot", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    return why == 0 ||
           fail(err, errlen, "gnuplot: %s%s", strerror(why), why == ENOENT ? ": is it installed?" : "");
}

/* gnuplot complains in several lines: the script's line, a caret below it, then the reason, which is the
 * last. */
static void last_line(FILE *complaints, char *line, size_t size)
{
    char text[512];
    line[0] = 0;
    rewind(complaints);
    while (fgets(text, sizeof text, complaints)) {
        text[strcspn(text, "\n")] = 0;
        if (text[strspn(text, " \t^")]) snprintf(line, size, "%s", text + strspn(text, " \t"));
    }
}

/* cairo writes into a PDF when it was drawn; the same script is to give the same bytes. */
static void undate(char *bytes, size_t size)
{
    static const char date[] = "/CreationDate (D:", none[] = "19700101000000Z";
    char *at = memmem(bytes, size, date, sizeof date - 1);
    if (!at) return;
    at += sizeof date - 1;
    if (at + sizeof none < bytes + size) memcpy(at, none, sizeof none - 1);
}

/* Copies what gnuplot draws; its bytes, or -1 when picture does not take them. All is read even then, so that
 * gnuplot can end. */
static long long copy(int from, FILE *picture, char *err, size_t errlen)
{
    char buffer[1 << 16], *bytes = NULL;
    size_t size = 0;
    ssize_t n;
    FILE *all = open_memstream(&bytes, &size);
    if (!all) return fail(err, errlen, "out of memory"), -1;
    while ((n = read(from, buffer, sizeof buffer)) != 0 && (n > 0 || errno == EINTR))
        if (n > 0) fwrite(buffer, 1, (size_t)n, all); /* a failed write sticks to the stream */
    bool good = n == 0 || fail(err, errlen, "gnuplot: %s", strerror(errno));
    if (!close_memory(all, &bytes)) good = fail(err, errlen, "out of memory");
    if (good && size) undate(bytes, size);
    if (good && fwrite(bytes, 1, size, picture) != size) good = fail(err, errlen, "%s", strerror(errno));
    free(bytes);
    return good ? (long long)size : -1;
}

bool gnuplot_draw(FILE *script, FILE *picture, char *err, size_t errlen)
{
    pid_t pid;
    int pipe_of[2], status = 0;
    FILE *complaints = tmpfile();
    if (!complaints || fflush(script) || ferror(script) || lseek(fileno(script), 0, SEEK_SET) < 0 ||
        pipe2(pipe_of, O_CLOEXEC)) {
        fail(err, errlen, "gnuplot: a temporary file or pipe: %s", strerror(errno));
        if (complaints) fclose(complaints);
        return false;
    }
    bool started = start(&pid, fileno(script), pipe_of[1], fileno(complaints), err, errlen);
    close(pipe_of[1]);
    long long bytes = started ? copy(pipe_of[0], picture, err, errlen) : -1;
    close(pipe_of[0]);
    while (started && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    bool good = started && bytes >= 0;
    if (good && (status != 0 || bytes == 0)) {
        char said[400];
        last_line(complaints, said, sizeof said);
        good = fail(err, errlen, "gnuplot: %s", *said ? said : status ? "it ended badly" : "it drew nothing");
    }
    fclose(complaints);
    return good;
}
