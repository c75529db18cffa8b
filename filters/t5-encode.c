/* t5-encode - text to what the transformer reads.
 *
 *   stdin   JSON lines or records with `prompt`, else `caption`
 *   stdout  prompt_embeds [L,D]           everything else passes through */
#include <stdlib.h>
#include <string.h>

#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"
#include "filters/nets/prompt.h"

static const char help[] =
    "t5-encode - text to embeddings\n"
    "usage: t5-encode -m DIR [options] <prompts.jsonl >embeds\n"
    "  -m, --model DIR      model folder (text_encoder/, tokenizer/, transformer/config.json), or random:PRESET\n"
    "  --batch N            texts at once, 1 to 64: 8 on a GPU, on the CPU 1; changes no bit\n"
    "COMMON\n"
    "stdin   JSON lines or records whose meta has `prompt` or, failing that, `caption`; an empty text is one, too\n"
    "stdout  prompt_embeds BF16 or F32 [L,D], L the transformer's max_text_seq_length; a longer text is cut, which\n"
    "        is told; padding is encoded with the rest; meta: text_encoder (the weights' id)\n"
    "exit    0 every text encoded, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m CogVideoX-5b <prompts.jsonl | sample -m CogVideoX-5b >latents.mp\n"
    "see also: prompts, sample, pack\n";

enum { MOST = 64 };
static int64_t batch; /* texts at once */

static const struct option_spec options[] = {
    {.name = "batch", .kind = OPT_INT, .dest = &batch, .low = 1, .high = MOST}, {0}};

/* Records on their way, and what there is of them: ids [MOST,length], embeds [MOST,length,width]. */
static struct {
    struct record frame[MOST];
    bool good[MOST];
    int64_t tokens[MOST], count, texts; /* records, and those of them that have a text */
    struct tensor ids, embeds;
} now;

static bool refuse(struct record *f, const char *why)
{
    snprintf(f->error, sizeof f->error, "%s", why);
    return false;
}

/* The record's text becomes the next row of ids. */
static bool read_text(struct prompt_encoder *p, struct record *f, int64_t *tokens)
{
    const json_t *text = json_object_get(record_meta(f), "prompt");
    char err[512];
    int32_t *ids = (int32_t *)now.ids.data + now.texts * p->length;
    if (!text || json_is_null(text)) text = json_object_get(record_meta(f), "caption");
    if (!text || json_is_null(text)) return refuse(f, "neither `prompt` nor `caption` to encode");
    if (!json_is_string(text)) return refuse(f, "its `prompt` or `caption` is no text");
    if (!prompt_ids(p, ids, json_string_value(text), json_string_length(text), tokens, err, sizeof err))
        return refuse(f, err);
    now.texts++;
    return true;
}

static bool add_embeds(struct prompt_encoder *p, struct record *f, const struct tensor *from, int64_t tokens)
{
    struct tensor *embeds = record_add(f, "prompt_embeds", from->dtype, 2, p->length, p->width);
    if (!embeds) return false;
    memcpy(embeds->data, from->data, tensor_bytes(from));
    if (tokens > p->length)
        say(record_key(f), "%lld tokens cut to %lld", (long long)tokens, (long long)p->length);
    json_object_set_new(record_meta(f), "text_encoder", json_string(p->encoder->id));
    family_sign(record_meta(f), PART_TEXT_ENCODER, &p->encoder->kind->network);
    return true;
}

/* Encodes the texts that were read, all at once, and sends their records on in the order in
 * which they came. */
static void encode(struct prompt_encoder *p)
{
    char err[512] = "";
    struct tensor ids = tensor_rows(&now.ids, 0, now.texts), embeds = tensor_rows(&now.embeds, 0, now.texts);
    bool encoded = now.texts == 0 || text_encode(p->encoder, &embeds, &ids);
    if (!encoded) snprintf(err, sizeof err, "%s", kern_error(p->k));
    kern_clear(p->k);
    for (int64_t i = 0, text = 0; i < now.count; i++) {
        struct record *f = &now.frame[i];
        bool good = now.good[i] && (encoded || refuse(f, err));
        if (good) {
            struct tensor row = tensor_rows(&embeds, text++, 1),
                          from = tensor_as(&row, 2, p->length, p->width);
            good = add_embeds(p, f, &from, now.tokens[i]);
        }
        if (good)
            filter_emit(f);
        else
            filter_fail(f, "%s", f->error);
    }
    now.count = now.texts = 0;
}

int main(int argc, char **argv)
{
    char err[512];
    filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_RECORDS_OUT | FILTER_NEEDS_MODEL);
    filter_checked();
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    struct prompt_encoder p;
    if (!prompt_open(&p, k, m, err, sizeof err)) die("%s: %s", filter.model, err);
    json_object_set_new(filter.settings, "text_encoder", json_string(p.encoder->id));
    if (!batch) batch = strcmp(kern_device(k), "cpu") ? 8 : 1;
    now.ids = tensor_of(DT_I32, NULL, 2, batch, p.length);
    now.embeds = tensor_of(filter_dtype(), NULL, 3, batch, p.length, p.width);
    now.ids.data = malloc(tensor_bytes(&now.ids));
    now.embeds.data = malloc(tensor_bytes(&now.embeds));
    if (!now.ids.data || !now.embeds.data) die("no memory for %lld texts at once", (long long)batch);
    for (int i = 0; i < MOST; i++) now.frame[i] = (struct record)RECORD_INIT;

    while (filter_next(&now.frame[now.count])) {
        const int64_t i = now.count++;
        now.good[i] = read_text(&p, &now.frame[i], &now.tokens[i]);
        if (now.count == batch) encode(&p);
    }
    encode(&p);
    for (int i = 0; i < MOST; i++) record_free(&now.frame[i]);
    free(now.ids.data);
    free(now.embeds.data);
    prompt_close(&p);
    compute_close(k);
    model_close(m);
    return filter_finish();
}
