#include "formats/unpack.h"

#include <string.h>
#include <sys/stat.h>

#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/zip_parts.h"

/* A member as a file. */
static bool extract(const struct zip *z, const struct zip_entry *e, const char *path, char *err,
                    size_t errlen)
{
    char why[512];
    struct atomic_file a;
    if (!atomic_open(&a, path, err, errlen)) return false;
    if (zip_unpack(z, e, a.f, why, sizeof why)) return atomic_commit(&a, err, errlen);
    atomic_abort(&a);
    return fail(err, errlen, "%s: %s", z->path, why);
}

/* Whether the member is in place now. *left: how many bytes may still come out of the archive. */
static bool unpack_one(struct unpack *u, const char *archive, const struct zip *z, const struct zip_entry *e,
                       const char *name, double *left)
{
    char path[4096], why[1024];
    struct stat info;
    bool fits = snprintf(path, sizeof path, "%s/%s", u->to, name) < (int)sizeof path;
    if (fits && stat(path, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size == e->bytes) {
        u->present++;
        return true;
    }
    u->tell(UNPACK_BEGUN, name, archive);
    bool good = false;
    if (!fits)
        fail(why, sizeof why, "too long a path");
    else if ((double)e->bytes > *left)
        fail(why, sizeof why, "%s: with its %llu bytes more than %g times the archive's would come out of it",
             z->path, (unsigned long long)e->bytes, u->growth);
    else
        good = extract(z, e, path, why, sizeof why);
    if (good) *left -= (double)e->bytes;
    if (!good) u->tell(UNPACK_FAILED, name, why);
    u->unpacked += good;
    return good;
}

static void unpack_archive(struct unpack *u, const struct zip_part *part)
{
    char why[1024];
    struct zip *z = zip_open((const char *const *)part->path, part->pieces, why, sizeof why);
    if (!z) u->tell(UNPACK_FAILED, NULL, why);
    double left = z ? u->growth * (double)z->bytes : 0;
    for (int i = 0; z && i < z->count; i++) {
        const struct zip_entry *e = &z->entry[i];
        const char *slash = strrchr(e->name, '/'), *name = slash ? slash + 1 : e->name;
        int64_t k = names_find(u->wanted, name);
        if (k == NAMES_NONE) continue;
        if (!u->there[k]) {
            u->there[k] = unpack_one(u, part->name, z, e, name, &left);
        } else {
            snprintf(why, sizeof why, "again in %s: the first is kept", part->name);
            u->tell(UNPACK_AGAIN, name, why);
            u->again++;
        }
    }
    zip_close(z);
}

bool unpack_wanted(struct unpack *u, char *err, size_t errlen)
{
    struct zip_parts parts;
    if (!zip_parts_list(&parts, u->from, err, errlen)) return false;
    for (int i = 0; i < parts.count; i++) unpack_archive(u, &parts.part[i]);
    u->archives = parts.count;
    zip_parts_free(&parts);
    return u->archives || fail(err, errlen, "%s: no *.zip and no *_partaa", u->from);
}
