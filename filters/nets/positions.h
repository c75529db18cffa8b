/* positions - the tables of where and when a token is: 3-D rotary, sine-cosine, and the timestep's.
 * Host memory, F32. Formulas: diffusers' embeddings.py as of CogVideoX 1.0, and transformer_wan.py. */
#ifndef NETS_POSITIONS_H
#define NETS_POSITIONS_H

#include <stdint.h>

/* Rotary angles of a frames x rows x cols token grid; the base grid is the one that the model was trained on.
 * cos, sin [frames rows cols, head_dim], a head's channels split 1/4 time, 3/8 height, 3/8 width; every angle
 * stands twice, in adjacent slots. Another grid is fitted into the base grid, keeping its aspect, centred. */
void rope_tables(float *cos, float *sin, int64_t frames, int64_t rows, int64_t cols, int64_t base_rows,
                 int64_t base_cols, int64_t head_dim);

/* Sine-cosine table of the 2B model: out [frames rows cols, width], a token's channels split 1/4 time, 3/8
 * width, 3/8 height, each half sines, half cosines; positions are divided by the scales. */
void sincos_table(float *out, int64_t frames, int64_t rows, int64_t cols, int64_t width, double spatial_scale,
                  double temporal_scale);

/* Rotary angles of Wan's token grid: cos, sin [frames rows cols, head_dim/2], an angle for each pair. Of a head's
 * channels 2 floor(head_dim/6) are the row's, as many the column's, and those before them the frame's; pair i of an
 * axis of n channels turns by position 10000^(-2i/n). */
void axes_rope_tables(float *cos, float *sin, int64_t frames, int64_t rows, int64_t cols, int64_t head_dim);

/* [cos(t w_0) .. cos(t w_n-1), sin(t w_0) ..], w_j = 10000^(-j/n), n = width/2. */
void timestep_embedding(float *out, int64_t width, double timestep);

#endif
