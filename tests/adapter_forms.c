/* Adapters in other tools' forms: read as diffusers reads them, written as diffusers reads them, there and back to the
 * same bytes, and refused by name when a tensor would not be used. The network's answers differ from diffusers' by F32's
 * rounding, 1e-5 at most; what is folded is rounded once, so that even these bytes are equal. */
#include <limits.h>

#include "filters/learning/adapter.h"
#include "filters/nets/families.h"
#include "tests/cases.h"
#include "tests/denoised.h"
#include "tests/device.h"
#include "tests/scratch.h"

static struct kern *k;
static struct cases c;
static struct denoiser *wan; /* wan/h12 */
static char err[1024];

static struct adapter_base base_of(const struct denoiser *d)
{
    return (struct adapter_base){.linears = &d->linears};
}

/* ---- files --------------------------------------------------------------------------------------------- */

static struct safetensors *open_file(const char *path)
{
    struct safetensors *s = safetensors_open(path, err, sizeof err);
    if (!s) printf("Bail out! %s\n", err), exit(1);
    return s;
}

static void *bytes_of(const struct safetensors *s, const struct safetensors_entry *e)
{
    void *data = malloc(e->bytes + 1);
    if (!safetensors_read(s, e, data, err, sizeof err)) printf("Bail out! %s\n", err), exit(1);
    return data;
}

/* Whether every tensor of a is one of b, to the byte; with all, also the other way round. */
static bool same_tensors(const char *a, const char *b, bool all)
{
    struct safetensors *x = open_file(a), *y = open_file(b);
    bool same = x->count > 0 && (!all || x->count == y->count);
    for (int i = 0; i < x->count; i++) {
        const struct safetensors_entry *e = &x->entry[i], *f = safetensors_find(y, e->name);
        void *p = bytes_of(x, e), *q = f ? bytes_of(y, f) : NULL;
        bool good = f && e->shape.dtype == f->shape.dtype && tensor_same_shape(&e->shape, &f->shape) &&
                    !memcmp(p, q, e->bytes);
        if (!good) printf("# %s: %s\n", e->name, f ? "differs" : "is not there");
        same = same && good;
        free(p), free(q);
    }
    safetensors_close(x), safetensors_close(y);
    return same;
}

/* Without a model, by the names alone. */
static bool convert_alone(const char *from, const char *to, const char *tool)
{
    struct linears l;
    struct adapter_converted did;
    for (int i = 0; i < family_count; i++) {
        const struct denoiser_kind *kind = families[i].denoiser;
        if (!kind || !adapter_linears(&l, from, kind->names, err, sizeof err)) continue;
        bool good = adapter_convert(from, to, tool, false, (struct adapter_base){.linears = &l}, &did, err,
                                    sizeof err);
        free(l.linear);
        return good;
    }
    return false;
}

/* ---- against diffusers --------------------------------------------------------------------------------- */

static void loaded(size_t i, json_t *line)
{
    char path[4096];
    const char *file = text_of(line, "file");
    struct adapter_set set = {.count = 0};
    struct adapter *a = adapter_open(k, data_file(path, "wan/forms", file), base_of(wan), err, sizeof err);
    if (!ok(a != NULL, "%s is read", file)) {
        printf("# %s\n", err);
        return;
    }
    const bool folded = !strcmp(text_of(line, "form"), "folded");
    ok(a->rank == 4 && a->alpha == (folded ? 4 : number_of(line, "alpha")), "%s: rank %lld, alpha %g", file,
       (long long)a->rank, a->alpha);
    adapter_set_add(&set, a);
    wan->hook = &set.hook;
    struct tensor latents = cases_tensor(&c, "latents"), text = cases_tensor(&c, "text"),
                  want = cases_tensor(&c, "%zu.out", i), got = denoised(wan, &latents, &text, 500, false);
    double rel = relative_l2(got.data, want.data, (size_t)tensor_count(&want));
    ok(kern_ok(k) && rel <= tolerance(k, 1e-5, 3e-2) && number_of(line, "effect") > 0.1,
       "%s: the answer with it is off by %.2g from diffusers', of an effect of %.2g", file, rel,
       number_of(line, "effect"));
    free(latents.data), free(text.data), free(want.data), free(got.data);
    wan->hook = NULL;
    adapter_set_close(&set);
}

