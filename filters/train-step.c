/* train-step - one record, one optimiser step of a low-rank adapter; the base model stays frozen.
 *
 *   stdin   latents [T,16,h,w], prompt_embeds [L,D]     from draw; meta.position; may bring noise and meta.s
 *   stdout  JSON lines, as in RUN/metrics.jsonl
 */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "filters/compute.h"
#include "filters/filter.h"
#include "filters/nets/run.h"
#include "filters/nets/trainer.h"
#include "formats/store.h"

static const char help[] =
    "train-step - fine-tune: one record, one optimiser step of an adapter\n"
    "usage: train-step -m DIR --state RUN [options] <records >metrics\n"
    "  -m, --model DIR      model folder (its transformer/ and scheduler/), or random:PRESET   required\n"
    "      --state RUN      folder of the run; the same command again goes on from there       required\n"
    "      --adapter SPEC   standard, with settings as in standard:rank=16,alpha=16            [standard]\n"
    "      --targets LIST   of to_q,to_k,to_v,to_out.0                                         [all four]\n"
    "      --init FILE      start from this adapter (it decides kind, rank, alpha and targets)\n"
    "      --objective O    flow | flow-snr | v                                                [flow]\n"
    "      --lr X           peak rate: linear warm-up, then cosine to 0 at --max-steps         [1e-4]\n"
    "      --warmup N       steps                                                              [200]\n"
    "      --max-steps N    steps                                                              [5000]\n"
    "      --weight-decay X of AdamW, betas 0.9 and 0.999                                      [0.01]\n"
    "      --clip X         largest global norm of the gradients, 0 for none                   [1]\n"
    "      --val DIR        store to evaluate on (made by pack)                                [no evaluation]\n"
    "      --eval-every N   steps                                                              [250]\n"
    "      --eval-clips N   fixed (clip, noise level, noise) triples                           [10]\n"
    "      --patience N     evaluations without a better one before stopping, 0 for never      [5]\n"
    "      --min-delta X    what counts as better                                              [1e-4]\n"
    "      --save-every N   steps between saves of the state                                   [50]\n"
    "      --recompute R    none | ffn | full | auto: of activations; less memory, same bytes  [auto]\n"
    "      --dump-grads F   write the first step's gradients as an adapter file\n"
    "      --dry-run        print parameter counts and memory for --frames and --size, read nothing\n"
    "      --frames N       of --dry-run                                                       [the model's]\n"
    "      --size WxH       of --dry-run, in pixels                                            [the model's]\n"
    "COMMON\n"
    "stdout  {\"step\",\"position\",\"key\",\"s\",\"loss\",\"grad_norm\",\"lr\"} a step, {\"step\",\"val_loss\"} an evaluation\n"
    "files   RUN/best.safetensors, last.safetensors, metrics.jsonl, state.safetensors\n"
    "exit    0 trained to the end or to the end of the stream, 1 something failed, 2 wrong usage\n"
    "e.g.    draw --from run/ train/ | train-step -m CogVideoX-5b --val val/ --state run/\n"
    "see also: pack, draw, sample, plot\n";

static const char records_come_from[] = "records for training are made by: decode | vae-encode | t5-encode | pack";
static const char *state, *spec = "standard", *targets, *init, *objective = "flow", *val, *recompute = "auto", *dump;
static double lr = 1e-4, weight_decay = 0.01, clip = 1, min_delta = 1e-4;
static int64_t warmup = 200, max_steps = 5000, eval_every = 250, eval_clips = 10, patience = 5, save_every = 50, frames;
static struct size size;
static bool dry_run;

