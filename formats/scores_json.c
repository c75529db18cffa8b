#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/io.h"
#include "formats/scores_forms.h"

enum { MAX_FILE = 1 << 30, BLOCK = 1 << 20 }; /* bytes of JSON: far more than there are prompts to grade */

/* The whole file; NULL with the reason in err. */
static char *read_all(int fd, const char *path, size_t *size, char *err, size_t errlen)
{
    char *text = NULL, *grown;
    ssize_t got = 0;
    *size = 0;
    do {
        *size += (size_t)got;
        grown = *size < MAX_FILE ? realloc(text, *size + BLOCK) : NULL;
        if (grown) text = grown;
    } while (grown && (got = read_full(fd, text + *size, BLOCK)) > 0);
    if (grown && got == 0) return text;
    fail(err, errlen, "%s: %s", path,
         grown              ? strerror(errno)
         : *size < MAX_FILE ? "out of memory"
                            : "past 1 GiB");
    free(text);
    return NULL;
}

/* ---- JSON lines ---------------------------------------------------------------------------------------- */

/* A new text, a zero behind it, in which every NaN outside of strings is null. */
static char *without_nan(const char *text, size_t *size)
{
    char *out = malloc(*size + *size / 3 + 2), *to = out;
    bool quoted = false;
    if (!out) return NULL;
    for (size_t i = 0; i < *size; i++) {
        if (!quoted && *size - i >= 3 && !memcmp(text + i, "NaN", 3)) {
            memcpy(to, "null", 4);
            to += 4, i += 2;
            continue;
        }
        if (text[i] == '"') quoted = !quoted;
        *to++ = text[i];
        if (quoted && text[i] == '\\' && i + 1 < *size) *to++ = text[++i];
    }
    *to = 0;
    *size = (size_t)(to - out);
    return out;
}

static char *read_text(int fd, const char *path, size_t *size, char *err, size_t errlen)
{
    char *raw = read_all(fd, path, size, err, errlen), *text = raw ? without_nan(raw, size) : NULL;
    if (raw && !text) fail(err, errlen, "out of memory");
    free(raw);
    return text;
}

/* Texts that a JSON row lends, made from numbers if need be; freed together. */
struct borrowed {
    json_t *made[8];
    int count;
};

/* A field's text, or a whole number's; NULL when it is null or not there. *why when it is neither. */
static const char *text_of(json_t *line, const char *field, struct borrowed *b, const char **why)
{
    json_t *j = json_object_get(line, field);
    if (json_is_integer(j)) j = b->made[b->count++] = json_sprintf("%lld", (long long)json_integer_value(j));
    if (json_is_string(j)) return json_string_value(j);
    if (j && !json_is_null(j)) *why = field;
    return NULL;
}

/* A number, NaN when it is null or not there. */
static double number_of(const json_t *line, const char *field, const char **why)
{
    json_t *j = json_object_get(line, field);
    if (j && !json_is_null(j) && !json_is_number(j)) *why = field;
    return json_is_number(j) ? json_number_value(j) : NAN;
}

/* How a video was made and graded: what is an object, as `sample`'s settings are, and a few more. */
static json_t *settings_of(const json_t *line)
{
    static const char *const kept[] = {"fps", "vae", "text_encoder", "decode_tiling"};
    const char *name;
    json_t *value, *settings = json_object();
    json_object_foreach ((json_t *)line, name, value)
        if (json_is_object(value)) json_object_set(settings, name, value);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if ((value = json_object_get(line, kept[i]))) json_object_set(settings, kept[i], value);
    return settings;
}

/* Counts the line under the way in which it was made. Runs have few, one for each seed; should there be one
 * for each video, what comes after many is put under the last. */
static void count_way(struct variant *v, const json_t *line)
{
    enum { MANY = 100 };
    json_t *settings = settings_of(line), *way = NULL;
    bool found = false;
    size_t i;
    if (!json_array_size(v->ways)) json_object_update(v->about, settings);
    json_array_foreach (v->ways, i, way)
        if ((found = i + 1 == MANY || json_equal(json_object_get(way, "settings"), settings))) break;
    if (found)
        json_object_set_new(way, "outputs",
                            json_integer(json_integer_value(json_object_get(way, "outputs")) + 1));
    else
        json_array_append_new(v->ways, json_pack("{s:O, s:i}", "settings", settings, "outputs", 1));
    json_decref(settings);
}

/* Videos of captions that were made longer say so: what they were generated from is another text. */
static void note_upsampled(struct variant *v, const json_t *line)
{
    const char *prompt = json_string_value(json_object_get(line, "prompt")),
               *caption = json_string_value(json_object_get(line, "caption"));
    static const char field[] = "use_upsampled_captions";
    if (!caption || !json_is_object(json_object_get(line, "sample")) ||
        json_is_true(json_object_get(v->about, field)))
        return;
    json_object_set_new(v->about, field, json_boolean(prompt && *prompt && strcmp(prompt, caption)));
}

