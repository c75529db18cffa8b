#include "filters/nets/parts.h"

#include "filters/nets/dit.h"
#include "filters/nets/owl.h"
#include "filters/nets/t5.h"
#include "filters/nets/vae.h"
#include "formats/error.h"

static const struct part cogvideox[] = {{"transformer", "transformer", "diffusion_pytorch_model", DT_BF16,
                                         dit_declare, NULL},
                                        {"vae", "vae", "diffusion_pytorch_model", DT_F32, vae_declare, NULL},
                                        {"text_encoder", "text_encoder", "model", DT_BF16, t5_declare,
                                         t5_ignored}},
                         grader = {"", "owl", "model", DT_BF16, owl_declare, owl_ignored};

const struct part *model_parts(const struct model *m, int *count)
{
    char path[4096], err[512];
    bool at_top = model_file(m, "config.json", path, sizeof path, err, sizeof err);
    *count = at_top ? 1 : sizeof cogvideox / sizeof cogvideox[0];
    return at_top ? &grader : cogvideox;
}

bool part_declare(struct params *list, const struct model *m, const struct part *part, char *err,
                  size_t errlen)
{
    char file[256];
    snprintf(file, sizeof file, "%s%sconfig.json", part->name, *part->name ? "/" : "");
    json_t *config = model_config(m, part->name, err, errlen);
    bool good = config && part->declare(list, config, file, err, errlen);
    json_decref(config);
    if (good && list->failed) good = fail(err, errlen, "%s: out of memory", file);
    return good;
}