/* What is written is what diffusers loaded. The forms that only are read come back as the adapter they were made of. */
static void converted(json_t *line)
{
    char original[4096], reference[4096];
    const char *file = text_of(line, "file"), *form = text_of(line, "form");
    const bool kohya = !strcmp(form, "kohya"), folded = !strcmp(form, "folded");
    struct adapter_converted did;
    data_file(original, "wan/train", text_of(line, "adapter"));
    data_file(reference, "wan/forms", file);
    if (strcmp(text_of(line, "dtype"), "float32")) return;
    if (kohya || folded) {
        bool good = adapter_convert(original, "made.safetensors", kohya ? "kohya" : "comfyui", kohya,
                                    base_of(wan), &did, err, sizeof err);
        ok(good && same_tensors("made.safetensors", reference, true), "%s: written to the same bytes %s",
           file, good ? "" : err);
        ok(did.folded == (folded ? number_of(line, "alpha") / 4 : 1) &&
               did.modules - did.zeros == (kohya ? 8 : did.modules),
           "and what was done is told: %d modules, %d zeros, folded %g", did.modules, did.zeros, did.folded);
    }
    bool good = convert_alone(reference, "back.safetensors", "peft");
    if (folded && number_of(line, "alpha") != 4)
        ok(good, "%s: and back %s", file, good ? "" : err);
    else
        ok(good && same_tensors(original, "back.safetensors", !kohya), "%s: and back to the same bytes %s",
           file, good ? "" : err);
}

/* Between any two forms and back: the same file, header and all, of a file by this program. */
static void there_and_back(const char *model, const char *tool, const char *first, enum dtype dtype)
{
    struct denoiser *d = opened(k, model, true);
    struct adapter *a = adapter_make("standard:rank=3,alpha=3", NULL, base_of(d), err, sizeof err);
    struct adapter_converted did;
    struct safetensors_item item[256];
    char name[256][160];
    float *values = malloc((size_t)a->size * sizeof *values);
    uint16_t *two = calloc((size_t)a->size, sizeof *two), *next = two;
    for (int64_t i = 0; i < a->size; i++) values[i] = sinf((float)(i * i % 9973));
    adapter_write(a, "f32.safetensors", values, err, sizeof err);
    struct tensor flat = tensor_of(DT_F32, values, 1, a->size);
    for (int i = 0; i < a->modules * a->params; i++) { /* the same with two bytes a value and no header */
        struct tensor from = adapter_view(a, &flat, i / a->params, i % a->params), to = from;
        adapter_param_name(a, i / a->params, i % a->params, name[i], sizeof name[i]);
        to.dtype = dtype;
        to.data = next;
        tensor_convert(&to, &from);
        next += tensor_count(&to);
        item[i] = (struct safetensors_item){name[i], to};
    }
    safetensors_write("two.safetensors", item, a->modules * a->params, NULL, err, sizeof err);
    for (int i = 0; i < 2; i++) {
        const char *from = i ? "two.safetensors" : "f32.safetensors";
        bool good =
            adapter_convert(from, "there.safetensors", tool, false, base_of(d), &did, err, sizeof err) &&
            convert_alone("there.safetensors", "back.safetensors", "peft");
        struct safetensors *s = open_file("there.safetensors");
        ok(good && safetensors_find(s, first) && same_tensors(from, "back.safetensors", true),
           "%s as %s: %s, and back to the same bytes %s", model, tool, first, good ? "" : err);
        safetensors_close(s);
    }
    free(values), free(two);
    adapter_close(a);
    denoiser_close(d);
}

/* ---- what is refused ----------------------------------------------------------------------------------- */

