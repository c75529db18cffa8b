/* csv.c - libcsv pushes fields and rows; this turns it round, so that a program asks for the next row. */
#include "formats/csv.h"

#include <csv.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/listed.h"
#include "formats/io.h"

enum { BLOCK = 1 << 16 }; /* bytes that are read at once */

struct csv_state {
    struct csv_parser parser;
    int fd;
    char *block;
    size_t row, used, have, size; /* of block: where the row being read starts, what is read, filled, there */
    bool ended;                   /* the file: what block has is all */
    char last;                    /* the byte before block[used] */
    int64_t line;                 /* of that byte's successor, from 1 */

    /* the row being read */
    char *text; /* its fields, each with a 0 behind it */
    size_t length, room;
    size_t *start; /* where each field starts in text */
    int fields, slots;
    bool row_done, out_of_memory;
};

/* ---- what libcsv calls --------------------------------------------------------------------------------- */

static void on_field(void *bytes, size_t n, void *state)
{
    struct csv_state *s = state;
    if (s->length + n + 1 > s->room) {
        size_t room = 2 * (s->length + n + 1);
        char *grown = realloc(s->text, room);
        if (!grown) goto no_memory;
        s->text = grown, s->room = room;
    }
    if (s->fields == s->slots) {
        int slots = s->slots ? 2 * s->slots : 16;
        size_t *grown = realloc(s->start, (size_t)slots * sizeof *grown);
        if (!grown) goto no_memory;
        s->start = grown, s->slots = slots;
    }
    s->start[s->fields++] = s->length;
    if (n) memcpy(s->text + s->length, bytes, n);
    s->length += n;
    s->text[s->length++] = 0;
    return;
no_memory:
    s->out_of_memory = true;
}

static void on_row(int end, void *state)
{
    (void)end;
    ((struct csv_state *)state)->row_done = true;
}

static int no_space(unsigned char c)
{
    (void)c;
    return 0;
}

/* ---- one row ------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static bool refuse(struct csv *c, int64_t line, const char *fmt, ...)
{
    int at = snprintf(c->error, sizeof c->error, "line %lld: ", (long long)line);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->error + at, sizeof c->error - (size_t)at, fmt, ap);
    va_end(ap);
    return false;
}

static enum csv_got damaged(struct csv *c, int64_t line, const char *why)
{
    refuse(c, line, "%s", why);
    return CSV_DAMAGED;
}

static bool is_line_end(char c)
{
    return c == '\n' || c == '\r';
}

/* Moves n bytes on, at least 1, of which only the last may be a line end. */
static void move_on(struct csv_state *s, size_t n)
{
    char before = n > 1 ? s->block[s->used + n - 2] : s->last;
    s->used += n;
    s->last = s->block[s->used - 1];
    s->line += s->last == '\r' || (s->last == '\n' && before != '\r');
}

/* How many bytes there are up to the next line end, which is included; all n when there is none. */
static size_t up_to_line_end(const char *from, size_t n)
{
    const char *newline = memchr(from, '\n', n), *end = newline ? newline + 1 : from + n;
    const char *carriage = memchr(from, '\r', (size_t)(end - from));
    return (size_t)((carriage ? carriage + 1 : end) - from);
}

/* More bytes in block behind those of the row being read, all of which stay; 0 at the end of the file, -1
 * with errno. */
static int refill(struct csv_state *s)
{
    if (s->ended) return 0;
    s->used -= s->row, s->have -= s->row;
    if (s->have) memmove(s->block, s->block + s->row, s->have);
    s->row = 0;
    if (s->size - s->have < BLOCK / 2) {
        size_t size = s->size ? 2 * s->size : BLOCK;
        char *grown = realloc(s->block, size);
        if (!grown) return -1;
        s->block = grown, s->size = size;
    }
    size_t room = s->size - s->have;
    ssize_t got = read_full(s->fd, s->block + s->have, room);
    if (got < 0) return -1;
    s->have += (size_t)got, s->ended = (size_t)got < room;
    return got > 0;
}

