#include "filters/nets/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "filters/nets/denoiser.h"
#include "formats/tokenizer.h"

static bool open_tokenizer(struct prompt_encoder *p, const struct model *m, char *err, size_t errlen)
{
    char path[4096], other[4096], none[256];
    if (!model_file(m, "tokenizer/spiece.model", path, sizeof path, err, errlen)) {
        if (model_file(m, "tokenizer/tokenizer.json", other, sizeof other, none, sizeof none))
            fail(err, errlen, "%s is not read here, and there is no spiece.model beside it", other);
        return false;
    }
    p->tokenizer = tokenizer_open(path, err, errlen);
    return p->tokenizer != NULL;
}

bool prompt_open(struct prompt_encoder *p, struct kern *k, const struct model *m, char *err, size_t errlen)
{
    struct latent_geometry g;
    *p = (struct prompt_encoder){.k = k};
    if (!denoiser_geometry(m, true, &g, err, errlen)) return false;
    p->length = g.text_length;
    p->width = g.text_width;

    if (!open_tokenizer(p, m, err, errlen) || !(p->encoder = text_encoder_open(k, m, p->length, err, errlen)))
        return false;
    if (p->encoder->kind->padded == g.text_short)
        return fail(err, errlen, "the text encoder is a %s, which %s padding; the transformer wants it %s",
                    p->encoder->kind->network.class_name, p->encoder->kind->padded ? "encodes" : "leaves out",
                    p->encoder->kind->padded ? "left out" : "encoded");
    if (p->encoder->width != p->width)
        return fail(err, errlen, "the text encoder is %lld wide, the transformer reads %lld",
                    (long long)p->encoder->width, (long long)p->width);
    if (tokenizer_size(p->tokenizer) > p->encoder->vocab)
        return fail(err, errlen, "the tokenizer has %d pieces, the text encoder knows %lld",
                    tokenizer_size(p->tokenizer), (long long)p->encoder->vocab);
    return true;
}

void prompt_close(struct prompt_encoder *p)
{
    tokenizer_close(p->tokenizer);
    text_encoder_close(p->encoder);
}

bool prompt_ids(struct prompt_encoder *p, int32_t *ids, const char *text, size_t bytes, int64_t *tokens,
                char *err, size_t errlen)
{
    char *clean = NULL;
    if (p->encoder->kind->clean) {
        if (!(clean = p->encoder->kind->clean(text, bytes, &bytes)))
            return fail(err, errlen, "out of memory");
        text = clean;
    }
    *tokens = tokenizer_encode(p->tokenizer, text, bytes, ids, (int)p->length, err, errlen);
    free(clean);
    return *tokens >= 0;
}

int64_t prompt_rows(const struct prompt_encoder *p, int64_t tokens)
{
    return p->encoder->kind->padded || tokens > p->length ? p->length : tokens;
}

static bool encode_one(struct prompt_encoder *p, struct tensor *embeds, const char *text, char *err,
                       size_t errlen)
{
    int64_t tokens = 0;
    int32_t *ids = malloc(sizeof *ids * (size_t)p->length);
    *embeds =
        tensor_of(DT_F32, malloc(sizeof(float) * (size_t)(p->length * p->width)), 2, p->length, p->width);
    bool good = (ids && embeds->data) || fail(err, errlen, "out of memory");
    good = good && prompt_ids(p, ids, text, strlen(text), &tokens, err, errlen);
    if (good) {
        const int64_t rows = embeds->shape[0] = prompt_rows(p, tokens);
        const struct tensor some = tensor_of(DT_I32, ids, 1, rows);
        good = text_encode(p->encoder, embeds, &some) || fail(err, errlen, "%s", kern_error(p->k));
    }
    free(ids);
    return good;
}

bool prompt_encode_once(struct tensor *embeds, struct kern *k, const struct model *m, const char *text,
                        char *err, size_t errlen)
{
    struct prompt_encoder p;
    *embeds = (struct tensor){0};
    bool good = prompt_open(&p, k, m, err, errlen) && encode_one(&p, embeds, text, err, errlen);
    prompt_close(&p);
    return good;
}
