#include "kernels/backend.h"

__typeof__(gdn_cssm_forward) gdn_cssm_forward_f64;
__typeof__(gdn_cssm_backward) gdn_cssm_backward_f64;

#define real     double
#define REAL     DT_F64
#define FORWARD  void gdn_cssm_forward_f64
#define BACKWARD void gdn_cssm_backward_f64
#include "kernels/cpu/gdn_cssm.h"
