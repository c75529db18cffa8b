/* Operations that go over their elements one by one. */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/map.h"

struct add_of {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct axpby_of {
    float a, b;
    __device__ float operator()(float x, float y) const { return a * x + b * y; }
};
struct scaled {
    float a;
    __device__ float operator()(float x, float) const { return a * x; }
};
struct silu_of {
    __device__ float operator()(float a, float) const { return silu(a); }
};
struct gelu_mul {
    __device__ float operator()(float a, float b) const { return gelu(a) * b; }
};
struct silu_mul {
    __device__ float operator()(float a, float b) const { return silu(a) * b; }
};

extern "C" void cuda_add(struct kern *k, struct tensor *y, const struct tensor *x)
{
    map_all<true>(k, "add", y, y, x, add_of());
}

/* With b = 0, y is not read: it may be fresh scratch. */
extern "C" void cuda_axpby(struct kern *k, struct tensor *y, double a, const struct tensor *x, double b)
{
    if (b == 0)
        map_all<false>(k, "axpby", y, x, NULL, scaled{(float)a});
    else
        map_all<true>(k, "axpby", y, x, y, axpby_of{(float)a, (float)b});
}

extern "C" void cuda_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    map_all<false>(k, "silu_forward", y, x, NULL, silu_of());
}

extern "C" void cuda_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    map_all<false>(k, "gelu_forward", y, x, NULL, gelu_of());
}

extern "C" void cuda_gelu_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                                   const struct tensor *x)
{
    map_all<true>(k, "gelu_backward", dx, dy, x, times_gelu_slope());
}

extern "C" void cuda_gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a,
                                      const struct tensor *b)
{
    map_all<true>(k, "gelu_mul_forward", y, a, b, gelu_mul());
}

extern "C" void cuda_silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a,
                                      const struct tensor *b)
{
    map_all<true>(k, "silu_mul_forward", y, a, b, silu_mul());
}

/* ---- a gate for each column --------------------------------------------------------------------------- */

enum { ROWS = 4 };

/* out = gate ⊙ y, to which x is added when ADDS: a thread has N columns of ROWS rows. */
template <typename T, typename G, int N, bool ADDS>
__global__ static void gated(T *out, const T *x, const T *y, const G *__restrict__ gate, int64_t rows,
                             int64_t width)
{
    const int64_t row = (int64_t)blockIdx.x * ROWS,
                  col = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
    vec<T, N> a[ROWS], b[ROWS];
    if (col >= width) return;
    float g[N];
    load_floats<N>(g, gate + col);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (row + i >= rows) break;
        b[i] = load<N>(y + (row + i) * width + col);
        if (ADDS) a[i] = load<N>(x + (row + i) * width + col);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (row + i >= rows) break;
        float u[N];
        for (int j = 0; j < N; j++) u[j] = (ADDS ? to_float(a[i].v[j]) : 0) + g[j] * to_float(b[i].v[j]);
        store<N>(out + (row + i) * width + col, u);
    }
}

template <bool ADDS>
static void gate_all(struct kern *k, const char *what, struct tensor *out, const struct tensor *x,
                     const struct tensor *y, const struct tensor *gate)
{
    enum { COLUMNS = 128 };
    const int64_t rows = y->shape[0], width = y->shape[1];
    const bool wide = vectorizable(width, out, x, y, gate);
    if (rows == 0 || width == 0) return;
    CALL_BY_DTYPES(out->dtype, gate->dtype, T, G, const int n = wide ? pack<T>::N : 1;
                   const dim3 grid((unsigned)ceil_div(rows, ROWS), (unsigned)ceil_div(width / n, COLUMNS));
                   const auto kernel = wide ? gated<T, G, pack<T>::N, ADDS> : gated<T, G, 1, ADDS>;
                   kernel<<<grid, COLUMNS, 0, stream_of(k)>>>((T *)out->data, (const T *)x->data,
                                                              (const T *)y->data, (const G *)gate->data, rows,
                                                              width));
    cuda_good(k, what, cudaGetLastError());
}

extern "C" void cuda_gated_add_forward(struct kern *k, struct tensor *out, const struct tensor *x,
                                       const struct tensor *y, const struct tensor *gate)
{
    gate_all<true>(k, "gated_add_forward", out, x, y, gate);
}

extern "C" void cuda_gated_add_backward(struct kern *k, struct tensor *dy, const struct tensor *dx,
                                        const struct tensor *gate)
{
    gate_all<false>(k, "gated_add_backward", dy, dx, dx, gate);
}
