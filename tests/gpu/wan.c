/* Wan at full size on one GPU, random weights, 81 frames of 832x480, and TI2V-5B's 121 of 1280x704: median times of what
 * peers_wan.py times for PyTorch.
 *
 *   wan SECTION...     wan13 wan14 wan5 wanvae wan5vae umt5
 *
 * One JSON line a figure on stdout: {"name": .., "ms": .., "runs": ..} and what else is known of it. */
#include "tests/gpu/nets.h"

enum { TOKENS = 77 }; /* of a caption */
/* Shapes of latents, with their rank */
static const int64_t usual[] = {4, 21, 16, 60, 104}, of_5b[] = {4, 31, 48, 44, 80};

/* A guidance pair: two texts, each digested once, as in a step of the sampler. tflop: of both. */
static void pair(const char *preset, const char *name, const int64_t *shape, double tflop)
{
    open_device();
    struct model *m = model(preset);
    struct forward f = {.dit = denoiser_open(k, m, false, err, sizeof err), .videos = 2};
    if (!f.dit) stop(name, err);
    struct tensor latents = random_host(DT_F32, shape, "latents"),
                  text = host(DT_F32, "text", 2, TOKENS, 4096);
    forward_first(&f, &latents, &text);
    timed(name, 3, tflop, run_forward, &f);
    kern_profile_start(k);
    run_forward(&f);
    profile(name);
    denoiser_close(f.dit);
    model_close(m);
    kern_close(k);
    free(latents.data), free(text.data);
}

/* And steps of adapters on the self-attention, whose grid is 30x52. */
static void section_wan13(void)
{
    static const char *const adapters[] = {"standard", "gdn_cssm:k=1"};
    struct tensor latents = random_host(DT_F32, usual, "latents");
    pair("random:wan-1.3b", "wan13 pair", usual, 566);
    timed_steps("random:wan-1.3b", "wan13 step", adapters, 2, RECOMPUTES, &latents, TOKENS,
                (const double[]){864, 1147});
    free(latents.data);
}

static void section_wan14(void)
{
    pair("random:wan-14b", "wan14 pair", usual, 3357);
}

static void section_wan5(void)
{
    static const char *const adapters[] = {"standard"};
    struct tensor latents = random_host(DT_F32, of_5b, "latents");
    pair("random:wan-5b", "wan5 pair", of_5b, 1034);
    timed_steps("random:wan-5b", "wan5 step", adapters, 1, RECOMPUTES, &latents, TOKENS,
                (const double[]){1448, 1965});
    free(latents.data);
}

/* tflop: to encode, to decode */
static void vae(const char *preset, const char *name, const int64_t *video, const int64_t *latents,
                const double tflop[2])
{
    char what[64];
    open_device();
    struct model *m = model(preset);
    struct clip c = {.vae = autoencoder_open(k, m, true, true, err, sizeof err),
                     .video = random_host(DT_U8, video, "video"),
                     .latents = random_host(DT_F32, latents, "latents")};
    if (!c.vae) stop("vae", err);
    snprintf(what, sizeof what, "%s encode", name);
    timed(what, 3, tflop[0], run_encode, &c);
    snprintf(what, sizeof what, "%s decode", name);
    timed(what, 3, tflop[1], run_decode, &c);
    kern_profile_start(k);
    run_encode(&c);
    profile("encode");
    kern_profile_start(k);
    run_decode(&c);
    profile("decode");
    autoencoder_close(c.vae);
    model_close(m);
    kern_close(k);
    free(c.video.data), free(c.latents.data);
}

static void section_wanvae(void)
{
    vae("random:wan-1.3b", "wanvae", (const int64_t[]){4, 81, 480, 832, 3}, usual,
        (const double[]){164, 275});
}

static void section_wan5vae(void)
{
    vae("random:wan-5b", "wan5vae", (const int64_t[]){4, 121, 704, 1280, 3}, of_5b,
        (const double[]){383, 2011});
}

/* Texts as long as the peer's, as long as captions are, and the longest; the first call of a length plans. */
static void section_umt5(void)
{
    open_device();
    struct model *m = model("random:wan-1.3b");
    struct prompts p = {.t5 = text_encoder_open(k, m, 512, err, sizeof err), .count = 1};
    if (!p.t5) stop("umt5", err);
    struct tensor ids = tensor_of(DT_I32, malloc(512 * 4), 1, (int64_t)512),
                  embeds = host(DT_BF16, "embeds", 2, 512, 4096);
    for (int i = 0; i < 512; i++) ((int32_t *)ids.data)[i] = 31 * i % 256000;
    static const int64_t lengths[] = {60, 101, 512};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const int64_t length = lengths[i];
        char name[32];
        snprintf(name, sizeof name, "umt5 %d tokens", (int)length);
        p.ids = tensor_rows(&ids, 0, length), p.embeds = tensor_rows(&embeds, 0, length);
        timed(name, 11, 9.3e-3 * (double)length, run_prompts, &p);
    }
    text_encoder_close(p.t5);
    model_close(m);
    kern_close(k);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } sections[] = {{"wan13", section_wan13},   {"wan14", section_wan14},     {"wan5", section_wan5},
                    {"wanvae", section_wanvae}, {"wan5vae", section_wan5vae}, {"umt5", section_umt5}};
    for (int i = 1; i < argc; i++)
        for (size_t s = 0; s < sizeof sections / sizeof *sections; s++)
            if (!strcmp(argv[i], sections[s].name)) sections[s].run();
    return 0;
}
