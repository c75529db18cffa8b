/* The program `sample` against diffusers' CogVideoXPipeline: DDIM, DPM and Euler, with and without guidance,
 * from brought noise and from PyTorch's generator. Errors of one step are carried on through the others and
 * amplified by guidance: 1e-3, where about 1e-6 is seen. */
#include <fcntl.h>
#include <unistd.h>

#include "formats/record.h"
#include "tests/cases.h"

static char work[] = "/tmp/sluice-sample.XXXXXX";

static void put(struct record *f, const struct cases *c, size_t n, const char *in_file, const char *name)
{
    struct tensor t = cases_tensor(c, "%zu.%s", n, in_file);
    if (!t.data) return;
    struct tensor *to = record_add_shape(
        f, name, DT_F32, (const int64_t[]){t.rank, t.shape[0], t.shape[1], t.shape[2], t.shape[3]});
    memcpy(to->data, t.data, tensor_bytes(&t));
    free(t.data);
}

static bool write_input(const struct cases *c, size_t n, const char *path)
{
    struct record f = RECORD_INIT;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    struct record_writer *w = record_writer_open(fd, "test", NULL);
    record_new(&f, "case");
    put(&f, c, n, "prompt_embeds", "prompt_embeds");
    put(&f, c, n, "negative_embeds", "negative_embeds");
    put(&f, c, n, "noise", "noise");
    bool good = record_write(w, &f) && record_write_end(w, 0);
    record_writer_close(w);
    close(fd);
    record_free(&f);
    return good;
}

/* The model's folder, or one like it with another scheduler setting. */
static const char *model_folder(json_t *line, char path[4096])
{
    char command[9000], config[4096];
    json_t *shift = json_object_get(line, "snr_shift_scale");
    data_file(path, "sample", "");
    if (!shift) return path;
    snprintf(command, sizeof command, "cp -r '%s' '%s/shifted'", path, work);
    if (system(command)) return path;
    snprintf(path, 4096, "%s/shifted", work);
    snprintf(config, sizeof config, "%s/shifted/scheduler/scheduler_config.json", work);
    json_t *settings = json_load_file(config, 0, NULL);
    json_object_set(settings, "snr_shift_scale", shift);
    json_dump_file(settings, config, 0);
    json_decref(settings);
    return path;
}

static void compare(const struct cases *c, size_t n)
{
    json_t *line = json_array_get(c->list, n);
    char in[64], out[64], command[9000], path[4096], seed[64] = "";
    const char *scheduler = json_string_value(json_object_get(line, "scheduler"));
    snprintf(in, sizeof in, "%s/in", work);
    snprintf(out, sizeof out, "%s/out", work);
    if (json_is_integer(json_object_get(line, "seed")))
        snprintf(seed, sizeof seed, "--rng torch-cpu --seed %lld",
                 (long long)json_integer_value(json_object_get(line, "seed")));
    int steps = (int)json_integer_value(json_object_get(line, "steps"));
    double guidance = json_number_value(json_object_get(line, "guidance"));
    snprintf(
        command, sizeof command,
        "'%s/sample' -m '%s' --dtype f32 --scheduler %s --steps %d --guidance %g --frames %d --size %dx%d %s %s <%s >%s",
        getenv("BIN") ? getenv("BIN") : "bin", model_folder(line, path), scheduler, steps, guidance,
        (int)json_integer_value(json_object_get(line, "frames")),
        (int)json_integer_value(json_object_get(line, "width")),
        (int)json_integer_value(json_object_get(line, "height")),
        json_is_true(json_object_get(line, "dynamic")) ? "--dynamic" : "", seed, in, out);
    bool good = write_input(c, n, in) && system(command) == 0;
    struct record f = RECORD_INIT;
    int fd = open(out, O_RDONLY);
    struct record_reader *r = record_reader_open(fd, out);
    good = good && record_read(r, &f) == RECORD_GOT;
    struct tensor want = cases_tensor(c, "%zu.out", n),
                  *got = good ? record_want(&f, "latents", DT_F32, 4) : NULL;
    double rel = got && tensor_same_shape(got, &want)
                     ? relative_l2(got->data, want.data, (size_t)tensor_count(&want))
                     : INFINITY;
    if (!ok(rel <= 1e-3, "%s of %d steps, guidance %g%s%s: relative L2 %.2g", scheduler, steps, guidance,
            *seed ? ", " : "", seed, rel))
        printf("# %s\n", command);
    free(want.data);
    record_free(&f);
    record_reader_close(r);
    close(fd);
}

int main(void)
{
    char command[128];
    struct cases c = cases_open("sample");
    if (!mkdtemp(work)) return 1;
    for (size_t n = 0; n < json_array_size(c.list); n++) compare(&c, n);
    cases_close(&c);
    snprintf(command, sizeof command, "rm -rf '%s'", work);
    return system(command) || done();
}
