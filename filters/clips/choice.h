/* choice - which rows of a CSV of clips (formats/openvid.h) are kept, and by which rule the others are
 * dropped. */
#ifndef CLIPS_CHOICE_H
#define CLIPS_CHOICE_H

#include <math.h>

#include "formats/names.h"
#include "formats/openvid.h"

/* Why a row is dropped: a number is out of bounds or missing; no such file; its video was kept before. */
enum rule { RULE_MOTION, RULE_AESTHETIC, RULE_SECONDS, RULE_MISSING, RULE_AGAIN, RULES, RULE_NONE = RULES };
enum { BOUNDS = RULE_MISSING };
extern const char *const rule_name[RULES];

struct choice {
    struct bound {
        double low, high; /* both inclusive; NaN: choice_settle() sets it */
    } bound[BOUNDS];
    bool unbounded;     /* no bounds apply */
    const char *folder; /* of the videos; NULL: files are not looked for */
    bool may_come;      /* a file may appear later: its absence drops no row */
    struct names kept;
};
#define CHOICE_INIT                                                                                          \
    {                                                                                                        \
        .bound = { {NAN, NAN}, {NAN, NAN}, {NAN, NAN} }                                                      \
    }

/* Sets the bounds that were not given: motion from 1, aesthetic from 5, 6.5 to 30 seconds. false with the
 * reason in err: `unbounded` and bounds were given, or bounds that no number fulfils. */
bool choice_settle(struct choice *c, char *err, size_t errlen);

/* Whether the table has every column that has bounds. false: err names the missing one. */
bool choice_takes(const struct choice *c, const struct openvid *t, char *err, size_t errlen);

/* The first rule that drops the latest row, or RULE_NONE. */
enum rule choice_judge(const struct choice *c, const struct openvid *row);

bool choice_is_there(const struct choice *c, const char *video);

#endif
