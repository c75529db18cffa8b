/* The program `sample` against diffusers' CogVideoXPipeline (DDIM, DPM) and WanPipeline (UniPC), and against Euler's
 * steps: with and without guidance, from brought noise and from PyTorch's generator. Errors of one step are carried on through the others and
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

/* A folder made of these parts, with another scheduler setting where the case has one. */
static const char *model_folder(const char *scheduler, const char *transformer, json_t *line, char path[64])
{
    static const char *const settings[] = {"snr_shift_scale", "flow_shift"};
    char command[9000], config[128], from[4096];
    snprintf(path, 64, "%s/model", work);
    snprintf(config, sizeof config, "%s/scheduler/scheduler_config.json", path);
    data_file(from, scheduler, "scheduler");
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s' && cp -r '%s' '%s'", path, path, from, path);
    if (system(command)) return path;
    data_file(from, transformer, "transformer");
    snprintf(command, sizeof command, "cp -r '%s' '%s'", from, path);
    if (system(command)) return path;
    if (json_object_get(line, "boundary")) { /* of two transformers */
        data_file(from, scheduler, "transformer_2");
        snprintf(command, sizeof command,
                 "cp -r '%s' '%s' && echo '{\"boundary_ratio\":%g}' >'%s/model_index.json'", from, path,
                 json_number_value(json_object_get(line, "boundary")), path);
        if (system(command)) return path;
    }
    snprintf(command, sizeof command,
             "echo '{\"expand_timesteps\":true,\"boundary_ratio\":null}' >'%s/model_index.json'", path);
    if (json_object_get(line, "expand_timesteps") && system(command)) return path;
    json_t *all = json_load_file(config, 0, NULL);
    for (int i = 0; i < 2; i++)
        if (json_object_get(line, settings[i]))
            json_object_set(all, settings[i], json_object_get(line, settings[i]));
    json_dump_file(all, config, 0);
    json_decref(all);
    return path;
}

/* piped: the two transformers of the model each have a process of their own. */
static void compare(const struct cases *c, size_t n, const char *parts, const char *transformer, bool piped)
{
    json_t *line = json_array_get(c->list, n);
    char in[64], out[64], command[9000], path[64], seed[64] = "", shift[64] = "", low[64] = "", shape[96],
                                                   choice[128] = "", options[560];
    const char *scheduler = json_string_value(json_object_get(line, "scheduler"));
    snprintf(in, sizeof in, "%s/in", work);
    snprintf(out, sizeof out, "%s/out", work);
    if (json_is_integer(json_object_get(line, "seed")))
        snprintf(seed, sizeof seed, "--rng torch-cpu --seed %lld",
                 (long long)json_integer_value(json_object_get(line, "seed")));
    if (json_object_get(line, "shift"))
        snprintf(shift, sizeof shift, "--shift %g", json_number_value(json_object_get(line, "shift")));
    static const char *const chosen[][2] = {{"compute_steps", "compute-steps"},
                                            {"guidance_steps", "guidance-steps"}};
    for (int i = 0; i < 2; i++)
        if (json_object_get(line, chosen[i][0]))
            snprintf(choice + strlen(choice), sizeof choice - strlen(choice), " --%s %s", chosen[i][1],
                     json_string_value(json_object_get(line, chosen[i][0])));
    int steps = (int)json_integer_value(json_object_get(line, "steps"));
    double guidance = json_number_value(json_object_get(line, "guidance"));
    if (json_object_get(line, "guidance_low"))
        snprintf(low, sizeof low, "--guidance-low %g",
                 json_number_value(json_object_get(line, "guidance_low")));
    const char *bin = getenv("BIN") ? getenv("BIN") : "bin",
               *model = model_folder(parts, transformer, line, path);
    snprintf(options, sizeof options,
             "-m '%s' --dtype f32 --scheduler %s --steps %d --guidance %g %s %s %s %s", model, scheduler,
             steps, guidance, json_is_true(json_object_get(line, "dynamic")) ? "--dynamic" : "", seed, shift,
             choice);
    snprintf(shape, sizeof shape, "--frames %d --size %dx%d",
             (int)json_integer_value(json_object_get(line, "frames")),
             (int)json_integer_value(json_object_get(line, "width")),
             (int)json_integer_value(json_object_get(line, "height")));
    if (piped)
        snprintf(command, sizeof command,
                 "'%s/sample' %s %s --expert high <%s | '%s/sample' %s %s --expert low >%s", bin, options,
                 shape, in, bin, options, low, out);
    else
        snprintf(command, sizeof command, "'%s/sample' %s %s %s <%s >%s", bin, options, shape, low, in, out);
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
    if (!ok(rel <= 1e-3, "%s of %d steps, guidance %g%s%s%s%s%s: relative L2 %.2g", scheduler, steps,
            guidance, *seed ? ", " : "", seed, choice,
            json_object_get(line, "boundary")           ? ", two transformers"
            : json_object_get(line, "expand_timesteps") ? ", a timestep for each token"
                                                        : "",
            piped ? " in two processes" : "", rel))
        printf("# %s\n", command);
    free(want.data);
    record_free(&f);
    record_reader_close(r);
    close(fd);
}

int main(void)
{
    static const char *const of[][3] = {{"sample", "sample", "sample"},
                                        {"wan/sample", "wan/sample", "wan/h20"},
                                        {"residual", "sample", "sample"},
                                        {"wan/residual", "wan/sample", "wan/h20"},
                                        {"wan/experts", "wan/experts", "wan/h20"},
                                        {"wan/experts", "wan/experts", "wan/h20"},
                                        {"wan/ti2v", "wan/ti2v", "wan/ti2v"}};
    char command[128];
    if (!mkdtemp(work)) return 1;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct cases c = cases_open(of[i][0]);
        for (size_t n = 0; n < json_array_size(c.list); n++) compare(&c, n, of[i][1], of[i][2], i == 5);
        cases_close(&c);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", work);
    return system(command) || done();
}
