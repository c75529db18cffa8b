/* resize - pictures of another size, for those that come as RGB and never pass through libswscale. */
#ifndef FORMATS_RESIZE_H
#define FORMATS_RESIZE_H

#include "formats/tensor.h"

/* out U8 [F,h,w,3] from in U8 [F,H,W,3], all at least 1: every frame stretched, whatever the aspect, by a
 * triangle that is as wide as a pixel of the coarser of the two (libswscale's "bilinear"). Per axis, of s
 * pixels to d, with r = s / d, pixel j is
 *
 *   sum_i w_i in_i,   w_i ~ max(0, 1 - |i - ((j + 1/2) r - 1/2)| / max(1, r)),   sum_i w_i = 1
 *
 * where pixels beyond an edge are the edge's; then rounded to nearest. false: out of memory. */
bool resize_triangle(struct tensor *out, const struct tensor *in);

#endif
