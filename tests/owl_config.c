/* The grader's configuration: the published one declares the published tensors, and what is not known is refused. */
#include "filters/nets/owl_net.h"

#include <string.h>

#include "tests/tap.h"

static char err[1024];

static struct model *open_preset(const char *name)
{
    struct model *m = model_open(name, err, sizeof err);
    if (!m) printf("Bail out! %s\n", err), exit(1);
    return m;
}

static int64_t count_of(const struct params *list, const char *start, int *tensors)
{
    int64_t n = 0;
    *tensors = 0;
    for (int i = 0; i < list->count; i++)
        if (!strncmp(list->param[i].name, start, strlen(start))) {
            n += tensor_count(&list->param[i].shape);
            ++*tensors;
        }
    return n;
}

static bool has(const struct params *list, const char *name, struct tensor shape)
{
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->param[i].name, name)) return tensor_same_shape(&list->param[i].shape, &shape);
    return false;
}

static void test_inventory(json_t *config, const char *what)
{
    static const struct {
        const char *start;
        int tensors;
        int64_t parameters;
    } part[] = {{"vision_model.", 487, 328480768},
                {"abstractor.", 137, 85606400},
                {"language_model.", 291, 6738415616},
                {"", 917, 7152633856}};
    struct params list = {0};
    bool good = config && network_declare(&owl_grader, &list, config, "config.json", err, sizeof err);
    for (int i = 0, n; i < 4; i++) {
        int64_t parameters = count_of(&list, part[i].start, &n);
        ok(good && n == part[i].tensors && parameters == part[i].parameters,
           "%s: %s* %d tensors, %lld parameters", what, part[i].start, n, (long long)parameters);
    }
    ok(has(&list, "query_tokens", shape_of(3, 1, 64, 1024)) &&
           has(&list, "vision_model.encoder.layers.23.temporal.conv.weight", shape_of(5, 512, 1, 3, 1, 1)) &&
           has(&list, "vision_model.encoder.layers.0.self_attn.query_key_value.bias", shape_of(1, 3072)) &&
           has(&list, "abstractor.encoder.layers.5.crossattention.output.mlp.w2.weight",
               shape_of(2, 1024, 2816)) &&
           has(&list, "language_model.lm_head.weight", shape_of(2, 32000, 4096)),
       "%s: names and shapes, here and there", what);
    params_free(&list);
    json_decref(config);
}

static void test_published(void)
{
    struct model *m = open_preset("random:owl-7b");
    test_inventory(model_config(m, "", err, sizeof err), "random:owl-7b");
    model_close(m);
    test_inventory(json_pack("{s:s, s:{}, s:{}, s:{}}", "model_type", "mplug-owl", "vision_config",
                             "visual_abstractor_config", "text_config"),
                   "what a config leaves out");
}

static void refused(const char *part, const char *change, const char *word)
{
    struct params list = {0};
    struct model *m = open_preset("random:owl-tiny");
    json_t *config = model_config(m, "", err, sizeof err), *other = json_loads(change, JSON_DECODE_ANY, NULL);
    json_object_update(*part ? json_object_get(config, part) : config, other);
    bool good = network_declare(&owl_grader, &list, config, "some.json", err, sizeof err);
    ok(!good && strstr(err, "some.json") && strstr(err, word), "%s with %s is refused: %s",
       *part ? part : "a config", change, err);
    params_free(&list);
    json_decref(config);
    json_decref(other);
    model_close(m);
}

static void test_configs(void)
{
    refused("", "{\"model_type\": \"mplug-owl2\"}", "model_type");
    refused("", "{\"model_type\": null}", "model_type");
    refused("", "{\"vision_config\": 3}", "vision_config");
    refused("", "{\"num_query_tokens\": 0}", "num_query_tokens");
    refused("", "{\"tie_word_embeddings\": true}", "tie_word_embeddings");
    refused("vision_config", "{\"hidden_act\": \"gelu\"}", "hidden_act");
    refused("vision_config", "{\"num_channels\": 1}", "num_channels");
    refused("vision_config", "{\"num_hidden_layers\": \"24\"}", "num_hidden_layers");
    refused("vision_config", "{\"patch_size\": 15}", "patches");
    refused("vision_config", "{\"hidden_size\": 96}", "a tower of 96");
    refused("vision_config", "{\"num_attention_heads\": 5}", "the tower's heads");
    refused("visual_abstractor_config", "{\"num_attention_heads\": 5}", "the abstractor's heads");
    refused("visual_abstractor_config", "{\"encoder_hidden_size\": 32}", "encoder_hidden_size 32");
    refused("text_config", "{\"num_attention_heads\": 128, \"num_key_value_heads\": 128}",
            "in pairs of channels");
    refused("text_config", "{\"rope_theta\": -1}", "rope_theta");
    refused("text_config", "{\"model_type\": \"mistral\"}", "model_type");
    refused("text_config", "{\"hidden_act\": \"gelu\"}", "hidden_act");
    refused("text_config", "{\"num_key_value_heads\": 2}", "num_key_value_heads");
    refused("text_config", "{\"head_dim\": 64}", "head_dim");
    refused("text_config", "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}}", "rope_scaling");
    refused("text_config", "{\"attention_bias\": true}", "attention_bias");
    refused("text_config", "{\"mlp_bias\": true}", "mlp_bias");
    refused("text_config", "{\"tie_word_embeddings\": true}", "tie_word_embeddings");
    refused("text_config", "{\"eos_token_id\": 1024}", "eos_token_id");
}

int main(void)
{
    test_published();
    test_configs();
    return done();
}
