/* Wan's transformer against diffusers on small random models: heads of 12, 20, 24 and 128 channels, odd frames, grids
 * that are not square, texts of fewer rows than the network attends to. Both compute in F32 and differ by rounding, by
 * 4.5e-6 at most; 4e-5 is what tells GELU by tanh from GELU by erf, which is 8e-5 away. */
#include "filters/nets/families.h"
#include "tests/cases.h"
#include "tests/denoised.h"
#include "tests/device.h"

extern const struct denoiser_kind wan_dit;

static struct kern *k;
static char err[1024];

/* The same bytes whether the text's keys and values are computed at every step or once, and whether zeros stand in
 * the rows past the text or are added by who reads it. */
static void same_bytes(struct denoiser *d, const struct tensor *latents, const struct tensor *text,
                       double timestep, const struct tensor *want, const char *name)
{
    struct tensor once = denoised(d, latents, text, timestep, true), padded = *text;
    padded.shape[0] = d->geometry.text_length;
    padded.data = calloc(tensor_bytes(&padded), 1);
    memcpy(padded.data, text->data, tensor_bytes(text));
    struct tensor full = denoised(d, latents, &padded, timestep, true);
    ok(!memcmp(once.data, want->data, tensor_bytes(want)), "%s: a text that is digested once changes no bit",
       name);
    ok(!memcmp(full.data, want->data, tensor_bytes(want)), "%s: nor do rows of zeros that the text brings",
       name);
    free(once.data), free(full.data), free(padded.data);
}

static void compare(const char *name)
{
    char folder[128], path[4096];
    snprintf(folder, sizeof folder, "wan/%s", name);
    struct cases c = cases_open(folder);
    struct model *m = model_open(data_file(path, folder, ""), err, sizeof err);
    struct denoiser *d = m ? denoiser_open(k, m, false, err, sizeof err) : NULL;
    if (!ok(d != NULL, "%s opens", name)) printf("# %s\n", err);
    for (size_t i = 0; d && i < json_array_size(c.list); i++) {
        struct tensor latents = cases_tensor(&c, "%zu.latents", i), text = cases_tensor(&c, "%zu.text", i);
        struct tensor t = cases_tensor(&c, "%zu.timestep", i), want = cases_tensor(&c, "%zu.out", i);
        const double timestep = *(float *)t.data;
        struct tensor got = denoised(d, &latents, &text, timestep, false);
        double rel = relative_l2(got.data, want.data, (size_t)tensor_count(&want));
        ok(kern_ok(k) && rel <= tolerance(k, 4e-5, 3e-2),
           "%s [%lld,%lld,%lld,%lld], %lld rows of text, at %g: relative L2 %.2g", name,
           (long long)latents.shape[0], (long long)latents.shape[1], (long long)latents.shape[2],
           (long long)latents.shape[3], (long long)text.shape[0], timestep, rel);
        if (i == 1) same_bytes(d, &latents, &text, timestep, &got, name);
        if (!kern_ok(k)) printf("# %s\n", kern_error(k)), kern_clear(k);
        free(latents.data), free(text.data), free(t.data), free(want.data), free(got.data);
    }
    denoiser_close(d);
    model_close(m);
    cases_close(&c);
}

/* Names and shapes without an allocation: the published sizes. change: of the preset's config. */
static void counts(const char *preset, const char *change, int tensors, int64_t parameters)
{
    struct params list = {0};
    struct model *m = model_open(preset, err, sizeof err);
    json_t *config = m ? model_config(m, "transformer", err, sizeof err) : NULL;
    json_t *other = json_loads(change, 0, NULL);
    json_object_update(config, other);
    bool good = config && network_declare(&wan_dit.network, &list, config, "config.json", err, sizeof err);
    ok(good && list.count == tensors && params_count(&list) == parameters,
       "%s with %s: %d tensors, %lld parameters", preset, change, list.count, (long long)params_count(&list));
    params_free(&list);
    json_decref(other);
    json_decref(config);
    model_close(m);
}

static void refused(const char *change, const char *word)
{
    struct params list = {0};
    struct model *m = model_open("random:wan-1.3b", err, sizeof err);
    json_t *config = model_config(m, "transformer", err, sizeof err), *other = json_loads(change, 0, NULL);
    json_object_update(config, other);
    bool good = network_declare(&wan_dit.network, &list, config, "transformer/config.json", err, sizeof err);
    ok(!good && strstr(err, word), "a config with %s is refused: %s", change, err);
    params_free(&list);
    json_decref(config);
    json_decref(other);
    model_close(m);
}

/* Which texts and latents it takes. */
static void takes(void)
{
    char path[4096];
    struct model *m = model_open(data_file(path, "wan/h12", ""), err, sizeof err);
    struct denoiser *d = denoiser_open(k, m, true, err, sizeof err);
    const struct latent_geometry *g = &d->geometry;
    struct denoiser_grid grid;
    struct tensor text = tensor_of(DT_F32, NULL, 2, 1, 16);
    ok(geometry_reads(g, &text, "x", err, sizeof err), "a text of one row is read");
    text.shape[0] = 12;
    ok(geometry_reads(g, &text, "x", err, sizeof err), "and one of as many as the network attends to");
    for (int rows = 0; rows <= 13; rows += 13) {
        text.shape[0] = rows;
        ok(!geometry_reads(g, &text, "x", err, sizeof err) && strstr(err, "the model wants [1..12,16]"), "%s",
           err);
    }
    ok(geometry_fits(g, 5, 32, 48, err, sizeof err) && !geometry_fits(g, 6, 32, 48, err, sizeof err),
       "frames: %s", err);
    ok(!geometry_fits(g, 5, 40, 48, err, sizeof err) && strstr(err, "multiples of 16"), "sizes: %s", err);
    struct tensor odd = tensor_of(DT_F32, NULL, 4, 1, 4, 3, 4), far = tensor_of(DT_F32, NULL, 4, 65, 4, 2, 2);
    ok(!denoiser_grid(d, &grid, &odd, err, sizeof err) && strstr(err, "divisible by 2"), "%s", err);
    ok(!denoiser_grid(d, &grid, &far, err, sizeof err) && strstr(err, "64 positions"), "%s", err);
    denoiser_close(d);
    model_close(m);
}

int main(void)
{
    k = test_device(0);
    compare("h12");
    compare("h20");
    compare("h24");
    compare("h128");
    takes();
    counts("random:wan-1.3b", "{}", 825, 1418996800);
    counts("random:wan-14b", "{}", 1095, 14288491584);
    counts("random:wan-5b", "{}", 825, 4999787712);
    refused("{\"qk_norm\": \"rms_norm\"}", "qk_norm");
    refused("{\"cross_attn_norm\": false}", "cross_attn_norm");
    refused("{\"patch_size\": [2, 2, 2]}", "patch_size");
    refused("{\"image_dim\": 1280}", "image_dim");
    refused("{\"added_kv_proj_dim\": 5120}", "added_kv_proj_dim");
    refused("{\"pos_embed_seq_len\": 514}", "pos_embed_seq_len");
    refused("{\"in_channels\": 36}", "in_channels and out_channels differ");
    refused("{\"attention_head_dim\": 127}", "odd attention_head_dim");
    refused("{\"num_layers\": 0}", "num_layers");
    refused("{\"num_layers\": \"30\"}", "num_layers");
    kern_close(k);
    return done();
}
