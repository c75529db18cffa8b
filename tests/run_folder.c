/* A training run's folder: early stopping by the recipe, and a state in which not one bit
 * may change unseen. */
#include "filters/learning/run_folder.h"
#include "tests/scratch.h"
#include "tests/tap.h"

static char err[1024], warning[1100];

/* Judges losses until the run is finished. marks: '+' for one to keep, '-' for another. */
static int64_t judge(const double *loss, int n, int64_t patience, char *marks, double *best)
{
    struct run_folder r = {.best = INFINITY};
    int i = 0;
    for (; i < n && !r.finished; i++) marks[i] = run_folder_judge(&r, loss[i], 1e-4, patience) ? '+' : '-';
    marks[i] = 0;
    *best = r.best;
    return i;
}

static void early_stopping(void)
{
    char marks[32];
    double best;
    /* the published shape: best at step 1250, stopped at 2500, an evaluation every 250 steps from 0 on */
    const double published[] = {0.9, 0.5, 0.4, 0.3, 0.25, 0.21, 0.22, 0.23, 0.211, 0.3, 0.21, 0.1};
    int64_t stop = judge(published, 12, 5, marks, &best);
    ok(stop == 11 && best == 0.21 && !strcmp(marks, "++++++-----"),
       "patience 5: best at evaluation 5, stop at 10 (%s)", marks);

    const double creeping[] = {1, 0.99995, 0.99992, 0.99991, 0.99975, 0.9999};
    judge(creeping, 6, 3, marks, &best);
    ok(!strcmp(marks, "+---") && best == 1,
       "a gain of min delta or less is none: losses creep down, and it stops (%s)", marks);
    judge(creeping, 6, 5, marks, &best);
    ok(!strcmp(marks, "+---+-") && best == 0.99975,
       "but it is measured from the best, so they may add up (%s)", marks);

    const double saved[] = {1, 2, 2, 0.5, 2, 2, 0.4, 2, 2, 2};
    stop = judge(saved, 10, 3, marks, &best);
    ok(stop == 10 && best == 0.4 && !strcmp(marks, "+--+--+---"), "a better one starts the count again (%s)",
       marks);
    stop = judge(saved, 10, 0, marks, &best);
    ok(stop == 10 && best == 0.4, "patience 0 never stops");
}

static bool open_run(struct run_folder *r)
{
    return run_folder_open(r, "run", json_pack("{s:f, s:s}", "lr", 1e-4, "objective", "flow"), 6, warning,
                           sizeof warning, err, sizeof err);
}

/* Two saves; then a folder whose state is `bytes` must go on from the one before, and say so. */
static bool falls_back(const char *bytes, size_t n)
{
    struct run_folder r;
    put_bytes("run/state.safetensors", bytes, n);
    bool good = open_run(&r) && r.resumed && r.step == 1 && r.values[5] == 5 &&
                strstr(warning, "going on from the one before");
    run_folder_close(&r);
    return good;
}

static void damage(void)
{
    struct run_folder r;
    bool good = open_run(&r) && !r.resumed;
    for (int64_t step = 1; good && step <= 2; step++) {
        for (int i = 0; i < 6; i++) r.values[i] = (float)(i * step), r.m[i] = 0.5f, r.v[i] = 0.25f;
        r.step = step, r.position = 10 * step, r.best = 0.5 / (double)step, r.worse = 3;
        json_t *line = json_pack("{s:I}", "step", (json_int_t)step);
        run_folder_metric(&r, line);
        json_decref(line);
        good = run_folder_save(&r, err, sizeof err);
    }
    run_folder_close(&r);
    good = good && open_run(&r) && r.resumed && !*warning && r.step == 2 && r.position == 20 &&
           r.best == 0.25 && r.worse == 3;
    ok(good && r.values[5] == 10 && r.m[5] == 0.5f && r.v[5] == 0.25f, "what was saved comes back");
    run_folder_close(&r);

    size_t n = 0, unseen = 0, cut_unseen = 0;
    char *state = get_bytes("run/state.safetensors", &n);
    for (size_t i = 0; i < n; i++) {
        state[i] ^= (char)(1 << i % 8);
        unseen += !falls_back(state, n);
        state[i] ^= (char)(1 << i % 8);
        cut_unseen += !falls_back(state, i);
    }
    ok(!unseen, "a bit flipped in any of a state's %zu bytes is seen (%zu were not)", n, unseen);
    ok(!cut_unseen, "and so is a cut at any of them (%zu were not)", cut_unseen);

    state[n - 5] ^= 1;
    put_bytes("run/state.safetensors", state, n);
    put_bytes("run/state.previous.safetensors", state, n);
    good = !open_run(&r);
    ok(good && strstr(err, "its bytes are not those that were saved"),
       "with two damaged ones nothing is begun: %s", err);
    run_folder_close(&r);
    free(state);
}

/* Goes on for one step on this device; "" is a build that did not tell. What was said of it is in warning. */
static bool go_on(const char *basis)
{
    struct run_folder r;
    bool good = open_run(&r);
    if (good && *basis) run_folder_on(&r, basis, warning, sizeof warning);
    r.step++;
    good = good && run_folder_save(&r, err, sizeof err);
    run_folder_close(&r);
    return good;
}

static void devices(void)
{
    struct run_folder r;
    system("rm -rf run");
    ok(go_on("") && go_on("card A, library 1") && !*warning,
       "a state that tells no device is gone on from in silence");
    ok(go_on("card A, library 1") && !*warning, "so is one of the same device");
    ok(go_on("card A, library 2") &&
           strstr(warning, "on card A, library 1, those to come on card A, library 2"),
       "another library's version is said in a line: %s", warning);
    ok(go_on("card A, library 2") && !*warning, "once");
    bool good = open_run(&r);
    char *text = json_dumps(r.bases, JSON_COMPACT | JSON_SORT_KEYS);
    ok(good && text &&
           !strcmp(text,
                   "[{\"on\":\"card A, library 1\",\"step\":1},{\"on\":\"card A, library 2\",\"step\":3}]"),
       "the state keeps from which step on: %s", text ? text : "nothing");
    free(text);
    run_folder_close(&r);
}

int main(void)
{
    scratch_enter();
    early_stopping();
    damage();
    devices();
    return scratch_leave() ? done() : 1;
}
