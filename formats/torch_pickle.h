/* torch_pickle - what torch.save() writes about a dict of tensors (data.pkl in its files), read as data.
 *
 * A pickle is a program for a stack machine that may call anything. This machine knows the few instructions
 * that a dict of names to tensors needs, and three things to call: torch._utils._rebuild_tensor_v2,
 * collections.OrderedDict, and the torch.*Storage types. Any other call is refused by its name; nothing is
 * ever executed. Only protocol 2, which is what torch.save() writes. */
#ifndef FORMATS_TORCH_PICKLE_H
#define FORMATS_TORCH_PICKLE_H

#include "formats/tensor.h"

enum {
    TORCH_MAX_PICKLE = 16 << 20, /* bytes */
    TORCH_MAX_TENSORS = 65536,
};

struct torch_dict {
    int count;
    struct torch_tensor { /* in the dict's order */
        char *name;
        struct tensor shape;             /* data NULL */
        int64_t offset;                  /* of the first element in its storage, in elements */
        int64_t stride[TENSOR_MAX_RANK]; /* likewise; none negative */
        int storage;
    } * tensor;
    int storages;          /* one for each mention: several may have the same key */
    struct torch_storage { /* a row of numbers, which several tensors may share */
        char *key;         /* its name in the file */
        enum dtype dtype;
        int64_t elements;
    } * storage;
};

/* Every tensor lies within its storage, is no larger than it, and has a name of its own. false: reason in
 * err, and *d is empty. */
bool torch_pickle_read(struct torch_dict *d, const uint8_t *bytes, size_t n, char *err, size_t errlen);
void torch_dict_free(struct torch_dict *d);

#endif
