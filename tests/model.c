#include "formats/model.h"

#include <sys/stat.h>

#include "tests/scratch.h"
#include "tests/tap.h"

static char err[1024];

/* A file of the tensors whose one-letter names are given, each F32 [1]. */
static void put_shard(const char *path, const char *names)
{
    static float x = 1;
    char name[8][2] = {""};
    struct safetensors_item items[8];
    int n = 0;
    for (; names[n]; n++) {
        name[n][0] = names[n];
        items[n] = (struct safetensors_item){name[n], tensor_of(DT_F32, &x, 1, 1)};
    }
    if (!safetensors_write(path, items, n, NULL, err, sizeof err)) puts(err), exit(1);
}

static struct model_weights *weights(const char *folder)
{
    err[0] = 0;
    struct model *m = model_open(folder, err, sizeof err);
    struct model_weights *w = m ? model_weights_open(m, "net", err, sizeof err) : NULL;
    model_close(m);
    return w;
}

static bool refuses(const char *folder, const char *because)
{
    struct model_weights *w = weights(folder);
    model_weights_close(w);
    return !w && strstr(err, because);
}

static bool has(const char *folder, int shards, const char *names)
{
    struct model_weights *w = weights(folder);
    bool good = w && w->shards == shards && w->count == (int)strlen(names);
    for (int i = 0; good && names[i]; i++) {
        char name[2] = {names[i], 0};
        const struct model_tensor *t = model_weights_find(w, name);
        good = t && !strcmp(t->name, name) && t->entry->bytes == 4 && w->tensor[i].name[0] == names[i];
    }
    good = good && !model_weights_find(w, "absent");
    model_weights_close(w);
    return good;
}

static void folder(const char *name)
{
    char path[100];
    snprintf(path, sizeof path, "%s/net", name);
    if (mkdir(name, 0777) || mkdir(path, 0777)) perror(path), exit(1);
}

static void one_file(void)
{
    folder("one");
    put_shard("one/net/model.safetensors", "bca");
    ok(has("one", 1, "abc"), "one file, its tensors by name");
    ok(has("one/", 1, "abc"), "a slash behind the folder is fine");
    folder("two");
    put_shard("two/net/diffusion_pytorch_model.safetensors", "z");
    ok(has("two", 1, "z"), "or under the other name");
    put_shard("two/net/model.safetensors", "z");
    ok(refuses("two", "only one of them can hold the weights"), "both: %s", err);
    unlink("two/net/model.safetensors");
    put_text("two/net/diffusion_pytorch_model.safetensors.index.json", "{}");
    ok(refuses("two", "only one of them can hold the weights"), "a file and an index: %s", err);
    folder("none");
    put_shard("none/net/model.safetensors", "");
    ok(has("none", 1, ""), "a file without tensors is a file");
}

#define INDEX "shards/net/model.safetensors.index.json"

