/* cudnn - cuDNN's graphs: descriptors, the choice of an engine, plans.
 *
 * The library is opened at first use, so that the backend opens without it. A graph is built, planned and
 * kept without a test in between: failures stick in k, and calls after one do nothing.
 *
 *     struct cudnn_graph *g = cudnn_begin(k);
 *     desc x = cudnn_tensor(g, 1, CUDNN_DATA_BFLOAT16, 4, dims, strides);
 *     desc s = cudnn_virtual(g, CUDNN_DATA_FLOAT, 4, dims, strides);       a value that gets no memory
 *     cudnn_pointwise(g, CUDNN_POINTWISE_ADD, x, b, s);
 *     if (cudnn_plan(g, NULL)) ...
 *     cudnn_run(g, 3, (const int64_t[]){1, 2, 3}, (void *const[]){x, b, y});
 *
 * Dimensions are in cuDNN's order, batch, channels, then space; strides say how they lie in memory. */
#ifndef KERNELS_CUDA_CUDNN_H
#define KERNELS_CUDA_CUDNN_H

#include "kernels/cuda/cuda.h"

#if __has_include(<cudnn_backend.h>)
#include <cudnn_backend.h>
#define HAVE_CUDNN 1

struct desc { /* a type of its own, by which attributes are told from pointers */
    cudnnBackendDescriptor_t p;
};

/* An engine and its knobs by number, as measured to be best for some graph. */
struct cudnn_engine {
    int64_t index;
    struct {
        cudnnBackendKnobType_t type;
        int64_t value;
    } knob[8];
    int knobs;
};

enum { CUDNN_MAX_KEY = 10, CUDNN_MAX_OPS = 12, CUDNN_MAX_MADE = 192 };

struct cudnn_graph {
    struct kern *k;
    struct cudnn_graph *next; /* lists of plans, which belong to whoever makes them */
    int64_t key[CUDNN_MAX_KEY];
    desc made[CUDNN_MAX_MADE], op[CUDNN_MAX_OPS], plan;
    int made_count, op_count;
    int64_t virtual_id;
};

bool cudnn_is_there(struct kern *k);             /* new enough; no failure where it is not */
struct cudnn_graph *cudnn_begin(struct kern *k); /* NULL after kern_fail(); the calls below take it */
void cudnn_free(struct cudnn_graph *g);          /* and its plan */

desc cudnn_tensor(struct cudnn_graph *g, int64_t id, cudnnDataType_t t, int rank, const int64_t *dims,
                  const int64_t *strides);
desc cudnn_virtual(struct cudnn_graph *g, cudnnDataType_t t, int rank, const int64_t *dims,
                   const int64_t *strides);
/* One F32 number, whose memory is the host's. */
desc cudnn_scalar(struct cudnn_graph *g, int64_t id);
/* y = a (mode) b, or (mode) a where b is {}, computed in F32 */
void cudnn_pointwise(struct cudnn_graph *g, cudnnPointwiseMode_t mode, desc a, desc b, desc y);
/* y = x * w over `rank` axes of space, cross-correlation, computed in F32 */
void cudnn_convolution(struct cudnn_graph *g, desc x, desc w, desc y, int rank, const int64_t *before,
                       const int64_t *after, const int64_t *strides);

/* c = a b over the last two dimensions, added up in F32 */
void cudnn_matmul(struct cudnn_graph *g, desc a, desc b, desc c);
/* y = x, reduced by op along the dimensions in which y has 1 */
void cudnn_reduction(struct cudnn_graph *g, cudnnReduceTensorOp_t op, desc x, desc y);

/* For operations that have no function here: make, set attributes, finalize; cudnn_operation adds one. */
desc cudnn_make(struct cudnn_graph *g, cudnnBackendDescriptorType_t type);
void cudnn_set_any(struct cudnn_graph *g, desc d, cudnnBackendAttributeName_t name,
                   cudnnBackendAttributeType_t type, int64_t count, const void *values);
void cudnn_finalize(struct cudnn_graph *g, desc d);
void cudnn_operation(struct cudnn_graph *g, desc d);

template <typename T> struct cudnn_type;
#define OF(T, type)                                                                                          \
    template <> struct cudnn_type<T> {                                                                       \
        static const cudnnBackendAttributeType_t value = type;                                               \
    };
OF(int64_t, CUDNN_TYPE_INT64)
OF(float, CUDNN_TYPE_FLOAT)
OF(bool, CUDNN_TYPE_BOOLEAN)
OF(void *, CUDNN_TYPE_VOID_PTR)
OF(desc, CUDNN_TYPE_BACKEND_DESCRIPTOR)
OF(cudnnHandle_t, CUDNN_TYPE_HANDLE)
OF(cudnnReduceTensorOp_t, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE)
OF(cudnnDataType_t, CUDNN_TYPE_DATA_TYPE)
OF(cudnnPointwiseMode_t, CUDNN_TYPE_POINTWISE_MODE)
OF(cudnnConvolutionMode_t, CUDNN_TYPE_CONVOLUTION_MODE)
OF(cudnnBackendHeurMode_t, CUDNN_TYPE_HEUR_MODE)
#undef OF
template <typename T>
static inline void cudnn_set(struct cudnn_graph *g, desc d, cudnnBackendAttributeName_t name, const T &value)
{
    cudnn_set_any(g, d, name, cudnn_type<T>::value, 1, &value);
}
template <typename T>
static inline void cudnn_set(struct cudnn_graph *g, desc d, cudnnBackendAttributeName_t name, int64_t count,
                             const T *values)
{
    cudnn_set_any(g, d, name, cudnn_type<T>::value, count, values);
}

/* Plans the graph: with `best` when that goes, else with the first of the heuristics' engines that is
 * deterministic, fits the device's workspace and can be finalized. false: nothing computes this graph (k
 * stays well), or an earlier failure (k tells). */
bool cudnn_plan(struct cudnn_graph *g, const struct cudnn_engine *best);
/* The graph's tensors by id, with their memory. */
void cudnn_run(struct cudnn_graph *g, int count, const int64_t *ids, void *const *data);

#else
#define HAVE_CUDNN 0
#endif

#endif
