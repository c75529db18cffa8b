#include <string.h>

#include "filters/nets/families.h"

/* Where each part names its class, and how it is called when the folder is its own. */
static const char *const field[] = {[PART_DENOISER] = "_class_name",
                                    [PART_AUTOENCODER] = "_class_name",
                                    [PART_TEXT_ENCODER] = "model_type",
                                    [PART_GRADER] = "model_type"};

static const struct network *network_of(const struct family *f, enum part_kind part)
{
    switch (part) {
    case PART_DENOISER: return f->denoiser ? &f->denoiser->network : NULL;
    case PART_AUTOENCODER: return f->autoencoder ? &f->autoencoder->network : NULL;
    case PART_TEXT_ENCODER: return f->text_encoder ? &f->text_encoder->network : NULL;
    case PART_GRADER: return f->grader;
    }
    return NULL;
}

const struct network *network_find(enum part_kind part, json_t *config, const char *file, char *err,
                                   size_t errlen)
{
    struct config c = {.json = config, .file = file};
    const char *name = config_text_or(&c, field[part], "");
    char known[512] = "";
    if (*c.error) return fail(err, errlen, "%s", c.error), NULL;
    for (int i = 0; i < family_count; i++) {
        const struct network *n = network_of(&families[i], part);
        if (!n) continue;
        if (!*name || !strcmp(name, n->class_name)) return n;
        if (!strstr(known, n->class_name)) /* families share parts */
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? ", " : "",
                     n->class_name);
    }
    fail(err, errlen, "%s: %s is not known here; known: %s", file, name, known);
    return NULL;
}

/* ---- whose a record is ------------------------------------------------------------------------------- */

static const char *const signature[] = {
    [PART_AUTOENCODER] = "vae_class", [PART_TEXT_ENCODER] = "text_encoder_class"};

/* The class of that part of the family that `of` belongs to; NULL: it has none. */
static const char *class_in_family(enum part_kind part, const struct network *of)
{
    for (int i = 0; i < family_count; i++)
        for (int p = PART_DENOISER; p <= PART_GRADER; p++)
            if (network_of(&families[i], (enum part_kind)p) == of) {
                const struct network *n = network_of(&families[i], part);
                return n ? n->class_name : NULL;
            }
    return NULL;
}

static const char *first_class(enum part_kind part)
{
    return network_of(&families[0], part)->class_name;
}

void family_sign(json_t *meta, enum part_kind part, const struct network *of)
{
    const char *class = class_in_family(part, of);
    if (class && strcmp(class, first_class(part)))
        json_object_set_new(meta, signature[part], json_string(class));
    else
        json_object_del(meta, signature[part]);
}

bool family_reads(const json_t *meta, enum part_kind part, const struct network *of, const char *name,
                  char *err, size_t errlen)
{
    const char *class = class_in_family(part, of),
               *is = json_string_value(json_object_get(meta, signature[part]));
    bool ours = part == PART_AUTOENCODER ? json_object_get(meta, "vae") || json_object_get(meta, "sample")
                                         : json_object_get(meta, "text_encoder") != NULL;
    if (!is && ours) is = first_class(part);
    return !class || !is || !strcmp(is, class) ||
           fail(err, errlen, "%s of %s, this model reads those of %s", name, is, class);
}

/* ---- parts of a folder ------------------------------------------------------------------------------- */

static bool has_grader(const struct model *m)
{
    static const char *const others[] = {"transformer", "vae", "text_encoder"};
    char path[4096], err[512];
    json_t *config = model_file(m, "config.json", path, sizeof path, err, sizeof err)
                         ? model_config(m, "", err, sizeof err)
                         : NULL;
    bool named = json_is_string(json_object_get(config, field[PART_GRADER])) &&
                 network_find(PART_GRADER, config, "", err, sizeof err);
    bool alone = model_file(m, "config.json", path, sizeof path, err, sizeof err);
    json_decref(config);
    for (int i = 0; i < 3; i++) alone = alone && !model_has_part(m, others[i]);
    return named || alone;
}

const struct part *model_parts(const struct model *m, int *count)
{
    static const struct part video[] = {{PART_DENOISER, "transformer", "transformer"},
                                        {PART_AUTOENCODER, "vae", "vae"},
                                        {PART_TEXT_ENCODER, "text_encoder", "text_encoder"},
                                        {PART_DENOISER, "transformer_2", "transformer_2"}},
                             grader = {PART_GRADER, "", "owl"};
    bool grades = has_grader(m);
    *count = grades ? 1 : model_has_part(m, "transformer_2") ? 4 : 3;
    return grades ? &grader : video;
}

const struct network *part_declare(struct params *list, const struct model *m, const struct part *part,
                                   char *err, size_t errlen)
{
    char file[256];
    snprintf(file, sizeof file, "%s%sconfig.json", part->folder, *part->folder ? "/" : "");
    json_t *config = model_config(m, part->folder, err, errlen);
    const struct network *n = config ? network_find(part->kind, config, file, err, errlen) : NULL;
    if (n && !network_declare(n, list, config, file, err, errlen)) n = NULL;
    json_decref(config);
    return n;
}
