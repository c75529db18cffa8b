/* vae-decode - the latents of a video VAE to pixels.
 *
 *   stdin   latents [T,16,h,w]            as vae-encode and sample give them
 *   stdout  video U8 [F,8h,8w,3] RGB      everything else passes through */
#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"

static const char help[] =
    "vae-decode - latents to RGB video\n"
    "usage: vae-decode -m DIR [options] <latents >videos\n"
    "  -m, --model DIR      model folder (its vae/), or random:PRESET\n"
    "      --tiling         work in overlapping tiles: less memory, slightly other pixels  [off]\n"
    "COMMON\n"
    "stdin   latents BF16, F16 or F32 [T,16,h,w], of Wan 2.2 TI2V-5B [T,48,h,w], as vae-encode and sample give them;\n"
    "        another family's are refused\n"
    "stdout  video U8 [F,8h,8w,3], of TI2V-5B [F,16h,16w,3], RGB; T gives F = 4T-3, of CogVideoX 4T when it is even;\n"
    "        meta: vae (the weights' id), decode_tiling\n"
    "exit    0 every record decoded, 1 something failed, 2 wrong usage\n"
    "e.g.    sample -m CogVideoX-5b <embeds.mp | vae-decode -m CogVideoX-5b | encode-mp4 -o videos/ >videos.jsonl\n"
    "see also: vae-encode, sample, encode-mp4\n";

static bool tiling;

static const struct option_spec options[] = {
    {.name = "tiling", .kind = OPT_FLAG, .dest = &tiling, .setting = true}, {0}};

/* false: the record's error, or the device's, says why. */
static bool decode(struct autoencoder *v, struct record *f)
{
    const struct tensor *found = record_want(f, "latents", DT_COUNT, 4);
    if (!found || !family_reads(record_meta(f), PART_AUTOENCODER, &v->kind->network, "its latents are",
                                f->error, sizeof f->error))
        return false;
    const struct tensor latents = *found;
    const int64_t side = v->spatial, frames = video_frames(v, latents.shape[0]);
    struct tensor *video =
        record_add(f, "video", DT_U8, 4, frames, side * latents.shape[2], side * latents.shape[3], 3);
    if (!video || !decode_latents(v, video, &latents, tiling)) return false;
    if (!filter.keep) record_drop(f, "latents");
    json_object_set_new(record_meta(f), "vae", json_string(v->id));
    json_object_set_new(record_meta(f), "decode_tiling", json_boolean(tiling));
    return true;
}

int main(int argc, char **argv)
{
    char err[512];
    filter_start(argc, argv, help, options,
                 FILTER_COMPUTE | FILTER_RECORDS_OUT | FILTER_KEEP | FILTER_NEEDS_MODEL);
    filter_checked();
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    struct autoencoder *v = autoencoder_open(k, m, false, true, err, sizeof err);
    if (!v) die("%s: %s", filter.model, err);
    json_object_set_new(filter.settings, "vae", json_string(v->id));

    struct record f = RECORD_INIT;
    while (filter_next(&f)) {
        if (decode(v, &f)) {
            filter_emit(&f);
        } else {
            filter_fail(&f, "%s", kern_ok(k) ? f.error : kern_error(k));
            kern_clear(k);
        }
    }
    record_free(&f);
    autoencoder_close(v);
    compute_close(k);
    model_close(m);
    return filter_finish();
}
