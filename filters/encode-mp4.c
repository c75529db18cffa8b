/* encode-mp4 - frames to mp4 files, and a list of them.
 *
 *   stdin   video U8 [F,H,W,3] RGB, H and W even
 *   stdout  JSON lines: the record's key and meta, with path and fps of the file written */
#include <stdlib.h>
#include <string.h>

#include "filters/lib/filter.h"
#include "formats/atomic.h"
#include "formats/made.h"
#include "formats/mp4.h"
#include "formats/sheet.h"

static const char help[] =
    "encode-mp4 - frames to mp4 files\n"
    "usage: encode-mp4 -o DIR [options] <videos >list.jsonl\n"
    "  -o, --output DIR     where KEY.mp4 goes; made if need be       required\n"
    "      --fps N          frames a second; meta.fps, which is the source's, is ignored\n"
    "                       [8; of what sample made, as its model has it: Wan 16, TI2V-5B 24]\n"
    "      --codec NAME     libx264 | libopenh264 | mpeg4             [the first that this libavcodec has]\n"
    "      --sheet FILE     a PNG at the end: 8 frames of each of the first 40 videos, with key, run and caption\n"
    "                       above them; gnuplot draws these. The run is the name of DIR  [none]\n"
    "COMMON\n"
    "stdin   video U8 [F,H,W,3], RGB, H and W even\n"
    "stdout  JSON lines: key, path (of the mp4), fps, frames, bytes and crc32c (the file's), and the rest of\n"
    "        meta; an input path becomes `source`\n"
    "files   yuv420p, BT.709; libx264 at crf 18. Bytes of a key outside A-Za-z0-9._- become %XX in the name\n"
    "exit    0 every video written, 1 something failed, a duplicate key included, 2 wrong usage\n"
    "e.g.    vae-decode -m CogVideoX-5b <latents.mp | encode-mp4 -o videos/ --sheet videos.png >videos.jsonl\n"
    "see also: vae-decode, decode, collect, grade\n";

#define FPS_LEAST 0.01
#define FPS_MOST  1000.
static const char *folder, *codec, *sheet_path;
static double fps; /* 0: as the record says, or 8 */

static const struct option_spec options[] = {
    {.name = "output", .letter = 'o', .kind = OPT_TEXT, .dest = &folder},
    {.name = "fps", .kind = OPT_REAL, .dest = &fps, .low = FPS_LEAST, .high = FPS_MOST},
    {.name = "codec", .kind = OPT_CHOICE, .dest = &codec, .choices = "libx264|libopenh264|mpeg4"},
    {.name = "sheet", .kind = OPT_TEXT, .dest = &sheet_path},
    {0}};

/* DIR/KEY.mp4 into path; a key comes once. */
static bool name_file(struct record *f, json_t *seen, char *path, size_t size)
{
    char name[256];
    const char *why = NULL;
    if (json_object_get(seen, record_key(f)))
        why = "duplicate key: the first one's file stands";
    else if (!key_filename(name, sizeof name, record_key(f), ".mp4"))
        why = "the key makes too long a file name";
    else if (snprintf(path, size, "%s/%s", folder, name) >= (int)size)
        why = "too long a path";
    else
        json_object_set_new(seen, record_key(f), json_true());
    if (why) snprintf(f->error, sizeof f->error, "%s", why);
    return !why;
}

static double rate_of(struct record *f)
{
    double own = json_number_value(json_object_get(json_object_get(record_meta(f), "sample"), "fps"));
    return fps > 0 ? fps : own >= FPS_LEAST && own <= FPS_MOST ? own : 8;
}

