#include "filters/lib/worker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void (*work)(void *context); /* NULL: nothing is to be done */
    void *context;
    bool ends;
};

static void *attend(void *of)
{
    struct worker *w = of;
    pthread_mutex_lock(&w->lock);
    while (!w->ends) {
        if (!w->work) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        w->work(w->context);
        pthread_mutex_lock(&w->lock);
        w->work = NULL;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

struct worker *worker_start(void)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    if (!pthread_create(&w->thread, NULL, attend, w)) return w;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return NULL;
}

void worker_wait(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->work) pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

void worker_begin(struct worker *w, void (*work)(void *context), void *context)
{
    pthread_mutex_lock(&w->lock);
    while (w->work) pthread_cond_wait(&w->changed, &w->lock);
    w->work = work;
    w->context = context;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void worker_do(struct worker *w, void (*work)(void *context), void *context)
{
    worker_begin(w, work, context);
    worker_wait(w);
}

void worker_stop(struct worker *w)
{
    if (!w) return;
    worker_wait(w);
    pthread_mutex_lock(&w->lock);
    w->ends = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
