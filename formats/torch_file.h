/* torch_file - the tensors of a .bin or .pt file as torch.save() writes it since 1.6: a zip archive of
 *
 *   NAME/data.pkl    a dict of tensors (torch_pickle.h), and nothing else
 *   NAME/data/KEY    each storage's numbers, little-endian, stored and not compressed
 *
 * and members that are ignored (NAME/version, ..). Nothing in it is executed. */
#ifndef FORMATS_TORCH_FILE_H
#define FORMATS_TORCH_FILE_H

#include "formats/torch_pickle.h"
#include "formats/zip.h"

struct torch_file {
    char *path;
    struct zip *zip;
    struct torch_dict dict;
    struct torch_place { /* of each of dict.storage */
        const struct zip_entry *member;
        uint64_t at; /* its bytes in the archive */
        bool sound;  /* its checksum has been verified */
    } * place;
};

/* NULL with the reason in err, which names the file: no such archive, anything in it but plain tensors, a
 * storage that is not there, compressed, or not of the size that the tensors need. */
struct torch_file *torch_file_open(const char *path, char *err, size_t errlen);
void torch_file_close(struct torch_file *f); /* NULL is fine */

/* The tensor's elements into data (tensor_bytes(&t->shape) bytes), in row-major order, whatever its strides
 * in the file. false: reason in err, such as a storage that does not match its checksum. */
bool torch_file_read(struct torch_file *f, const struct torch_tensor *t, void *data, char *err,
                     size_t errlen);

#endif