static bool add_line(struct scores *s, struct variant *v, json_t *line, char *why, size_t size)
{
    struct borrowed b = {0};
    const char *odd = NULL;
    json_t *sample = json_object_get(line, "sample");
    struct scores_row r = {.prompt = text_of(line, "prompt_id", &b, &odd),
                           .key = text_of(line, "key", &b, &odd),
                           .seed = text_of(line, "seed", &b, &odd),
                           .path = text_of(line, "path", &b, &odd),
                           .caption = text_of(line, "caption", &b, &odd),
                           .action = text_of(line, "action", &b, &odd),
                           .fields = line,
                           .sa = number_of(line, "sa", &odd),
                           .pc = number_of(line, "pc", &odd),
                           .sa_expected = number_of(line, "sa_expected", &odd),
                           .pc_expected = number_of(line, "pc_expected", &odd)};
    if (!r.key) r.key = r.path;
    if (!r.seed) r.seed = text_of(sample, "seed", &b, &odd);
    count_way(v, line);
    note_upsampled(v, line);
    bool good = odd ? fail(why, size, "its `%s` is of no use", odd) : scores_add(s, v, &r, why, size);
    while (b.count) json_decref(b.made[--b.count]);
    return good;
}

struct lines {
    const char *path, *at, *end;
    long long number; /* of the line read last, from 1 */
};

/* The next line that is not blank, a new object; NULL at the end, and with a reason in err
 * when it is none. */
static json_t *next_line(struct lines *l, char *err, size_t errlen)
{
    json_error_t e;
    for (err[0] = 0; l->at < l->end;) {
        const char *at = l->at, *end = memchr(at, '\n', (size_t)(l->end - at));
        if (!end) end = l->end;
        l->at = end + 1, l->number++;
        if (strspn(at, " \t\r") >= (size_t)(end - at)) continue;
        json_t *line = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, &e);
        if (json_is_object(line)) return line;
        fail(err, errlen, "%s: line %lld: %s", l->path, l->number, line ? "not a JSON object" : e.text);
        return json_decref(line), NULL;
    }
    return NULL;
}

static bool read_lines(struct scores *s, const char *name, const char *path, const char *text, size_t size,
                       char *err, size_t errlen)
{
    char why[256];
    struct lines l = {path, text, text + size, 0};
    struct variant *v = scores_variant(s, name, path, err, errlen);
    if (!v) return false;
    for (json_t *line; (line = next_line(&l, err, errlen));) {
        bool good = add_line(s, v, line, why, sizeof why);
        json_decref(line);
        if (!good) return fail(err, errlen, "%s: line %lld: %s", path, l.number, why);
    }
    return !err[0] && (v->count || fail(err, errlen, "%s: no scores", path));
}

/* The paths of a list of videos by key, a new object; how they were made into v. NULL: reason in err. */
static json_t *read_paths(const char *list, const char *text, size_t size, struct variant *v, char *err,
                          size_t errlen)
{
    struct lines l = {list, text, text + size, 0};
    bool scores_tell = json_array_size(v->ways) > 0;
    json_t *paths = json_object();
    for (json_t *line; (line = next_line(&l, err, errlen)); json_decref(line)) {
        struct borrowed b = {0};
        const char *odd = NULL, *path = text_of(line, "path", &b, &odd),
                   *key = text_of(line, "key", &b, &odd);
        if (!scores_tell) {
            count_way(v, line);
        } else if (!json_object_size(paths)) {
            json_t *settings = settings_of(line);
            json_object_update(v->about, settings);
            json_decref(settings);
        }
        if (path) json_object_set_new(paths, key ? key : path, json_string(path));
        while (b.count) json_decref(b.made[--b.count]);
    }
    if (!err[0]) return paths;
    json_decref(paths);
    return NULL;
}

bool scores_add_videos(struct scores *s, const char *operand, char *err, size_t errlen)
{
    const char *equals = strchr(operand, '='), *list = equals ? equals + 1 : operand;
    if (!equals) return fail(err, errlen, "%s: not of the form NAME=LIST.jsonl", operand);
    char *name = strndup(operand, (size_t)(equals - operand)), *text = NULL;
    char why[400];
    struct variant *v = name ? scores_need(s, name, why, sizeof why) : NULL;
    size_t size;
    int fd = v ? scores_open(list, err, errlen) : -1;
    if (!name)
        fail(err, errlen, "out of memory");
    else if (!v)
        fail(err, errlen, "%s: %s", operand, why);
    json_t *paths = fd >= 0 && (text = read_text(fd, list, &size, err, errlen))
                        ? read_paths(list, text, size, v, err, errlen)
                        : NULL;
    bool good = paths;
    for (size_t k = 0; paths && k < v->count; k++) {
        const char *path = json_string_value(json_object_get(paths, v->score[k].key));
        if (!path) continue;
        free(v->score[k].path);
        v->score[k].path = strdup(path);
        good = good && v->score[k].path;
    }
    if (paths && !good) fail(err, errlen, "out of memory");
    if (fd >= 0) close(fd);
    free(name);
    free(text);
    json_decref(paths);
    return good;
}

