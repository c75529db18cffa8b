/* compute - the device that a compute filter was asked to use. Apart from filter.h, so that programs that do
 * not compute do not load a linear algebra library. */
#ifndef LIB_COMPUTE_H
#define LIB_COMPUTE_H

#include "kernels/kernels.h"

/* Opens the device with all that the common options asked for: --device, --threads, --dtype, --profile. A
 * program opens devices here and nowhere else, so that a second one is asked for the same. Dies when there is
 * no such device; the first time, it says which one it is when that was left open, once a pipeline or script. */
struct kern *compute_open(void);
/* How many devices --device names, and the i-th of them; compute_open() is the first. With several the CPU threads are
 * shared out among them, where --threads leaves that open. */
int compute_devices(void);
struct kern *compute_open_at(int i);
/* With --profile: what the cards of the open devices have used so far, each counted once; NaN: one does not count. */
double compute_joules(void);
/* Prints where the time went, and the energy where the card counts it, if --profile was given, and frees the device. */
void compute_close(struct kern *k);

#endif
