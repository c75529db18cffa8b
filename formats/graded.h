/* graded - grade's output: JSON lines that a later run continues, and the CSV of VideoPhy-2's own driver.
 *
 * A line is an object with `key`, `grade` (an object: how it was made), a score from 0 to 5 under the name of
 * each task, and the fields of its record. Tasks are "sa", "pc" and "rule". As the score takes the field
 * `rule`, the rule's text is in `rule_asked`. */
#ifndef FORMATS_GRADED_H
#define FORMATS_GRADED_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The lines of the file at path by their keys, a new object; none when there is no such file. Each must have
 * been made as `how` says and have a score for each of the tasks (ending with a NULL). Bytes behind the last
 * newline that begin like a line are an unfinished line: *whole is how many bytes come before it, *half how
 * many it has. NULL with the reason, which starts with the path, in err. */
json_t *graded_read(const char *path, const json_t *how, const char *const *tasks, int64_t *whole,
                    int64_t *half, char *err, size_t errlen);

/* Whether what is written to `out` goes on behind these lines, since it is the file at path: *same. It is locked then
 * until the program ends, for another run at work there would write what is missing, too. false: one is, or a file
 * cannot be looked at; reason in err. */
bool graded_lock(int out, const char *path, bool *same, char *err, size_t errlen);
/* Whether a line is of the same video and texts as a record with these fields. false: *field is which one differs. */
bool graded_is_of(json_t *line, json_t *fields, const char **field);

/* One task's scores as upstream's driver writes them with pandas: rows are numbered in a column without a
 * name, then come the input's columns in its order, and the score as a float:
 *
 *   ,caption,videopath,score
 *   0,"A pot, a lid.",pot.mp4,4.0
 *
 * Columns are the fields of the lines, the first one's first. `path` is called videopath, and is the key where
 * there is none. A text that pandas takes for a missing cell (csv_missing()) and a field that is null or not
 * there are empty; whole numbers become floats where one of their column is missing, as there; what is a list
 * or an object is its JSON. A column `score` is overwritten in place, and stays whole if it was.
 *
 * Otherwise than upstream, on purpose: a bare carriage return is quoted, so that it comes back. */
struct graded_csv {
    char path[4096];
    const char *columns; /* those alone, in this order, with commas between; NULL: all of the input's */
    json_t *rows;        /* {"field": value, .. , "score": n} each */
};

/* several: of FILE.csv, FILE.TASK.csv is written. That this can be done is tried here; nothing is there
 * before the commit. false: reason in err. */
bool graded_csv_open(struct graded_csv *c, const char *path, const char *task, bool several,
                     const char *columns, char *err, size_t errlen);
/* A row: what came in, without its key, and its score. false: out of memory. */
bool graded_csv_add(struct graded_csv *c, const char *key, json_t *fields, int score);
/* Whether a column that was asked for by name is in none of the rows, of which there are some: the first such name. */
bool graded_csv_lacks(const struct graded_csv *c, char *name, size_t size);
bool graded_csv_commit(struct graded_csv *c, char *err, size_t errlen);

#endif
