/* adapter_build - what a command line and a file have in common when they describe an adapter. */
#ifndef LEARNING_ADAPTER_BUILD_H
#define LEARNING_ADAPTER_BUILD_H

#include "filters/learning/adapter.h"

/* Names of linears within their block, each once. */
struct target_list {
    char name[ADAPTER_MAX_TARGETS][32];
    int count;
};
bool target_list_has(const struct target_list *list, const char *target);
/* Whether a linear that stands aside shares this name with one that does not: PEFT means both. */
bool target_is_shared(const struct linears *base, const char *name);
/* Adds the targets that the n bytes of `name` stand for. false: there is none, or not in every block. */
bool target_list_add(struct target_list *list, const struct linears *base, const char *name, size_t n,
                     char *err, size_t errlen);

struct adapter_spec {
    const char *kind;
    int64_t rank;
    double alpha;
    struct target_list targets;
    json_t *settings; /* stolen by adapter_build(); NULL: none */
};
struct adapter *adapter_build(const struct adapter_spec *spec, struct adapter_base base, char *err,
                              size_t errlen);

#endif
