#include "filters/nets/denoiser.h"

#include <stdlib.h>

#include "filters/nets/families.h"

static const char *const part[] = {"transformer", "transformer_2"}, *const file[] = {
                                                                        "transformer/config.json",
                                                                        "transformer_2/config.json"};

const char *const recompute_name[RECOMPUTES] = {"none", "ffn", "full"};

/* ---- opening ------------------------------------------------------------------------------------------- */

/* By the class in a part's config.json, which the caller decrefs whatever is returned. NULL: reason in err. */
static const struct denoiser_kind *find_kind(const struct model *m, bool low, json_t **config, char *err,
                                             size_t errlen)
{
    *config = model_config(m, part[low], err, errlen);
    return *config
               ? (const struct denoiser_kind *)network_find(PART_DENOISER, *config, file[low], err, errlen)
               : NULL;
}

struct denoiser *denoiser_open(struct kern *k, const struct model *m, bool shapes_only, char *err,
                               size_t errlen)
{
    if (!model_has_part(m, part[true])) return denoiser_open_expert(k, m, false, shapes_only, err, errlen);
    fail(err, errlen,
         "transformer_2: a model of two transformers, one for each half of the levels: --expert says which");
    return NULL;
}

struct denoiser *denoiser_open_expert(struct kern *k, const struct model *m, bool low, bool shapes_only,
                                      char *err, size_t errlen)
{
    json_t *config;
    const struct denoiser_kind *kind = find_kind(m, low, &config, err, errlen);
    const struct network *n = kind ? &kind->network : NULL;
    struct denoiser *d = n ? calloc(1, sizeof *d) : NULL;
    bool good = d || (n && fail(err, errlen, "out of memory"));
    if (good) {
        d->k = k;
        d->kind = kind;
        d->net = network_new(n, config, file[low], err, errlen);
        good = d->net &&
               (shapes_only ? network_shapes(n, d->net, &d->parameters, err, errlen)
                            : network_load(n, d->net, k, m, part[low], &d->parameters, d->id, err, errlen));
        if (good) d->kind->geometry(&d->geometry, d->net);
        good = good && d->kind->open(d, err, errlen);
    }
    json_decref(config);
    if (good) return d;
    denoiser_close(d);
    return NULL;
}

bool denoiser_boundary(const struct model *m, double *boundary, char *err, size_t errlen)
{
    *boundary = 0;
    if (!model_has_part(m, part[true])) return true;
    json_t *index = model_index(m, err, errlen);
    *boundary = json_number_value(json_object_get(index, "boundary_ratio"));
    bool there = index != NULL;
    json_decref(index);
    return there &&
           ((*boundary > 0 && *boundary <= 0.999) ||
            fail(err, errlen,
                 "model_index.json: no boundary_ratio in 0..0.999, to tell when transformer_2 begins"));
}

void denoiser_close(struct denoiser *d)
{
    if (!d) return;
    free(d->linears.linear);
    free(d->net);
    free(d);
}

bool denoiser_geometry(const struct model *m, bool text_only, struct latent_geometry *g, char *err,
                       size_t errlen)
{
    json_t *config;
    const struct denoiser_kind *kind = find_kind(m, false, &config, err, errlen);
    *g = (struct latent_geometry){0};
    bool good = kind && text_only && kind->text_shape(g, config, file[0], err, errlen);
    void *net = kind && !text_only ? network_new(&kind->network, config, file[0], err, errlen) : NULL;
    if (net) kind->geometry(g, net);
    json_decref(config);
    free(net);
    return good || net;
}

const struct published *denoiser_published(const struct model *m, char *err, size_t errlen)
{
    json_t *config;
    const struct denoiser_kind *kind = find_kind(m, false, &config, err, errlen);
    json_decref(config);
    return kind ? &kind->published : NULL;
}

/* ---- sizes --------------------------------------------------------------------------------------------- */

bool geometry_fits(const struct latent_geometry *g, int64_t frames, int64_t width, int64_t height, char *err,
                   size_t errlen)
{
    const int64_t side = g->spatial * g->patch;
    if (width % side || height % side) return fail(err, errlen, "--size: multiples of %lld", (long long)side);
    return !frames || frames % g->temporal == 1 % g->temporal ||
           fail(err, errlen, "--frames: one more than a multiple of %lld", (long long)g->temporal);
}

struct tensor geometry_latents(const struct latent_geometry *g, int64_t frames, int64_t width, int64_t height)
{
    return tensor_of(DT_F32, NULL, 4, ((frames ? frames : g->frames) - 1) / g->temporal + 1, g->channels,
                     (height ? height : g->height) / g->spatial, (width ? width : g->width) / g->spatial);
}

bool geometry_reads(const struct latent_geometry *g, const struct tensor *embeds, const char *name, char *err,
                    size_t errlen)
{
    const int64_t rows = embeds->shape[0], least = g->text_short ? 1 : g->text_length;
    return (rows >= least && rows <= g->text_length && embeds->shape[1] == g->text_width) ||
           fail(err, errlen, "%s [%lld,%lld], the model wants [%s%lld,%lld]", name, (long long)rows,
                (long long)embeds->shape[1], g->text_short ? "1.." : "", (long long)g->text_length,
                (long long)g->text_width);
}

int64_t denoiser_video_frames(const struct denoiser *d, int64_t frames)
{
    int64_t latent_frames = (frames - 1) / d->geometry.temporal + 1;
    return d->kind->video_frames ? d->kind->video_frames(latent_frames) : frames;
}

/* ---- the network --------------------------------------------------------------------------------------- */

bool denoiser_grid(struct denoiser *d, struct denoiser_grid *g, const struct tensor *latents, char *err,
                   size_t errlen)
{
    return d->kind->grid(d, g, latents, err, errlen);
}

struct tensor denoiser_text(struct denoiser *d, const struct tensor *embeds, bool often)
{
    const int64_t rows = embeds->shape[0], length = d->geometry.text_length;
    struct tensor text = kern_tensor(d->k, kern_compute(d->k), 2, length, d->geometry.text_width),
                  given = tensor_rows(&text, 0, rows), rest = tensor_rows(&text, rows, length - rows);
    kern_upload(d->k, &given, embeds);
    if (rows < length) kern_zero(d->k, &rest);
    return often && d->kind->digest ? d->kind->digest(d, &text) : text;
}

void denoiser_forward(struct denoiser *d, const struct denoiser_grid *g, struct tensor *out,
                      const struct tensor *latents, const struct tensor *text, double timestep,
                      const enum recompute *keep)
{
    d->kind->forward(d, g, out, latents, text, timestep, keep);
}

void denoiser_backward(struct denoiser *d, const struct denoiser_grid *g, const struct tensor *dout)
{
    d->kind->backward(d, g, dout);
}

struct block_residual denoiser_residual(struct denoiser *d, const struct denoiser_grid *g)
{
    return (struct block_residual){
        .sum = kern_tensor(d->k, kern_compute(d->k), 2, grid_tokens(&g->rows), d->linears.width)};
}

bool residual_begin(struct denoiser *d, struct tensor *video)
{
    struct block_residual *r = d->residual;
    if (!r) return true;
    if (r->use == RESIDUAL_ADD) add(d->k, video, &r->sum);
    if (r->use == RESIDUAL_TAKE) kern_copy(d->k, &r->sum, video);
    return r->use == RESIDUAL_TAKE;
}

void residual_end(struct denoiser *d, const struct tensor *video)
{
    struct block_residual *r = d->residual;
    if (r && r->use == RESIDUAL_TAKE) axpby(d->k, &r->sum, 1, video, -1);
}
