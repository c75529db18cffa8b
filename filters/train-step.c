/* train-step - one record (or --accumulate of them), one optimiser step of an adapter; the base model is
 * frozen.
 *
 *   stdin   latents [T,16,h,w], prompt_embeds [L,D]     from draw; meta.position; may bring noise and meta.s
 *   stdout  JSON lines, as in RUN/metrics.jsonl */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/learning/training_run.h"
#include "formats/io.h"

static const char help[] =
    "train-step - fine-tune: one record, one optimiser step of an adapter\n"
    "usage: train-step -m DIR --state RUN [options] <records >metrics\n"
    "  -m, --model DIR      model folder (its transformer/ and scheduler/), or random:PRESET   required\n"
    "      --state RUN      folder of the run; the same command again goes on from there       required\n"
    "      --adapter SPEC   standard, transformer or gdn_cssm, with settings as in             [standard]\n"
    "                       gdn_cssm:k=5,rope=1; defaults rank=16,alpha=16, and k=1,rope=0,dk=4 of gdn_cssm\n"
    "      --targets LIST   of to_q,to_k,to_v,to_out.0; of Wan also attn2.to_q and so on,\n"
    "                       ffn.net.0.proj, ffn.net.2                                          [those four]\n"
    "      --init FILE      start from this adapter (it decides kind, rank, alpha and targets), a file or folder as\n"
    "                       sample -a takes it\n"
    "      --objective O    flow | flow-snr | v; of a model that answers with the flow (Wan) flow alone  [flow]\n"
    "      --levels L       noise levels s: uniform | logit-normal, the sigmoid of a normal; and then perhaps\n"
    "                       ,shift=X: s becomes X s / (1 + (X - 1) s)                          [uniform]\n"
    "      --levels-from A  only levels from A on, and below --levels-to B: L is cut there, and keeps its form [0]\n"
    "      --levels-to B    so evaluation's levels are cut, too                                [1]\n"
    "      --expert E       of a model of two transformers (Wan 2.2 A14B) the one that is trained: high, for\n"
    "                       levels from the folder's boundary_ratio on, or low, for those below; these levels it gets\n"
    "      --lr X           peak rate: linear warm-up, then cosine to 0 at --max-steps         [1e-4]\n"
    "      --warmup N       steps                                                              [200]\n"
    "      --max-steps N    steps                                                              [5000]\n"
    "      --accumulate N   records in a step: it takes the mean of their losses               [1]\n"
    "      --weight-decay X of AdamW, betas 0.9 and 0.999                                      [0.01]\n"
    "      --clip X         largest global norm of the gradients, 0 for none                   [1]\n"
    "      --caption-dropout P  part of the draws that lose their caption, 0 to 1              [0]\n"
    "      --empty-prompt F one record of t5-encode, of an empty prompt, which they get instead\n"
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
    "devices of several each has the whole network and computes a record of the step: the bytes of --accumulate on one\n"
    "stdout  a step: {\"step\",\"position\",\"key\",\"s\",\"loss\",\"grad_norm\",\"lr\"}, the first four of its last\n"
    "        record; an evaluation: {\"step\",\"val_loss\",\"val_losses\"}, the mean and each triple's; to a\n"
    "        terminal, evaluations in words\n"
    "files   RUN/best.safetensors, last.safetensors, metrics.jsonl, state.safetensors, speed.json\n"
    "exit    0 trained to the end or to the end of the stream, 1 something failed, 2 wrong usage\n"
    "e.g.    draw --from run/ train/ | train-step -m CogVideoX-5b --val val/ --state run/\n"
    "see also: pack, draw, sample, plot\n";

static void show_metrics(json_t *line_stolen);
static struct trainer t = {
    .adamw = {1e-4, 0.9, 0.999, 1e-8, 0.01}, .warmup = 200, .max_steps = 5000, .clip = 1, .accumulate = 1};
static struct trainer_start start = {.objective = "flow", .adapter = "standard"};
static struct run_folder run;
static struct training_run work = {.t = &t,
                                   .run = &run,
                                   .eval_every = 250,
                                   .eval_clips = 10,
                                   .patience = 5,
                                   .min_delta = 1e-4,
                                   .save_every = 50,
                                   .emit = show_metrics};
static const char *expert = "";
static double levels_from = NAN, levels_to = NAN;
static const char *state, *levels = "uniform", *empty_prompt, *val, *recompute = "auto";
static int64_t frames;
static struct size size;
static bool dry_run;
static char err[1024];