static void shards(void)
{
    folder("shards");
    put_shard("shards/net/1.safetensors", "ac");
    put_shard("shards/net/2.safetensors", "b");
    put_text(
        INDEX,
        "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\","
        "\"c\":\"1.safetensors\"}}");
    ok(has("shards", 2, "abc"), "two shards: %s", err);

    static const struct {
        const char *what, *map, *because;
    } bad[] = {
        {"no map", "{}", "no weight_map"},
        {"an empty map", "{\"weight_map\":{}}", "no weight_map"},
        {"a map of another type", "{\"weight_map\":[\"a\"]}", "no weight_map"},
        {"a folder above", "{\"weight_map\":{\"a\":\"../net/1.safetensors\"}}",
         "no safetensors file of this folder"},
        {"a folder below", "{\"weight_map\":{\"a\":\"x/1.safetensors\"}}",
         "no safetensors file of this folder"},
        {"two dots", "{\"weight_map\":{\"a\":\"..safetensors\"}}", "no safetensors file of this folder"},
        {"a pickle", "{\"weight_map\":{\"a\":\"pytorch_model.bin\"}}", "no safetensors file of this folder"},
        {"no text", "{\"weight_map\":{\"a\":1}}", "no safetensors file of this folder"},
        {"an absent shard", "{\"weight_map\":{\"a\":\"3.safetensors\"}}", "net/3.safetensors: No such file"},
        {"an absent tensor",
         "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"1.safetensors\",\"d\":\"1.safetensors\"}}",
         "tensor d is not in 1.safetensors"},
        {"an unlisted tensor", "{\"weight_map\":{\"a\":\"1.safetensors\"}}",
         "1.safetensors is not in the index"},
        {"the wrong shard",
         "{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"2.safetensors\",\"c\":\"1.safetensors\"}}",
         "1.safetensors, not in 2.safetensors"},
        {"one name twice", "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"2.safetensors\"}}",
         "duplicate object key"},
        {"no JSON", "{", "line 1"},
        {"no object", "[]", "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text(INDEX, bad[i].map);
        ok(refuses("shards", bad[i].because) && strstr(err, INDEX), "%s: %s", bad[i].what, err);
    }
    put_shard("shards/net/2.safetensors", "ab");
    put_text(INDEX,
             "{\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\",\"c\":\"1.safetensors\"}}");
    ok(refuses("shards", "tensor a is in shards/net/1.safetensors and in shards/net/2.safetensors"), "%s",
       err);
    put_text("shards/net/2.safetensors", "garbage!");
    ok(refuses("shards", "net/2.safetensors: a header of"), "a damaged shard: %s", err);
}

static void not_loadable(void)
{
    folder("pickle");
    put_text("pickle/net/pytorch_model.bin", "\x80\x02");
    put_text("pickle/net/a.pt", "\x80\x02");
    ok(refuses("pickle", "only pickled weights (a.pt), which are never executed"), "%s", err);
    put_text("pickle/net/model.fp16.safetensors", "");
    ok(refuses("pickle", "has model.fp16.safetensors, but no"), "%s", err);
    folder("empty");
    ok(refuses("empty", "empty/net: no weights"), "%s", err);
    rmdir("empty/net");
    ok(refuses("empty", "empty/net: No such file"), "%s", err);
    ok(!model_open("absent", err, sizeof err) && strstr(err, "absent: no such model folder"), "%s", err);
    put_text("file", "");
    ok(!model_open("file", err, sizeof err), "%s", err);
}

static void configs(void)
{
    struct model *m = model_open("one", err, sizeof err);
    put_text("one/net/config.json", "{\"a\": 1}");
    json_t *j = model_config(m, "net", err, sizeof err);
    ok(json_integer_value(json_object_get(j, "a")) == 1, "a part's config.json is read");
    json_decref(j);
    put_text("one/config.json", "{\"top\": 1}");
    j = model_config(m, "", err, sizeof err);
    ok(json_integer_value(json_object_get(j, "top")) == 1, "and that of the folder itself");
    json_decref(j);
    put_text("one/config.json", "[]");
    ok(!model_config(m, "", err, sizeof err) && strstr(err, "one/config.json: ") == err, "%s", err);
    mkdir("one/scheduler", 0777);
    put_text("one/scheduler/scheduler_config.json", "{}");
    j = model_config(m, "scheduler", err, sizeof err);
    ok(json_is_object(j), "the scheduler's has a name of its own");
    json_decref(j);
    static const char *const bad[][2] = {{"{\"a\":1,\"a\":2}", "line 1: duplicate object key"},
                                         {"{\n\"a\":\n}", "line 3"},
                                         {"", "line 1"},
                                         {"[1]", "not a JSON object"},
                                         {"{\"a\":NaN}", "line 1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text("one/net/config.json", bad[i][0]);
        j = model_config(m, "net", err, sizeof err);
        ok(!j && strstr(err, "one/net/config.json: ") == err && strstr(err, bad[i][1]), "%s", err);
    }
    ok(truncate("one/net/config.json", (1 << 20) + 1) == 0 && !model_config(m, "net", err, sizeof err) &&
           strstr(err, "more than 1048576"),
       "%s", err);
    unlink("one/net/config.json");
    mkfifo("one/net/config.json", 0666);
    ok(!model_config(m, "net", err, sizeof err) && strstr(err, "not a regular file"), "%s", err);
    ok(!model_config(m, "vae", err, sizeof err) && strstr(err, "one/vae/config.json: No such file"), "%s",
       err);
    model_close(m);
}

static void fields(void)
{
    struct config c = {.file = "net/config.json",
                       .json = json_pack("{s:i,s:f,s:b,s:s,s:n,s:[i,i],s:[i,f],s:i}", "int", 7, "real", 2.5,
                                         "bool", 1, "text", "gelu", "null", "ints", 3, 4, "mixed", 1, 2.0,
                                         "minus", -1)};
    int64_t v[4];
    ok(config_int(&c, "int", 7, 7) == 7 && config_int_or(&c, "int", 1, 9, 5) == 7 &&
           config_int_or(&c, "absent", 1, 9, 5) == 5 && config_int_or(&c, "null", 1, 9, 5) == 5,
       "whole numbers, and what stands for an absent one");
    ok(config_real_or(&c, "real", 1) == 2.5 && config_real_or(&c, "int", 1) == 7 &&
           config_real_or(&c, "null", 1) == 1,
       "numbers");
    ok(config_bool_or(&c, "bool", false) && config_bool_or(&c, "absent", true) &&
           !config_bool_or(&c, "null", false),
       "truth values");
    ok(!strcmp(config_text_or(&c, "text", "x"), "gelu") && !strcmp(config_text_or(&c, "null", "x"), "x"),
       "texts");
    ok(config_ints(&c, "ints", v, 4) == 2 && v[0] == 3 && v[1] == 4, "lists");
    config_expect(&c, "int", json_integer(7));
    config_expect(&c, "int", json_real(7));
    config_expect(&c, "text", json_string("gelu"));
    config_expect(&c, "absent", json_true());
    config_expect(&c, "null", json_integer(3));
    ok(!c.error[0], "and what must be so, if it is there: %s", c.error);

#define FAULT(call, because) (c.error[0] = 0, call, ok(strstr(c.error, because) != NULL, "%s", c.error))
    FAULT(config_int(&c, "absent", 1, 9),
          "net/config.json: absent is missing, must be a whole number from 1 to 9");
    FAULT(config_int(&c, "null", 1, 9), "null is missing");
    FAULT(config_int(&c, "int", 8, 9), "int is 7, must be");
    FAULT(config_int(&c, "real", 1, 9), "real is 2.5, must be a whole number");
    FAULT(config_int_or(&c, "text", 1, 9, 5), "text is \"gelu\", must be a whole number");
    FAULT(config_int_or(&c, "minus", 0, 9, 5), "minus is -1");
    FAULT(config_real_or(&c, "text", 1), "must be a number");
    FAULT(config_bool_or(&c, "int", true), "int is 7, must be true or false");
    FAULT(config_text_or(&c, "int", ""), "must be a text");
    FAULT(config_ints(&c, "mixed", v, 4), "mixed is [1,2.0], must be a list of 1 to 4");
    FAULT(config_ints(&c, "ints", v, 1), "must be a list of 1 to 1");
    FAULT(config_ints(&c, "absent", v, 4), "absent is missing");
    FAULT(config_expect(&c, "int", json_integer(8)), "int is 7; only a model where it is 8 is supported");
    FAULT(config_expect(&c, "int", json_null()), "only a model where it is null");
    config_int(&c, "minus", 0, 9);
    ok(strstr(c.error, "int is 7") != NULL, "the first fault sticks");
    json_decref(c.json);
}

static void presets(void)
{
    char path[4096];
    struct model *m = model_open("random:tiny", err, sizeof err);
    ok(m && m->random && m->seed == 0, "random:tiny, found beside the program: %s", m ? m->folder : err);
    if (!m) return;
    ok(!model_weights_open(m, "vae", err, sizeof err) && strstr(err, "no weight files"), "%s", err);
    ok(model_file(m, "vae/config.json", path, sizeof path, err, sizeof err) &&
           strstr(path, "presets/tiny/vae"),
       "its own files are found");
    ok(!model_file(m, "absent/file", path, sizeof path, err, sizeof err) &&
           strstr(err, "presets/tiny/absent/file: no such file"),
       "%s", err);
    model_close(m);

    static const char *const names[] = {"tiny", "cogvideox-2b", "cogvideox-5b"};
    static const char *const parts[] = {"transformer", "vae", "text_encoder", "scheduler"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        bool good = true;
        snprintf(name, sizeof name, "random:%s:%d", names[i], i);
        good = (m = model_open(name, err, sizeof err)) && m->seed == (uint64_t)i;
        for (int j = 0; good && j < 4; j++) {
            json_t *config = model_config(m, parts[j], err, sizeof err);
            good = config != NULL;
            json_decref(config);
        }
        ok(good && model_file(m, "model_index.json", path, sizeof path, err, sizeof err),
           "%s has all its configs", name);
        model_close(m);
    }

    mkdir("data", 0777);
    mkdir("data/presets", 0777);
    mkdir("data/presets/mine", 0777);
    mkdir("data/tokenizer", 0777);
    put_text("data/tokenizer/spiece.model", "");
    setenv("SLUICE_DATA", "data", 1);
    err[0] = 0;
    m = model_open("random:mine:18446744073709551615", err, sizeof err);
    ok(m && m->seed == UINT64_MAX && !strcmp(m->folder, "data/presets/mine"), "$SLUICE_DATA goes first: %s",
       err);
    ok(m && model_file(m, "tokenizer/spiece.model", path, sizeof path, err, sizeof err) &&
           !strcmp(path, "data/tokenizer/spiece.model"),
       "a preset without a tokenizer takes the shared one");
    model_close(m);
    m = model_open("random:./data/presets/mine:3", err, sizeof err);
    ok(m && m->seed == 3 && !strcmp(m->folder, "./data/presets/mine"), "a preset may be a path: %s", err);
    model_close(m);
    static const char *const bad[] = {
        "random:",        "random:absent",  "random:.",       "random:..",
        "random:mine:",   "random:mine:x",  "random:mine:-1", "random:mine:18446744073709551616",
        "random:mine:1:", "random:mine: 1", "random:/absent"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        m = model_open(bad[i], err, sizeof err);
        ok(!m, "%s", err);
        model_close(m);
    }
    m = model_open("one", err, sizeof err);
    ok(!model_file(m, "tokenizer/spiece.model", path, sizeof path, err, sizeof err),
       "a model that is not random takes no tokenizer but its own: %s", err);
    model_close(m);
}

int main(void)
{
    unsetenv("SLUICE_DATA");
    scratch_enter();
    one_file();
    shards();
    not_loadable();
    configs();
    fields();
    presets();
    ok(scratch_leave(), "cleaned up");
    return done();
}
