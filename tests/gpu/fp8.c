/* --dtype fp8 on one GPU at full size: what it gains and what it costs.
 *
 *   fp8 speed           products of CogVideoX-5B's shapes and a forward pass of both halves of guidance, in BF16 and FP8
 *   fp8 error [MODEL]   how far BF16's and FP8's answers are from F32's, relative L2; of MODEL [random:cogvideox-5b]
 *
 * One JSON line a figure on stdout. */
#include "tests/denoised.h"
#include "tests/gpu/nets.h"

enum { ROWS = 17776, WIDE = 3072, HIDDEN = 4 * WIDE };

static void open_in(enum dtype d, bool fp8)
{
    open_device();
    kern_compute_in(k, d);
    if (fp8 && !kern_hold_fp8(k)) stop("fp8", kern_error(k));
}

static struct tensor normal_on_device(const char *what, int64_t rows, int64_t width)
{
    struct tensor t = kern_alloc(k, DT_BF16, 2, rows, width);
    struct random_normal r = {.key = {1, (uint32_t)strlen(what)}, .std = 1};
    random_normal(k, &t, &r);
    return t;
}

/* ---- products ---- */

struct product {
    struct tensor x, w, b, y, codes, scale, w_codes, w_scale;
};

/* Calls in a row, since one is shorter than a clock's reading. */
enum { CALLS = 20 };

static bool run_bf16(void *context)
{
    struct product *p = context;
    for (int i = 0; i < CALLS; i++) linear_forward(k, &p->y, &p->x, &p->w, &p->b);
    return true;
}

static bool run_rows(void *context)
{
    struct product *p = context;
    for (int i = 0; i < CALLS; i++) fp8_rows(k, &p->codes, &p->scale, &p->x);
    return true;
}

static bool run_gelu_rows(void *context)
{
    struct product *p = context;
    for (int i = 0; i < CALLS; i++) fp8_gelu_rows(k, &p->codes, &p->scale, &p->x);
    return true;
}

static bool run_fp8(void *context)
{
    struct product *p = context;
    for (int i = 0; i < CALLS; i++)
        linear_fp8_forward(k, &p->y, &p->codes, &p->scale, &p->w_codes, &p->w_scale, &p->b);
    return true;
}

static void product(int64_t in, int64_t out)
{
    static const struct {
        const char *name;
        bool (*run)(void *);
    } parts[] = {{"BF16", run_bf16},
                 {"FP8", run_fp8},
                 {"rows to FP8", run_rows},
                 {"gelu(rows) to FP8", run_gelu_rows}};
    open_in(DT_BF16, true);
    struct tensor bias = normal_on_device("bias", 1, out);
    struct product p = {.x = normal_on_device("x", ROWS, in),
                        .w = normal_on_device("weight", out, in),
                        .b = tensor_as(&bias, 1, out),
                        .y = kern_alloc(k, DT_BF16, 2, (int64_t)ROWS, out),
                        .codes = kern_alloc(k, DT_U8, 2, (int64_t)ROWS, in),
                        .scale = kern_alloc(k, DT_F32, 1, (int64_t)ROWS),
                        .w_codes = kern_alloc(k, DT_U8, 2, out, in),
                        .w_scale = kern_alloc(k, DT_F32, 1, out)};
    fp8_rows(k, &p.w_codes, &p.w_scale, &p.w);
    fp8_rows(k, &p.codes, &p.scale, &p.x);
    for (int i = 0; i < 4; i++) {
        char name[96];
        snprintf(name, sizeof name, "%d calls, %d rows, %d to %d: %s", CALLS, ROWS, (int)in, (int)out,
                 parts[i].name);
        timed(name, 7, i < 2 ? 2e-12 * CALLS * ROWS * (double)(in * out) : 0, parts[i].run, &p);
    }
    kern_close(k);
}

/* ---- a forward pass of both halves of guidance ---- */

static void pair(bool fp8)
{
    open_in(DT_BF16, fp8);
    struct model *m = model("random:cogvideox-5b");
    struct forward f = {.dit = denoiser_open(k, m, false, err, sizeof err), .videos = 2};
    if (!f.dit) stop("transformer", err);
    struct tensor latents = host(DT_F32, "latents", 4, 13, 16, 60, 90),
                  text = host(DT_F32, "text", 2, 226, 4096);
    forward_first(&f, &latents, &text);
    timed(fp8 ? "forward pair, FP8" : "forward pair, BF16", 5, 664, run_forward, &f);
    kern_profile_start(k);
    run_forward(&f);
    profile(fp8 ? "FP8" : "BF16");
    free(latents.data), free(text.data);
    denoiser_close(f.dit);
    model_close(m);
    kern_close(k);
}

static void speed(void)
{
    product(WIDE, WIDE);
    product(WIDE, HIDDEN);
    product(HIDDEN, WIDE);
    pair(false);
    pair(true);
}

/* ---- errors ---- */

static struct tensor answer(const char *name, enum dtype d, bool fp8)
{
    open_in(d, fp8);
    struct denoiser *dit = opened(k, name, false);
    const struct latent_geometry *g = &dit->geometry;
    struct tensor shape = geometry_latents(g, 0, 0, 0);
    struct tensor latents = host(DT_F32, "latents", 4, shape.shape[0], shape.shape[1], shape.shape[2],
                                 shape.shape[3]),
                  text = host(DT_F32, "text", 2, g->text_length, g->text_width);
    struct tensor out = denoised(dit, &latents, &text, 500, true);
    if (!kern_ok(k)) stop(name, kern_error(k));
    free(latents.data), free(text.data);
    denoiser_close(dit);
    kern_close(k);
    return out;
}

static void error(const char *name)
{
    struct tensor f32 = answer(name, DT_F32, false), bf16 = answer(name, DT_BF16, false),
                  fp8 = answer(name, DT_BF16, true);
    const size_t n = (size_t)tensor_count(&f32);
    printf("{\"name\": \"answer of %s\", \"bf16\": %.3g, \"fp8\": %.3g, \"fp8 beside bf16\": %.3g}\n", name,
           relative_l2(bf16.data, f32.data, n), relative_l2(fp8.data, f32.data, n),
           relative_l2(fp8.data, bf16.data, n));
    free(f32.data), free(bf16.data), free(fp8.data);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && !strcmp(argv[1], "speed"))
        speed();
    else if (argc > 1 && argc < 4 && !strcmp(argv[1], "error"))
        error(argc > 2 ? argv[2] : "random:cogvideox-5b");
    else
        return fprintf(stderr, "usage: fp8 speed | error [MODEL]\n"), 2;
    return 0;
}