static const struct option_spec options[] = {
    {.name = "state", .kind = OPT_TEXT, .dest = &state},
    {.name = "adapter", .kind = OPT_TEXT, .dest = &start.adapter},
    {.name = "targets", .kind = OPT_TEXT, .dest = &start.targets},
    {.name = "init", .kind = OPT_TEXT, .dest = &start.init},
    {.name = "objective", .kind = OPT_CHOICE, .dest = &start.objective, .choices = OBJECTIVES},
    {.name = "levels", .kind = OPT_TEXT, .dest = &levels},
    {.name = "levels-from", .kind = OPT_REAL, .dest = &levels_from, .high = 1},
    {.name = "levels-to", .kind = OPT_REAL, .dest = &levels_to, .high = 1},
    {.name = "expert", .kind = OPT_CHOICE, .dest = &expert, .choices = "high|low"},
    {.name = "lr", .kind = OPT_REAL, .dest = &t.adamw.lr, .high = 1e3},
    {.name = "warmup", .kind = OPT_INT, .dest = &t.warmup, .high = 1e12},
    {.name = "max-steps", .kind = OPT_INT, .dest = &t.max_steps, .low = 1, .high = 1e12},
    {.name = "accumulate", .kind = OPT_INT, .dest = &t.accumulate, .low = 1, .high = 1e6},
    {.name = "weight-decay", .kind = OPT_REAL, .dest = &t.adamw.weight_decay, .high = 1e3},
    {.name = "clip", .kind = OPT_REAL, .dest = &t.clip, .high = 1e30},
    {.name = "caption-dropout", .kind = OPT_REAL, .dest = &t.caption_dropout, .high = 1},
    {.name = "empty-prompt", .kind = OPT_TEXT, .dest = &empty_prompt},
    {.name = "val", .kind = OPT_TEXT, .dest = &val},
    {.name = "eval-every", .kind = OPT_INT, .dest = &work.eval_every, .low = 1, .high = 1e12},
    {.name = "eval-clips", .kind = OPT_INT, .dest = &work.eval_clips, .low = 1, .high = 1e6},
    {.name = "patience", .kind = OPT_INT, .dest = &work.patience, .high = 1e12},
    {.name = "min-delta", .kind = OPT_REAL, .dest = &work.min_delta, .high = 1e30},
    {.name = "save-every", .kind = OPT_INT, .dest = &work.save_every, .low = 1, .high = 1e12},
    {.name = "recompute", .kind = OPT_CHOICE, .dest = &recompute, .choices = "none|ffn|full|auto"},
    {.name = "dump-grads", .kind = OPT_TEXT, .dest = &work.dump},
    {.name = "dry-run", .kind = OPT_FLAG, .dest = &dry_run},
    {.name = "frames", .kind = OPT_INT, .dest = &frames, .low = 1, .high = 1e6},
    {.name = "size", .kind = OPT_SIZE, .dest = &size},
    {0}};

/* A line of the metrics: JSON, but to a terminal words. There the progress line tells of the steps. */
static void show_metrics(json_t *line_stolen)
{
    char text[256];
    const json_t *loss = json_object_get(line_stolen, "loss"),
                 *val_loss = json_object_get(line_stolen, "val_loss");
    if (!isatty(1)) {
        filter_emit_line(line_stolen);
        return;
    }
    int n = snprintf(text, sizeof text, "step %lld of %lld", (long long)run.step, (long long)t.max_steps);
    if (val_loss)
        snprintf(text + n, sizeof text - (size_t)n, ": validation loss %.4f", json_number_value(val_loss));
    else
        snprintf(text + n, sizeof text - (size_t)n, ": loss %.4f, gradient norm %.3g, rate %.3g",
                 json_number_value(loss), json_number_value(json_object_get(line_stolen, "grad_norm")),
                 json_number_value(json_object_get(line_stolen, "lr")));
    json_decref(line_stolen);
    if (val_loss || !isatty(2)) filter_emit_text(text);
}

static void choose_levels(void)
{
    t.expert = !*expert ? EXPERT_NONE : strcmp(expert, "low") ? EXPERT_HIGH : EXPERT_LOW;
    if (isnan(levels_from) && isnan(levels_to)) return;
    t.level_from = isnan(levels_from) ? 0 : levels_from;
    t.level_to = isnan(levels_to) ? 1 : levels_to;
    if (!(t.level_from < t.level_to))
        usage_error("--levels-from %g is not below --levels-to %g", t.level_from, t.level_to);
}

