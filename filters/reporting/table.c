#include "filters/reporting/table.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/columns.h"
#include "formats/error.h"
#include "formats/io.h"
#include "formats/json_file.h"
#include "formats/path.h"
#include "formats/safetensors.h"

/* ---- reading ------------------------------------------------------------------------------------------- */

static struct safetensors *open_file(const char *folder, const char *name, char *err, size_t errlen)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return fail(err, errlen, "%s: the path is too long", folder), NULL;
    return safetensors_open(path, err, errlen);
}

static json_t *header(const struct safetensors *s, const char *field)
{
    const char *text = json_string_value(json_object_get(s->metadata, field));
    return text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
}

/* The kept adapter's: another may have had a loss that is less by a hair. */
static bool add_best(json_t *row, const char *folder, char *err, size_t errlen)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/best.safetensors", folder);
    enum path_kind kind = path_kind(path, err, errlen);
    if (kind == PATH_ABSENT) return true;
    if (kind == PATH_UNKNOWN) return false;
    struct safetensors *s = safetensors_open(path, err, errlen);
    json_t *said = s ? header(s, "sluice") : NULL, *loss = json_object_get(said, "val_loss");
    json_t *step = json_object_get(said, "step");
    bool good = json_is_number(loss) && json_is_integer(step);
    if (s && !good) fail(err, errlen, "%s: its header tells no step and validation loss", path);
    if (good) json_object_set(row, "best_val_loss", loss), json_object_set(row, "best_step", step);
    json_decref(said);
    safetensors_close(s);
    return good;
}

/* How much lower the best evaluation was than the first, and the standard error of that over their triples,
 * which are the same: mean and standard deviation / √n of the differences. */
static bool add_gain(json_t *row, const char *folder, char *err, size_t errlen)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    json_t *first = NULL, *best = NULL;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    FILE *in = open_regular(path, err, errlen);
    if (!in) return false;
    ssize_t n_text;
    while ((n_text = read_text_line(in, &text, &size)) > 0) {
        json_t *line = strstr(text, "\"val_losses\"") ? json_loads(text, 0, NULL) : NULL;
        json_t *losses = json_object_get(line, "val_losses");
        if (losses && !first) first = json_incref(losses);
        if (losses && json_equal(json_object_get(line, "step"), json_object_get(row, "best_step"))) {
            json_decref(best);
            best = json_incref(losses);
        }
        json_decref(line);
    }
    if (n_text < 0) fail(err, errlen, "%s: %s", path, strerror(errno));
    free(text);
    fclose(in);
    size_t n = n_text < 0 ? 0 : json_array_size(first);
    if (n > 1 && json_array_size(best) == n) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < n; i++)
            sum += json_number_value(json_array_get(first, i)) - json_number_value(json_array_get(best, i));
        double mean = sum / (double)n;
        for (size_t i = 0; i < n; i++) {
            double d = json_number_value(json_array_get(first, i)) -
                       json_number_value(json_array_get(best, i)) - mean;
            squares += d * d;
        }
        json_object_set_new(row, "gain", json_real(mean));
        json_object_set_new(row, "gain_se", json_real(sqrt(squares / (double)(n - 1) / (double)n)));
    }
    json_decref(first);
    json_decref(best);
    return n_text == 0;
}

/* Seconds a step, over all of the run's resumes, and joules where cards counted them. */
static bool add_speed(json_t *row, const char *folder, char *err, size_t errlen)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/speed.json", folder);
    enum path_kind kind = path_kind(path, err, errlen);
    if (kind == PATH_ABSENT) return true;
    json_t *speed = kind == PATH_UNKNOWN ? NULL : json_file_read(path, 1 << 16, err, errlen);
    if (!speed) return false;
    double steps = json_number_value(json_object_get(speed, "steps"));
    if (steps > 0)
        json_object_set_new(row, "step_s",
                            json_real(json_number_value(json_object_get(speed, "seconds")) / steps));
    double metered = json_number_value(json_object_get(speed, "metered_steps"));
    if (metered > 0)
        json_object_set_new(row, "step_j",
                            json_real(json_number_value(json_object_get(speed, "joules")) / metered));
    json_decref(speed);
    return true;
}

json_t *table_config(const char *folder, char *err, size_t errlen)
{
    struct safetensors *s = open_file(folder, "state.safetensors", err, errlen);
    json_t *config = s ? header(s, "config") : NULL;
    if (s && !config) fail(err, errlen, "%s: its header is not a training state's", s->path);
    safetensors_close(s);
    return config;
}

static void add_devices(json_t *row, const struct safetensors *state)
{
    json_t *bases = header(state, "bases");
    json_object_set_new(row, "computed_on", json_is_array(bases) ? json_incref(bases) : json_array());
    json_decref(bases);
}

json_t *table_row(const char *name, const char *folder, char *err, size_t errlen)
{
    struct safetensors *s = open_file(folder, "state.safetensors", err, errlen);
    if (!s) return NULL;
    const struct safetensors_entry *values = safetensors_find(s, "values");
    json_t *config = header(s, "config"), *step = header(s, "step"), *finished = header(s, "finished");
    json_t *adapter = json_object_get(config, "adapter"), *objective = json_object_get(config, "objective");
    json_t *row = NULL;
    if (values && json_is_string(json_object_get(adapter, "variant")) && json_is_string(objective) &&
        json_is_integer(step) && json_is_integer(finished))
        row = json_pack("{s:s, s:O, s:O, s:I, s:n, s:O, s:b, s:n, s:n, s:n, s:n}", "run", name, "adapter",
                        adapter, "objective", objective, "parameters",
                        (json_int_t)tensor_count(&values->shape), "step_s", "steps", step, "finished",
                        json_integer_value(finished) != 0, "best_val_loss", "best_step", "gain", "gain_se");
    if (!row) fail(err, errlen, "%s: its header is not a training state's", s->path);
    if (row && (!add_best(row, folder, err, errlen) || !add_gain(row, folder, err, errlen) ||
                !add_speed(row, folder, err, errlen)))
        json_decref(row), row = NULL;
    if (row) add_devices(row, s);
    json_decref(config);
    json_decref(step);
    json_decref(finished);
    safetensors_close(s);
    return row;
}

