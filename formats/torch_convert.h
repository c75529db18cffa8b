/* torch_convert - PyTorch's weight files as safetensors: one file, or a published folder.
 *
 * Tensor by tensor: memory is that of the largest one, whatever the model's size. Nothing in a file is executed
 * (torch_file.h). What is written appears when it is complete. */
#ifndef FORMATS_TORCH_CONVERT_H
#define FORMATS_TORCH_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the caller is told on the way. */
struct torch_told {
    void (*reading)(const char *file, const char *tensor);       /* this one is next */
    void (*wrote)(const char *file, int tensors, int64_t bytes); /* a file, by its name in `to` */
};

/* A .bin or .pt file `from` to a safetensors file `to`; or a folder `from` to a folder `to`, which is new or empty:
 * pytorch_model.bin as model.safetensors, or diffusion_pytorch_model.bin under that name, or what the .index.json of
 * either names, with a new index. Other files are copied, subfolders and other weights are not. false: reason in err,
 * such as no weights or two of them, an index and files that disagree, a file that holds more than plain tensors;
 * nothing is left behind. */
bool torch_convert(const char *from, const char *to, const struct torch_told *told, char *err, size_t errlen);

#endif
