/* messages - what programs say on stderr, to people or, with --log-json, as JSON lines; the progress line. */
#ifndef LIB_MESSAGES_H
#define LIB_MESSAGES_H

#include <stdarg.h>

/* "program: key: message"; key: what it is about, or NULL. At most 1,023 bytes of text. */
void say(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));         /* exit 1 */
void usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn)); /* exit 2 */
/* What these three say it with. level: "info", "error" or "fatal", which only a JSON line tells. */
void message(const char *level, const char *key, const char *fmt, va_list ap);

/* The progress line on a terminal's stderr: what is being done now, e.g. ("step %d of %d", i, n). Throttled.
 * It stands until the next message, or the end. */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_end(void);

#endif
