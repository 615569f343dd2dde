// Vectors of points: lanes are collocation points, through the vector extensions of GCC and Clang.
#pragma once
#include <cstdint>
#include <cstring>

#ifndef NTG_VBYTES
#define NTG_VBYTES 64
#endif
#define NTG_INLINE inline __attribute__((always_inline))
#define NTG_LAMBDA __attribute__((always_inline))
#define NTG_UNROLL _Pragma("GCC unroll 20")

namespace NTG_NS {
namespace {

template <class T> struct Vec;
template <> struct Vec<double> {
    typedef double type __attribute__((vector_size(NTG_VBYTES)));
    typedef int64_t bits __attribute__((vector_size(NTG_VBYTES)));
    static constexpr int lanes = NTG_VBYTES / 8;
};
template <> struct Vec<float> {
    typedef float type __attribute__((vector_size(NTG_VBYTES)));
    typedef int32_t bits __attribute__((vector_size(NTG_VBYTES)));
    static constexpr int lanes = NTG_VBYTES / 4;
};
template <class T> using vec = typename Vec<T>::type;
template <class T> using ivec = typename Vec<T>::bits;

template <class T> NTG_INLINE vec<T> load(const T* p) {
    vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class T> NTG_INLINE void store(T* p, vec<T> v) { std::memcpy(p, &v, sizeof v); }
template <class T> NTG_INLINE vec<T> spread(T x) { return vec<T>{} + x; }

// [a0+a1, a2+a3, ..., b0+b1, ...]: log2(lanes) levels of it sum `lanes` vectors into one, in order.
template <class T> NTG_INLINE vec<T> pair_sums(vec<T> a, vec<T> b);
#if NTG_VBYTES == 64
template <> NTG_INLINE vec<double> pair_sums<double>(vec<double> a, vec<double> b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
template <> NTG_INLINE vec<float> pair_sums<float>(vec<float> a, vec<float> b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
#elif NTG_VBYTES == 32
template <> NTG_INLINE vec<double> pair_sums<double>(vec<double> a, vec<double> b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
template <> NTG_INLINE vec<float> pair_sums<float>(vec<float> a, vec<float> b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
#else
template <> NTG_INLINE vec<double> pair_sums<double>(vec<double> a, vec<double> b) {
    return __builtin_shufflevector(a, b, 0, 2) + __builtin_shufflevector(a, b, 1, 3);
}
template <> NTG_INLINE vec<float> pair_sums<float>(vec<float> a, vec<float> b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
#endif

// Sums each of eight vectors over its lanes.
template <class T> NTG_INLINE void sum_lanes8(vec<T>* v, T* out) {
    constexpr int L = Vec<T>::lanes;
    int count = 8;
    NTG_UNROLL
    for (int width = L; width > 1 && count > 1; width /= 2) {
        NTG_UNROLL
        for (int i = 0; i < count / 2; i++) v[i] = pair_sums<T>(v[2 * i], v[2 * i + 1]);
        count /= 2;
    }
    if (L == 16) v[0] = pair_sums<T>(v[0], v[0]);  // eight sums of two partial sums each
    if (L <= 8) {
        NTG_UNROLL
        for (int i = 0; i < 8 / L; i++) store<T>(out + i * L, v[i]);
    } else {
        alignas(64) T all[L];
        store<T>(all, v[0]);
        std::memcpy(out, all, 8 * sizeof(T));
    }
}

}  // namespace
}  // namespace NTG_NS
