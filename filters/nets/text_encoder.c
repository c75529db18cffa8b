#include "filters/nets/text_encoder.h"

#include <stdlib.h>

#include "filters/nets/families.h"

struct text_encoder *text_encoder_open(struct kern *k, const struct model *m, int64_t length, char *err,
                                       size_t errlen)
{
    static const char file[] = "text_encoder/config.json";
    json_t *config = model_config(m, "text_encoder", err, errlen);
    const struct network *n = config ? network_find(PART_TEXT_ENCODER, config, file, err, errlen) : NULL;
    struct text_encoder *t = n ? calloc(1, sizeof *t) : NULL;
    bool good = t || (n && fail(err, errlen, "out of memory"));
    if (good) {
        t->k = k;
        t->length = length;
        t->kind = (const struct text_encoder_kind *)n;
        t->net = network_new(n, config, file, err, errlen);
        good = t->net && network_load(n, t->net, k, m, "text_encoder", NULL, t->id, err, errlen) &&
               t->kind->open(t, m, err, errlen);
    }
    json_decref(config);
    if (good) return t;
    text_encoder_close(t);
    return NULL;
}

void text_encoder_close(struct text_encoder *t)
{
    if (t && t->net) t->kind->close(t->net);
    if (t) free(t->net);
    free(t);
}

bool text_encode(struct text_encoder *t, struct tensor *embeds, const struct tensor *ids)
{
    return t->kind->encode(t, embeds, ids);
}
