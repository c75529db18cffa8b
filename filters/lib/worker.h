/* worker - a thread that does one thing after another for the thread that started it. A second device belongs to one: the
 * device is opened, used and closed by it alone, as CUDA remembers for each thread which device it means. */
#ifndef LIB_WORKER_H
#define LIB_WORKER_H

struct worker;

struct worker *worker_start(void); /* NULL: no thread, or no memory, is to be had */
/* Begins work(context), once what was begun before is done. */
void worker_begin(struct worker *w, void (*work)(void *context), void *context);
void worker_wait(struct worker *w);                                           /* until it is done */
void worker_do(struct worker *w, void (*work)(void *context), void *context); /* both */
void worker_stop(struct worker *w);                                           /* NULL is fine */

#endif
