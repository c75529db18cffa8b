/* decode - clips on disk to tensors of frames.
 *
 *   stdin   records, or JSON lines, with `path`
 *   stdout  video U8 [F,H,W,3] RGB; meta fps, source_frames, source_size; everything else passes through */
#include <string.h>

#include "filters/lib/filter.h"
#include "formats/video.h"

static const char help[] =
    "decode - video files to frames\n"
    "usage: decode [options] <clips.jsonl >clips\n"
    "      --frames N       evenly spread over the clip, first and last included  [49]\n"
    "      --size WxH       resized to, whatever the aspect           [720x480]\n"
    "      --threads N      clips at once, each by one thread; changes no bit     [as many as there are\n"
    "                       processors, but at most 8, and 1 GiB of frames]\n"
    "COMMON\n"
    "stdin   JSON lines or records with `path`, relative to the working folder\n"
    "stdout  video U8 [F,H,W,3], RGB; meta: fps and source_size (of the file), source_frames (that decode)\n"
    "        A short clip repeats frames. Frame k is number floor(k (N-1) / (F-1)) of N. Scaling is bicubic, rounded\n"
    "        exactly; colours by the file's own matrix and range, else BT.601, limited; gray without a range is\n"
    "        full, RGB has no matrix; quarter turns and mirroring are obeyed. Tools that call libswscale without\n"
    "        its flags for exactness (decord; ffmpeg -sws_flags bilinear) give frames 1 to 1.5 levels darker, with 4\n"
    "        to 12 % of the bytes equal; `grade` reads files in that way, as its upstream does.\n"
    "        A clip fails that is damaged, built on pictures that are missing, or cut short, where its container\n"
    "        has an end: Matroska, mp4, AVI, FLV, Ogg, GIF, NUT, ASF, YUV4MPEG. A transport stream has none\n"
    "exit    0 every clip decoded, 1 something failed, 2 wrong usage\n"
    "e.g.    decode --frames 49 --size 720x480 <clips.jsonl | vae-encode -m CogVideoX-5b >latents.mp\n"
    "see also: curate, vae-encode, encode-mp4\n";

static int64_t frames = 49, threads;
static struct size size = {720, 480};

static const struct option_spec options[] = {
    {.name = "frames", .kind = OPT_INT, .dest = &frames, .low = 1, .high = 1 << 20, .setting = true},
    {.name = "size", .kind = OPT_SIZE, .dest = &size, .setting = true},
    {.name = "threads", .kind = OPT_INT, .dest = &threads, .low = 0, .high = 64},
    {0}};

static bool decode(struct record *f)
{
    const char *path = record_text(f, "path");
    struct video_info info;
    char why[sizeof f->error];
    if (!path || !*path) {
        snprintf(f->error, sizeof f->error, "no `path` to read");
        return false;
    }
    struct tensor *video = record_add(f, "video", DT_U8, 4, frames, size.height, size.width, 3);
    if (!video) return false;
    if (!video_read(path, 1, video_spread, VIDEO_BICUBIC, video, &info, why, sizeof why)) {
        memcpy(f->error, why, sizeof why);
        return false;
    }
    json_t *meta = record_meta(f);
    json_object_set_new(meta, "fps", info.fps > 0 ? json_real(info.fps) : json_null());
    json_object_set_new(meta, "source_frames", json_integer(info.frames));
    json_object_set_new(meta, "source_size", json_sprintf("%dx%d", info.width, info.height));
    return true;
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_RECORDS_OUT);
    if (frames * size.height * size.width * 3 > UINT32_MAX)
        usage_error("%lld frames of %lldx%lld are more than a tensor's 4 GiB", (long long)frames,
                    (long long)size.width, (long long)size.height);
    filter_checked();
    filter_side_by_side(filter_clips_at_once(threads, frames * size.height * size.width * 3), decode, NULL);
    return filter_finish();
}
