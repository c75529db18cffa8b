/* choice - which rows of a CSV of clips (formats/openvid.h) are kept, and by which rule the others are
 * dropped. */
#ifndef CLIPS_CHOICE_H
#define CLIPS_CHOICE_H

#include <math.h>

#include "formats/names.h"
#include "formats/openvid.h"

/* A number out of its bounds, or missing; no such file; an earlier row with that video was kept. */
enum rule { RULE_MOTION, RULE_AESTHETIC, RULE_SECONDS, RULE_MISSING, RULE_AGAIN, RULES, RULE_NONE = RULES };
enum { BOUNDS = RULE_MISSING };
extern const char *const rule_name[RULES];

struct choice {
    struct bound {
        double low, high; /* both are inside; NaN: what choice_settle() sets */
    } bound[BOUNDS];
    bool unbounded;     /* no numbers are looked at */
    const char *folder; /* where the videos are; NULL: nobody looks */
    bool may_come;      /* what is not there yet may be */
    struct names kept;
};
#define CHOICE_INIT                                                                                          \
    {                                                                                                        \
        .bound = { {NAN, NAN}, {NAN, NAN}, {NAN, NAN} }                                                      \
    }

/* Sets the bounds that were not given: motion from 1, aesthetic from 5, 6.5 to 30 seconds. false with the
 * reason in err: there are to be none and some were given, or no number is within. */
bool choice_settle(struct choice *c, char *err, size_t errlen);

/* Whether the table has the columns that are bounded. false: the one that is missing in err. */
bool choice_takes(const struct choice *c, const struct openvid *t, char *err, size_t errlen);

/* The first rule that drops the latest row, or RULE_NONE. */
enum rule choice_judge(const struct choice *c, const struct openvid *row);

bool choice_is_there(const struct choice *c, const char *video);

#endif
