#include "filters/learning/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "formats/atomic.h"
#include "formats/crc32c.h"
#include "formats/error.h"
#include "formats/path.h"
#include "formats/safetensors.h"

static const char state_name[] = "state.safetensors", previous_name[] = "state.previous.safetensors";

static const char *in_folder(const struct run_folder *r, const char *name, char path[4096])
{
    snprintf(path, 4096, "%s/%s", r->folder, name);
    return path;
}

/* ---- the state file ------------------------------------------------------------------------------------ */

static bool get_number(json_t *metadata, const char *field, double *v)
{
    const char *text = json_string_value(json_object_get(metadata, field));
    char *end;
    if (!text) return false;
    *v = strtod(text, &end);
    return end != text && !*end;
}

/* Of the header's fields but for the checksum itself; the tensors follow, in the file's order. */
static uint32_t fields_crc(json_t *metadata)
{
    json_t *fields = json_copy(metadata);
    json_object_del(fields, "crc32c");
    char *text = json_dumps(fields, JSON_COMPACT | JSON_SORT_KEYS);
    uint32_t crc = text ? crc32c(0, text, strlen(text)) : 0;
    free(text);
    json_decref(fields);
    return crc;
}

/* Disks and copies lose bytes in silence, and any F32 would do as a moment. */
static bool intact(const struct safetensors *s, char *err, size_t errlen)
{
    unsigned char part[1 << 16];
    double saved = 0;
    uint32_t crc = fields_crc(s->metadata);
    for (int i = 0; i < s->count; i++)
        for (size_t at = 0, n; at < s->entry[i].bytes; at += n) {
            n = s->entry[i].bytes - at < sizeof part ? s->entry[i].bytes - at : sizeof part;
            if (!safetensors_read_part(s, &s->entry[i], at, part, n, err, errlen)) return false;
            crc = crc32c(crc, part, n);
        }
    return (get_number(s->metadata, "crc32c", &saved) && saved == crc) ||
           fail(err, errlen, "its bytes are not those that were saved");
}

/* Names the first field in which two configurations differ. */
static bool same_config(json_t *saved, json_t *now, char *err, size_t errlen)
{
    const char *key;
    json_t *value;
    json_t *both = json_copy(saved);
    bool same = true;
    json_object_update_missing(both, now);
    json_object_foreach (both, key, value) {
        json_t *a = json_object_get(saved, key), *b = json_object_get(now, key);
        if (!same || (a && b && json_equal(a, b))) continue;
        char *was = a ? json_dumps(a, JSON_ENCODE_ANY | JSON_COMPACT) : strdup("nothing");
        char *is = b ? json_dumps(b, JSON_ENCODE_ANY | JSON_COMPACT) : strdup("nothing");
        same =
            fail(err, errlen, "`%s` was %s, this command says %s: give the old command, or another --state",
                 key, was, is);
        free(was);
        free(is);
    }
    json_decref(both);
    return same;
}

/* What says nothing about a file. */
static bool lacking(int error)
{
    return error == ENOMEM || error == EMFILE || error == ENFILE;
}

/* false with *damaged set: the file is no good; without: it is, but belongs to another configuration. */
static bool read_state(struct run_folder *r, const char *path, bool *damaged, char *err, size_t errlen)
{
    char why[256] = "";
    double step = 0, position = 0, best = 0, worse = 0, metrics = 0, finished = 0;
    errno = 0;
    struct safetensors *s = safetensors_open(path, err, errlen);
    *damaged = s || !lacking(errno);
    if (!s) return false;
    const char *text = json_string_value(json_object_get(s->metadata, "config"));
    json_t *config = text ? json_loads(text, 0, NULL) : NULL;
    bool good =
        config && get_number(s->metadata, "step", &step) && get_number(s->metadata, "position", &position) &&
        get_number(s->metadata, "best", &best) && get_number(s->metadata, "worse", &worse) &&
        get_number(s->metadata, "metrics_bytes", &metrics) && get_number(s->metadata, "finished", &finished);
    if (!good) fail(why, sizeof why, "its header is not a training state's");
    if (good) good = intact(s, why, sizeof why);
    if (good && !same_config(config, r->config, why, sizeof why)) good = *damaged = false;

    const struct {
        const char *name;
        float *to;
    } part[] = {{"values", r->values}, {"m", r->m}, {"v", r->v}};
    for (int i = 0; good && i < 3; i++) {
        const struct safetensors_entry *e = safetensors_find(s, part[i].name);
        if (!e || !tensor_is(&e->shape, DT_F32, 1, r->size))
            good = fail(why, sizeof why, "its tensor `%s` is missing or has another shape", part[i].name);
        else
            good = safetensors_read(s, e, part[i].to, why, sizeof why);
    }
    off_t written = good && !fseeko(r->metrics, 0, SEEK_END) ? ftello(r->metrics) : -1;
    if (good && written >= 0 && written < (off_t)metrics)
        good = fail(why, sizeof why, "metrics.jsonl is shorter than the state says");
    else if (good && (written < 0 || fflush(r->metrics) || ftruncate(fileno(r->metrics), (off_t)metrics) ||
                      fseeko(r->metrics, 0, SEEK_END)))
        good = *damaged = fail(why, sizeof why, "metrics.jsonl: %s", strerror(errno));
    if (good) {
        const char *bases = json_string_value(json_object_get(s->metadata, "bases"));
        r->bases = bases ? json_loads(bases, 0, NULL) : NULL; /* states of before had none */
        r->step = r->saved = (int64_t)step;
        r->position = (int64_t)position;
        r->best = best;
        r->worse = (int64_t)worse;
        r->finished = finished != 0;
        r->resumed = true;
    }
    json_decref(config);
    safetensors_close(s);
    return good || fail(err, errlen, "%s: %s", path, why);
}