/* A plain LoRA of rank 4 on attn1 of wan/h12, and what is changed of it. */
struct made {
    const char *kohya;  /* NULL: ComfyUI's form */
    const char *extra;  /* one more tensor [4,24] */
    const char *leave;  /* this one is not written */
    const char *other;  /* this one is of another shape, or of another value */
    const char *header; /* ss_network_alpha */
    enum dtype alpha;
};

static float zeros[4 * 64];

static void write_made(const char *path, const struct made *m)
{
    static const char *const part[] = {"lora_down.weight", "lora_up.weight", "alpha"};
    static double value = 8, changed = 3;
    char name[2 * 4 * 3 + 1][160];
    struct safetensors_item item[2 * 4 * 3 + 1];
    int n = 0;
    for (int i = 0; i < 2 * 4 * 3; i++) {
        const int block = i / 12, p = i % 3;
        snprintf(name[n], sizeof name[n],
                 m->kohya ? "lora_unet_blocks_%d_self_attn_%c.%s"
                          : "diffusion_model.blocks.%d.self_attn.%c.%s",
                 block, "qkvo"[i / 3 % 4], part[p]);
        if (m->leave && !strcmp(name[n], m->leave)) continue;
        const bool other = m->other && !strcmp(name[n], m->other);
        struct tensor shape[] = {tensor_of(DT_F32, zeros, 2, other ? 2 : 4, 24),
                                 tensor_of(DT_F32, zeros, 2, 24, other ? 2 : 4),
                                 tensor_of(m->alpha, NULL, 0)};
        struct tensor number = tensor_of(DT_F64, other ? &changed : &value, 0);
        static char room[2 * 4 * 3][8];
        shape[2].data = room[i];
        tensor_convert(&shape[2], &number);
        item[n] = (struct safetensors_item){name[n], shape[p]};
        n++;
    }
    if (m->extra) item[n++] = (struct safetensors_item){m->extra, tensor_of(DT_F32, zeros, 2, 4, 24)};
    json_t *header = m->header ? json_pack("{s:s}", "ss_network_alpha", m->header) : json_object();
    if (!safetensors_write(path, item, n, header, err, sizeof err)) printf("Bail out! %s\n", err), exit(1);
    json_decref(header);
}

static void refused(struct made m, const char *tensor, const char *why)
{
    float *values;
    if (!m.alpha) m.alpha = DT_F32;
    write_made("made.safetensors", &m);
    struct adapter *a = adapter_read("made.safetensors", base_of(wan), &values, err, sizeof err);
    ok(!a && strstr(err, tensor) && strstr(err, why), "refused: %s", a ? "no" : err);
    adapter_close(a);
    free(values);
    *err = 0;
    ok(!convert_alone("made.safetensors", "none.safetensors", "peft") && strstr(err, tensor) &&
           strstr(err, why) && access("none.safetensors", F_OK),
       "nor is it converted: %s", err);
}

/* alpha of any dtype; that of a header which has more digits than BF16 has agrees with it. */
static void alphas(void)
{
    static const enum dtype dtype[] = {DT_F16, DT_BF16, DT_F32, DT_F64, DT_I64};
    float *values;
    for (int i = 0; i < 5; i++) {
        write_made("made.safetensors",
                   &(struct made){.kohya = "", .alpha = dtype[i], .header = i ? "8" : NULL});
        struct adapter *a = adapter_read("made.safetensors", base_of(wan), &values, err, sizeof err);
        ok(a && a->alpha == 8 && a->rank == 4, "alpha of %s: %g %s", dtype_name(dtype[i]), a ? a->alpha : 0,
           a ? "" : err);
        adapter_close(a);
        free(values);
    }
    write_made("made.safetensors", &(struct made){.kohya = "", .alpha = DT_BF16, .header = "8.01"});
    struct adapter *a = adapter_read("made.safetensors", base_of(wan), &values, err, sizeof err);
    ok(a && a->alpha == 8.01, "a header's 8.01 is BF16's 8: %g %s", a ? a->alpha : 0, a ? "" : err);
    adapter_close(a);
    free(values);
}

