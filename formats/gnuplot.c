#include "formats/gnuplot.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/error.h"

extern char **environ;

void gnuplot_text(FILE *script, const char *text)
{
    json_t *valid = json_string(text); /* NULL: not UTF-8 */
    fputc('"', script);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < ' ' || *p == 127 || (*p > 127 && !valid))
            fputc('?', script);
        else if (*p < 128 && (isalnum(*p) || strchr(" ._-", *p)))
            fputc(*p, script);
        else
            fprintf(script, "\\%03o", *p);
    }
    fputc('"', script);
    json_decref(valid);
}

/* -d: no start-up files. */
static bool start(pid_t *pid, int in, int out, int complaints, char *err, size_t errlen)
{
    char *const argv[] = {"gnuplot", "-d", NULL};
    posix_spawn_file_actions_t files;
    const int own[3] = {in, out, complaints};
    int why = posix_spawn_file_actions_init(&files);
    if (why) return fail(err, errlen, "gnuplot: %s", strerror(why));
    for (int fd = 0; fd < 3 && !why; fd++) why = posix_spawn_file_actions_adddup2(&files, own[fd], fd);
    if (!why) why = posix_spawnp(pid, "gnuplot", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    return why == 0 ||
           fail(err, errlen, "gnuplot: %s%s", strerror(why), why == ENOENT ? ": is it installed?" : "");
}

/* gnuplot complains in several lines: the script's line, a caret below it, then the reason, which is the
 * last. */
static void last_line(FILE *complaints, char *line, size_t size)
{
    char text[512];
    line[0] = 0;
    rewind(complaints);
    while (fgets(text, sizeof text, complaints)) {
        text[strcspn(text, "\n")] = 0;
        if (text[strspn(text, " \t^")]) snprintf(line, size, "%s", text + strspn(text, " \t"));
    }
}

/* Copies what gnuplot draws; its bytes, or -1 when picture does not take them. All is read even then, so that
 * gnuplot can end. */
static long long copy(int from, FILE *picture, char *err, size_t errlen)
{
    char buffer[1 << 16];
    long long bytes = 0;
    bool good = true;
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) != 0;) {
        if (n < 0 && errno != EINTR) return fail(err, errlen, "gnuplot: %s", strerror(errno)), -1;
        if (n <= 0) continue;
        if (good && fwrite(buffer, 1, (size_t)n, picture) != (size_t)n)
            good = fail(err, errlen, "%s", strerror(errno));
        bytes += n;
    }
    return good ? bytes : -1;
}

bool gnuplot_draw(FILE *script, FILE *picture, char *err, size_t errlen)
{
    pid_t pid;
    int pipe_of[2], status = 0;
    FILE *complaints = tmpfile();
    if (!complaints || fflush(script) || ferror(script) || lseek(fileno(script), 0, SEEK_SET) < 0 ||
        pipe2(pipe_of, O_CLOEXEC)) {
        fail(err, errlen, "gnuplot: a temporary file or pipe: %s", strerror(errno));
        if (complaints) fclose(complaints);
        return false;
    }
    bool started = start(&pid, fileno(script), pipe_of[1], fileno(complaints), err, errlen);
    close(pipe_of[1]);
    long long bytes = started ? copy(pipe_of[0], picture, err, errlen) : -1;
    close(pipe_of[0]);
    while (started && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    bool good = started && bytes >= 0;
    if (good && (status != 0 || bytes == 0)) {
        char said[400];
        last_line(complaints, said, sizeof said);
        good = fail(err, errlen, "gnuplot: %s", *said ? said : status ? "it ended badly" : "it drew nothing");
    }
    fclose(complaints);
    return good;
}
