/* Frames into mp4 and out of it: which frames are chosen, and what becomes of their pixels. */
#include <string.h>

#include "formats/mp4.h"
#include "formats/video.h"
#include "tests/scratch.h"
#include "tests/tap.h"

static char err[512];

/* A frame tells its number by two shades of gray: the left half's is number / 16, the right half's number
 * % 16. */
static int shade(int64_t digit)
{
    return (int)(8 + 15 * digit);
}
static int64_t digit_of(uint8_t gray)
{
    return (gray - 8 + 7) / 15;
}

static bool make_clip(const char *path, int64_t frames, int64_t height, int64_t width)
{
    int64_t row = width * 3;
    uint8_t *pixels = malloc((size_t)(frames * height * row));
    for (int64_t y = 0; y < frames * height; y++) {
        memset(pixels + y * row, shade(y / height / 16), (size_t)row / 2);
        memset(pixels + y * row + row / 2, shade(y / height % 16), (size_t)row / 2);
    }
    struct tensor video = tensor_of(DT_U8, pixels, 4, frames, height, width, 3);
    bool good = mp4_write(path, &video, mp4_encoder(NULL, err, sizeof err), 8, err, sizeof err);
    free(pixels);
    return good;
}

/* The numbers of the frames that come back. */
static bool frames_read(const char *path, int64_t count, int64_t *number, struct video_info *info)
{
    enum { H = 24, W = 40, ROW = 3 * W, LEFT = H / 2 * ROW + ROW / 4, RIGHT = LEFT + ROW / 2 };
    uint8_t *pixels = malloc((size_t)count * H * ROW);
    struct tensor video = tensor_of(DT_U8, pixels, 4, count, H, W, 3);
    bool good = video_read(path, 2, video_spread, VIDEO_BICUBIC, &video, info, err, sizeof err);
    for (int64_t k = 0; k < count && good; k++)
        number[k] = 16 * digit_of(pixels[k * H * ROW + LEFT]) + digit_of(pixels[k * H * ROW + RIGHT]);
    free(pixels);
    return good;
}

static void check_spread(void)
{
    static const int64_t of_156[] = {0,   3,   6,   9,   12,  16,  19,  22,  25,  29,  32,  35,  38,
                                     41,  45,  48,  51,  54,  58,  61,  64,  67,  71,  74,  77,  80,
                                     83,  87,  90,  93,  96,  100, 103, 106, 109, 113, 116, 119, 122,
                                     125, 129, 132, 135, 138, 142, 145, 148, 151, 155};
    int64_t index[49];
    video_spread(index, 49, 156);
    ok(!memcmp(index, of_156, sizeof index), "49 of 156 frames");
    video_spread(index, 49, 720);
    ok(index[0] == 0 && index[1] == 14 && index[2] == 29 && index[3] == 44 && index[4] == 59 &&
           index[47] == 704 && index[48] == 719,
       "49 of 720 frames");
    video_spread(index, 49, 209);
    ok(index[27] == 117, "integer arithmetic: frame 27 of 209 is number 117");
    bool identity = true, first = true, monotone = true;
    video_spread(index, 49, 49);
    for (int k = 0; k < 49; k++) identity = identity && index[k] == k;
    ok(identity, "49 of 49 frames are all of them");
    video_spread(index, 49, 1);
    for (int k = 0; k < 49; k++) first = first && index[k] == 0;
    ok(first, "49 of one frame are that one");
    video_spread(index, 1, 100);
    ok(index[0] == 0, "one frame is the first");
    for (int64_t total = 1; total < 2000; total++) {
        video_spread(index, 49, total);
        monotone = monotone && index[0] == 0 && index[48] == total - 1;
        for (int k = 1; k < 49; k++) monotone = monotone && index[k] >= index[k - 1];
    }
    ok(monotone, "the first and the last frame belong, and none goes back, for 1 to 1999 frames");
}

