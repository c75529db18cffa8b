/* cuDNN, opened at run time. Its engines are chosen by number and knob or by its heuristics, never by timing
 * them here: the same call has to give the same bits every day. */
#include "kernels/cuda/cudnn.h"

#if HAVE_CUDNN

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST = 91500 }; /* 9.8 to 9.10 computed wrong bf16 convolutions over three axes */
enum { CANDIDATES = 64 };
static const char LIBRARY[] = "libcudnn.so.9";

#define CUDNN_CALLS(X)                                                                                       \
    X(GetVersion)                                                                                            \
    X(Create)                                                                                                \
    X(Destroy)                                                                                               \
    X(SetStream)                                                                                             \
    X(GetErrorString)                                                                                        \
    X(GetLastErrorString)                                                                                    \
    X(BackendCreateDescriptor)                                                                               \
    X(BackendDestroyDescriptor)                                                                              \
    X(BackendSetAttribute) X(BackendGetAttribute) X(BackendFinalize) X(BackendExecute)

struct cudnn {
    cudnnHandle_t handle;
#define X(f) __typeof__(&cudnn##f) f;
    CUDNN_CALLS(X)
#undef X
};

static struct cudnn *library_of(struct cudnn_graph *g)
{
    return cuda_of(g->k)->cudnn;
}

