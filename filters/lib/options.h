/* options - a program's command line as tables: name, kind, where the value goes. */
#ifndef LIB_OPTIONS_H
#define LIB_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* One option. A setting can change the result, so it is recorded in the stream's begin header. */
enum option_kind {
    OPT_FLAG,   /* bool *, no argument, sets true */
    OPT_INT,    /* int64_t *, within [low, high] */
    OPT_REAL,   /* double *, within [low, high]; NaN before that: not given */
    OPT_TEXT,   /* const char ** */
    OPT_CHOICE, /* const char **, one of `choices`, separated by | */
    OPT_SIZE,   /* struct size *, WIDTHxHEIGHT */
    OPT_LIST,   /* struct text_list *, may be given several times */
};
struct size {
    int64_t width, height;
};
struct text_list {
    int count;
    const char *item[64];
};
struct option_spec {
    const char *name; /* long name; the table ends with a NULL */
    char letter;      /* or 0 */
    enum option_kind kind;
    void *dest;
    double low, high; /* both 0: the kind's whole range */
    const char *choices;
    bool setting;
};

/* Options of several tables, of which some may be NULL; at most 64 in all. --help (-h) and --version need
 * no entry, and end the parsing where they occur. Wrong usage ends the program. getopt's optind is left at the
 * first operand. */
enum options_got { OPTIONS_GOOD, OPTIONS_HELP, OPTIONS_VERSION };
enum options_got options_parse(int argc, char **argv, const struct option_spec *const *tables, int count);

/* With unfit set it is wrong usage, for that reason, that one of these options stood on the command line, whatever its
 * value; names: separated by |. */
void options_unfit(const char *names, bool unfit, const char *why);
/* With idle set a line on stderr says that such an option does nothing, and why. For what a script may well pass always. */
void options_idle(const char *names, bool idle, const char *why);

/* A new object: the present values of those that are settings, by name. Text that is not UTF-8 is wrong
 * usage. */
json_t *options_settings(const struct option_spec *const *tables, int count);

#endif
