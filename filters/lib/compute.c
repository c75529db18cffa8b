#include "filters/lib/compute.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/energy.h"
#include "filters/lib/filter.h"
#include "formats/clock.h"

static void tell(const char *note)
{
    say(NULL, "%s", note);
}

enum { METERS = 16 };

/* What --profile started with, of each device. */
static struct meter {
    const struct kern *k;
    double joules, seconds;
} meter[METERS];

static void start_meter(struct kern *k)
{
    kern_profile_start(k);
    for (int i = 0; i < METERS; i++)
        if (!meter[i].k) {
            meter[i] = (struct meter){k, energy_joules(kern_card(k)), clock_seconds()};
            return;
        }
}

double compute_joules(void)
{
    const char *card[METERS];
    int count = 0;
    for (int i = 0; i < METERS; i++)
        if (meter[i].k) card[count++] = kern_card(meter[i].k);
    return energy_sum(card, count);
}

static void tell_energy(struct kern *k)
{
    for (int i = 0; i < METERS; i++) {
        if (meter[i].k != k) continue;
        kern_wait(k);
        const double j = energy_joules(kern_card(k)) - meter[i].joules,
                     s = clock_seconds() - meter[i].seconds;
        meter[i].k = NULL;
        if (!isnan(j))
            say("profile", "%.1f J in %.3f s on %s, %.0f W", j, s, kern_device(k), s > 0 ? j / s : 0);
    }
}

int compute_devices(void)
{
    int count = 1;
    for (const char *c = filter.device; *c; c++) count += *c == ',';
    return count;
}

static int threads_of_one(void)
{
    const long all = sysconf(_SC_NPROCESSORS_ONLN), each = all / compute_devices();
    return compute_devices() == 1 || filter.threads ? (int)filter.threads : each > 1 ? (int)each : 1;
}

/* Whether no other program of this pipeline, or of this script, tells it or has told it. Two bytes of what stderr is, by
 * the process group, are locked: the one by who tells, until it ends, so that of several at once one tells; the other for
 * the open file, which the shell and all its programs share, for as long as that is open. Where nothing can be locked,
 * each one tells. */
static bool first_to_tell(void)
{
    struct flock telling = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2 * (off_t)getpgrp(), .l_len = 1};
    struct flock told = telling, seen;
    told.l_start++;
    seen = told;
    if (fcntl(2, F_SETLK, &telling) && (errno == EACCES || errno == EAGAIN)) return false;
    if (!fcntl(2, F_GETLK, &seen) && seen.l_type != F_UNLCK) return false;
    fcntl(2, F_OFD_SETLK, &told);
    return true;
}

struct kern *compute_open(void)
{
    return compute_open_at(0);
}

struct kern *compute_open_at(int i)
{
    static char chosen[32]; /* a program that opens a second device means the same one */
    char err[512] = "", name[32];
    const char *from = filter.device;
    while (i-- > 0) from = strchr(from, ',') + 1;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(from, ","), from);
    struct kern *k = kern_open(name, threads_of_one(), err, sizeof err);
    if (!k) die("%s", err);
    kern_compute_in(k, filter_dtype());
    if (filter_fp8() && !kern_hold_fp8(k)) die("%s", kern_error(k));
    kern_on_note(k, tell);
    if (filter.profile) start_meter(k);
    if (!strcmp(filter.device, "auto")) {
        if (first_to_tell()) say(NULL, "computing on %s%s%s", kern_device(k), *err ? ": " : "", err);
        snprintf(chosen, sizeof chosen, "%s", kern_device(k));
        filter.device = chosen;
    }
    return k;
}

void compute_close(struct kern *k)
{
    int count;
    const struct kern_profile_line *line = k ? kern_profile(k, &count) : NULL;
    double all = 0;
    for (int i = 0; line && i < count; i++) all += line[i].seconds;
    for (int i = 0; line && i < count; i++)
        say("profile", "%5.1f %%  %10.3f s  %9lld calls  %s%s%s", all > 0 ? 100 * line[i].seconds / all : 0,
            line[i].seconds, (long long)line[i].calls, line[i].operation, line[i].way ? ", " : "",
            line[i].way ? line[i].way : "");
    if (line) tell_energy(k);
    kern_close(k);
}