static bool good(struct cudnn_graph *g, const char *what, cudnnStatus_t s)
{
    struct cudnn *l = library_of(g);
    char text[120] = "";
    if (s == CUDNN_STATUS_SUCCESS) return true;
    l->GetLastErrorString(text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    kern_fail(g->k, "cuDNN, %s: %s %s", what, l->GetErrorString(s), text);
    return false;
}

static bool find_calls(struct kern *k, struct cudnn *l, void *object)
{
#define X(f)                                                                                                 \
    if (!(l->f = (__typeof__(&cudnn##f))dlsym(object, "cudnn" #f))) {                                        \
        kern_fail(k, "cuDNN has no cudnn" #f);                                                               \
        return false;                                                                                        \
    }
    CUDNN_CALLS(X)
#undef X
    if (l->GetVersion() >= OLDEST) return true;
    kern_fail(k, "cuDNN %zu is too old: convolutions need %d or newer", l->GetVersion(), OLDEST);
    return false;
}

static struct cudnn *library(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    if (c->cudnn || !kern_ok(k)) return c->cudnn;
    void *object = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    struct cudnn *l = (struct cudnn *)calloc(1, sizeof *l);
    if (!object)
        kern_fail(k, "convolutions on %s need cuDNN: %s", k->device, dlerror());
    else if (!l)
        kern_fail(k, "out of memory");
    else if (find_calls(k, l, object)) {
        cudnnStatus_t s = l->Create(&l->handle);
        if (!s) s = l->SetStream(l->handle, c->stream);
        if (s) kern_fail(k, "cuDNN does not open: %s", l->GetErrorString(s));
    }
    if (kern_ok(k)) return c->cudnn = l;
    if (l && l->handle) l->Destroy(l->handle);
    free(l);
    return NULL;
}

size_t cuda_cudnn_version(struct cuda *c)
{
    if (c->cudnn) return c->cudnn->GetVersion();
    void *object = dlopen(LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    __typeof__(&cudnnGetVersion) version =
        object ? (__typeof__(&cudnnGetVersion))dlsym(object, "cudnnGetVersion") : NULL;
    const size_t is = version ? version() : 0;
    if (object) dlclose(object);
    return is;
}

bool cudnn_is_there(struct kern *k)
{
    static const bool is = cuda_cudnn_version(cuda_of(k)) >= OLDEST;
    return is && library(k);
}

void cuda_cudnn_close(struct cuda *c)
{
    if (c->cudnn) c->cudnn->Destroy(c->cudnn->handle);
    free(c->cudnn);
    c->cudnn = NULL;
}

/* ---- descriptors ---- */

struct cudnn_graph *cudnn_begin(struct kern *k)
{
    if (!library(k)) return NULL;
    struct cudnn_graph *g = (struct cudnn_graph *)calloc(1, sizeof *g);
    if (!g) {
        kern_fail(k, "out of memory");
        return NULL;
    }
    g->k = k;
    g->virtual_id = 1 << 20;
    return g;
}

desc cudnn_make(struct cudnn_graph *g, cudnnBackendDescriptorType_t type)
{
    desc d = {};
    if (!g || !kern_ok(g->k)) return d;
    if (g->made_count == CUDNN_MAX_MADE)
        kern_fail(g->k, "a graph for cuDNN is too large");
    else if (good(g, "make", library_of(g)->BackendCreateDescriptor(type, &d.p)))
        g->made[g->made_count++] = d;
    return d;
}

static void destroy_to(struct cudnn_graph *g, int count)
{
    while (g->made_count > count) library_of(g)->BackendDestroyDescriptor(g->made[--g->made_count].p);
}

void cudnn_free(struct cudnn_graph *g)
{
    if (!g) return;
    if (g->plan.p) library_of(g)->BackendDestroyDescriptor(g->plan.p);
    destroy_to(g, 0);
    free(g);
}

void cudnn_set_any(struct cudnn_graph *g, desc d, cudnnBackendAttributeName_t name,
                   cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (g && kern_ok(g->k))
        good(g, "set", library_of(g)->BackendSetAttribute(d.p, name, type, count, values));
}

void cudnn_finalize(struct cudnn_graph *g, desc d)
{
    if (g && kern_ok(g->k)) good(g, "finalize", library_of(g)->BackendFinalize(d.p));
}

void cudnn_operation(struct cudnn_graph *g, desc d)
{
    cudnn_finalize(g, d);
    if (!g || !kern_ok(g->k)) return;
    if (g->op_count == CUDNN_MAX_OPS)
        kern_fail(g->k, "a graph for cuDNN is too large");
    else
        g->op[g->op_count++] = d;
}

enum kind { IN_MEMORY, VIRTUAL, BY_VALUE };

static desc tensor(struct cudnn_graph *g, int64_t id, enum kind kind, cudnnDataType_t t, int rank,
                   const int64_t *dims, const int64_t *strides)
{
    desc d = cudnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, t);
    cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, rank, dims);
    cudnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, rank, strides);
    cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, (int64_t)16);
    cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, kind == VIRTUAL);
    if (kind == BY_VALUE) cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
    cudnn_finalize(g, d);
    return d;
}

desc cudnn_tensor(struct cudnn_graph *g, int64_t id, cudnnDataType_t t, int rank, const int64_t *dims,
                  const int64_t *strides)
{
    return tensor(g, id, IN_MEMORY, t, rank, dims, strides);
}

desc cudnn_virtual(struct cudnn_graph *g, cudnnDataType_t t, int rank, const int64_t *dims,
                   const int64_t *strides)
{
    return tensor(g, g ? g->virtual_id++ : 0, VIRTUAL, t, rank, dims, strides);
}

desc cudnn_scalar(struct cudnn_graph *g, int64_t id)
{
    const int64_t one[] = {1, 1, 1, 1};
    return tensor(g, id, BY_VALUE, CUDNN_DATA_FLOAT, 4, one, one);
}

void cudnn_pointwise(struct cudnn_graph *g, cudnnPointwiseMode_t mode, desc a, desc b, desc y)
{
    desc p = cudnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnn_set(g, p, CUDNN_ATTR_POINTWISE_MODE, mode);
    cudnn_set(g, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    cudnn_finalize(g, p);
    desc o = cudnn_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a);
    if (b.p) cudnn_set(g, o, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    cudnn_operation(g, o);
}

void cudnn_matmul(struct cudnn_graph *g, desc a, desc b, desc c)
{
    desc m = cudnn_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    cudnn_set(g, m, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    cudnn_finalize(g, m);
    desc o = cudnn_make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_MATMUL_DESC, m);
    cudnn_operation(g, o);
}

void cudnn_reduction(struct cudnn_graph *g, cudnnReduceTensorOp_t op, desc x, desc y)
{
    desc r = cudnn_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    cudnn_set(g, r, CUDNN_ATTR_REDUCTION_OPERATOR, op);
    cudnn_set(g, r, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    cudnn_finalize(g, r);
    desc o = cudnn_make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_REDUCTION_DESC, r);
    cudnn_operation(g, o);
}

void cudnn_convolution(struct cudnn_graph *g, desc x, desc w, desc y, int rank, const int64_t *before,
                       const int64_t *after, const int64_t *strides)
{
    const int64_t dilations[] = {1, 1, 1};
    desc c = cudnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, (int64_t)rank);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, rank, before);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, rank, after);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, rank, strides);
    cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_DILATIONS, rank, dilations);
    cudnn_finalize(g, c);
    desc o = cudnn_make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, c);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0f);
    cudnn_set(g, o, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0f);
    cudnn_operation(g, o);
}

/* ---- engines and plans ---- */

static bool deterministic(struct cudnn_graph *g, desc config)
{
    struct cudnn *l = library_of(g);
    desc engine = {};
    int64_t count = 0;
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    bool is = !l->BackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine.p) &&
              !l->BackendGetAttribute(config.p, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                      &count, &engine.p) &&
              !l->BackendGetAttribute(engine.p, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                      CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes);
    for (int64_t i = 0; is && i < count; i++) is = notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    if (engine.p) l->BackendDestroyDescriptor(engine.p);
    return is;
}

/* A plan of this configuration. What an engine cannot do is no failure: the next one may. */
static bool plan_with(struct cudnn_graph *g, desc config)
{
    struct cudnn *l = library_of(g);
    int64_t count, workspace;
    if (!deterministic(g, config) ||
        l->BackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &g->plan.p))
        return false;
    if (!l->BackendSetAttribute(g->plan.p, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                &l->handle) &&
        !l->BackendSetAttribute(g->plan.p, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config.p) &&
        !l->BackendFinalize(g->plan.p) &&
        !l->BackendGetAttribute(g->plan.p, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                &count, &workspace) &&
        (size_t)workspace <= cuda_of(g->k)->workspace_size)
        return true;
    l->BackendDestroyDescriptor(g->plan.p);
    g->plan.p = NULL;
    return false;
}