static const struct option_spec options[] = {
    {.name = "state", .kind = OPT_TEXT, .dest = &state},
    {.name = "adapter", .kind = OPT_TEXT, .dest = &spec},
    {.name = "targets", .kind = OPT_TEXT, .dest = &targets},
    {.name = "init", .kind = OPT_TEXT, .dest = &init},
    {.name = "objective", .kind = OPT_CHOICE, .dest = &objective, .choices = "flow|flow-snr|v"},
    {.name = "lr", .kind = OPT_REAL, .dest = &lr, .high = 1e3},
    {.name = "warmup", .kind = OPT_INT, .dest = &warmup, .high = 1e12},
    {.name = "max-steps", .kind = OPT_INT, .dest = &max_steps, .low = 1, .high = 1e12},
    {.name = "weight-decay", .kind = OPT_REAL, .dest = &weight_decay, .high = 1e3},
    {.name = "clip", .kind = OPT_REAL, .dest = &clip, .high = 1e30},
    {.name = "val", .kind = OPT_TEXT, .dest = &val},
    {.name = "eval-every", .kind = OPT_INT, .dest = &eval_every, .low = 1, .high = 1e12},
    {.name = "eval-clips", .kind = OPT_INT, .dest = &eval_clips, .low = 1, .high = 1e6},
    {.name = "patience", .kind = OPT_INT, .dest = &patience, .high = 1e12},
    {.name = "min-delta", .kind = OPT_REAL, .dest = &min_delta, .high = 1e30},
    {.name = "save-every", .kind = OPT_INT, .dest = &save_every, .low = 1, .high = 1e12},
    {.name = "recompute", .kind = OPT_CHOICE, .dest = &recompute, .choices = "none|ffn|full|auto"},
    {.name = "dump-grads", .kind = OPT_TEXT, .dest = &dump},
    {.name = "dry-run", .kind = OPT_FLAG, .dest = &dry_run},
    {.name = "frames", .kind = OPT_INT, .dest = &frames, .low = 1, .high = 1e6},
    {.name = "size", .kind = OPT_SIZE, .dest = &size},
    {0}};

static struct trainer t;
static struct run run;
static struct store *val_store;
static char err[1024];

static void save(void)
{
    trainer_get(&t, run.values, run.m, run.v);
    if (!kern_ok(t.dit->k)) die("%s", kern_error(t.dit->k));
    if (!run_write_adapter(&run, t.dit->adapter[0], "last.safetensors", err, sizeof err) || !run_save(&run, err, sizeof err))
        die("%s", err);
}

static void metric(json_t *line)
{
    run_metric(&run, line);
    filter_emit_line(line);
}

/* Evaluates, keeps the best adapter, and decides whether to go on. */
static void evaluate(void)
{
    struct adapter *a = t.dit->adapter[0];
    double loss = trainer_evaluate(&t, val_store, eval_clips, err, sizeof err);
    if (!isfinite(loss)) die("step %lld: validation: %s", (long long)run.step, err);
    metric(json_pack("{s:I, s:f}", "step", (json_int_t)run.step, "val_loss", loss));
    if (run_judge(&run, loss, min_delta, patience)) {
        trainer_get(&t, run.values, NULL, NULL);
        json_object_set_new(a->extra, "step", json_integer(run.step));
        json_object_set_new(a->extra, "val_loss", json_real(loss));
        if (!run_write_adapter(&run, a, "best.safetensors", err, sizeof err)) die("%s", err);
        json_object_del(a->extra, "step");
        json_object_del(a->extra, "val_loss");
    } else if (run.finished) {
        say(NULL, "no better validation loss in %lld evaluations: stopping at step %lld", (long long)patience, (long long)run.step);
    }
}

