#include "kernels/cpu/cpu.h"

void cpu_thin_down_forward(struct kern *k, struct tensor *z, const struct tensor *x, const struct tensor *a,
                           int n)
{
    for (int i = 0; i < n; i++) cpu_matmul(k, &z[i], x, false, &a[i], true, 1, 0);
}

void cpu_thin_down_backward(struct kern *k, struct tensor *dx, struct tensor *da, const struct tensor *dz,
                            const struct tensor *x, const struct tensor *a, int n)
{
    if (k->planning) return;
    for (int i = 0; i < n; i++) {
        cpu_matmul(k, &da[i], &dz[i], true, x, false, 1, 1);
        if (dx) cpu_matmul(k, dx, &dz[i], false, &a[i], false, 1, 1);
    }
}

void cpu_thin_up_forward(struct kern *k, struct tensor *y, const struct tensor *z, const struct tensor *b,
                         double scale, int n)
{
    for (int i = 0; i < n; i++) cpu_matmul(k, &y[i], &z[i], false, &b[i], true, scale, 1);
}

void cpu_thin_up_backward(struct kern *k, struct tensor *dz, struct tensor *db, const struct tensor *dy,
                          const struct tensor *z, const struct tensor *b, double scale, int n)
{
    if (k->planning) return;
    for (int i = 0; i < n; i++) {
        cpu_matmul(k, &db[i], &dy[i], true, &z[i], false, scale, 1);
        cpu_matmul(k, &dz[i], &dy[i], false, &b[i], false, scale, 0);
    }
}
