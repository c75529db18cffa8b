/* compute - the device that a compute filter was asked to use. Apart from filter.h, so that programs that do
 * not compute do not load a linear algebra library. */
#ifndef LIB_COMPUTE_H
#define LIB_COMPUTE_H

#include "kernels/kernels.h"

/* Opens the device with all that the common options asked for: --device, --threads, --dtype, --profile. A
 * program opens devices here and nowhere else, so that a second one is asked for the same. Dies when there is
 * no such device; the first time, it says which one it is when that was left open, once a pipeline or script. */
struct kern *compute_open(void);
/* Prints where the time went if --profile was given, and frees the device. */
void compute_close(struct kern *k);

#endif
