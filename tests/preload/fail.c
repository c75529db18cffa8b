/* fail - loaded before a program's libraries (LD_PRELOAD), makes the n-th call of a kind fail.
 *
 *   FAIL_PROGRAM=pack FAIL_KIND=sync FAIL_N=3 LD_PRELOAD=./fail.so pack -o store <in
 *
 * FAIL_PROGRAM  the program it is meant for; others that see the variables (gnuplot, say) are left alone
 * FAIL_KIND     memory, write, sync, rename, open, truncate, seek, stat, unlink, mkdir or read
 * FAIL_N        which call after the start of main() fails; 0: none
 * FAIL_REST     set: all that follow it fail, too
 * FAIL_SAID     a file: what failed and which object had called; else at the end the number of calls
 *
 * Allocations are taken over by name. Those calls of the system that libc makes are trapped in the kernel
 * (seccomp), for its streams make theirs where no name can be taken over: the trap's signal counts the call, and
 * fails it or makes it. The trap holds where libc lies in this process, so that one started by it, which keeps
 * the filter, is not caught: libc lies elsewhere there. What is written to stderr always succeeds. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef __x86_64__
#error "the trap knows x86-64's registers only"
#endif

enum { MOST = 8 };
static const struct kind {
    const char *name;
    int error;
    int calls[MOST]; /* ends with 0, which is read(2): that one stands first where it is meant */
} kinds[] = {
    {"memory", ENOMEM, {-1}},
    {"write", ENOSPC, {__NR_write, __NR_writev, __NR_pwrite64}},
    {"sync", EIO, {__NR_fsync, __NR_fdatasync}},
    {"rename", EIO, {__NR_rename, __NR_renameat, __NR_renameat2}},
    {"open", EMFILE, {__NR_open, __NR_openat}},
    {"truncate", EIO, {__NR_ftruncate, __NR_truncate}},
    {"seek", EIO, {__NR_lseek}},
    {"stat", EIO, {__NR_stat, __NR_fstat, __NR_lstat, __NR_newfstatat, __NR_statx}},
    {"unlink", EIO, {__NR_unlink, __NR_unlinkat}},
    {"mkdir", EIO, {__NR_mkdir, __NR_mkdirat}},
    {"read", EIO, {__NR_read, __NR_readv, __NR_pread64}},
};

static const struct kind *kind; /* NULL: not armed */
static long wanted, rest;
static atomic_long made;

/* While nothing is armed. */
static void say(const char *text)
{
    const char *file = getenv("FAIL_SAID");
    int fd = file ? open(file, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (fd >= 0 && (write(fd, text, strlen(text)) < 0 || close(fd))) perror(file);
}

/* The object whose call it is: the first beyond this one, and beyond what a program or a sanitizer puts in
 * front of an allocator. */
static const char *caller(void)
{
    static Dl_info here, object;
    void *frame[12];
    int n = backtrace(frame, 12);
    dladdr((void *)caller, &here);
    for (int i = 0; i < n; i++) {
        if (!dladdr(frame[i], &object) || object.dli_fbase == here.dli_fbase) continue;
        if (strstr(object.dli_fname, "/libasan")) continue;
        const char *name = object.dli_sname ? object.dli_sname : "";
        if (strcmp(name, "realloc") && strcmp(name, "posix_memalign")) return object.dli_fname;
    }
    return "?";
}

/* One more call of the kind; whether it is to fail. */
static bool fails(const char *what)
{
    char text[600];
    const struct kind *armed = kind;
    long n = atomic_fetch_add(&made, 1) + 1;
    if (!wanted || n < wanted || (n > wanted && !rest)) return false;
    if (n > wanted) return true;
    kind = NULL; /* a backtrace allocates */
    snprintf(text, sizeof text, "%s %s\n", what, armed->error == ENOMEM ? caller() : "system");
    say(text);
    kind = armed;
    return true;
}

/* ---- allocations --------------------------------------------------------------------------------------- */

/* The next allocator: libc's, or a sanitizer's. dlsym() itself needs none of these. */
#define NEXT(type, name, ...)                                                                                \
    static type (*next)(__VA_ARGS__);                                                                        \
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, name)

static bool refused(const char *what)
{
    if (!kind || kind->error != ENOMEM || !fails(what)) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    NEXT(void *, "malloc", size_t);
    return refused("malloc") ? NULL : next(n);
}

void *calloc(size_t count, size_t size)
{
    NEXT(void *, "calloc", size_t, size_t);
    return refused("calloc") ? NULL : next(count, size);
}

void *realloc(void *p, size_t n)
{
    NEXT(void *, "realloc", void *, size_t);
    return n && refused("realloc") ? NULL : next(p, n);
}

