// The kernels for one instruction set (namespace NTG_NS) and one type (NTG_SINGLE: 0 double, 1 float).
#include "calls.hpp"
#include "table.hpp"

#define NTG_STRING_(x) #x
#define NTG_STRING(x) NTG_STRING_(x)

namespace NTG_NS {
#if NTG_SINGLE
#define NTG_TABLE single_precision
typedef float Real;
#else
#define NTG_TABLE double_precision
typedef double Real;
#endif

namespace {
const char* row_signature(long i) { return row_entry<Real>(i).signature; }
}  // namespace

extern const NtangentKernels NTG_TABLE;
const NtangentKernels NTG_TABLE = {
    NTG_STRING(NTG_NS) + 4,  // without the prefix ntg_
    Vec<Real>::lanes,
    MAX_ORDER,
    MAX_ROWS,
    ROWS,
    row_signature,
    saved_size<Real>,
    run_forward<Real>,
    run_backward<Real>,
    run_jacobian<Real>,
    run_tangent<Real>,
    step_forward<Real>,
    step_backward<Real>,
};
}  // namespace NTG_NS
