/* Stretched frames: against the closed formula, and against libswscale, whose bilinear kernel it is. */
#include <string.h>
#include <unistd.h>

#include "formats/libav.h"
#include "formats/resize.h"
#include "formats/video.h"
#include "tests/tap.h"

static char err[512];

static struct tensor frames_of(int64_t f, int64_t h, int64_t w)
{
    return tensor_of(DT_U8, calloc((size_t)(f * h * w * 3), 1), 4, f, h, w, 3);
}

static void fill(struct tensor *t)
{
    uint32_t state = 1;
    for (int64_t i = 0; i < tensor_count(t); i++)
        ((uint8_t *)t->data)[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
}

/* The formula as it stands in the header, over both axes at once, in double. */
static double at(const struct tensor *in, int64_t f, double y, double x, double ry, double rx, int64_t c)
{
    int64_t h = in->shape[1], w = in->shape[2];
    double hy = fmax(1, ry), hx = fmax(1, rx), sum = 0, weights = 0;
    for (int64_t i = (int64_t)floor(y - hy); i <= (int64_t)ceil(y + hy); i++)
        for (int64_t j = (int64_t)floor(x - hx); j <= (int64_t)ceil(x + hx); j++) {
            double v = fmax(0, 1 - fabs((double)i - y) / hy) * fmax(0, 1 - fabs((double)j - x) / hx);
            int64_t ii = i < 0 ? 0 : i >= h ? h - 1 : i, jj = j < 0 ? 0 : j >= w ? w - 1 : j;
            weights += v;
            sum += v * ((const uint8_t *)in->data)[((f * h + ii) * w + jj) * 3 + c];
        }
    return sum / weights;
}

static void check_formula(int64_t h, int64_t w, int64_t oh, int64_t ow)
{
    struct tensor in = frames_of(2, h, w), out = frames_of(2, oh, ow);
    double ry = (double)h / (double)oh, rx = (double)w / (double)ow, worst = 0;
    fill(&in);
    bool good = resize_triangle(&out, &in);
    const uint8_t *got = out.data;
    for (int64_t f = 0; f < 2; f++)
        for (int64_t y = 0; y < oh; y++)
            for (int64_t x = 0; x < ow; x++)
                for (int64_t c = 0; c < 3; c++) {
                    double want =
                        at(&in, f, ((double)y + 0.5) * ry - 0.5, ((double)x + 0.5) * rx - 0.5, ry, rx, c);
                    worst = fmax(worst, fabs(want - *got++));
                }
    ok(good && worst < 0.5001, "%lldx%lld to %lldx%lld: within %.4f of the formula", (long long)w,
       (long long)h, (long long)ow, (long long)oh, worst);
    free(in.data);
    free(out.data);
}

static void check_simple(void)
{
    struct tensor in = frames_of(1, 9, 7), same = frames_of(1, 9, 7), out = frames_of(1, 4, 5);
    fill(&in);
    ok(resize_triangle(&same, &in) && !memcmp(same.data, in.data, 9 * 7 * 3),
       "the same size: the same pixels");
    memset(in.data, 255, 9 * 7 * 3);
    bool white = resize_triangle(&out, &in);
    for (int i = 0; i < 4 * 5 * 3; i++) white = white && ((uint8_t *)out.data)[i] == 255;
    ok(white, "white stays white");
    struct tensor one = tensor_of(DT_U8, ((uint8_t[]){10, 20, 30}), 4, 1, 1, 1, 3);
    bool plain = resize_triangle(&out, &one);
    for (int i = 0; i < 4 * 5 * 3; i++) plain = plain && ((uint8_t *)out.data)[i] == 10 * (i % 3 + 1);
    ok(plain, "one pixel fills a picture");
    free(in.data);
    free(same.data);
    free(out.data);
}

/* What libswscale makes of the same pixels, with the kernel of that name. */
static bool swscale(struct tensor *out, const struct tensor *in)
{
    int h = (int)in->shape[1], w = (int)in->shape[2], oh = (int)out->shape[1], ow = (int)out->shape[2];
    AVFrame *from = libav_picture(AV_PIX_FMT_RGB24, w, h), *to = libav_picture(AV_PIX_FMT_RGB24, ow, oh);
    struct SwsContext *s =
        from && to ? libav_scaler(from, to, SWS_BILINEAR | LIBAV_EXACT, 1, err, sizeof err) : NULL;
    bool good = s != NULL;
    for (int64_t f = 0; good && f < in->shape[0]; f++) {
        for (int y = 0; y < h; y++)
            memcpy(from->data[0] + y * from->linesize[0], (uint8_t *)in->data + (f * h + y) * w * 3,
                   3 * (size_t)w);
        good = sws_scale_frame(s, to, from) >= 0;
        for (int y = 0; y < oh; y++)
            memcpy((uint8_t *)out->data + (f * oh + y) * ow * 3, to->data[0] + y * to->linesize[0],
                   3 * (size_t)ow);
    }
    sws_freeContext(s);
    av_frame_free(&from);
    av_frame_free(&to);
    return good;
}

static int furthest(const struct tensor *a, const struct tensor *b)
{
    int worst = 0;
    for (int64_t i = 0; i < tensor_count(a); i++) {
        int off = abs(((uint8_t *)a->data)[i] - ((uint8_t *)b->data)[i]);
        if (off > worst) worst = off;
    }
    return worst;
}

static void check_clip(const char *path, const char *name)
{
    struct video_info info;
    struct tensor whole = frames_of(4, 480, 720), ours = frames_of(4, 224, 224),
                  theirs = frames_of(4, 224, 224);
    bool good = video_read(path, 1, video_spread, VIDEO_BICUBIC, &whole, &info, err, sizeof err) &&
                resize_triangle(&ours, &whole) && swscale(&theirs, &whole);
    int rgb = furthest(&ours, &theirs);
    ok(good && rgb <= 2, "%s: libswscale's bilinear on the same pixels lies %d levels off at most", name,
       rgb);
    free(whole.data);

    /* straight from the file, whose own size is read first */
    whole = frames_of(4, info.height, info.width);
    good = good && video_read(path, 1, video_spread, VIDEO_BICUBIC, &whole, &info, err, sizeof err) &&
           resize_triangle(&ours, &whole) &&
           video_read(path, 1, video_spread, VIDEO_TRIANGLE, &theirs, &info, err, sizeof err);
    double sum = 0;
    for (int64_t i = 0; i < tensor_count(&ours); i++) {
        double off = ((uint8_t *)ours.data)[i] - ((uint8_t *)theirs.data)[i];
        sum += off * off;
    }
    double psnr = 10 * log10(255. * 255. * (double)tensor_count(&ours) / sum);
    ok(good && psnr > 45,
       "%s: the frames as the file has them, then resized, against libswscale from the file: "
       "%.1f dB, %d levels at most",
       name, psnr, furthest(&ours, &theirs));
    free(whole.data);
    free(ours.data);
    free(theirs.data);
}

int main(void)
{
    check_simple();
    check_formula(480, 720, 224, 224);
    check_formula(64, 96, 28, 28);
    check_formula(9, 7, 31, 20);
    check_formula(1, 300, 3, 2);
    check_formula(33, 34, 32, 35);
    static const char *const clip[] = {"carpenter", "knives", "map", "pot", "shuttlecock", "syrup"};
    for (int i = 0; i < 6; i++) {
        char path[64];
        snprintf(path, sizeof path, "../shared/data/clips/%s.mp4", clip[i]);
        if (access(path, R_OK) == 0)
            check_clip(path, clip[i]);
        else
            skip(clip[i], "no ../shared here");
    }
    return done();
}
