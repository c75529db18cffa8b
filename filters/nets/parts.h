/* parts - the networks whose weights a model folder holds. */
#ifndef NETS_PARTS_H
#define NETS_PARTS_H

#include "filters/nets/weights.h"

struct part {
    const char *name, *title; /* name: of its folder, "" for the model's own; title: for people */
    const char *file;         /* of its weights, without ending */
    enum dtype dtype;         /* that these are written in */
    bool (*declare)(struct params *list, json_t *config, const char *file, char *err, size_t errlen);
    const char *const *alias; /* of weights.h: names that its files may have besides */
};

/* CogVideoX's three, or the one of the grader, whose config lies at the model's top. */
const struct part *model_parts(const struct model *m, int *count);

/* Adds every parameter that the part's config calls for to list. false with the reason in err. */
bool part_declare(struct params *list, const struct model *m, const struct part *part, char *err,
                  size_t errlen);

#endif
