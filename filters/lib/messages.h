/* messages - stderr: lines for people or, with --log-json, JSON lines for programs; the progress line. */
#ifndef LIB_MESSAGES_H
#define LIB_MESSAGES_H

#include <stdarg.h>

/* "program: key: message"; key: of the record concerned, or NULL. At most 1,023 bytes of text. */
void say(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));         /* exit 1 */
void usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn)); /* exit 2 */
/* The common part of these three. level: "info", "error" or "fatal"; only JSON lines carry it. */
void message(const char *level, const char *key, const char *fmt, va_list ap);

/* Shows on a terminal's stderr what is being done, e.g. progress("step %d of %d", i, n), with the records done, and the
 * time left where stdin is a file (filter.part tells of the record at hand). Throttled. The line stays until the next
 * message, or the end. A program that computes nothing and feeds another one shows none. */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same where the caller knows how many seconds are left, of something else than records. */
void progress_left(double seconds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void progress_end(void);

#endif
