/* scratch.h - a temporary folder to work in: scratch_enter(); ... scratch_leave(); and small files in it. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[256];

__attribute__((unused)) static void scratch_enter(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/sluice-test.XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(scratch) || chdir(scratch)) perror(scratch), exit(1);
}

/* true when the folder could be removed */
__attribute__((unused)) static bool scratch_leave(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return chdir("/") == 0 && system(command) == 0;
}

__attribute__((unused)) static void put_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) perror(path), exit(1);
}

__attribute__((unused)) static void put_text(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

/* The whole file with a NUL behind it; the caller frees. NULL when there is none. */
__attribute__((unused)) static char *get_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = calloc(1, *n + 1);
    if (!bytes || fread(bytes, 1, *n, f) != *n) perror(path), exit(1);
    fclose(f);
    return bytes;
}

#endif
