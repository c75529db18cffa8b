/* t5-encode - text to what the transformer reads.
 *
 *   stdin   JSON lines or records with `prompt`, else `caption`
 *   stdout  prompt_embeds [L,D]           everything else passes through
 */
#include <stdlib.h>

#include "filters/compute.h"
#include "filters/filter.h"
#include "filters/nets/t5.h"
#include "formats/tokenizer.h"

static const char help[] =
    "t5-encode - text to embeddings\n"
    "usage: t5-encode -m DIR [options] <prompts.jsonl >embeds\n"
    "  -m, --model DIR      model folder (text_encoder/, tokenizer/, transformer/config.json), or "
    "random:PRESET\n"
    "COMMON\n"
    "stdin   JSON lines or records whose meta has `prompt` or, failing that, `caption`; an empty text is "
    "one, too\n"
    "stdout  prompt_embeds BF16 or F32 [L,D], L the transformer's max_text_seq_length; a longer text is cut, "
    "which\n"
    "        is told; padding is encoded with the rest; meta: text_encoder (the weights' id)\n"
    "exit    0 every text encoded, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m CogVideoX-5b <prompts.jsonl | sample -m CogVideoX-5b >latents.mp\n"
    "see also: prompts, sample, pack\n";

static const struct option_spec options[] = {{0}};

struct encoder {
    struct t5 *t5;
    struct tokenizer *tokenizer;
    struct tensor ids; /* I32 [L] */
};

static bool refuse(struct frame *f, const char *why)
{
    snprintf(f->error, sizeof f->error, "%s", why);
    return false;
}

/* The frame's error, or the device's, tells why not. */
static bool encode(struct encoder *e, struct frame *f)
{
    const json_t *text = json_object_get(frame_meta(f), "prompt");
    char err[256];
    if (!text || json_is_null(text)) text = json_object_get(frame_meta(f), "caption");
    if (!text || json_is_null(text)) return refuse(f, "neither `prompt` nor `caption` to encode");
    if (!json_is_string(text)) return refuse(f, "its `prompt` or `caption` is no text");

    const int64_t length = e->ids.shape[0];
    int64_t whole = tokenizer_encode(e->tokenizer, json_string_value(text), json_string_length(text),
                                     e->ids.data, (int)length, err, sizeof err);
    if (whole < 0) return refuse(f, err);
    if (whole > length) say(frame_key(f), "%lld tokens cut to %lld", (long long)whole, (long long)length);

    struct tensor *embeds = frame_add(f, "prompt_embeds", filter_dtype(), 2, length, t5_width(e->t5));
    if (!embeds || !t5_encode(e->t5, embeds, &e->ids)) return false;
    json_object_set_new(frame_meta(f), "text_encoder", json_string(t5_id(e->t5)));
    return true;
}

static void open_encoder(struct encoder *e, struct kern *k, const struct model *m)
{
    char err[512], path[4096];
    struct config c = {.json = model_config(m, "transformer", err, sizeof err),
                       .file = "transformer/config.json"};
    if (!c.json) die("%s", err);
    const int64_t length = config_int_or(&c, "max_text_seq_length", 1, 4096, 226);
    const int64_t width = config_int_or(&c, "text_embed_dim", 1, 1 << 16, 4096);
    if (c.error[0]) die("%s: %s", filter.model, c.error);
    json_decref(c.json);

    if (!model_file(m, "tokenizer/spiece.model", path, sizeof path, err, sizeof err)) die("%s", err);
    if (!(e->tokenizer = tokenizer_open(path, err, sizeof err))) die("%s", err);
    if (!(e->t5 = t5_open(k, m, length, err, sizeof err))) die("%s: %s", filter.model, err);
    if (t5_width(e->t5) != width)
        die("%s: the text encoder is %lld wide, the transformer reads %lld", filter.model,
            (long long)t5_width(e->t5), (long long)width);
    if (tokenizer_size(e->tokenizer) > t5_vocab(e->t5))
        die("%s: the tokenizer has %d pieces, the text encoder knows %lld", filter.model,
            tokenizer_size(e->tokenizer), (long long)t5_vocab(e->t5));
    e->ids = tensor_of(DT_I32, calloc((size_t)length, sizeof(int32_t)), 1, length);
    if (!e->ids.data) die("out of memory");
}

int main(int argc, char **argv)
{
    char err[512];
    filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_FRAMES_OUT | FILTER_NEEDS_MODEL);
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    struct encoder e;
    open_encoder(&e, k, m);
    json_object_set_new(filter.settings, "text_encoder", json_string(t5_id(e.t5)));

    struct frame f = FRAME_INIT;
    while (filter_next(&f)) {
        if (encode(&e, &f)) {
            filter_emit(&f);
        } else {
            filter_fail(&f, "%s", kern_ok(k) ? f.error : kern_error(k));
            kern_clear(k);
        }
    }
    frame_free(&f);
    free(e.ids.data);
    tokenizer_close(e.tokenizer);
    t5_close(e.t5);
    kern_close(k);
    model_close(m);
    return filter_finish();
}
