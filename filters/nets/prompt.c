#include "filters/nets/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "filters/nets/denoiser.h"
#include "formats/tokenizer.h"

bool prompt_open(struct prompt_encoder *p, struct kern *k, const struct model *m, char *err, size_t errlen)
{
    char path[4096];
    struct latent_geometry g;
    *p = (struct prompt_encoder){.k = k};
    if (!denoiser_geometry(m, true, &g, err, errlen)) return false;
    p->length = g.text_length;
    p->width = g.text_width;

    if (!model_file(m, "tokenizer/spiece.model", path, sizeof path, err, errlen) ||
        !(p->tokenizer = tokenizer_open(path, err, errlen)) ||
        !(p->encoder = text_encoder_open(k, m, p->length, err, errlen)))
        return false;
    if (p->encoder->width != p->width)
        return fail(err, errlen, "the text encoder is %lld wide, the transformer reads %lld",
                    (long long)p->encoder->width, (long long)p->width);
    if (tokenizer_size(p->tokenizer) > p->encoder->vocab)
        return fail(err, errlen, "the tokenizer has %d pieces, the text encoder knows %lld",
                    tokenizer_size(p->tokenizer), (long long)p->encoder->vocab);
    p->ids = tensor_of(DT_I32, calloc((size_t)p->length, sizeof(int32_t)), 1, p->length);
    return p->ids.data || fail(err, errlen, "out of memory");
}

void prompt_close(struct prompt_encoder *p)
{
    free(p->ids.data);
    tokenizer_close(p->tokenizer);
    text_encoder_close(p->encoder);
}

bool prompt_ids(struct prompt_encoder *p, int32_t *ids, const char *text, size_t bytes, int64_t *tokens,
                char *err, size_t errlen)
{
    *tokens = tokenizer_encode(p->tokenizer, text, bytes, ids, (int)p->length, err, errlen);
    return *tokens >= 0;
}

bool prompt_encode(struct prompt_encoder *p, struct tensor *embeds, const char *text, size_t bytes,
                   int64_t *tokens, char *err, size_t errlen)
{
    if (!prompt_ids(p, p->ids.data, text, bytes, tokens, err, errlen)) return false;
    if (text_encode(p->encoder, embeds, &p->ids)) return true;
    fail(err, errlen, "%s", kern_error(p->k));
    kern_clear(p->k);
    return false;
}

bool prompt_encode_once(struct tensor *embeds, struct kern *k, const struct model *m, const char *text,
                        char *err, size_t errlen)
{
    struct prompt_encoder p;
    int64_t tokens;
    *embeds = (struct tensor){0};
    bool good = prompt_open(&p, k, m, err, errlen);
    if (good) {
        *embeds =
            tensor_of(DT_F32, calloc((size_t)(p.length * p.width), sizeof(float)), 2, p.length, p.width);
        good = embeds->data ? prompt_encode(&p, embeds, text, strlen(text), &tokens, err, errlen)
                            : fail(err, errlen, "out of memory");
    }
    prompt_close(&p);
    return good;
}
