#include "filters/lib/messages.h"

#include <jansson.h>
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
    double at = (double)filter.bytes; /* when stdin is a file, its size tells how much is left */
    if (filter.done > 0 && at > 0 && !fstat(0, &st) && (double)st.st_size > at)
        snprintf(left, sizeof left, ", %.0f s left", passed * ((double)st.st_size / at - 1));
    snprintf(line, sizeof line, "%s: %s, %lld done, %.3g/s, %.0f s%s", filter.name, text,
             (long long)filter.done, passed > 0 ? (double)filter.done / passed : 0, passed, left);
    fputc('\r', stderr);
    put_plain(stderr, line);
    fputs("\033[K", stderr);
    showing_progress = true;
}

void progress_end(void)
{
    if (showing_progress) fputs("\r\033[K", stderr);
    showing_progress = false;
}
