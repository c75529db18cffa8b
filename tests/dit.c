/* The transformer against diffusers on small random models: rotary and sine-cosine, sharded and not, sizes
 * that are not the base size, timesteps that are no whole numbers. Both compute in F32, so they differ by
 * rounding over a few layers: 1e-4 is a hundred times what was seen. */
#include "filters/nets/families.h"
#include "tests/cases.h"
#include "tests/denoised.h"
#include "tests/device.h"

extern const struct denoiser_kind cogvideox_dit;

static struct kern *k;
static char err[1024];

static void compare(const char *name)
{
    char folder[128], path[4096];
    snprintf(folder, sizeof folder, "dit/%s", name);
    struct cases c = cases_open(folder);
    struct model *m = model_open(data_file(path, folder, ""), err, sizeof err);
    struct denoiser *d = m ? denoiser_open(k, m, false, err, sizeof err) : NULL;
    if (!ok(d != NULL, "%s opens", name)) printf("# %s\n", err);
    for (size_t i = 0; d && i < json_array_size(c.list); i++) {
        struct tensor latents = cases_tensor(&c, "%zu.latents", i), text = cases_tensor(&c, "%zu.text", i);
        struct tensor t = cases_tensor(&c, "%zu.timestep", i), want = cases_tensor(&c, "%zu.out", i);
        struct tensor got = denoised(d, &latents, &text, *(float *)t.data, false);
        double rel = relative_l2(got.data, want.data, (size_t)tensor_count(&want));
        ok(kern_ok(k) && rel <= tolerance(k, 1e-4, 3e-2), "%s [%lld,%lld,%lld,%lld] at %g: relative L2 %.2g",
           name, (long long)latents.shape[0], (long long)latents.shape[1], (long long)latents.shape[2],
           (long long)latents.shape[3], *(float *)t.data, rel);
        if (!kern_ok(k)) printf("# %s\n", kern_error(k)), kern_clear(k);
        free(latents.data), free(text.data), free(t.data), free(want.data), free(got.data);
    }
    denoiser_close(d);
    model_close(m);
    cases_close(&c);
}

/* Names and shapes without an allocation: the published sizes. */
static void counts(const char *preset, int tensors, int64_t parameters)
{
    struct params list = {0};
    struct model *m = model_open(preset, err, sizeof err);
    json_t *config = m ? model_config(m, "transformer", err, sizeof err) : NULL;
    bool good =
        config && network_declare(&cogvideox_dit.network, &list, config, "config.json", err, sizeof err);
    ok(good && list.count == tensors && params_count(&list) == parameters, "%s: %d tensors, %lld parameters",
       preset, list.count, (long long)params_count(&list));
    params_free(&list);
    json_decref(config);
    model_close(m);
}

static void refused(const char *change, const char *word)
{
    struct params list = {0};
    struct model *m = model_open("random:cogvideox-5b", err, sizeof err);
    json_t *config = model_config(m, "transformer", err, sizeof err), *other = json_loads(change, 0, NULL);
    json_object_update(config, other);
    bool good =
        network_declare(&cogvideox_dit.network, &list, config, "transformer/config.json", err, sizeof err);
    ok(!good && strstr(err, word), "a config with %s is refused: %s", change, err);
    params_free(&list);
    json_decref(config);
    json_decref(other);
    model_close(m);
}

int main(void)
{
    k = test_device(0);
    compare("rope");
    compare("rope226");
    compare("sincos");
    compare("sharded");
    counts("random:cogvideox-5b", 1024, 5570283072);
    counts("random:cogvideox-2b", 736, 1693783872);
    refused("{\"patch_size_t\": 2}", "patch_size_t");
    refused("{\"patch_bias\": false}", "patch_bias");
    refused("{\"ofs_embed_dim\": 512}", "ofs_embed_dim");
    refused("{\"activation_fn\": \"geglu\"}", "activation_fn");
    refused("{\"num_layers\": 0}", "num_layers");
    refused("{\"num_layers\": \"42\"}", "num_layers");
    kern_close(k);
    return done();
}
