#include "formats/atomic.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/scratch.h"
#include "tests/tap.h"

static char err[512];

/* The n-th call from now on of those that a save relies on fails; the tests' own definitions come before the
 * library's. */
static int calls, failing;

static bool fails_now(int why)
{
    if (++calls != failing) return false;
    errno = why;
    return true;
}

int fsync(int fd)
{
    return fails_now(EIO) ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    return fails_now(EROFS) ? -1 : (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

static bool holds(const char *path, const char *text)
{
    size_t n;
    char *got = get_bytes(path, &n);
    bool same = got && n == strlen(text) && !memcmp(got, text, n);
    free(got);
    return same;
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static void whole_or_not(void)
{
    struct atomic_file a;
    mkdir("whole", 0777);
    ok(atomic_open(&a, "whole/file", err, sizeof err) && access("whole/file", F_OK) != 0,
       "a file that is being written is not there yet");
    fputs("new", a.f);
    ok(atomic_commit(&a, err, sizeof err) && holds("whole/file", "new"), "committing makes it appear");
    atomic_abort(&a);
    ok(holds("whole/file", "new") && entries("whole") == 1, "aborting after a commit is harmless");

    struct stat st;
    umask(027);
    atomic_open(&a, "whole/file", err, sizeof err);
    fputs("newer", a.f);
    ok(holds("whole/file", "new"), "the old file stands while the new one is written");
    ok(atomic_commit(&a, err, sizeof err) && holds("whole/file", "newer"), "then it is replaced");
    ok(stat("whole/file", &st) == 0 && (st.st_mode & 0777) == 0640, "permissions follow the umask");
    umask(022);

    atomic_open(&a, "whole/file", err, sizeof err);
    fputs("never", a.f);
    atomic_abort(&a);
    ok(holds("whole/file", "newer") && entries("whole") == 1, "an aborted write leaves only the old file");

    ok(atomic_temporary(&a, "whole/video", err, sizeof err) && !a.f,
       "a writer may open the temporary itself");
    put_text(a.temporary, "frames");
    ok(access("whole/video", F_OK) != 0 && atomic_commit(&a, err, sizeof err) &&
           holds("whole/video", "frames"),
       "and commit it the same way");
    ok(!strncmp(a.path, "whole/", 6) || strstr(a.path, "/whole/"), "the temporary lies in the same folder");

    ok(symlink("file", "whole/link") == 0 && atomic_open(&a, "whole/link", err, sizeof err) &&
           fputs("through", a.f) >= 0 && atomic_commit(&a, err, sizeof err) &&
           holds("whole/file", "through") && lstat("whole/link", &st) == 0 && S_ISLNK(st.st_mode),
       "a link stays and its target is replaced");

    char longest[256] = "", path[300];
    memset(longest, 'n', 255);
    snprintf(path, sizeof path, "whole/%s", longest);
    ok(atomic_open(&a, path, err, sizeof err) && atomic_commit(&a, err, sizeof err) &&
           access(path, F_OK) == 0,
       "a name may be as long as the file system allows");
}

/* In a child whose files may not grow beyond `limit` bytes, as on a full disk; exit 0 when the commit said
 * no. */
static bool refused_at(rlim_t limit, size_t bytes, char *said, size_t size)
{
    int pipes[2];
    if (pipe(pipes)) return false;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct atomic_file a;
        struct rlimit r = {limit, limit};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &r);
        bool done = atomic_open(&a, "full/file", err, sizeof err);
        for (size_t i = 0; done && i < bytes; i++) fputc('x', a.f); /* unchecked, as careless callers do */
        if (done) done = atomic_commit(&a, err, sizeof err);
        if (!done && write(pipes[1], err, strlen(err)) < 0) _exit(2);
        _exit(done);
    }
    close(pipes[1]);
    ssize_t n = read(pipes[0], said, size - 1);
    said[n > 0 ? n : 0] = 0;
    close(pipes[0]);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void full_disk(void)
{
    char said[512];
    mkdir("full", 0777);
    put_text("full/file", "old");
    bool good = true;
    for (rlim_t limit = 0; limit < 20000; limit += 4999)
        good &= refused_at(limit, 20000, said, sizeof said) && holds("full/file", "old") &&
                entries("full") == 1 && strstr(said, "full/file: File too large");
    ok(good, "a write that does not fit is an error, leaves nothing and spares the old file (%s)", said);
    ok(!refused_at(20000, 20000, said, sizeof said) && !holds("full/file", "old") && entries("full") == 1,
       "one that just fits is fine");
}

static void refusals(void)
{
    struct atomic_file a;
    ok(!atomic_open(&a, "absent/file", err, sizeof err) && strstr(err, "absent/file: No such file"), "%s",
       err);
    atomic_abort(&a);
    mkdir("folder", 0777);
    ok(!atomic_open(&a, "folder", err, sizeof err) && strstr(err, "not a regular file"), "%s", err);
    ok(!atomic_open(&a, "/dev/null", err, sizeof err) && access("/dev/null", W_OK) == 0, "%s", err);
    ok(mkfifo("pipe", 0666) == 0 && !atomic_temporary(&a, "pipe", err, sizeof err), "%s", err);

    mkdir("gone", 0777);
    atomic_open(&a, "gone/file", err, sizeof err);
    unlink(a.temporary);
    rmdir("gone");
    ok(!atomic_commit(&a, err, sizeof err) && strstr(err, "gone/file"), "a folder that vanishes: %s", err);
    atomic_temporary(&a, "never-made", err, sizeof err);
    unlink(a.temporary);
    ok(!atomic_commit(&a, err, sizeof err) && access("never-made", F_OK) != 0,
       "a muxer that made nothing: %s", err);
}

static void failing_calls(void)
{
    static const char *const calls_of_a_save[] = {"fsync of the file", "rename", "fsync of the folder"};
    struct atomic_file a;
    mkdir("faulty", 0777);
    for (int n = 1; n <= 3; n++)
        for (int stream = 0; stream < 2; stream++) {
            put_text("faulty/file", "old");
            if (stream ? !atomic_open(&a, "faulty/file", err, sizeof err)
                       : !atomic_temporary(&a, "faulty/file", err, sizeof err))
                break;
            if (stream)
                fputs("new", a.f);
            else
                put_text(a.temporary, "new");
            calls = 0, failing = n;
            bool done = atomic_commit(&a, err, sizeof err);
            failing = 0;
            ok(!done && holds("faulty/file", n < 3 ? "old" : "new") && entries("faulty") == 1, "%s fails: %s",
               calls_of_a_save[n - 1], err);
        }
    atomic_open(&a, "faulty/file", err, sizeof err);
    calls = 0;
    ok(atomic_commit(&a, err, sizeof err) && calls == 3, "there are no others");
}

static void whole_for_readers(void)
{
    enum { ROUNDS = 200, SIZE = 20000 };
    struct atomic_file a;
    fflush(stdout);
    pid_t child = fork();
    for (int i = 0; child == 0 && i < ROUNDS; i++) {
        atomic_open(&a, "shared", err, sizeof err);
        for (int j = 0; j < SIZE; j++) fputc('a' + i % 26, a.f);
        if (!atomic_commit(&a, err, sizeof err)) _exit(1);
    }
    if (child == 0) _exit(0);
    static char got[SIZE + 1];
    int status, torn = 0, reads = 0;
    while (waitpid(child, &status, WNOHANG) == 0 || reads == 0) {
        FILE *f = fopen("shared", "rb");
        if (!f) continue;
        size_t n = fread(got, 1, sizeof got, f);
        fclose(f);
        reads++;
        torn += n != SIZE || memcmp(got, got + 1, SIZE - 1);
    }
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0 && torn == 0,
       "a reader sees one whole version or another");
}

static void folders_and_names(void)
{
    struct stat st;
    ok(make_folder("one/two//three/", err, sizeof err) && stat("one/two/three", &st) == 0 &&
           S_ISDIR(st.st_mode),
       "a folder is made with its parents");
    ok(make_folder("one/two/three", err, sizeof err) && make_folder("/", err, sizeof err) &&
           make_folder(".", err, sizeof err),
       "one that is there is fine");
    put_text("one/file", "");
    ok(!make_folder("one/file/below", err, sizeof err) && strstr(err, "one/file: Not a directory"), "%s",
       err);
    ok(!make_folder("", err, sizeof err), "%s", err);

    char name[300];
    ok(key_filename(name, sizeof name, "clip-7_a.b", ".mp4") && !strcmp(name, "clip-7_a.b.mp4"), "%s", name);
    ok(key_filename(name, sizeof name, "../../etc/passwd", "") && !strcmp(name, "%2E.%2F..%2Fetc%2Fpasswd"),
       "%s", name);
    ok(key_filename(name, sizeof name, "a b%\n\xc3\xa9", ".mp4") && !strcmp(name, "a%20b%25%0A%C3%A9.mp4"),
       "%s", name);
    char key[300] = "";
    memset(key, 'k', 251);
    ok(key_filename(name, sizeof name, key, ".mp4") && strlen(name) == 255, "255 bytes fit");
    ok(!key_filename(name, 255, key, ".mp4"), "but not into a smaller buffer");
    key[251] = 'k';
    ok(!key_filename(name, sizeof name, key, ".mp4"), "256 do not");
    memset(key, ' ', 86);
    key[86] = 0;
    ok(!key_filename(name, sizeof name, key, ""), "nor 86 times three");
    ok(!key_filename(name, sizeof name, "", ".mp4"), "an empty key names no file");
}

int main(void)
{
    scratch_enter();
    umask(022);
    whole_or_not();
    full_disk();
    refusals();
    failing_calls();
    whole_for_readers();
    folders_and_names();
    ok(scratch_leave(), "cleaned up");
    return done();
}