static void step(struct frame *f)
{
    struct example e;
    if (!trainer_example(&t, &e, f, run.position, err, sizeof err))
        die("%s: %s; %s", frame_key(f), err, records_come_from);
    double loss = trainer_loss(&t, &e, true, err, sizeof err), norm = isfinite(loss) ? trainer_norm(&t) : NAN;
    if (!isfinite(loss) || !isfinite(norm))
        die("step %lld, position %lld: %s: %s", (long long)run.step + 1, (long long)run.position, frame_key(f),
            *err ? err : "loss or gradient is not finite; nothing was updated");
    if (dump) {
        struct tensor host = tensor_of(DT_F32, run.values, 1, run.size);
        kern_download(t.dit->k, &host, &t.dit->adapter[0]->grads);
        if (!adapter_write(t.dit->adapter[0], dump, run.values, err, sizeof err)) die("%s", err);
        dump = NULL;
    }
    double rate = trainer_rate(&t, run.step);
    trainer_update(&t, run.step, norm);
    metric(json_pack("{s:I, s:I, s:s, s:f, s:f, s:f, s:f}", "step", (json_int_t)run.step + 1, "position", (json_int_t)run.position,
                     "key", frame_key(f), "s", e.s, "loss", loss, "grad_norm", norm, "lr", rate));
    run.step++;
    run.position++;
    progress("step %lld of %lld, loss %.4f", (long long)run.step, (long long)max_steps, loss);
    trainer_example_free(&e);
}

/* All that decides the result; a state made under another configuration is refused. */
static json_t *configuration(void)
{
    json_t *data = filter_input_settings(), *seed = json_object_get(data, "seed"), *content = json_object_get(data, "content");
    json_t *adapter = adapter_description(t.dit->adapter[0]);
    json_object_del(adapter, "model"); /* these two stand by themselves, so that a message names them */
    json_object_del(adapter, "objective");
    json_t *c = json_pack("{s:o, s:s, s:s, s:s, s:f, s:I, s:I, s:f, s:f, s:I, s:I}", "adapter", adapter,
                          "objective", objective, "model", t.dit->id, "device", kern_device(t.dit->k), "lr", lr, "warmup", (json_int_t)warmup,
                          "max_steps", (json_int_t)max_steps, "weight_decay", weight_decay, "clip", clip, "seed", (json_int_t)filter.seed,
                          "init", (json_int_t)(t.dit->adapter[0]->hash >> 1));
    if (seed && content) json_object_set_new(c, "data", json_pack("{s:O, s:O}", "seed", seed, "content", content));
    if (val_store)
        json_object_set_new(c, "val", json_pack("{s:I, s:I, s:I, s:I, s:f}", "content", (json_int_t)(store_content(val_store) >> 1),
                                                "every", (json_int_t)eval_every, "clips", (json_int_t)eval_clips, "patience",
                                                (json_int_t)patience, "min_delta", min_delta));
    return c;
}

static void make_adapter(const struct tensor *latents)
{
    struct trainer_start start = {objective, spec, targets, init};
    if (!trainer_start(&t, &start, latents, err, sizeof err)) die("%s", err);
}

/* Parameters and memory of a step on latents of this size. Weights are not allocated, and nothing is read. */
static int describe(void)
{
    const struct dit_config *c = &t.dit->c;
    int64_t w = size.width ? size.width / 8 : c->sample_width, h = size.height ? size.height / 8 : c->sample_height;
    int64_t frame_count = frames ? frames : c->sample_frames, latent_frames = (frame_count - 1) / 4 + 1;
    struct example e = {.x0 = tensor_of(DT_F32, NULL, 4, latent_frames, c->in_channels, h, w)};
    static const char *const names[] = {"none", "ffn", "full"};
    e.eps = e.x0;
    e.text = tensor_of(DT_F32, NULL, 2, c->text_length, c->text_dim);
    make_adapter(&e.x0);
    struct adapter *a = t.dit->adapter[0];
    printf("adapter      %s, rank %lld, alpha %g: %lld modules, %lld trainable parameters\n", a->kind->name, (long long)a->rank, a->alpha,
           (long long)(a->size / a->module_size), (long long)a->size);
    printf("model        %lld parameters, %.3f GB\n", (long long)t.dit->parameters, 4e-9 * (double)t.dit->parameters);
    printf("training     %.3f GB for adapter, gradients and moments\n", 16e-9 * (double)a->size);
    printf("activations  %lld frames of %lldx%lld, latents [%lld,%lld,%lld,%lld]\n", (long long)frame_count, (long long)w * 8,
           (long long)h * 8, (long long)latent_frames, (long long)c->in_channels, (long long)h, (long long)w);
    for (int r = RECOMPUTE_NONE; r <= RECOMPUTE_FULL; r++) {
        t.recompute = (enum dit_recompute)r;
        size_t bytes = trainer_plan(&t, &e, err, sizeof err);
        if (!bytes) die("%s", err);
        printf("             --recompute %-5s %.3f GB\n", names[r], 1e-9 * (double)bytes);
    }
    return filter_finish();
}