/* ---- printing ------------------------------------------------------------------------------------------ */

/* standard:rank=16,alpha=16, as --adapter takes it; and its targets, when not all are. */
static void put_adapter(char *to, size_t size, const json_t *a)
{
    const char *name;
    json_t *value, *settings = json_object_get(a, "settings"), *targets = json_object_get(a, "targets");
    snprintf(to, size, "%s:rank=%lld,alpha=%g", json_string_value(json_object_get(a, "variant")),
             (long long)json_integer_value(json_object_get(a, "rank")),
             json_number_value(json_object_get(a, "alpha")));
    json_object_foreach (settings, name, value)
        snprintf(to + strlen(to), size - strlen(to), ",%s=%g", name, json_number_value(value));
    for (size_t i = 0; i < json_array_size(targets) && json_array_size(targets) < 4; i++)
        snprintf(to + strlen(to), size - strlen(to), "%s%s", i ? "," : " ",
                 json_string_value(json_array_get(targets, i)));
}

/* 16515072: 16,515,072 */
static void put_count(char *to, size_t size, int64_t n)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%" PRId64, n);
    *to = 0;
    for (int i = 0; i < length; i++)
        snprintf(to + strlen(to), size - strlen(to), "%s%c", i && (length - i) % 3 == 0 ? "," : "",
                 digits[i]);
}

/* The number as it is written, or - when there is none. */
__attribute__((format(printf, 1, 0))) static json_t *known(const char *fmt, const json_t *number)
{
    return json_is_number(number) ? json_sprintf(fmt, json_number_value(number)) : json_string("-");
}

static json_t *cells(const json_t *row)
{
    char adapter[512], parameters[64];
    json_t *at = json_object_get(row, "best_step"), *gain = json_object_get(row, "gain");
    put_adapter(adapter, sizeof adapter, json_object_get(row, "adapter"));
    put_count(parameters, sizeof parameters, json_integer_value(json_object_get(row, "parameters")));
    return json_pack("[O, s, s, o, o, o, o, o]", json_object_get(row, "run"), adapter, parameters,
                     known("%.3g", json_object_get(row, "step_s")),
                     json_sprintf(json_is_true(json_object_get(row, "finished")) ? "%lld" : "%lld so far",
                                  (long long)json_integer_value(json_object_get(row, "steps"))),
                     known("%.4f", json_object_get(row, "best_val_loss")), known("%.0f", at),
                     json_is_null(gain) ? json_string("-")
                                        : json_sprintf("%.4f ± %.4f", json_number_value(gain),
                                                       json_number_value(json_object_get(row, "gain_se"))));
}

json_t *table_texts(const json_t *rows)
{
    json_t *texts = json_pack("[[s, s, s, s, s, s, s, s]]", "run", "adapter", "parameters", "s/step",
                              "stopped", "best val loss", "at step", "lower by");
    for (size_t i = 0; i < json_array_size(rows); i++)
        json_array_append_new(texts, cells(json_array_get(rows, i)));
    return texts;
}

/* run: to step 4 on X, then to 9 on Y */
static json_t *moves(const json_t *row, const json_t *bases)
{
    char text[2048];
    const size_t count = json_array_size(bases);
    snprintf(text, sizeof text, "%s:", json_string_value(json_object_get(row, "run")));
    for (size_t i = 0; i < count; i++) {
        const json_t *end = i + 1 < count ? json_object_get(json_array_get(bases, i + 1), "step")
                                          : json_object_get(row, "steps");
        const char *on = json_string_value(json_object_get(json_array_get(bases, i), "on"));
        const size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s to step %lld on %s", i ? ", then" : "",
                 (long long)json_integer_value(end), on ? on : "what it does not tell");
    }
    snprintf(text + strlen(text), sizeof text - strlen(text),
             "; not the bytes that one of them alone gives.");
    return json_string(text);
}

/* Whether a run has ended, and its best evaluation is that before the first step. */
static bool untrained(const json_t *row)
{
    const json_t *at = json_object_get(row, "best_step");
    return json_is_true(json_object_get(row, "finished")) && json_is_integer(at) && !json_integer_value(at);
}

json_t *table_notes(const json_t *rows)
{
    json_t *texts = json_array(), *row;
    size_t i;
    json_array_foreach (rows, i, row) {
        const json_t *bases = json_object_get(row, "computed_on");
        if (json_array_size(bases) > 1) json_array_append_new(texts, moves(row, bases));
        if (untrained(row))
            json_array_append_new(texts, json_sprintf("%s: no evaluation was better than that before the "
                                                      "first step; its best adapter is the untrained one.",
                                                      json_string_value(json_object_get(row, "run"))));
    }
    return texts;
}

void table_print(FILE *out, const json_t *rows)
{
    json_t *texts = table_texts(rows), *notes = table_notes(rows);
    columns_print(out, texts, 2);
    for (size_t i = 0; i < json_array_size(notes); i++)
        fprintf(out, "%s%s\n", i ? "" : "\n", json_string_value(json_array_get(notes, i)));
    json_decref(texts);
    json_decref(notes);
}
