// The library's C interface: picks the kernels for this processor once, then forwards.
#include "table.hpp"

#define NTG_DECLARE(isa) \
    namespace isa { \
    extern const NtangentKernels double_precision, single_precision; \
    }

#ifdef NTG_ONLY
NTG_DECLARE(NTG_ONLY)
#else
NTG_DECLARE(ntg_baseline)
#if defined(__x86_64__)
NTG_DECLARE(ntg_avx2)
NTG_DECLARE(ntg_avx512)
#endif
#endif

namespace {

struct Pair {
    const NtangentKernels *wide, *single;
};

Pair choose() {
#ifdef NTG_ONLY
    return {&NTG_ONLY::double_precision, &NTG_ONLY::single_precision};
#else
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return {&ntg_avx512::double_precision, &ntg_avx512::single_precision};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return {&ntg_avx2::double_precision, &ntg_avx2::single_precision};
#endif
    return {&ntg_baseline::double_precision, &ntg_baseline::single_precision};
#endif
}

const NtangentKernels& kernels(int single) {
    static const Pair chosen = choose();
    return single ? *chosen.single : *chosen.wide;
}

}  // namespace

#define NTG_API extern "C" __attribute__((visibility("default")))

NTG_API int ntangent_abi() { return 4; }
NTG_API const char* ntangent_isa() { return kernels(0).isa; }
NTG_API int ntangent_max_order() { return kernels(0).max_order; }
NTG_API int ntangent_max_rows() { return kernels(0).max_rows; }
NTG_API int ntangent_rows() { return kernels(0).rows; }
NTG_API const char* ntangent_row(long i) { return i >= 0 && i < kernels(0).rows ? kernels(0).row(i) : nullptr; }
NTG_API int ntangent_lanes(int single) { return kernels(single).lanes; }

NTG_API long ntangent_saved_size(int single, const int64_t* plan, long points) {
    return kernels(single).saved_size(plan, points);
}
NTG_API void ntangent_forward(int single, const int64_t* plan, const void* const* values, long points, const void* x,
                              const void* tangents, void* out, void* saved, int threads) {
    kernels(single).forward(plan, values, points, x, tangents, out, saved, threads);
}
NTG_API void ntangent_backward(int single, const int64_t* plan, const void* const* values, long points, const void* x,
                               const void* tangents, const void* saved, const void* cotangent, void* gx,
                               void* const* gradients, int threads) {
    kernels(single).backward(plan, values, points, x, tangents, saved, cotangent, gx, gradients, threads);
}
NTG_API void ntangent_jacobian(int single, const int64_t* plan, const void* const* values, long points, const void* x,
                               const void* tangents, const void* cotangent, void* jacobian, int threads) {
    kernels(single).jacobian(plan, values, points, x, tangents, cotangent, jacobian, threads);
}
NTG_API void ntangent_tangent(int single, const int64_t* plan, const void* const* values, long points, const void* x,
                              const void* dx, const void* const* tangents, void* out, void* dout, int threads) {
    kernels(single).tangent(plan, values, points, x, dx, tangents, out, dout, threads);
}
NTG_API void ntangent_step_forward(int single, const int64_t* plan, long size, const void* a, void* y, void* s,
                                   int threads) {
    kernels(single).step_forward(plan, size, a, y, s, threads);
}
NTG_API void ntangent_step_backward(int single, const int64_t* plan, long size, const void* y, const void* s,
                                    const void* g, void* h, int threads) {
    kernels(single).step_backward(plan, size, y, s, g, h, threads);
}