static bool start_parser(struct csv_state *s)
{
    if (csv_init(&s->parser, CSV_STRICT | CSV_STRICT_FINI)) return false;
    csv_set_space_func(&s->parser, no_space); /* libcsv would trim */
    csv_set_blk_size(&s->parser, BLOCK);      /* by which a field's room grows */
    return true;
}

/* Leaves the row at the end of the line that it starts on. Of what follows nothing is known to be its own;
 * and as a line with an odd number of quotes ends the search for the closing one, nothing is read three
 * times. */
static enum csv_got bad_row(struct csv *c, int64_t line, const char *why)
{
    struct csv_state *s = c->state;
    if (s->out_of_memory || csv_error(&s->parser) == CSV_ENOMEM) return damaged(c, line, "out of memory");
    if (line == c->line)
        refuse(c, line, "%s", why);
    else
        refuse(c, line, "%s; the row starts in line %lld", why, (long long)c->line);
    csv_free(&s->parser);
    if (!start_parser(s)) return damaged(c, line, "out of memory");
    s->used = s->row, s->line = c->line, s->last = '\n';
    while (!(s->used > s->row && is_line_end(s->last))) {
        if (s->used == s->have) {
            s->row = s->used;
            int more = refill(s);
            if (more < 0) return damaged(c, s->line, strerror(errno));
            if (!more) break;
        }
        move_on(s, up_to_line_end(s->block + s->used, s->have - s->used));
    }
    return CSV_BAD_ROW;
}

/* A row of any shape into text and start. The parser gets the block up to the next line end at a time, so
 * that a call completes one row at most. */
static enum csv_got read_row(struct csv *c)
{
    struct csv_state *s = c->state;
    size_t bytes = 0;
    s->fields = 0, s->length = 0, s->row_done = false, s->row = s->used;
    while (!s->row_done) {
        int more = s->used < s->have ? 1 : refill(s);
        if (more < 0) return damaged(c, s->line, strerror(errno));
        if (!more) {
            if (csv_fini(&s->parser, on_field, on_row, s))
                return bad_row(c, c->line, "the file ends inside a quoted field of the row that starts here");
            if (s->out_of_memory) return damaged(c, c->line, "out of memory");
            return s->row_done ? CSV_ROW : CSV_END;
        }
        const char *from = s->block + s->used;
        if (bytes == 0) {
            if (is_line_end(*from)) {
                move_on(s, 1);
                s->row = s->used;
                continue;
            }
            c->line = s->line;
        }
        size_t n = up_to_line_end(from, s->have - s->used);
        if ((bytes += n) > CSV_MAX_ROW)
            return bad_row(c, c->line,
                           "a row of more than 16 MiB starts here: a quote that is never closed?");
        if (csv_parse(&s->parser, from, n, on_field, on_row, s) != n)
            return bad_row(c, s->line, "a quote inside an unquoted field, or no comma after a closing quote");
        if (s->out_of_memory) return damaged(c, s->line, "out of memory");
        move_on(s, n);
    }
    return CSV_ROW;
}

/* The shortest forms of code points up to 10FFFF, surrogates left out (RFC 3629). */
static bool is_utf8(const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    while (p < end) {
        uint64_t eight;
        if (end - p >= 8 && (memcpy(&eight, p, 8), !(eight & 0x8080808080808080))) {
            p += 8;
            continue;
        }
        int more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2 : 3;
        if (more == 3 && (*p < 0xf0 || *p > 0xf4)) return false;
        if (end - p <= more) return false;
        uint8_t low = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80; /* of the second byte */
        uint8_t high = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf;
        for (p++; more > 0; more--, p++, low = 0x80, high = 0xbf)
            if (*p < low || *p > high) return false;
    }
    return true;
}

/* Its fields as strings, or false: it cannot be a row of text. */
static bool point_at_fields(struct csv *c)
{
    struct csv_state *s = c->state;
    if (!is_utf8(s->text, s->length)) return refuse(c, c->line, "not UTF-8");
    if (s->fields != c->columns)
        return refuse(c, c->line, "%d fields under %d columns", s->fields, c->columns);
    char *next = s->text;
    for (int i = 0; i < s->fields; i++, next += strlen(next) + 1) c->field[i] = s->text + s->start[i];
    return next == s->text + s->length || refuse(c, c->line, "a zero byte");
}

