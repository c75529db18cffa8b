#include "filters/lib/compute.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/filter.h"

static void tell(const char *note)
{
    say(NULL, "%s", note);
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
    static char chosen[32]; /* a program that opens a second device means the same one */
    char err[512] = "";
    struct kern *k = kern_open(filter.device, (int)filter.threads, err, sizeof err);
    if (!k) die("%s", err);
    kern_compute_in(k, filter_dtype());
    kern_on_note(k, tell);
    if (filter.profile) kern_profile_start(k);
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
    kern_close(k);
}
