/* listed: what there is, and which of it was meant. */
#include "formats/listed.h"

#include <string.h>

#include "tests/tap.h"

static void says(const char *wrong, const char *names, const char *want)
{
    struct listed l = listed_start(wrong);
    char copy[4096], *at = copy, *name;
    snprintf(copy, sizeof copy, "%s", names);
    while (*names && (name = strsep(&at, " "))) listed_add(&l, name);
    const char *got = listed_end(&l);
    ok(!strcmp(got, want), "`%s` of %.40s: %s", wrong, names, got);
}

int main(void)
{
    const char *few = "latents video prompt_embeds", *are = "there are latents, video, prompt_embeds";
    char hint[128], many[4096] = "", nearest[80];
    static const struct {
        const char *wrong, *meant;
    } slips[] = {{"lattents", "latents"},
                 {"latnets", "latents"},
                 {"latent", "latents"},
                 {"Video", "video"},
                 {"prompt", "prompt_embeds"},
                 {"vidoe", "video"},
                 {"prompt-embed", "prompt_embeds"}};
    for (size_t i = 0; i < sizeof slips / sizeof *slips; i++) {
        snprintf(hint, sizeof hint, "did you mean `%s`? %s", slips[i].meant, are);
        says(slips[i].wrong, few, hint);
    }
    says("noise", few, are);
    says("", few, are);
    says(NULL, few, are);
    says("l", few, are);
    says("xyzzy", "", "there is none");
    says("xyzzy", "one", "there is one");
    says("v2", "v1 v", "did you mean `v1`? there are v1, v");

    for (int i = 0; i < 500; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%sn%d", i ? " " : "", i);
    struct listed l = listed_start("n499x");
    char *at = many, *name;
    while ((name = strsep(&at, " "))) listed_add(&l, name);
    const char *got = listed_end(&l);
    ok(strlen(got) < 256 && strstr(got, "did you mean `n499`? there are n0, n1, n2") && strstr(got, " more"),
       "of five hundred it names some, counts the others and knows the nearest: %s", got);

    memset(nearest, 'x', sizeof nearest - 1), nearest[sizeof nearest - 1] = 0;
    l = listed_start(nearest);
    for (int i = 0; i < 3; i++) listed_add(&l, nearest);
    ok(strlen(listed_end(&l)) < sizeof l.text, "names that are longer than the room: %s", l.text);
    char huge[300];
    memset(huge, 'y', sizeof huge - 1), huge[sizeof huge - 1] = 0;
    l = listed_start("y");
    listed_add(&l, huge);
    ok(!strcmp(listed_end(&l), "there is 1 more"), "a name that has no room at all: %s", l.text);
    return done();
}
