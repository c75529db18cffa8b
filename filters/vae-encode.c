/* vae-encode - pixels to the latents of a video VAE.
 *
 *   stdin   video U8 [F,H,W,3]            H, W multiples of 8 (sizes are CogVideoX's and Wan 2.1's; others have their own)
 *   stdout  latents [T,16,H/8,W/8]        everything else passes through */
#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"

static const char help[] =
    "vae-encode - RGB video to latents\n"
    "usage: vae-encode -m DIR [options] <clips >latents\n"
    "  -m, --model DIR      model folder (its vae/), or random:PRESET\n"
    "      --sample         draw from the posterior, by seed and key  [this]\n"
    "      --mode           take its mean instead\n"
    "      --tiling         work in overlapping tiles: less memory, slightly other values  [off]\n"
    "      --image-latents  encode frame 0 by itself, too, as image_latents [1,16,h,w]     [off]\n"
    "COMMON\n"
    "stdin   video U8 [F,H,W,3], RGB; H and W multiples of 8, for Wan 2.2 TI2V-5B of 16. F = 4n+1 gives T = n+1; other\n"
    "        counts are taken, too: CogVideoX halves each chunk of 8 frames, the first with the remainder, twice,\n"
    "        rounding up; Wan leaves out the last frames, which fill no group of four\n"
    "stdout  latents BF16 or F32 [T,16,H/8,W/8], TI2V-5B's [T,48,H/16,W/16], in the scale that the transformer reads:\n"
    "        CogVideoX's times the scaling factor, Wan's less latents_mean, by latents_std; meta: vae (the weights'\n"
    "        id), posterior, posterior_seed, encode_tiling, and vae_class where it is not CogVideoX's\n"
    "exit    0 every clip encoded, 1 something failed, 2 wrong usage\n"
    "e.g.    decode <clips.jsonl | vae-encode -m CogVideoX-5b >latents.mp\n"
    "see also: decode, vae-decode, t5-encode, pack\n";

static bool sample, mode, tiling, image;

static const struct option_spec options[] = {
    {.name = "sample", .kind = OPT_FLAG, .dest = &sample},
    {.name = "mode", .kind = OPT_FLAG, .dest = &mode, .setting = true},
    {.name = "tiling", .kind = OPT_FLAG, .dest = &tiling, .setting = true},
    {.name = "image-latents", .kind = OPT_FLAG, .dest = &image, .setting = true},
    {0}};

/* false: the record's error, or the device's, says why. */
static bool encode(struct autoencoder *v, struct record *f, const char *name, const struct tensor *video,
                   const char *purpose)
{
    const int64_t side = v->spatial, frames = latent_frames(v, video->shape[0]);
    struct rng noise = rng_make((uint64_t)filter.seed, record_key(f), purpose, 0);
    struct tensor *latents = record_add(f, name, filter_dtype(), 4, frames, v->channels,
                                        video->shape[1] / side, video->shape[2] / side);
    return latents && encode_video(v, latents, video, mode ? NULL : &noise, tiling);
}

static bool encode_record(struct autoencoder *v, struct record *f)
{
    const struct tensor *found = record_want(f, "video", DT_U8, 4);
    if (!found) return false;
    const struct tensor video = *found;
    if (!encode(v, f, "latents", &video, "posterior")) return false;
    if (image) {
        const struct tensor first = tensor_rows(&video, 0, 1);
        if (!encode(v, f, "image_latents", &first, "image-posterior")) return false;
    }
    if (!filter.keep) record_drop(f, "video");

    json_t *meta = record_meta(f);
    json_object_set_new(meta, "vae", json_string(v->id));
    family_sign(meta, PART_AUTOENCODER, &v->kind->network);
    json_object_set_new(meta, "posterior", json_string(mode ? "mode" : "sample"));
    json_object_set_new(meta, "encode_tiling", json_boolean(tiling));
    if (mode)
        json_object_del(meta, "posterior_seed");
    else
        json_object_set_new(meta, "posterior_seed", json_integer(filter.seed));
    return true;
}

int main(int argc, char **argv)
{
    char err[512];
    filter_start(argc, argv, help, options,
                 FILTER_COMPUTE | FILTER_RECORDS_OUT | FILTER_KEEP | FILTER_NEEDS_MODEL);
    if (sample && mode) usage_error("--sample or --mode, not both");
    filter_checked();
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    struct autoencoder *v = autoencoder_open(k, m, true, false, err, sizeof err);
    if (!v) die("%s: %s", filter.model, err);
    json_object_set_new(filter.settings, "vae", json_string(v->id));

    struct record f = RECORD_INIT;
    filter_read_ahead();
    while (filter_next(&f)) {
        if (encode_record(v, &f)) {
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
