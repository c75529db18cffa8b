#include "kernels/cpu/cpu.h"

__typeof__(gdn_cssm_forward) gdn_cssm_forward_f64;
__typeof__(gdn_cssm_backward) gdn_cssm_backward_f64;

#define real     float
#define REAL     DT_F32
#define FORWARD  static void gdn_cssm_forward_f32
#define BACKWARD static void gdn_cssm_backward_f32
#include "kernels/cpu/gdn_cssm.h"

void cpu_gdn_cssm_forward(struct kern *k, struct tensor *o, const struct tensor *z, const struct tensor *w,
                          int modules, int64_t head_dim, bool rope)
{
    (z->dtype == DT_F64 ? gdn_cssm_forward_f64 : gdn_cssm_forward_f32)(k, o, z, w, modules, head_dim, rope);
}

void cpu_gdn_cssm_backward(struct kern *k, struct tensor *dz, struct tensor *dw, const struct tensor *dout,
                           const struct tensor *z, const struct tensor *w, int modules, int64_t head_dim,
                           bool rope)
{
    (z->dtype == DT_F64 ? gdn_cssm_backward_f64 : gdn_cssm_backward_f32)(k, dz, dw, dout, z, w, modules,
                                                                         head_dim, rope);
}