/* Knobs that this graph, device or version does not have make no configuration: false. */
static bool plan_best(struct cudnn_graph *g, desc graph, const struct cudnn_engine *best)
{
    struct cudnn *l = library_of(g);
    desc engine = cudnn_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR), knobs[8],
         config = cudnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    for (int i = 0; i < best->knobs; i++) knobs[i] = cudnn_make(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    if (!kern_ok(g->k)) return false;
#define SET(d, name, type, count, values) !l->BackendSetAttribute((d).p, name, type, count, values)
#define DONE(d)                           !l->BackendFinalize((d).p)
    bool fine = SET(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph.p) &&
                SET(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &best->index) &&
                DONE(engine);
    for (int i = 0; fine && i < best->knobs; i++)
        fine =
            SET(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &best->knob[i].type) &&
            SET(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &best->knob[i].value) &&
            DONE(knobs[i]);
    return fine && SET(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine.p) &&
           SET(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, best->knobs,
               knobs) &&
           DONE(config) && plan_with(g, config);
#undef SET
#undef DONE
}

/* Engine and knobs of a configuration, in numbers: "41: 0=0 1=2". */
static void describe(struct cudnn_graph *g, desc config, char *text, size_t size)
{
    struct cudnn *l = library_of(g);
    const int before = g->made_count;
    desc engine = cudnn_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR), knob[16];
    int64_t count = 0, index = -1;
    for (desc &k : knob) k = cudnn_make(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    if (!kern_ok(g->k)) return;
    if (!l->BackendGetAttribute(config.p, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                &count, &engine.p))
        l->BackendGetAttribute(engine.p, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &index);
    size_t at = (size_t)snprintf(text, size, "engine %lld:", (long long)index);
    count = 0;
    l->BackendGetAttribute(config.p, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, 16,
                           &count, knob);
    for (int64_t i = 0; i < count && i < 16 && at < size; i++) {
        cudnnBackendKnobType_t type = {};
        int64_t value = 0, n;
        l->BackendGetAttribute(knob[i].p, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &n,
                               &type);
        l->BackendGetAttribute(knob[i].p, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &n, &value);
        at += (size_t)snprintf(text + at, size - at, " %d=%lld", (int)type, (long long)value);
    }
    destroy_to(g, before);
}

static bool plan_by(struct cudnn_graph *g, desc graph, cudnnBackendHeurMode_t mode)
{
    struct cudnn *l = library_of(g);
    const int before = g->made_count;
    desc config[CANDIDATES], heuristics = cudnn_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    int64_t count = 0;
    cudnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    cudnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, mode);
    for (int i = 0; i < CANDIDATES; i++) config[i] = cudnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    bool found = kern_ok(g->k) && !l->BackendFinalize(heuristics.p) &&
                 !l->BackendGetAttribute(heuristics.p, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, CANDIDATES, &count, config);
    struct cuda *c = cuda_of(g->k);
    int skip = c->candidate;
    for (int i = 0; found && i < count; i++) {
        if (!plan_with(g, config[i])) continue;
        if (skip-- <= 0) {
            if (c->candidate >= 0) describe(g, config[i], c->chosen, sizeof c->chosen);
            return true;
        }
        l->BackendDestroyDescriptor(g->plan.p);
        g->plan.p = NULL;
    }
    destroy_to(g, before);
    return false;
}

bool cudnn_plan(struct cudnn_graph *g, const struct cudnn_engine *best)
{
    desc graph = cudnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (!g || !kern_ok(g->k)) return false;
    cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, library_of(g)->handle);
    cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, g->op_count, g->op);
    cudnn_finalize(g, graph);
    const bool given = cuda_of(g->k)->candidate >= 0; /* of the first list alone */
    return kern_ok(g->k) &&
           ((best && !given && plan_best(g, graph, best)) || plan_by(g, graph, CUDNN_HEUR_MODE_A) ||
            (!given && plan_by(g, graph, CUDNN_HEUR_MODE_FALLBACK)));
}

void cudnn_run(struct cudnn_graph *g, int count, const int64_t *ids, void *const *data)
{
    if (!g || !kern_ok(g->k)) return;
    const int before = g->made_count;
    desc pack = cudnn_make(g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    cudnn_set(g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, count, ids);
    cudnn_set(g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, count, data);
    cudnn_set(g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, cuda_of(g->k)->workspace);
    cudnn_finalize(g, pack);
    if (kern_ok(g->k))
        good(g, "run", library_of(g)->BackendExecute(library_of(g)->handle, g->plan.p, pack.p));
    destroy_to(g, before);
}

#else

size_t cuda_cudnn_version(struct cuda *)
{
    return 0;
}
void cuda_cudnn_close(struct cuda *) {}

#endif
