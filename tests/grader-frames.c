/* The frames that the grader looks at are, to the byte, those of VideoPhy-2's own reader (decord 0.6): by the
 * hashes that were taken there. */
#include <string.h>

#include <jansson.h>
#include <libavutil/mem.h>
#include <libavutil/sha.h>

#include "filters/grading/owl_prompt.h"
#include "formats/video.h"
#include "tests/scratch.h"
#include "tests/tap.h"

enum { FRAMES = 32, SIDE = 224, BYTES = SIDE * SIDE * 3 };
static char err[512];
static uint8_t pixels[FRAMES][SIDE][SIDE][3];

static void hash(char *text, const void *data, size_t n)
{
    uint8_t digest[32];
    struct AVSHA *sha = av_sha_alloc();
    av_sha_init(sha, 256);
    av_sha_update(sha, data, n);
    av_sha_final(sha, digest);
    av_free(sha);
    for (int i = 0; i < 32; i++) sprintf(text + 2 * i, "%02x", digest[i]);
}

static void choose(int64_t *index, int64_t count, int64_t total)
{
    owl_frames(total, (int)count, index);
}

/* How many of the frames have the hash that is expected; -1: it cannot be read. */
static int equal_frames(const char *path, const json_t *expected, int threads, struct video_info *info)
{
    char text[65];
    int equal = 0;
    struct tensor out = tensor_of(DT_U8, pixels, 4, FRAMES, SIDE, SIDE, 3);
    if (!video_read(path, threads, choose, VIDEO_PLAIN, &out, info, err, sizeof err)) return -1;
    for (int i = 0; i < FRAMES; i++) {
        hash(text, pixels[i], BYTES);
        equal +=
            !strcmp(text, json_string_value(json_array_get(json_object_get(expected, "sha256"), (size_t)i)));
    }
    return equal;
}

static void check_clip(const char *name, const json_t *expected)
{
    char path[128];
    struct video_info info = {0};
    snprintf(path, sizeof path, "tests/data/grader/%s", name);
    if (access(path, R_OK)) snprintf(path, sizeof path, "../shared/data/clips/%s", name);
    if (access(path, R_OK)) {
        skip(name, "no ../shared here");
        return;
    }
    const json_t *index = json_object_get(expected, "indices");
    int64_t ours[FRAMES], same = 0;
    int equal = equal_frames(path, expected, 1, &info), threaded = equal_frames(path, expected, 3, &info);
    choose(ours, FRAMES, info.frames);
    for (size_t i = 0; i < FRAMES; i++) same += ours[i] == json_integer_value(json_array_get(index, i));
    ok(info.frames == json_integer_value(json_object_get(expected, "frames")) && same == FRAMES,
       "%s: %lld frames, %lld of 32 chosen alike", name, (long long)info.frames, (long long)same);
    if (!ok(equal == FRAMES && threaded == FRAMES, "%s: %d of 32 frames are theirs, %d with three threads",
            name, equal, threaded))
        printf("# %s\n", err);
}

int main(void)
{
    json_error_t e;
    json_t *all = json_load_file("tests/data/grader/decord_224.json", 0, &e), *expected;
    const char *name;
    ok(json_object_size(all) == 8, "hashes of eight clips");
    json_object_foreach (all, name, expected) check_clip(name, expected);
    json_decref(all);
    return done();
}
