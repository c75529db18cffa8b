#include "filters/lib/messages.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filters/lib/filter.h"
#include "formats/clock.h"
#include "formats/plain.h"

static bool showing_progress; /* a progress line stands on the terminal, without its newline */

/* Text that is not UTF-8 gets a ? for each byte beyond ASCII. */
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

void message(const char *level, const char *key, const char *fmt, va_list ap)
{
    char text[1024], line[1536];
    vsnprintf(text, sizeof text, fmt, ap);
    progress_end();
    if (filter.log_json) {
        json_t *event = json_pack("{s:o, s:s, s:o*, s:o}", "program", json_text(filter.name), "level", level,
                                  "key", key ? json_text(key) : NULL, "message", json_text(text));
        char *dump = json_dumps(event, JSON_COMPACT | (isatty(2) ? JSON_ENSURE_ASCII : 0));
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

/* "45 s", "3 min 20 s", "2 h 5 min" */
static void time_text(char *to, size_t size, double seconds)
{
    long long s = (long long)(seconds + 0.5);
    if (s < 60)
        snprintf(to, size, "%lld s", s);
    else if (s < 3600)
        snprintf(to, size, "%lld min %lld s", s / 60, s % 60);
    else
        snprintf(to, size, "%lld h %lld min", s / 3600, s / 60 % 60);
}

/* Whether a line is to be shown now, and how long it has been since the first one was. */
static bool progress_due(double *passed)
{
    static double last, start;
    static int terminal = -1;
    double t = clock_seconds();
    if (terminal < 0) terminal = isatty(2) && !filter.feeds, start = t;
    *passed = t - start;
    if (!terminal || filter.log_json || t - last < 0.1) return false;
    last = t;
    return true;
}

/* left: seconds, below 0 where that is not known */
static void show_progress(const char *text, double passed, double left)
{
    char line[512], so_far[32], to_come[32];
    time_text(so_far, sizeof so_far, passed);
    time_text(to_come, sizeof to_come, left > 0 ? left : 0);
    snprintf(line, sizeof line, "%s: %s, %s%s%s%s", filter.name, text, so_far, left < 0 ? "" : ", ",
             left < 0 ? "" : to_come, left < 0 ? "" : " left");
    fputc('\r', stderr);
    put_plain(stderr, line);
    fputs("\033[K", stderr);
    showing_progress = true;
}

void progress(const char *fmt, ...)
{
    char text[256];
    double passed, left = -1;
    struct stat st;
    if (filter.own_progress || !progress_due(&passed)) return;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    n = n < (int)sizeof text ? n : (int)sizeof text - 1;
    snprintf(text + n, sizeof text - (size_t)n, ", %lld done, %.3g/s", (long long)filter.done,
             passed > 0 ? (double)filter.done / passed : 0);
    double at = (double)filter.before + filter.part * (double)(filter.bytes - filter.before);
    if (at > 0 && passed > 0 && !fstat(0, &st) && (double)st.st_size > at)
        left = passed * ((double)st.st_size / at - 1);
    show_progress(text, passed, left);
}

void progress_left(double seconds, const char *fmt, ...)
{
    char text[256];
    double passed;
    if (!progress_due(&passed)) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    show_progress(text, passed, seconds);
}

void progress_end(void)
{
    if (showing_progress) fputs("\r\033[K", stderr);
    showing_progress = false;
}