/* One tensor of somebody else's adapter is all that a file has. */
static void alien(const struct denoiser *d, const char *name, const char *why)
{
    float *values;
    struct safetensors_item item = {name, tensor_of(DT_F32, zeros, 2, 4, 24)};
    if (!safetensors_write("alien.safetensors", &item, 1, NULL, err, sizeof err)) exit(1);
    struct adapter *a = adapter_read("alien.safetensors", base_of(d), &values, err, sizeof err);
    ok(!a && strstr(err, name) && strstr(err, why), "refused: %s", a ? "no" : err);
    adapter_close(a);
    free(values);
}

static void refusals(void)
{
#define K "lora_unet_blocks_0_self_attn_"
#define C "diffusion_model.blocks.0.self_attn."
    const char *no = "belongs to no matrix";
    refused((struct made){.kohya = "", .extra = K "q.dora_scale"}, K "q.dora_scale", "DoRA");
    refused((struct made){.extra = C "q.dora_scale"}, C "q.dora_scale", "DoRA");
    refused((struct made){.extra = C "q.diff_b"}, C "q.diff_b", "change of a bias");
    refused((struct made){.extra = "diffusion_model.blocks.0.norm3.diff"}, "blocks.0.norm3.diff",
            "whole weight");
    refused((struct made){.extra = C "q.reshape_weight"}, C "q.reshape_weight", "shape");
    refused((struct made){.kohya = "", .extra = K "q.lora_mid.weight"}, K "q.lora_mid.weight", "convolution");
    refused(
        (struct made){.kohya = "", .extra = "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"},
        "lora_te1_text_model", "text encoder");
    refused((struct made){.extra = "diffusion_model.head.head.lora_down.weight"}, "head.head", no);
    refused((struct made){.extra = "diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight"}, "k_img",
            no);
    refused((struct made){.extra = C "q.lora_A.weight"}, C "q.lora_A.weight", no);
    refused((struct made){.kohya = "", .extra = "lora_unet_blocks_0_ffn_0.alpha"}, "ffn_0.alpha",
            "no single number");
    refused((struct made){.kohya = "", .leave = K "q.alpha"}, K "q.lora_up", "no alpha beside");
    refused((struct made){.kohya = "", .leave = K "q.lora_up.weight"}, K "q.lora_up.weight", "lacks");
    refused((struct made){.kohya = "", .leave = K "q.lora_down.weight"}, K "q.lora_down.weight", "lacks");
    refused((struct made){.kohya = "", .other = K "k.alpha"}, K "k.alpha", "disagree");
    refused((struct made){.kohya = "", .other = K "k.lora_up.weight"}, K "k.lora_up.weight",
            "an adapter has one");
    refused((struct made){.kohya = "", .other = K "k.lora_down.weight"}, K "k.lora_down.weight", "rank 4");
    refused((struct made){.kohya = "", .header = "4"}, "alpha", "disagree");
    refused((struct made){.kohya = "", .header = "8.01"}, "alpha", "disagree");

    struct denoiser *cog = opened(k, "random:tiny", true);
    const char *none = "names no linear layer";
    static const char *const others[] = {
        "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",  /* Flux, diffusers */
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",          /* Flux, kohya */
        "diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight",       /* HunyuanVideo */
        "transformer.transformer_blocks.0.attn2.to_q.lora_A.weight",        /* LTX */
        "diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_down.weight", /* SD 3 */
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", /* SD, kohya */
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight", /* SD, diffusers */
        "model.layers.0.self_attn.q_proj.lora_A.weight", /* a language model */
        "transformer.blocks.00.attn1.to_q.lora_A.weight",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        alien(wan, others[i], none), alien(cog, others[i], none);
    alien(wan, "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", none); /* CogVideoX, LTX */
    alien(cog, "transformer.blocks.0.attn1.to_q.lora_A.weight", none);             /* Wan */
    alien(cog, "diffusion_model.blocks.0.self_attn.q.lora_A.weight", none);
    alien(cog, "lora_unet_blocks_0_self_attn_q.lora_down.weight", none);
    alien(wan, K "q.hada_w1_a", "LoHa");
    alien(wan, C "q.lokr_w1", "LoKr");
    alien(wan, K "q.oft_blocks", "OFT");
    struct adapter_converted did;
    ok(!adapter_convert("made.safetensors", "x.safetensors", "comfyui", false, base_of(cog), &did, err,
                        sizeof err) &&
           strstr(err, "comfyui has no form"),
       "refused: %s", err);
    ok(!adapter_convert("made.safetensors", "x.safetensors", "kohya", true, base_of(cog), &did, err,
                        sizeof err) &&
           strstr(err, "diffusers reads no kohya form"),
       "refused: %s", err);
    denoiser_close(cog);
}

/* Folded into F16 a value may be too large; what is not finite is found when it is written. */
static void overflow(void)
{
    struct adapter_converted did;
    uint16_t large[24 * 4], a[24 * 4] = {0};
    char name[8 * 3][160];
    float alpha = 8;
    struct safetensors_item item[8 * 3];
    for (int i = 0; i < 24 * 4; i++) large[i] = f16_from_f32(60000);
    for (int i = 0; i < 24; i++) {
        snprintf(name[i], sizeof name[i], "lora_unet_blocks_%d_self_attn_%c.%s", i / 12, "qkvo"[i / 3 % 4],
                 i % 3 == 2 ? "alpha"
                 : i % 3    ? "lora_up.weight"
                            : "lora_down.weight");
        item[i] = (struct safetensors_item){name[i], i % 3 == 2 ? tensor_of(DT_F32, &alpha, 0)
                                                     : i % 3    ? tensor_of(DT_F16, large, 2, 24, 4)
                                                                : tensor_of(DT_F16, a, 2, 4, 24)};
    }
    safetensors_write("large.safetensors", item, 24, NULL, err, sizeof err);
    ok(!adapter_convert("large.safetensors", "x.safetensors", "comfyui", false, base_of(wan), &did, err,
                        sizeof err) &&
           strstr(err, "lora_up.weight has a value that is not finite, now that alpha is folded") &&
           access("x.safetensors", F_OK),
       "refused: %s", err);
    ok(adapter_convert("large.safetensors", "x.safetensors", "peft", false, base_of(wan), &did, err,
                       sizeof err),
       "as it is it can be written");
}

int main(void)
{
    char path[4096], data[PATH_MAX];
    if (!realpath(data_file(path, "", ""), data)) perror(path), exit(1);
    setenv("TESTS_DATA", data, 1);
    k = test_device(0);
    c = cases_open("wan/forms");
    wan = opened(k, data_file(path, "wan/h12", ""), false);
    scratch_enter();
    for (size_t i = 0; i < json_array_size(c.list); i++) loaded(i, json_array_get(c.list, i));
    for (size_t i = 0; i < json_array_size(c.list); i++) converted(json_array_get(c.list, i));
    for (int i = 0; i < 2; i++) {
        const enum dtype dtype = i ? DT_F16 : DT_BF16;
        there_and_back("random:wan-tiny", "comfyui", "diffusion_model.blocks.3.self_attn.o.lora_B.weight",
                       dtype);
        there_and_back("random:wan-tiny", "kohya", "lora_unet_blocks_3_self_attn_o.lora_up.weight", dtype);
        there_and_back("random:wan-tiny", "peft", "transformer.blocks.3.attn1.to_out.0.lora_B.weight", dtype);
        there_and_back("random:tiny", "kohya",
                       "lora_unet__transformer_blocks_0_attn1_to_out_0.lora_up.weight", dtype);
    }
    alphas();
    refusals();
    overflow();
    ok(scratch_leave(), "nothing is left");
    denoiser_close(wan);
    cases_close(&c);
    kern_close(k);
    return done();
}