/* What is wrong with the options, whatever the model. */
static void check(void)
{
    if (!state && !dry_run) usage_error("--state is required");
    if (t.warmup >= t.max_steps)
        usage_error("--warmup %lld does not end before --max-steps %lld", (long long)t.warmup,
                    (long long)t.max_steps);
    options_idle("eval-every|eval-clips|patience|min-delta", !val, "there is no --val to evaluate on");
    options_unfit("frames|size", !dry_run, "records have theirs: it is for --dry-run");
    options_idle("adapter|targets", start.init, "--init decides them");
    if (!empty_prompt != !(t.caption_dropout > 0))
        usage_error("--caption-dropout and --empty-prompt need each other");
    if (compute_devices() > TRAINER_DEVICES || t.accumulate % compute_devices())
        usage_error("--device: %d devices do not share the %lld records of a step (--accumulate) evenly",
                    compute_devices(), (long long)t.accumulate);
    if (!trainer_levels(&t, levels, err, sizeof err)) usage_error("%s", err);
    choose_levels();
}

/* Before what is wrong with stdin ends the program; false: the run needs no more of it. */
static bool settle(void)
{
    if (!training_run_settle(&work, err, sizeof err)) die("%s", err);
    return !run.finished;
}

/* The first record says for what size of frame the adapter is. */
static void begin(struct record *first)
{
    const struct tensor *latents = record_want(first, "latents", DT_COUNT, 4);
    if (!latents)
        die("%s: %s; records for training are made by: decode | vae-encode | t5-encode | pack",
            record_key(first), first->error);
    if (!training_run_open(&work, &start, state, latents, filter_input_settings(), err, sizeof err))
        die("%s", err);
}

/* The next record is read while the devices work, if one is wanted and comes in time. */
static bool make_way(void)
{
    return !t.busy || (training_run_wants(&work) && filter_ready(training_run_spare(&work))) ||
           training_run_finish(&work, err, sizeof err);
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    filter_start(argc, argv, help, options,
                 FILTER_COMPUTE | FILTER_NEEDS_MODEL | FILTER_TEXT_OUT | FILTER_DEVICES);
    filter.own_progress = true;
    check();
    struct kern *k = compute_open();
    trainer_recompute(&t, recompute);
    t.seed = (uint64_t)filter.seed;
    /* What is wrong with the command is said before the weights are read. */
    if (!trainer_open(&t, k, filter.model, true, err, sizeof err)) {
        if (!strncmp(err, "--", 2)) usage_error("%s", err);
        die("%s", err);
    }
    errno = 0;
    bool takes = trainer_takes(&t, &start, err, sizeof err);
    if (!takes && errno == ENOMEM) die("%s", err);
    if (!takes) usage_error("%s", err);
    filter_checked();
    if (dry_run) {
        if (!trainer_describe(&t, &start, frames, size.width, size.height, stdout, err, sizeof err))
            die("%s", err);
        return filter_finish();
    }
    if (empty_prompt && !trainer_empty_prompt(&t, empty_prompt, err, sizeof err)) die("%s", err);
    if (val && !(work.val = store_open(val, err, sizeof err))) die("%s", err);
    if (val && !work.val->count) die("%s: an empty store: there is nothing to evaluate on", val);
    if (!trainer_load(&t, filter.model, err, sizeof err)) die("%s", err);
    for (int i = 1; i < compute_devices(); i++)
        if (!trainer_add_device(&t, filter.model, compute_open_at, compute_close, err, sizeof err))
            die("%s", err);

    filter_catch_term();
    filter_on_trouble(settle);
    bool good = true, more = filter_next(&f);
    if (more) begin(&f);
    while (more && !run.finished) {
        good = training_run_take(&work, &f, err, sizeof err) && make_way();
        more = good && !run.finished && filter_next(&f);
    }
    if (!training_run_settle(&work, err, sizeof err) || !good) die("%s", err);
    if (io_interrupted) {
        say(NULL, "interrupted: saved after step %lld", (long long)run.step);
        signal(SIGTERM, SIG_DFL);
        raise(SIGTERM);
    }
    if (!run.finished)
        say(NULL, "the stream ended after step %lld of %lld", (long long)run.step, (long long)t.max_steps);
    record_free(&f);
    if (run.metrics) run_folder_close(&run);
    store_close(work.val);
    trainer_close(&t);
    compute_close(k);
    return filter_finish();
}
