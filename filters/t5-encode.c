/* t5-encode - text to what the transformer reads.
 *
 *   stdin   JSON lines or records with `prompt`, else `caption`
 *   stdout  prompt_embeds [L,D]           everything else passes through
 */
#include <stdlib.h>

#include "filters/compute.h"
#include "filters/filter.h"
#include "filters/nets/prompt.h"

static const char help[] =
    "t5-encode - text to embeddings\n"
    "usage: t5-encode -m DIR [options] <prompts.jsonl >embeds\n"
    "  -m, --model DIR      model folder (text_encoder/, tokenizer/, transformer/config.json), or random:PRESET\n"
    "COMMON\n"
    "stdin   JSON lines or records whose meta has `prompt` or, failing that, `caption`; an empty text is one, too\n"
    "stdout  prompt_embeds BF16 or F32 [L,D], L the transformer's max_text_seq_length; a longer text is cut, which\n"
    "        is told; padding is encoded with the rest; meta: text_encoder (the weights' id)\n"
    "exit    0 every text encoded, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m CogVideoX-5b <prompts.jsonl | sample -m CogVideoX-5b >latents.mp\n"
    "see also: prompts, sample, pack\n";

static const struct option_spec options[] = {{0}};

static bool refuse(struct frame *f, const char *why)
{
    snprintf(f->error, sizeof f->error, "%s", why);
    return false;
}

static bool encode(struct prompt_encoder *p, struct frame *f)
{
    const json_t *text = json_object_get(frame_meta(f), "prompt");
    char err[512];
    int64_t tokens;
    if (!text || json_is_null(text)) text = json_object_get(frame_meta(f), "caption");
    if (!text || json_is_null(text)) return refuse(f, "neither `prompt` nor `caption` to encode");
    if (!json_is_string(text)) return refuse(f, "its `prompt` or `caption` is no text");

    struct tensor *embeds = frame_add(f, "prompt_embeds", filter_dtype(), 2, p->length, p->width);
    if (!embeds) return false;
    if (!prompt_encode(p, embeds, json_string_value(text), json_string_length(text), &tokens, err,
                       sizeof err))
        return refuse(f, err);
    if (tokens > p->length)
        say(frame_key(f), "%lld tokens cut to %lld", (long long)tokens, (long long)p->length);
    json_object_set_new(frame_meta(f), "text_encoder", json_string(t5_id(p->t5)));
    return true;
}

int main(int argc, char **argv)
{
    char err[512];
    filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_FRAMES_OUT | FILTER_NEEDS_MODEL);
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    struct prompt_encoder p;
    if (!prompt_open(&p, k, m, err, sizeof err)) die("%s: %s", filter.model, err);
    json_object_set_new(filter.settings, "text_encoder", json_string(t5_id(p.t5)));

    struct frame f = FRAME_INIT;
    while (filter_next(&f)) {
        if (encode(&p, &f))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    frame_free(&f);
    prompt_close(&p);
    compute_close(k);
    model_close(m);
    return filter_finish();
}