int posix_memalign(void **p, size_t align, size_t n)
{
    NEXT(int, "posix_memalign", void **, size_t, size_t);
    return refused("posix_memalign") ? ENOMEM : next(p, align, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    NEXT(void *, "aligned_alloc", size_t, size_t);
    return refused("aligned_alloc") ? NULL : next(align, n);
}

void *memalign(size_t align, size_t n)
{
    NEXT(void *, "memalign", size_t, size_t);
    return refused("memalign") ? NULL : next(align, n);
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    NEXT(void *, "mmap64", void *, size_t, int, int, int, off_t);
    return refused("mmap") ? (void *)-1 : next(at, n, protection, flags, fd, offset);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    NEXT(void *, "mmap", void *, size_t, int, int, int, off_t);
    return refused("mmap") ? (void *)-1 : next(at, n, protection, flags, fd, offset);
}

/* ---- the system's calls -------------------------------------------------------------------------------- */

/* As libc's syscall(), but not in libc. */
long passed_call(long number, long a, long b, long c, long d, long e, long f);
__asm__(".text\n.globl passed_call\n.type passed_call,@function\npassed_call:\n"
        "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\n"
        "mov 8(%rsp),%r9\nsyscall\nret\n");

static void trapped(int signal, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    int number = info->si_syscall, error = errno;
    bool told = r[REG_RDI] == 2 && (number == __NR_write || number == __NR_writev);
    (void)signal;
    if (kind && !told && fails(kind->name))
        r[REG_RAX] = -kind->error;
    else
        r[REG_RAX] =
            passed_call(number, r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]);
    errno = error;
}

/* Where the object of an address lies; no sanitizer takes over the function that is asked for. */
static int find_libc(struct dl_phdr_info *object, size_t size, void *range)
{
    uint64_t *at = range, in = at[0];
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        uint64_t start = object->dlpi_addr + p->p_vaddr;
        if (p->p_type != PT_LOAD || in < start || in - start >= p->p_memsz) continue;
        at[0] = start, at[1] = start + p->p_memsz;
        return 1;
    }
    return 0;
}

#define STATEMENT(code, k)                                                                                   \
    (struct sock_filter)                                                                                     \
    {                                                                                                        \
        code, 0, 0, k                                                                                        \
    }
#define TEST(code, k, yes, no)                                                                               \
    (struct sock_filter)                                                                                     \
    {                                                                                                        \
        BPF_JMP | BPF_K | code, yes, no, k                                                                   \
    }

static void trap(const int *calls)
{
    uint64_t libc[2] = {(uint64_t)dlsym(RTLD_NEXT, "gnu_get_libc_version")};
    int count = 1, n = 0;
    while (count < MOST && calls[count]) count++;
    if (!dl_iterate_phdr(find_libc, libc)) _exit(125);
    struct sock_filter f[MOST + 16];
    int pass = count + 6; /* the place of the last but one statement */
    f[n++] = STATEMENT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    f[n++] = TEST(BPF_JEQ, (uint32_t)(libc[0] >> 32), 0, (uint8_t)(pass - 2));
    f[n++] = STATEMENT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
    f[n++] = TEST(BPF_JGE, (uint32_t)libc[0], 0, (uint8_t)(pass - 4));
    f[n++] = TEST(BPF_JGT, (uint32_t)libc[1], (uint8_t)(pass - 5), 0);
    f[n++] = STATEMENT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < count; i++, n++) f[n] = TEST(BPF_JEQ, (uint32_t)calls[i], (uint8_t)(pass - n), 0);
    f[n++] = STATEMENT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = STATEMENT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {(unsigned short)n, f};
    struct sigaction a = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    if (sigaction(SIGSYS, &a, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(125);
}

/* ---- the start and the end ----------------------------------------------------------------------------- */

static void tell(void)
{
    char text[32];
    kind = NULL;
    snprintf(text, sizeof text, "%ld\n", atomic_load(&made));
    if (!wanted || atomic_load(&made) < wanted) say(text);
}

static int (*real_main)(int, char **, char **);

static int counted_main(int argc, char **argv, char **envp)
{
    const char *program = getenv("FAIL_PROGRAM"), *named = getenv("FAIL_KIND"), *n = getenv("FAIL_N");
    if (!program || !named || strcmp(program, program_invocation_short_name))
        return real_main(argc, argv, envp);
    const struct kind *k = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, named)) k = &kinds[i];
    if (!k) _exit(125);
    wanted = n ? atol(n) : 0;
    rest = getenv("FAIL_REST") != NULL;
    atexit(tell);
    if (k->calls[0] >= 0) trap(k->calls);
    kind = k;
    int status = real_main(argc, argv, envp);
    kind = NULL;
    return status;
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*loader)(void), void *stack)
{
    static int (*next)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                       void (*)(void), void *);
    *(void **)&next = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = main;
    return next(counted_main, argc, argv, init, fini, loader, stack);
}