bool run_folder_judge(struct run_folder *r, double loss, double min_delta, int64_t patience)
{
    if (loss < r->best - min_delta) {
        r->best = loss;
        r->worse = 0;
        return true;
    }
    if (++r->worse >= patience && patience) r->finished = true;
    return false;
}

static bool write_speed(struct run_folder *r, char *err, size_t errlen)
{
    char path[4096];
    struct atomic_file a;
    if (!atomic_open(&a, in_folder(r, "speed.json", path), err, errlen)) return false;
    fprintf(a.f, "{\"steps\":%lld,\"seconds\":%.6f", (long long)r->timed_steps, r->seconds);
    if (r->metered_steps > 0)
        fprintf(a.f, ",\"metered_steps\":%lld,\"joules\":%.3f", (long long)r->metered_steps, r->joules);
    fprintf(a.f, "}\n");
    return atomic_commit(&a, err, errlen);
}

/* Whatever is wrong with that file, the run is none the worse: counting starts anew. */
static void read_speed(struct run_folder *r)
{
    char path[4096];
    json_t *speed = json_load_file(in_folder(r, "speed.json", path), 0, NULL);
    r->timed_steps = json_integer_value(json_object_get(speed, "steps"));
    r->seconds = json_number_value(json_object_get(speed, "seconds"));
    r->metered_steps = json_integer_value(json_object_get(speed, "metered_steps"));
    r->joules = json_number_value(json_object_get(speed, "joules"));
    json_decref(speed);
}

void run_folder_on(struct run_folder *r, const char *basis, char *warning, size_t warninglen)
{
    const size_t count = json_array_size(r->bases);
    const char *was = json_string_value(json_object_get(json_array_get(r->bases, count - 1), "on"));
    if (was && !strcmp(was, basis)) return;
    if (was)
        snprintf(
            warning + strlen(warning), warninglen - strlen(warning),
            "%sthe steps so far were computed on %s, those to come on %s: not the bytes that either gives alone",
            *warning ? "; " : "", was, basis);
    if (!r->bases) r->bases = json_array();
    json_array_append_new(r->bases, json_pack("{s:I, s:s}", "step", (json_int_t)r->step, "on", basis));
}

bool run_folder_save(struct run_folder *r, char *err, size_t errlen)
{
    char path[4096], previous[4096];
    char *config = json_dumps(r->config, JSON_COMPACT | JSON_SORT_KEYS);
    struct safetensors_item items[] = {{"values", tensor_of(DT_F32, r->values, 1, r->size)},
                                       {"m", tensor_of(DT_F32, r->m, 1, r->size)},
                                       {"v", tensor_of(DT_F32, r->v, 1, r->size)}};
    off_t written = -1;
    if (ferror(r->metrics) || fflush(r->metrics) || fsync(fileno(r->metrics)) ||
        (written = ftello(r->metrics)) < 0) {
        free(config);
        return fail(err, errlen, "metrics.jsonl: %s", strerror(errno));
    }
    json_t *metadata = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:s}", "config", config, "step",
        json_sprintf("%lld", (long long)r->step), "position", json_sprintf("%lld", (long long)r->position),
        "best", json_sprintf("%.17g", r->best), "worse", json_sprintf("%lld", (long long)r->worse),
        "metrics_bytes", json_sprintf("%lld", (long long)written), "finished", r->finished ? "1" : "0");
    free(config);
    char *bases = r->bases ? json_dumps(r->bases, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (bases) json_object_set_new(metadata, "bases", json_string(bases));
    free(bases);
    uint32_t crc = fields_crc(metadata);
    for (int i = 0; i < 3; i++) crc = crc32c(crc, items[i].t.data, tensor_bytes(&items[i].t));
    json_object_set_new(metadata, "crc32c", json_sprintf("%u", crc));
    in_folder(r, state_name, path);
    in_folder(r, previous_name, previous);
    if (rename(path, previous) && errno != ENOENT) {
        json_decref(metadata);
        return fail(err, errlen, "%s: %s", previous, strerror(errno));
    }
    bool good = safetensors_write(path, items, 3, metadata, err, errlen);
    json_decref(metadata);
    if (good) r->saved = r->step;
    return good && write_speed(r, err, errlen);
}

