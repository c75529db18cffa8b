/* scores_forms - between scores.c, which gathers rows into runs, and the readers of the forms that scores.h
 * lists: scores_json.c and scores_csv.c. All that can fail give the reason in err, with the file's name. */
#ifndef FORMATS_SCORES_FORMS_H
#define FORMATS_SCORES_FORMS_H

#include "formats/scores.h"

/* One row of any form. An absent text is NULL, an absent score NaN. */
struct scores_row {
    const char *prompt, *key, *seed, *path, *caption, *action;
    const json_t *fields; /* an object: all that it says; or NULL */
    double sa, pc, sa_expected, pc_expected;
};

/* The variant that rows of this operand go to; made when there is none. NULL: it is another operand's. */
struct variant *scores_variant(struct scores *s, const char *name, const char *source, char *err,
                               size_t errlen);
/* Adds the row, which must have a key and whole scores; the reason in `why` does not name the file. */
bool scores_add(struct scores *s, struct variant *v, const struct scores_row *r, char *why, size_t size);
bool scores_is_score(double v); /* a whole number from 0 to 5 */

/* A descriptor at the file's start, which the caller closes; for a pipe, that of a copy. -1: failed. */
int scores_open(const char *path, char *err, size_t errlen);
/* The file's name without folder and ending: what videos/base/12.mp4 and videos/k1/12.mp4 have in common. */
void scores_stem(char *stem, size_t size, const char *path);

/* fd is at the start of the file. name: what the run is to be called, or NULL. */
bool scores_read_json(struct scores *s, const char *name, const char *path, int fd, char *err, size_t errlen);
bool scores_read_csv(struct scores *s, const char *name, const char *path, int fd, char *err, size_t errlen);
/* The grader's own form: two files, of the operand `source`. */
bool scores_join(struct scores *s, const char *name, const char *source, const char *sa_path,
                 const char *pc_path, char *err, size_t errlen);

#endif
