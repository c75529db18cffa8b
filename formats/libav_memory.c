/* libav_memory - counts how often this program was refused memory in the ways that libav* asks for it.
 *
 * libav* goes on without a reference, an index or an option that it had no memory for, and says nothing. These
 * functions stand in front of libc's and only count. They are in no library: the Makefile links them into the
 * programs that use libav*, and into no others. Where a sanitizer of clang's is linked in, there is nothing behind
 * them to call. */
#include <dlfcn.h>
#include <stddef.h>

int libav_refused;

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer)
int posix_memalign(void **p, size_t align, size_t bytes)
{
    static int (*next)(void **, size_t, size_t);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "posix_memalign");
    int why = next(p, align, bytes);
    if (why) __atomic_add_fetch(&libav_refused, 1, __ATOMIC_RELAXED);
    return why;
}

void *realloc(void *p, size_t bytes)
{
    static void *(*next)(void *, size_t);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "realloc");
    void *grown = next(p, bytes);
    if (!grown && bytes) __atomic_add_fetch(&libav_refused, 1, __ATOMIC_RELAXED);
    return grown;
}
#endif