static void check_frames(int64_t total, int64_t count)
{
    int64_t number[64] = {0}, wanted[64];
    struct video_info info = {0};
    bool good = make_clip("clip.mp4", total, 48, 64) && frames_read("clip.mp4", count, number, &info);
    video_spread(wanted, count, total);
    if (!ok(good && !memcmp(number, wanted, (size_t)count * sizeof *wanted), "%lld of a file's %lld frames",
            (long long)count, (long long)total))
        printf("# %s\n", err);
    ok(info.frames == total && info.width == 64 && info.height == 48 && info.fps == 8,
       "what the file is known for");
}

/* Four large patches: what a colour becomes once it has been through the file. */
static void check_colours(void)
{
    enum { H = 64, W = 64 };
    static const uint8_t patch[4][3] = {{220, 30, 40}, {40, 200, 60}, {30, 50, 210}, {235, 235, 235}};
    static uint8_t there[2][H][W][3], back[2][H][W][3];
    for (int f = 0; f < 2; f++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) memcpy(there[f][y][x], patch[y / 32 * 2 + x / 32], 3);
    struct tensor video = tensor_of(DT_U8, there, 4, 2, H, W, 3),
                  read = tensor_of(DT_U8, back, 4, 2, H, W, 3);
    struct video_info info;
    bool good = mp4_write("patches.mp4", &video, mp4_encoder(NULL, err, sizeof err), 8, err, sizeof err) &&
                video_read("patches.mp4", 1, video_spread, VIDEO_BICUBIC, &read, &info, err, sizeof err);
    int worst = 0;
    for (int p = 0; p < 4; p++)
        for (int c = 0; c < 3; c++) {
            int off = abs(back[1][p / 2 * 32 + 16][p % 2 * 32 + 16][c] - patch[p][c]);
            if (off > worst) worst = off;
        }
    ok(good && worst <= 3, "colours come back: off by %d of 255 at most", worst);
}

static bool refused(const char *because, bool wrong)
{
    if (wrong || !strstr(err, because)) printf("# %s\n", wrong ? "taken" : err);
    return !wrong && strstr(err, because);
}

static void check_refusals(void)
{
    static uint8_t pixels[4 * 8 * 8 * 3];
    const char *encoder = mp4_encoder(NULL, err, sizeof err);
    struct tensor odd = tensor_of(DT_U8, pixels, 4, 1, 8, 7, 3),
                  none = tensor_of(DT_U8, pixels, 4, 0, 8, 8, 3);
    struct tensor four = tensor_of(DT_U8, pixels, 4, 1, 8, 8, 4),
                  fine = tensor_of(DT_U8, pixels, 4, 1, 8, 8, 3);
    struct video_info info;
    ok(refused("even sizes", mp4_write("x.mp4", &odd, encoder, 8, err, sizeof err)),
       "an odd width is refused");
    ok(refused("without frames", mp4_write("x.mp4", &none, encoder, 8, err, sizeof err)),
       "no frames are refused");
    ok(refused("[F,H,W,3]", mp4_write("x.mp4", &four, encoder, 8, err, sizeof err)),
       "four channels are refused");
    ok(refused("No such", mp4_write("nowhere/x.mp4", &fine, encoder, 8, err, sizeof err)),
       "no folder, no file");
    ok(refused("no encoder h265", mp4_encoder("h265", err, sizeof err)),
       "an encoder that is not there is named");
    ok(refused("No such",
               video_read("nowhere.mp4", 1, video_spread, VIDEO_BICUBIC, &fine, &info, err, sizeof err)),
       "a missing file");
    ok(access("x.mp4", F_OK) != 0, "nothing is left of what was refused");
}

int main(void)
{
    scratch_enter();
    check_spread();
    check_frames(1, 49);
    check_frames(13, 49);
    check_frames(49, 49);
    check_frames(61, 49);
    check_frames(156, 49);
    check_frames(61, 1);
    check_frames(61, 2);
    check_colours();
    check_refusals();
    ok(scratch_leave(), "the folder is gone");
    return done();
}
