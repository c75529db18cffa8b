#include "formats/zip_parts.h"

#include <ctype.h>
#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/names.h"

/* Of NAME_partXY where XY ends: as a number, aa is 0, ab 1, ba 26. -1: not so called. */
static int piece_number(const char *name)
{
    size_t n = strlen(name);
    const char *end = name + n;
    if (n < 8 || strncmp(end - 7, "_part", 5) || !islower(end[-2]) || !islower(end[-1])) return -1;
    return 26 * (end[-2] - 'a') + end[-1] - 'a';
}

/* Adds a file, as an archive of its own or as the next piece of the last one. */
static bool add(struct zip_parts *p, const char *path, const char *name, char *err, size_t errlen)
{
    int piece = piece_number(name);
    struct zip_part *last = p->count ? &p->part[p->count - 1] : NULL;
    if (piece > 0 && (!last || last->pieces != piece || strncmp(last->path[0], path, strlen(path) - 2)))
        return fail(err, errlen, "%s: the piece before it is missing", path);
    if (piece <= 0) {
        struct zip_part *grown = realloc(p->part, ((size_t)p->count + 1) * sizeof *grown);
        if (!grown) return fail(err, errlen, "out of memory");
        p->part = grown;
        last = &p->part[p->count++];
        *last = (struct zip_part){.name = strdup(name)};
        if (!last->name) return fail(err, errlen, "out of memory");
    }
    char **grown = realloc(last->path, ((size_t)last->pieces + 1) * sizeof *grown);
    if (!grown) return fail(err, errlen, "out of memory");
    last->path = grown;
    if (!(last->path[last->pieces] = strdup(path))) return fail(err, errlen, "out of memory");
    last->pieces++;
    return true;
}

static int by_number(const FTSENT **a, const FTSENT **b)
{
    return strverscmp((*a)->fts_name, (*b)->fts_name);
}

bool zip_parts_list(struct zip_parts *p, const char *folder, char *err, size_t errlen)
{
    char *roots[] = {(char *)folder, NULL};
    *p = (struct zip_parts){0};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_number);
    bool good = tree || fail(err, errlen, "%s: %s", folder, strerror(errno));
    for (FTSENT *e; good && (errno = 0, e = fts_read(tree));) {
        bool hidden = e->fts_level > 0 && e->fts_name[0] == '.';
        if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || (e->fts_info == FTS_NS && e->fts_level == 0))
            good = fail(err, errlen, "%s: %s", e->fts_path, strerror(e->fts_errno));
        else if (e->fts_info == FTS_D && hidden)
            fts_set(tree, e, FTS_SKIP);
        else if (e->fts_info == FTS_F && !hidden &&
                 (piece_number(e->fts_name) >= 0 || (e->fts_namelen > 4 && ends_with(e->fts_name, ".zip"))))
            good = add(p, e->fts_path, e->fts_name, err, errlen);
    }
    if (good && errno) good = fail(err, errlen, "%s: %s", folder, strerror(errno));
    if (tree) fts_close(tree);
    if (!good) zip_parts_free(p);
    return good;
}

void zip_parts_free(struct zip_parts *p)
{
    for (int i = 0; i < p->count; i++) {
        for (int j = 0; j < p->part[i].pieces; j++) free(p->part[i].path[j]);
        free(p->part[i].path);
        free(p->part[i].name);
    }
    free(p->part);
    *p = (struct zip_parts){0};
}
