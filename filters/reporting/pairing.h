/* pairing - the scores of several runs, prompt by prompt. */
#ifndef REPORTING_PAIRING_H
#define REPORTING_PAIRING_H

#include "formats/scores.h"

enum metric { JOINT, SA, PC, SA_HIGH, PC_HIGH, SA_EXPECTED, PC_EXPECTED, METRICS };

/* The prompts that all runs share: first those that are numbers, by size, then the others by their bytes, so
 * that no order of files or lines matters. */
struct pairing {
    const struct scores *scores;
    int base;
    size_t n, left_out; /* prompts; left_out: with scores in some runs only */
    const char **prompt;
    double *value; /* [n][runs][METRICS] */
    int *repeats;  /* [n][runs]: how many scores the value is the mean of */
};

/* It is an error if the base is not a run, if a run lacks a prompt, or if a run has another number of repeats
 * of a prompt. With intersect, prompts that a run lacks are left out, and any numbers of repeats are
 * averaged. s must outlive p. false with the reason in err. */
bool pairing_make(struct pairing *p, const struct scores *s, const char *base, bool intersect, char *err,
                  size_t errlen);
void pairing_free(struct pairing *p);

/* Those prompts of p for which kept[i] is set, for p's scores. false: out of memory. */
bool pairing_part(struct pairing *part, const struct pairing *p, const bool *kept);

/* A run's value for a prompt, the mean over its repeats: of the scores; of 1 where a score is at least 4
 * (SA_HIGH, PC_HIGH) or both are (JOINT), else 0; of the expected scores, NaN where there are none. */
double pairing_value(const struct pairing *p, size_t prompt, int run, enum metric m);
double pairing_sum(const struct pairing *p, int run, enum metric m); /* over the prompts */
int64_t pairing_scores(const struct pairing *p,
                       int run); /* of the prompts, more than n where there are repeats */

#endif
