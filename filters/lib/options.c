#include "filters/lib/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/messages.h"
#include "formats/listed.h"

enum { MAX = 64 };
static const char *given[MAX]; /* the names of the options on the command line, each once */
static int given_count;

static bool is_given(const char *name, size_t length)
{
    for (int i = 0; i < given_count; i++)
        if (strlen(given[i]) == length && !strncmp(given[i], name, length)) return true;
    return false;
}

static void set_option(const struct option_spec *o, const char *value)
{
    char *end;
    errno = 0;
    if (!is_given(o->name, strlen(o->name))) given[given_count++] = o->name;
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
        struct listed l = listed_start(value);
        listed_words(&l, o->choices);
        usage_error("--%s is one of %s, not `%s`%s", o->name, o->choices, value, listed_hint(&l));
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
    case OPT_REAL: return isnan(*(double *)o->dest) ? json_null() : json_real(*(double *)o->dest);
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

/* A long option that is none, or has a value that it does not take. */
static void no_option(const char *given, const struct option *longs)
{
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(given, "="), given);
    struct listed l = listed_start(name);
    for (; longs->name; longs++) {
        char known[64];
        snprintf(known, sizeof known, "--%s", longs->name);
        if (!strcmp(known, name)) usage_error("%s takes no value", name);
        listed_add(&l, known);
    }
    usage_error("no option %s%s", name, listed_hint(&l));
}

enum options_got options_parse(int argc, char **argv, const struct option_spec *const *tables, int count)
{
    enum { HELP = 1000, VERSION, FIRST };
    const struct option_spec *known[MAX];
    struct option longs[MAX + 3];
    char letters[2 * MAX + 3] = ":h";
    int n = 0, at = 2;
    for (int t = 0; t < count; t++)
        for (const struct option_spec *o = tables[t]; o && o->name; o++) {
            assert(n < MAX && o->letter != 'h');
            bool argument = o->kind != OPT_FLAG;
            longs[n] = (struct option){o->name, argument, NULL, FIRST + n};
            if (o->letter) {
                letters[at++] = o->letter;
                if (argument) letters[at++] = ':';
                letters[at] = 0;
            }
            known[n++] = o;
        }
    longs[n] = (struct option){"help", 0, NULL, HELP};
    longs[n + 1] = (struct option){"version", 0, NULL, VERSION};
    longs[n + 2] = (struct option){0};

    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (c == HELP || c == 'h') return OPTIONS_HELP;
        if (c == VERSION) return OPTIONS_VERSION;
        if (c == ':') usage_error("%s wants a value", argv[optind - 1]);
        if (c == '?') {
            if (optopt && optopt < 256) usage_error("no option -%c", optopt);
            no_option(argv[optind - 1], longs);
        }
        for (int i = 0; i < n; i++)
            if (c == FIRST + i || c == known[i]->letter) set_option(known[i], optarg);
    }
    return OPTIONS_GOOD;
}

static void tell_given(const char *names, bool wrong, const char *why)
{
    for (size_t n; *names; names += n + (names[n] == '|')) {
        n = strcspn(names, "|");
        if (!is_given(names, n)) continue;
        if (wrong) usage_error("--%.*s: %s", (int)n, names, why);
        say(NULL, "--%.*s does nothing: %s", (int)n, names, why);
    }
}

void options_unfit(const char *names, bool unfit, const char *why)
{
    if (unfit) tell_given(names, true, why);
}

void options_idle(const char *names, bool idle, const char *why)
{
    if (idle) tell_given(names, false, why);
}

json_t *options_settings(const struct option_spec *const *tables, int count)
{
    json_t *settings = json_object();
    for (int t = 0; t < count; t++)
        for (const struct option_spec *o = tables[t]; o && o->name; o++)
            if (o->setting && json_object_set_new(settings, o->name, option_json(o)))
                usage_error("--%s is not UTF-8", o->name);
    return settings;
}
