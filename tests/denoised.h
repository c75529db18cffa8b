/* denoised - what a network answers, for tests: planned and computed as sampler and trainer do it. */
#ifndef TESTS_DENOISED_H
#define TESTS_DENOISED_H

#include <stdlib.h>

#include "filters/nets/denoiser.h"
#include "tests/tap.h"

/* A model's; ends the test when it cannot be opened. */
__attribute__((unused)) static struct denoiser *opened(struct kern *k, const char *name, bool shapes_only)
{
    char err[512];
    struct model *m = model_open(name, err, sizeof err);
    struct denoiser *d = m ? denoiser_open(k, m, shapes_only, err, sizeof err) : NULL;
    if (!d) printf("Bail out! %s\n", err), exit(1);
    model_close(m);
    return d;
}

/* F32 [T,C,h,w] on the host, malloc'ed. often: the text is digested first, where the family can. */
__attribute__((unused)) static struct tensor denoised(struct denoiser *d, const struct tensor *latents,
                                                      const struct tensor *text, double timestep, bool often)
{
    struct kern *k = d->k;
    struct tensor out = *latents;
    char err[512];
    out.data = calloc(tensor_bytes(latents), 1);
    for (int pass = 0; pass < 2; pass++) { /* plan, then compute */
        struct denoiser_grid g;
        size_t mark = kern_mark(k);
        if (!pass) kern_plan_begin(k);
        if (!denoiser_grid(d, &g, latents, err, sizeof err)) printf("Bail out! %s\n", err), exit(1);
        struct tensor x = kern_tensor(k, DT_F32, 4, out.shape[0], out.shape[1], out.shape[2], out.shape[3]);
        struct tensor t = denoiser_text(d, text, often);
        kern_upload(k, &x, latents);
        denoiser_forward(d, &g, &x, &x, &t, timestep, NULL);
        kern_download(k, &out, &x);
        if (!pass)
            kern_reserve(k, kern_plan_end(k));
        else
            kern_release(k, mark);
    }
    return out;
}

#endif
