/* filter - what every program of the toolkit does the same way: the start, records in, records out.
 *
 * A program has one stdin and one stdout, so this keeps them for it. The shape of a main():
 *
 *   filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_RECORDS_OUT);
 *   ... usage_error() for options that do not go together ...
 *   filter_checked();
 *   ... open a device and a network, or die() ...
 *   struct record f = RECORD_INIT;
 *   while (filter_next(&f)) {
 *       if (!work(&f)) { filter_fail(&f, "%s", why); continue; }   names the key, counts it; --strict: stops
 *       filter_emit(&f);
 *   }
 *   return filter_finish();                                        the end header; a full disk shows up here
 *
 * Exit codes: 0 every record done; 1 something failed; 2 wrong usage, records to a terminal included. */
#ifndef LIB_FILTER_H
#define LIB_FILTER_H

#include "filters/lib/messages.h"
#include "filters/lib/options.h"
#include "formats/record.h"

enum filter_flags {
    FILTER_COMPUTE = 1,      /* takes --device --dtype --model --threads --profile */
    FILTER_RECORDS_OUT = 2,  /* stdout carries records: refuse a terminal */
    FILTER_TEXT_OUT = 4,     /* stdout carries text lines */
    FILTER_ARGUMENTS = 8,    /* operands allowed: filter.argc, filter.argv */
    FILTER_SEED = 16,        /* takes --seed without being a compute filter */
    FILTER_KEEP = 32,        /* takes --keep */
    FILTER_NEEDS_MODEL = 64, /* -m is required */
    FILTER_DEVICES = 128,    /* --device may name several, with commas between */
    FILTER_FP8 = 256,        /* --dtype may be fp8 */
};

/* The values of the common options. */
extern struct filter_state {
    const char *name;   /* the program's */
    const char *device; /* "auto", "cpu", "cuda", "cuda:N"; or with FILTER_DEVICES a list without "auto" */
    const char *dtype;  /* "", "bf16", "f32"; or with FILTER_FP8 "fp8" */
    const char *model;  /* or NULL */
    int64_t seed;       /* 42 */
    int64_t threads;    /* 0: all */
    bool profile;       /* print where the time went */
    bool strict, keep, log_json;
    bool
        feeds; /* the next program of a pipeline, and is no more than a part of its work: shows no progress */
    bool own_progress; /* progress_left() tells where it is, not the key of each record */
    bool no_memory;    /* the program is ending for want of it */
    int argc;          /* operands */
    char **argv;
    json_t *settings; /* for the begin header; a program may add to it before the first record */
    int64_t bytes;    /* of stdin that have been read, and before the record at hand */
    int64_t before;
    double part; /* of the record at hand that is done, 0 to 1; for progress() */
    int64_t done, failed;
} filter;

/* Parses and checks options; prints --help and --version; makes sure that descriptors 0, 1, 2 are open. */
void filter_start(int argc, char **argv, const char *help, const struct option_spec *options, unsigned flags);

/* To be called when the program's own checks of its options are done, before it reads or makes anything (but
 * what a check needs, as a model's configuration): with --check-options the program ends here. */
void filter_checked(void);

/* The next record of stdin, from the wire or from JSON lines; false at a clean end. A damaged stream ends the
 * program with exit code 1. A JSON line that is not a record is reported and counted, and the next one is
 * returned. */
bool filter_next(struct record *f);
/* From here on the next record is read while the caller works on the one that it has: for large ones, on their way to a
 * GPU. Not for programs that stop before the end, nor with filter_input_settings(). */
void filter_read_ahead(void);
/* Whether the next record begins to come within so many seconds, or a signal does; after the first filter_next(). */
bool filter_ready(double seconds);
/* finish is called before what is wrong with stdin is said: for what was begun with the records before. false: they were
 * all that was wanted; then nothing is said, and filter_next() is as at the end. */
void filter_on_trouble(bool (*finish)(void));
json_t *filter_input_settings(void);          /* of the stream that is read, borrowed; NULL: it has none */
void filter_emit(struct record *f);           /* write a record to stdout; counts it as done */
void filter_emit_line(json_t *object_stolen); /* write one JSON line; counts it as done */
void filter_emit_text(const char *line);      /* the same for a line given as text, without its newline */
int filter_finish(void);                      /* returns the exit code */

/* Does the work of every record of stdin, of up to n records at once, each in a thread of its own, and finishes them in
 * this thread, in the order in which they came: what comes out does not depend on n. No more than n are in memory, and
 * none waits for input that is not there. work: false with the reason in f->error. finish: is told what work returned;
 * NULL: emits the record, or reports the reason. */
void filter_side_by_side(int n, bool (*work)(struct record *f), void (*finish)(struct record *f, bool good));

/* Clips to decode at once: --threads, 64 at most; where that is 0, enough to feed a GPU: as many as there are
 * processors, but at most 8, and of so many bytes each what 1 GiB holds. */
int filter_clips_at_once(int64_t threads, int64_t bytes);

/* Reports with its key that a record failed, and counts it; with --strict this ends the program. */
#define filter_fail(f, ...) filter_fail_at(record_key(f), __VA_ARGS__)
/* The same for something that is not a record, such as a line of a file. key: its name, or NULL. */
void filter_fail_at(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* SIGTERM and SIGINT set io_interrupted and end filter_next(), for programs that save first. */
void filter_catch_term(void);

/* The record as a JSON line: key and every meta field. The caller owns it. */
json_t *filter_record_json(struct record *f);

/* Output dtype of a compute filter: F32 when --dtype f32, else BF16. */
enum dtype filter_dtype(void);
bool filter_fp8(void); /* --dtype fp8 */

#endif