/* The adapter, fresh or as the run's state has it; the first record says for what size of frame. */
static void begin(struct frame *first)
{
    char warning[1100];
    const struct tensor *latents = frame_want(first, "latents", DT_COUNT, 4);
    if (!latents) die("%s: %s; %s", frame_key(first), first->error, records_come_from);
    make_adapter(latents);
    if (!run_open(&run, state, configuration(), t.dit->adapter[0]->size, warning, sizeof warning, err, sizeof err)) die("%s", err);
    if (*warning) say(NULL, "%s", warning);
    if (run.resumed) {
        trainer_set(&t, run.values, run.m, run.v);
        say(NULL, "%s: going on after step %lld%s", state, (long long)run.step, run.finished ? ", where it was finished" : "");
    } else if (val) {
        evaluate();
    }
}

int main(int argc, char **argv)
{
    struct frame f = FRAME_INIT;
    int64_t drawn = 0, saved = -1; /* the step of the last save */
    filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_NEEDS_MODEL | FILTER_TEXT_OUT);
    if (!state && !dry_run) usage_error("--state is required");
    if (warmup >= max_steps) usage_error("--warmup %lld does not end before --max-steps %lld", (long long)warmup, (long long)max_steps);
    struct kern *k = compute_open();
    t.recompute_auto = !strcmp(recompute, "auto");
    t.recompute = !strcmp(recompute, "ffn") ? RECOMPUTE_FFN : !strcmp(recompute, "full") ? RECOMPUTE_FULL : RECOMPUTE_NONE;
    t.seed = (uint64_t)filter.seed;
    t.adamw = (struct adamw){lr, 0.9, 0.999, 1e-8, weight_decay};
    t.warmup = warmup, t.max_steps = max_steps, t.clip = clip;
    if (!trainer_open(&t, k, filter.model, dry_run, err, sizeof err)) die("%s", err);
    if (dry_run) return describe();
    if (val && !(val_store = store_open(val, err, sizeof err))) die("%s", err);
    if (val && !val_store->count) die("%s: an empty store: there is nothing to evaluate on", val);

    filter_catch_term();
    bool more = filter_next(&f);
    if (more) begin(&f);
    if (run.resumed) saved = run.step;
    for (; more && !run.finished; more = filter_next(&f)) {
        json_t *position = json_object_get(frame_meta(&f), "position");
        int64_t at = json_is_integer(position) ? json_integer_value(position) : drawn;
        drawn = at + 1;
        if (at < run.position) continue; /* done before the resume */
        if (at > run.position)
            die("%s: position %lld comes where %lld is due: start draw without --from", frame_key(&f), (long long)at, (long long)run.position);
        step(&f);
        if (val && (run.step % eval_every == 0 || run.step == max_steps)) evaluate();
        if (run.step == max_steps) run.finished = true;
        if (run.step % save_every == 0 || run.finished) save(), saved = run.step;
    }
    if (run.metrics && run.step > saved) save();
    if (frame_interrupted) {
        say(NULL, "interrupted: saved after step %lld", (long long)run.step);
        signal(SIGTERM, SIG_DFL);
        raise(SIGTERM);
    }
    if (!run.finished) say(NULL, "the stream ended after step %lld of %lld", (long long)run.step, (long long)max_steps);
    frame_free(&f);
    if (run.metrics) run_close(&run);
    store_close(val_store);
    trainer_close(&t);
    kern_close(k);
    return filter_finish();
}