/* ---- published results --------------------------------------------------------------------------------- */

/* An item of a list as a row's key or prompt: its `key`, its `id`, or its place. */
static const char *name_of(json_t *prompt, size_t place, struct borrowed *b, const char **why)
{
    const char *name = text_of(prompt, "key", b, why);
    if (!name) name = text_of(prompt, "id", b, why);
    return name ? name : json_string_value(b->made[b->count++] = json_sprintf("%zu", place));
}

static bool read_variant(struct scores *s, const char *path, const char *name, json_t *given, json_t *prompts,
                         char *err, size_t errlen)
{
    static const char *const kept[] = {"label", "params_M", "step_s"};
    json_t *sa = json_object_get(given, "sa_per_prompt"), *pc = json_object_get(given, "pc_per_prompt");
    json_t *joint = json_object_get(given, "joint_per_prompt");
    size_t n = json_array_size(prompts);
    char why[256];
    if (!json_is_array(sa) || !json_is_array(pc))
        return fail(err, errlen, "%s: variant `%s` has no sa_per_prompt and pc_per_prompt", path, name);
    if (json_array_size(sa) != n || json_array_size(pc) != n || (joint && json_array_size(joint) != n))
        return fail(err, errlen, "%s: variant `%s`: its lists are not as long as `prompts`, which are %zu",
                    path, name, n);
    struct variant *v = scores_variant(s, name, path, err, errlen);
    if (!v) return false;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (json_object_get(given, kept[i]))
            json_object_set(v->about, kept[i], json_object_get(given, kept[i]));
    for (size_t i = 0; i < n; i++) {
        struct borrowed b = {0};
        const char *odd = NULL;
        json_t *prompt = json_array_get(prompts, i), *a = json_array_get(sa, i), *p = json_array_get(pc, i);
        struct scores_row r = {.key = name_of(prompt, i, &b, &odd),
                               .caption = text_of(prompt, "caption", &b, &odd),
                               .action = text_of(prompt, "action", &b, &odd),
                               .fields = prompt,
                               .sa = json_is_number(a) ? json_number_value(a) : NAN,
                               .pc = json_is_number(p) ? json_number_value(p) : NAN,
                               .sa_expected = NAN,
                               .pc_expected = NAN};
        bool good =
            odd ? fail(why, sizeof why, "its `%s` is of no use", odd) : scores_add(s, v, &r, why, sizeof why);
        if (good && joint && json_number_value(json_array_get(joint, i)) != (r.sa >= 4 && r.pc >= 4))
            good = fail(why, sizeof why, "joint_per_prompt is not what sa and pc of `%s` say", r.key);
        while (b.count) json_decref(b.made[--b.count]);
        if (!good) return fail(err, errlen, "%s: variant `%s`, prompt %zu: %s", path, name, i, why);
    }
    return n || fail(err, errlen, "%s: no scores", path);
}

static bool read_results(struct scores *s, const char *path, json_t *file, char *err, size_t errlen)
{
    json_t *variants = json_object_get(file, "variants"), *prompts = json_object_get(file, "prompts"), *given;
    const char *name;
    if (!json_is_array(prompts)) return fail(err, errlen, "%s: results without a list of `prompts`", path);
    if (!json_object_size(variants)) return fail(err, errlen, "%s: no scores", path);
    json_object_foreach (variants, name, given)
        if (!read_variant(s, path, name, given, prompts, err, errlen)) return false;
    if (!s->about) {
        s->about = json_copy(file);
        json_object_del(s->about, "prompts");
        json_object_del(s->about, "variants");
    }
    return true;
}

bool scores_read_json(struct scores *s, const char *name, const char *path, int fd, char *err, size_t errlen)
{
    size_t size;
    json_error_t e;
    bool good;
    char *text = read_text(fd, path, &size, err, errlen);
    if (!text) return false;
    json_t *file = json_loadb(text, size, JSON_DISABLE_EOF_CHECK, NULL);
    bool is_results = json_is_object(json_object_get(file, "variants"));
    json_decref(file);
    if (is_results) {
        file = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
        good = file ? name ? fail(err, errlen, "%s: results name their variants themselves, none is `%s`",
                                  path, name)
                           : read_results(s, path, file, err, errlen)
                    : fail(err, errlen, "%s: line %d: %s", path, e.line, e.text);
        json_decref(file);
    } else {
        char stem[4096];
        scores_stem(stem, sizeof stem, path);
        good = read_lines(s, name ? name : stem, path, text, size, err, errlen);
    }
    free(text);
    return good;
}