/* NULL with the reason in why: the file cannot be read back. */
static json_t *list_line(struct record *f, const char *path, int64_t frames, char *why, size_t size)
{
    int64_t bytes;
    uint32_t crc;
    if (!file_checksum(path, &bytes, &crc, why, size)) return NULL;
    json_t *line = filter_record_json(f), *source = json_object_get(line, "path");
    if (source && !json_object_get(line, "source")) json_object_set(line, "source", source);
    json_object_set_new(line, "path", json_string(path));
    json_object_set_new(line, "fps", json_real(rate_of(f)));
    json_object_set_new(line, "frames", json_integer(frames));
    json_object_set_new(line, "bytes", json_integer(bytes));
    json_object_set_new(line, "crc32c", json_integer(crc));
    return line;
}

/* "run base: base model, seed 42": whose video it is, as far as that is known; a row of the sheet with it. */
static bool add_to_sheet(struct sheet *sheet, struct record *f, const struct tensor *video, char *why,
                         size_t size)
{
    char about[512];
    const json_t *meta = record_meta(f), *sample = json_object_get(meta, "sample"), *adapter;
    const json_t *adapters = json_object_get(sample, "adapters"), *seed = json_object_get(sample, "seed");
    const char *caption = json_string_value(json_object_get(meta, "prompt")), *slash = strrchr(folder, '/');
    size_t i;
    if (!caption) caption = json_string_value(json_object_get(meta, "caption"));
    snprintf(about, sizeof about, "run %.200s", slash && slash[1] ? slash + 1 : folder);
    if (json_is_array(adapters) && !json_array_size(adapters)) strcat(about, ", base model");
    json_array_foreach (adapters, i, adapter) {
        const char *variant = json_string_value(json_object_get(adapter, "variant"));
        const size_t n = strlen(about);
        snprintf(about + n, sizeof about - n, ", %.60s rank %lld", variant ? variant : "adapter",
                 (long long)json_integer_value(json_object_get(adapter, "rank")));
    }
    const size_t n = strlen(about);
    if (json_is_integer(seed))
        snprintf(about + n, sizeof about - n, ", seed %lld", (long long)json_integer_value(seed));
    return sheet_caption(sheet, record_key(f), about, caption, why, size) &&
           sheet_add(sheet, video, why, size);
}

/* So that it is known before the videos are made. */
static bool may_be_written(const char *path, char *why, size_t size)
{
    struct atomic_file file;
    const bool good = atomic_open(&file, path, why, size);
    if (good) atomic_abort(&file);
    return good;
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    struct sheet sheet = {0};
    char path[4096], why[512];
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT);
    if (!folder || !*folder) usage_error("--output is required");
    filter_checked();
    const char *encoder = mp4_encoder(codec, why, sizeof why);
    if (!encoder) die("%s", why);
    if (sheet_path && !sheet_words_ready(why, sizeof why)) die("--sheet: %s", why);
    if (!make_folder(folder, why, sizeof why)) die("%s", why);
    if (sheet_path && !may_be_written(sheet_path, why, sizeof why)) die("--sheet: %s", why);
    size_t end = strlen(folder);
    char *trimmed = strndup(folder, end > 1 && folder[end - 1] == '/' ? end - 1 : end);
    if (!trimmed) die("out of memory");
    folder = trimmed;

    json_t *seen = json_object();
    while (filter_next(&f)) {
        struct tensor *video = record_want(&f, "video", DT_U8, 4);
        json_t *line = NULL;
        if (!video || !name_file(&f, seen, path, sizeof path)) {
            filter_fail(&f, "%s", f.error);
        } else if (!mp4_write(path, video, encoder, rate_of(&f), why, sizeof why) ||
                   (sheet_path && !add_to_sheet(&sheet, &f, video, why, sizeof why)) ||
                   !(line = list_line(&f, path, video->shape[0], why, sizeof why))) {
            filter_fail(&f, "%s", why);
        } else {
            filter_emit_line(line);
        }
    }
    if (sheet_path && !sheet.rows) say(sheet_path, "no video, so no contact sheet");
    if (sheet.rows && !sheet_write(&sheet, sheet_path, why, sizeof why)) die("%s", why);
    sheet_free(&sheet);
    json_decref(seen);
    free(trimmed);
    record_free(&f);
    return filter_finish();
}
