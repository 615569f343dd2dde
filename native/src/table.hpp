// What one build of the kernels offers, the same for every instruction set: plain C types only.
#pragma once
#include <cstdint>

// The kernels of one instruction set for one floating type.
struct NtangentKernels {
    const char* isa;
    int lanes, max_order, max_rows, rows;  // max_rows: of an algebra
    const char* (*row)(long);
    long (*saved_size)(const int64_t* plan, long points);
    // tangents: those of x where all points share them, else null and x has them
    void (*forward)(const int64_t* plan, const void* const* values, long points, const void* x, const void* tangents,
                    void* out, void* saved, int threads);
    void (*backward)(const int64_t* plan, const void* const* values, long points, const void* x, const void* tangents,
                     const void* saved, const void* cotangent, void* gx, void* const* gradients, int threads);
    void (*jacobian)(const int64_t* plan, const void* const* values, long points, const void* x, const void* tangents,
                     const void* cotangent, void* jacobian, int threads);
    void (*tangent)(const int64_t* plan, const void* const* values, long points, const void* x, const void* dx,
                    const void* const* tangents, void* out, void* dout, int threads);
    // plan: directions, order, degree, collapsed, address of an algebra's numbers or 0, kind
    void (*step_forward)(const int64_t* plan, long size, const void* a, void* y, void* s, int threads);
    void (*step_backward)(const int64_t* plan, long size, const void* y, const void* s, const void* g, void* h,
                          int threads);
};
