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
    "  --batch N            texts at once, 1 to 64: 32 on a GPU, on the CPU 1; changes no bit\n"
    "COMMON\n"
    "stdin   JSON lines or records whose meta has `prompt` or, failing that, `caption`; an empty text is one, too\n"
    "stdout  prompt_embeds BF16 or F32 [L,D]; meta: text_encoder (the weights' id), of UMT5 text_encoder_class. A text that is\n"
    "        longer than the transformer reads is cut, which is told.\n"
    "T5      (CogVideoX) L is what the transformer reads; padding is encoded with the rest; a text is encoded as it is\n"
    "UMT5    (Wan) L is the text's tokens, 512 at most. Texts are cleaned as WanPipeline's, with ftfy: HTML entities, also\n"
    "        nested ones where there is no <; curly quotes, Latin ligatures, full and half width; UTF-8 read as\n"
    "        Latin-1 or Windows-1252; control characters, terminal escapes; white space becomes single blanks. Not\n"
    "        done: Unicode's NFC (as a rule the tokenizer's NFKC does it), UTF-8 read as other encodings or with lost bytes,\n"
    "        and what is nested more than 64 deep\n"
    "exit    0 every text encoded, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m CogVideoX-5b <prompts.jsonl | sample -m CogVideoX-5b >latents.mp\n"
    "see also: prompts, sample, pack\n";

enum { MOST = 64 };
static int64_t batch; /* texts at once */

static const struct option_spec options[] = {
    {.name = "batch", .kind = OPT_INT, .dest = &batch, .low = 1, .high = MOST}, {0}};

/* Records on their way, and what there is of them: ids and embeddings, text after text, each as long as it is. */
static struct {
    struct record frame[MOST];
    bool good[MOST];
    int64_t tokens[MOST], count, texts; /* records, and those of them that have a text */
    int64_t rows[MOST], all;            /* of each text, and of all */
    struct tensor ids, embeds;          /* [batch length], [batch length,width] */
} now;

static bool refuse(struct record *f, const char *why)
{
    snprintf(f->error, sizeof f->error, "%s", why);
    return false;
}

/* The record's text becomes the next ids. */
static bool read_text(struct prompt_encoder *p, struct record *f, int64_t *tokens)
{
    const json_t *text = json_object_get(record_meta(f), "prompt");
    char err[512];
    int32_t *ids = (int32_t *)now.ids.data + now.all;
    if (!text || json_is_null(text)) text = json_object_get(record_meta(f), "caption");
    if (!text || json_is_null(text)) return refuse(f, "neither `prompt` nor `caption` to encode");
    if (!json_is_string(text)) return refuse(f, "its `prompt` or `caption` is no text");
    if (!prompt_ids(p, ids, json_string_value(text), json_string_length(text), tokens, err, sizeof err))
        return refuse(f, err);
    now.all += now.rows[now.texts++] = prompt_rows(p, *tokens);
    return true;
}

static bool add_embeds(struct prompt_encoder *p, struct record *f, const struct tensor *from, int64_t tokens)
{
    struct tensor *embeds = record_add(f, "prompt_embeds", from->dtype, 2, from->shape[0], p->width);
    if (!embeds) return false;
    memcpy(embeds->data, from->data, tensor_bytes(from));
    if (tokens > p->length)
        say(record_key(f), "%lld tokens cut to %lld", (long long)tokens, (long long)p->length);
    json_object_set_new(record_meta(f), "text_encoder", json_string(p->encoder->id));
    family_sign(record_meta(f), PART_TEXT_ENCODER, &p->encoder->kind->network);
    return true;
}

/* Those of one length that stand together go at once. */
static bool encode_texts(struct prompt_encoder *p)
{
    bool good = true;
    for (int64_t i = 0, at = 0, n; good && i < now.texts; i += n) {
        for (n = 1; i + n < now.texts && now.rows[i + n] == now.rows[i];) n++;
        struct tensor ids = tensor_rows(&now.ids, at, n * now.rows[i]),
                      embeds = tensor_rows(&now.embeds, at, n * now.rows[i]);
        ids = tensor_as(&ids, 2, n, now.rows[i]);
        good = text_encode(p->encoder, &embeds, &ids);
        at += n * now.rows[i];
    }
    return good;
}

/* Encodes the texts that were read, and sends their records on in the order in
 * which they came. */
static void encode(struct prompt_encoder *p)
{
    char err[512] = "";
    bool encoded = encode_texts(p);
    if (!encoded) snprintf(err, sizeof err, "%s", kern_error(p->k));
    kern_clear(p->k);
    for (int64_t i = 0, text = 0, at = 0; i < now.count; i++) {
        struct record *f = &now.frame[i];
        bool good = now.good[i] && (encoded || refuse(f, err));
        if (good) {
            struct tensor from = tensor_rows(&now.embeds, at, now.rows[text]);
            good = add_embeds(p, f, &from, now.tokens[i]);
            at += now.rows[text++];
        }
        if (good)
            filter_emit(f);
        else
            filter_fail(f, "%s", f->error);
    }
    now.count = now.texts = now.all = 0;
}

static struct prompt_encoder p;

/* What was read is sent on before the program ends over what came after it: also less than a batch. */
static bool send_on(void)
{
    encode(&p);
    return true;
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT; /* not one of a batch: that may be sent on while this is read */
    char err[512];
    filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_RECORDS_OUT | FILTER_NEEDS_MODEL);
    filter_checked();
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    if (!prompt_open(&p, k, m, err, sizeof err)) die("%s: %s", filter.model, err);
    json_object_set_new(filter.settings, "text_encoder", json_string(p.encoder->id));
    if (!batch) batch = strcmp(kern_device(k), "cpu") ? 32 : 1;
    now.ids = tensor_of(DT_I32, NULL, 1, batch * p.length);
    now.embeds = tensor_of(filter_dtype(), NULL, 2, batch * p.length, p.width);
    now.ids.data = malloc(tensor_bytes(&now.ids));
    now.embeds.data = kern_host_alloc(k, tensor_bytes(&now.embeds)); /* where a GPU writes by itself */
    if (!now.ids.data || !now.embeds.data) die("no memory for %lld texts at once", (long long)batch);
    for (int i = 0; i < MOST; i++) now.frame[i] = (struct record)RECORD_INIT;

    filter_on_trouble(send_on);
    while (filter_next(&f)) {
        const int64_t i = now.count++;
        const struct record spare = now.frame[i];
        now.frame[i] = f;
        f = spare;
        now.good[i] = read_text(&p, &now.frame[i], &now.tokens[i]);
        if (now.count == batch) encode(&p);
    }
    encode(&p);
    record_free(&f);
    for (int i = 0; i < MOST; i++) record_free(&now.frame[i]);
    free(now.ids.data);
    kern_host_free(k, now.embeds.data);
    prompt_close(&p);
    compute_close(k);
    model_close(m);
    return filter_finish();
}
