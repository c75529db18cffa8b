/* An adapter's products, module by module. */
#include "kernels/cuda/cuda.h"

extern "C" void cuda_thin_down_forward(struct kern *k, struct tensor *z, const struct tensor *x,
                                       const struct tensor *a, int n)
{
    for (int i = 0; i < n; i++) cuda_matmul(k, &z[i], x, false, &a[i], true, 1, 0);
}

extern "C" void cuda_thin_down_backward(struct kern *k, struct tensor *dx, struct tensor *da,
                                        const struct tensor *dz, const struct tensor *x,
                                        const struct tensor *a, int n)
{
    for (int i = 0; i < n && !k->planning; i++) {
        cuda_matmul(k, &da[i], &dz[i], true, x, false, 1, 1);
        if (dx) cuda_matmul(k, dx, &dz[i], false, &a[i], false, 1, 1);
    }
}

extern "C" void cuda_thin_up_forward(struct kern *k, struct tensor *y, const struct tensor *z,
                                     const struct tensor *b, double scale, int n)
{
    for (int i = 0; i < n; i++) cuda_matmul(k, &y[i], &z[i], false, &b[i], true, scale, 1);
}

extern "C" void cuda_thin_up_backward(struct kern *k, struct tensor *dz, struct tensor *db,
                                      const struct tensor *dy, const struct tensor *z, const struct tensor *b,
                                      double scale, int n)
{
    for (int i = 0; i < n && !k->planning; i++) {
        cuda_matmul(k, &db[i], &dy[i], true, &z[i], false, scale, 1);
        cuda_matmul(k, &dz[i], &dy[i], false, &b[i], false, scale, 0);
    }
}
