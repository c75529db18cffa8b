/* The cleaning of Wan's prompts against ftfy and html (reference/make_prompt_clean.py), its own promises, and names of
 * HTML in order. */
#include "filters/nets/prompt_clean.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/html_entities.h"
#include "tests/cases.h"

/* What it becomes, as a JSON string for messages; the caller frees. */
static char *quoted(const char *text, size_t bytes)
{
    json_t *s = json_stringn_nocheck(text, bytes);
    char *out = json_dumps(s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    json_decref(s);
    return out;
}

static bool becomes(const char *text, size_t bytes, const char *want, size_t wanted, char **got)
{
    size_t n = 0;
    char *clean = prompt_clean(text, bytes, &n);
    bool same = clean && n == wanted && !memcmp(clean, want, n) && !clean[n];
    *got = quoted(clean ? clean : "", n);
    free(clean);
    return same;
}

static void test_reference(void)
{
    char path[4096], line[16384], *got;
    FILE *f = fopen(data_file(path, ".", "prompt_clean.jsonl"), "r");
    int count = 0, differ = 0;
    if (!ok(f != NULL, "the table is there")) return;
    for (; fgets(line, sizeof line, f); count++) {
        json_t *c = json_loads(line, JSON_ALLOW_NUL, NULL), *text = json_object_get(c, "text"),
               *clean = json_object_get(c, "clean");
        const char *why = json_string_value(json_object_get(c, "not"));
        bool same = becomes(json_string_value(text), json_string_length(text), json_string_value(clean),
                            json_string_length(clean), &got);
        char *is = quoted(json_string_value(text), json_string_length(text));
        if (why)
            ok(!same, "%s is not done, as the help says: %s stays %s", why, is, got);
        else if (!same)
            ok(false, "%s became %s, not %s", is, got, strstr(line, "\"clean\""));
        differ += why != NULL;
        free(got), free(is);
        json_decref(c);
    }
    fclose(f);
    ok(count >= 150 && differ <= 11, "%d texts, %d of them with what is not done", count, differ);
}

/* Bytes that are no UTF-8. */
static void test_odd(void)
{
    static const struct {
        const char *text, *clean;
    } odd[] = {{"a\xff"
                "b",
                "a\357\277\275b"},
               {"\xc3", "\357\277\275"},
               {"\xed\xa0\x80", "\357\277\275\357\277\275\357\277\275"}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char *got;
        bool good = becomes(odd[i].text, strlen(odd[i].text), odd[i].clean, strlen(odd[i].clean), &got);
        ok(good, "no UTF-8: %s", got);
        free(got);
    }
}

static bool sorted(const struct html_entity *e, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(e[i - 1].name, e[i].name) >= 0) return false;
    return true;
}

int main(void)
{
#define SORTED(table) sorted(table, sizeof table / sizeof *table)
    ok(SORTED(html_named) && SORTED(html_capital) && SORTED(html_bare),
       "names are in the order in which they are sought");
    test_reference();
    test_odd();
    return done();
}