/* ---- the folder ---------------------------------------------------------------------------------------- */

bool run_folder_open(struct run_folder *r, const char *folder, json_t *config, int64_t size, char *warning,
                     size_t warninglen, char *err, size_t errlen)
{
    char path[4096];
    const char *const states[] = {state_name, previous_name};
    *r = (struct run_folder){.lock = -1, .saved = -1, .config = config, .best = INFINITY, .size = size};
    *warning = 0;
    if (strlen(folder) >= sizeof r->folder) return fail(err, errlen, "%s: the path is too long", folder);
    snprintf(r->folder, sizeof r->folder, "%s", folder);
    r->values = calloc((size_t)size, sizeof(float));
    r->m = calloc((size_t)size, sizeof(float));
    r->v = calloc((size_t)size, sizeof(float));
    if (!r->values || !r->m || !r->v) return fail(err, errlen, "out of memory");
    if (!make_folder(folder, err, errlen)) return false;
    r->lock = open(in_folder(r, ".lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (r->lock < 0) return fail(err, errlen, "%s: %s", path, strerror(errno));
    if (flock(r->lock, LOCK_EX | LOCK_NB))
        return fail(err, errlen, "%s: another train-step is at work in it", folder);
    r->metrics = fopen(in_folder(r, "metrics.jsonl", path), "a+");
    if (!r->metrics) return fail(err, errlen, "%s: %s", path, strerror(errno));

    atomic_sweep(folder);
    int damaged_states = 0;
    for (int i = 0; i < 2 && !r->resumed; i++) {
        bool damaged;
        enum path_kind kind = path_kind(in_folder(r, states[i], path), err, errlen);
        if (kind == PATH_UNKNOWN) return false;
        if (kind == PATH_ABSENT) continue;
        if (read_state(r, path, &damaged, err, errlen)) break;
        if (!damaged) return false;
        damaged_states++;
        snprintf(warning, warninglen, "%s; going on from the one before", err);
    }
    if (r->resumed) read_speed(r);
    if (!r->resumed && damaged_states)
        return false; /* whether to start afresh over them is not ours to decide */
    if (!r->resumed && (fflush(r->metrics) || ftruncate(fileno(r->metrics), 0)))
        return fail(err, errlen, "%s/metrics.jsonl: %s", folder, strerror(errno));
    return true;
}

void run_folder_metric(struct run_folder *r, json_t *line)
{
    if (!json_dumpf(line, r->metrics, JSON_COMPACT)) fputc('\n', r->metrics); /* errors stick in the stream */
}

bool run_folder_write_last(struct run_folder *r, struct adapter *a, char *err, size_t errlen)
{
    char path[4096];
    return adapter_write(a, in_folder(r, "last.safetensors", path), r->values, err, errlen);
}

bool run_folder_write_best(struct run_folder *r, struct adapter *a, char *err, size_t errlen)
{
    char path[4096];
    json_object_set_new(a->extra, "step", json_integer(r->step));
    json_object_set_new(a->extra, "val_loss", json_real(r->best));
    bool good = adapter_write(a, in_folder(r, "best.safetensors", path), r->values, err, errlen);
    json_object_del(a->extra, "step");
    json_object_del(a->extra, "val_loss");
    return good;
}

void run_folder_close(struct run_folder *r)
{
    if (r->metrics) fclose(r->metrics);
    if (r->lock >= 0) close(r->lock);
    json_decref(r->config);
    json_decref(r->bases);
    free(r->values);
    free(r->m);
    free(r->v);
}