enum csv_got csv_next(struct csv *c)
{
    enum csv_got got = read_row(c);
    return got == CSV_ROW && !point_at_fields(c) ? CSV_BAD_ROW : got;
}

/* ---- the header ---------------------------------------------------------------------------------------- */

static bool same_name(const char *a, const char *b)
{
    while (*a && (*a == *b || (*a == ' ' && *b == '_') || (*a == '_' && *b == ' '))) a++, b++;
    return *a == *b;
}

int csv_column(const struct csv *c, const char *name)
{
    for (int i = 0; i < c->columns; i++)
        if (same_name(c->column[i], name)) return i;
    return -1;
}

static bool read_header(struct csv *c)
{
    struct csv_state *s = c->state;
    if (refill(s) > 0 && s->have >= 3 && !memcmp(s->block, "\xef\xbb\xbf", 3)) s->used = 3;
    enum csv_got got = read_row(c);
    if (got == CSV_END) damaged(c, 1, "no header: the file is empty");
    if (got != CSV_ROW) return false;

    c->columns = s->fields;
    c->column = calloc((size_t)s->fields, sizeof *c->column);
    c->field = calloc((size_t)s->fields, sizeof *c->field);
    if (!c->column || !c->field) return refuse(c, 1, "out of memory");
    if (!point_at_fields(c)) return false;
    for (int i = 0; i < c->columns; i++)
        if (!(c->column[i] = strdup(c->field[i]))) return refuse(c, 1, "out of memory");
    for (int i = 0; i < c->columns; i++) /* nameless columns are common, and harmless */
        if (*c->column[i] && csv_column(c, c->column[i]) != i)
            return refuse(c, c->line, "column `%s` is there twice", c->column[i]);
    return true;
}

struct csv *csv_open(int fd, char *err, size_t errlen)
{
    struct csv *c = calloc(1, sizeof *c);
    struct csv_state *s = calloc(1, sizeof *s);
    if (!c || !s || !start_parser(s)) {
        free(c), free(s);
        fail(err, errlen, "out of memory");
        return NULL;
    }
    s->fd = fd, s->line = 1, c->state = s;
    if (read_header(c)) return c;
    fail(err, errlen, "%s", c->error);
    csv_close(c);
    return NULL;
}

void csv_close(struct csv *c)
{
    if (!c) return;
    for (int i = 0; i < c->columns && c->column; i++) free(c->column[i]);
    csv_free(&c->state->parser);
    free(c->state->block), free(c->state->text), free(c->state->start), free(c->state);
    free(c->column), free(c->field), free(c);
}

bool csv_need(const struct csv *c, const char *name, int *at, char *err, size_t errlen)
{
    struct listed l = listed_start(name);
    if ((*at = csv_column(c, name)) >= 0) return true;
    for (int i = 0; i < c->columns; i++)
        if (*c->column[i]) listed_add(&l, c->column[i]);
    return fail(err, errlen, "line %lld: no column `%s`: %s", (long long)c->line, name, listed_end(&l));
}

bool csv_missing(const char *field)
{
    static const char *const missing[] = {"",     "#N/A",   "#N/A N/A", "#NA",  "-1.#IND", "-1.#QNAN", "-NaN",
                                          "-nan", "1.#IND", "1.#QNAN",  "<NA>", "N/A",     "NA",       "NULL",
                                          "NaN",  "None",   "n/a",      "nan",  "null"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        if (!strcmp(field, missing[i])) return true;
    return false;
}

bool csv_number(const char *field, double *value)
{
    char *end;
    double v = strtod(field, &end);
    if (!*field || *end || field[strspn(field, "0123456789+-.eE")] || !isfinite(v)) return false;
    *value = v;
    return true;
}

void csv_put(FILE *f, const char *field)
{
    bool quoted = strpbrk(field, ",\"\r\n") != NULL;
    if (quoted) putc('"', f);
    for (; *field; field++) {
        if (*field == '"') putc('"', f);
        putc(*field, f);
    }
    if (quoted) putc('"', f);
}
