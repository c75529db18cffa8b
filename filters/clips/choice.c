#include "filters/clips/choice.h"

#include "filters/lib/messages.h"
#include "formats/error.h"
#include "formats/path.h"

const char *const rule_name[RULES] = {"motion", "aesthetic", "seconds", "missing", "again"};

static const struct {
    const char *column;
    enum openvid_number number;
    struct bound otherwise;
} bounded[BOUNDS] = {{"motion score", OPENVID_MOTION, {1, INFINITY}},
                     {"aesthetic score", OPENVID_AESTHETIC, {5, INFINITY}},
                     {"seconds", OPENVID_SECONDS, {6.5, 30}}};

bool choice_settle(struct choice *c, char *err, size_t errlen)
{
    for (int i = 0; i < BOUNDS; i++) {
        struct bound *b = &c->bound[i];
        if (c->unbounded && !(isnan(b->low) && isnan(b->high)))
            return fail(err, errlen, "--no-filter leaves no bounds to set");
        if (isnan(b->low)) b->low = bounded[i].otherwise.low;
        if (isnan(b->high)) b->high = bounded[i].otherwise.high;
        if (b->low > b->high)
            return fail(err, errlen, "no %s are from %g to %g", bounded[i].column, b->low, b->high);
    }
    return true;
}

bool choice_takes(const struct choice *c, const struct openvid *t, char *err, size_t errlen)
{
    char why[400];
    int unused;
    for (int i = 0; !c->unbounded && i < BOUNDS; i++)
        if (t->number[bounded[i].number] < 0 &&
            !csv_need(t->csv, bounded[i].column, &unused, why, sizeof why))
            return fail(err, errlen, "%s (--no-filter does without)", why);
    return true;
}

bool choice_is_there(const struct choice *c, const char *video)
{
    char path[4096], err[4200];
    if (!c->folder) return true;
    if (snprintf(path, sizeof path, "%s/%s", c->folder, video) >= (int)sizeof path) return false;
    enum path_kind kind = path_kind(path, err, sizeof err);
    if (kind == PATH_UNKNOWN) die("%s", err);
    return kind == PATH_FILE;
}

enum rule choice_judge(const struct choice *c, const struct openvid *row)
{
    const char *video = openvid_video(row);
    double v;
    for (int i = 0; !c->unbounded && i < BOUNDS; i++)
        if (!openvid_number(row, bounded[i].number, &v) || v < c->bound[i].low || v > c->bound[i].high)
            return i;
    if (!c->may_come && !choice_is_there(c, video)) return RULE_MISSING;
    return names_find(&c->kept, video) == NAMES_NONE ? RULE_NONE : RULE_AGAIN;
}
